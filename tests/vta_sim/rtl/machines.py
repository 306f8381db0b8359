"""Simulated machines for tests: building one takes seconds, so each is kept and reset."""

from __future__ import annotations

import functools

from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import MemoryType
from vta_sim.rtl.engine import AmaranthSimulator

PADS = (MemoryType.UOP, MemoryType.INP, MemoryType.WGT, MemoryType.ACC, MemoryType.OUT)
INSN_AT = 0x4_0000
"""Where programs written by hand are put."""


@functools.lru_cache(maxsize=2)
def simulator(config: VTAConfig, queue_depth: int = 512) -> AmaranthSimulator:
    """The simulator of a machine, in whatever state its last user left it: to be reset."""
    return AmaranthSimulator(config, queue_depth=queue_depth)
