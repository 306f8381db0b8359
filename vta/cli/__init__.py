"""The command line: ``vta demo | compile | object | run | exec | check | profile | disasm | config``.

Modules load numpy and everything heavier inside the commands, so that ``vta --help`` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from vta.cli.errors import run_guarded
from vta.cli.root import root


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the ``vta`` program; `args` are its arguments, by default those of the process."""
    sys.exit(run_guarded(root, args))
