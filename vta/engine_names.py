"""The engines there are; nothing that is heavy to load."""

from __future__ import annotations

import enum
from typing import Final

from vta.errors import ApiError


class Engine(enum.Enum):
    """FUNCTIONAL: the VTA program, on the functional simulator, with its host steps on the CPU. CYCLE: the same with
    the time that the RTL takes. RTL: the same on the accelerator's RTL, compiled to machine code. AMARANTH: the same on
    Amaranth's simulator, which takes about a second for some hundred cycles. LLVM: the CPU program, as machine code.
    INTERP: the CPU program, by the tensor IR's interpreter, which is slow and obvious. REFERENCE: the quantised graph,
    op by op in numpy; needs the graph, so a program that was compiled here and not loaded from a file.
    """

    FUNCTIONAL = "functional"
    CYCLE = "cycle"
    RTL = "rtl"
    AMARANTH = "amaranth"
    LLVM = "llvm"
    INTERP = "interp"
    REFERENCE = "reference"

    @staticmethod
    def of(name: Engine | str) -> Engine:
        """Raises ApiError for a name that is none."""
        try:
            return Engine(name)
        except ValueError:
            known = ", ".join(repr(engine.value) for engine in Engine)
            raise ApiError(f"Engine must be one of {known}, not {name!r}") from None


TIMED: Final = (Engine.CYCLE, Engine.RTL, Engine.AMARANTH)
"""The engines that have a clock, with every counter of the machine; the fastest first."""

ON_ACCELERATOR: Final = (Engine.FUNCTIONAL, *TIMED)
"""The engines that execute instructions of the accelerator."""

ON_CPU: Final = (Engine.LLVM, Engine.INTERP)
"""The engines that execute host steps alone."""
