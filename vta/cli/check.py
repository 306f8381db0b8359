"""``vta check``: what can be said against a program before it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vta.cli import params
from vta.cli.command import command
from vta.cli.errors import CommandError
from vta.cli.output import print_json
from vta.cli.params import json_option

if TYPE_CHECKING:
    from vta_sim.check.findings import Finding

MOST_ERRORS = 20
"""Errors that are printed; the others are counted."""

EXIT_ERRORS = 1

EXAMPLES = (
    ("A compiled program, or a raw one", "vta check model.vta"),
    (
        "A raw one that expects its output at 0x100000 (order of the bases: uop,inp,wgt,acc,out)",
        "vta check stream.vta --bases 0,0,0,0,0x100000",
    ),
    ("For a script", "vta check model.vta --json"),
)


@command("check", EXAMPLES)
@click.argument("program", metavar="PROGRAM.vta", type=click.Path(path_type=Path))
@click.option(
    "--bases",
    type=params.numbers("--bases", 5),
    metavar="UOP,INP,WGT,ACC,OUT",
    help="Base addresses of the ports in bytes, for a raw program; 0 by default.",
)
@json_option
def check_command(program: Path, bases: tuple[int, ...] | None, as_json: bool) -> int:
    """Check a program without running it.

    Errors: tokens that cannot come, instructions of two units that conflict and that no token orders, accesses out of
    range, unknown codes. Lints: what is allowed here and goes wrong on some VTA. The exit code is 1 if there are any
    errors.
    """
    from vta.cli.execute import ports
    from vta_hw.spec.program import Program
    from vta_sim.check.checker import check_program
    from vta_sim.check.findings import Severity

    checked = Program.load(program)
    if bases is not None and not checked.is_raw:
        raise CommandError("--bases must not be given with a compiled program, whose addresses are relative")
    findings = check_program(checked, bases=ports(bases).by_memory)
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    lints = findings[len(errors) :]
    if as_json:
        print_json(
            {
                "file": str(program),
                "config": checked.config.name,
                "instructions": checked.insn_count,
                "errors": len(errors),
                "lints": len(lints),
                "findings": [as_dict(finding) for finding in findings],
            }
        )
    else:
        for line in lines(errors, lints):
            click.echo(line)
        click.echo(f"{program}: {checked.insn_count} instructions, {len(errors)} errors, {len(lints)} lints")
    return EXIT_ERRORS if errors else 0


def lines(errors: Sequence[Finding], lints: Sequence[Finding]) -> Iterator[str]:
    """The first errors; of lints of the same rule, the first."""
    for finding in errors[:MOST_ERRORS]:
        yield f"error: {finding}"
    if len(errors) > MOST_ERRORS:
        yield f"error: and {len(errors) - MOST_ERRORS} more"
    for rule in dict.fromkeys(finding.rule for finding in lints):
        first, *others = (finding for finding in lints if finding.rule is rule)
        yield f"lint: {first}" + (f" (and {len(others)} more of this kind)" if others else "")


def as_dict(finding: Finding) -> dict[str, Any]:
    """A finding for JSON; a race has more to tell."""
    from vta_sim.check.findings import Race

    told: dict[str, Any] = {
        "severity": finding.severity.value,
        "rule": finding.rule.value,
        "message": str(finding),
        "insn": None if finding.place is None else finding.place.insn,
        "layer": None if finding.place is None else finding.place.layer,
    }
    if isinstance(finding, Race):
        told |= {
            "other_insn": finding.other.insn,
            "memory": "DRAM" if finding.memory is None else finding.memory.name,
            "index": finding.index,
            "queues": list(finding.queues),
        }
    return told
