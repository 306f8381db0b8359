"""The class of all sub-commands: help that ends with examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

Examples = tuple[tuple[str, str], ...]


class ExampleCommand(click.Command):
    """A command with an Examples section: (purpose, command line) pairs, printed as they are."""

    def __init__(self, *args: Any, examples: Examples, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Examples"):
            indent = " " * formatter.current_indent
            formatter.write("\n".join(f"{indent}# {purpose}\n{indent}{line}\n" for purpose, line in self.examples))
        super().format_epilog(ctx, formatter)


def command(name: str, examples: Examples) -> Callable[[Callable[..., Any]], ExampleCommand]:
    """Decorator: a function becomes the sub-command `name`. The function returns its exit code, or None for 0."""

    def decorate(function: Callable[..., Any]) -> ExampleCommand:
        settings = {"max_content_width": 110}
        return click.command(name, cls=ExampleCommand, examples=examples, context_settings=settings)(function)

    return decorate
