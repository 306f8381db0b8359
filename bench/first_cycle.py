"""One cycle of an engine, for `engine_speed`, which measures how long a new interpreter takes to get there.

Nothing is imported that the engine does not need.

    python -m bench.first_cycle compiled --cache DIRECTORY
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from vta_hw.spec.asm import assemble
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA
from vta_sim.memory import Memory
from vta_sim.timing import MemoryTiming


def engine(name: str, cache: Path | None, memory: Memory) -> Any:
    """The simulator of that name on the default machine."""
    timing = MemoryTiming(latency=32)
    if name == "compiled":
        from vta_sim.rtl.compiled import CompiledSimulator

        return CompiledSimulator(VTAConfig(), memory=memory, timing=timing, cache=cache)
    from vta_sim.cycle.engine import CycleSimulator

    return CycleSimulator(VTAConfig(), memory=memory, timing=timing)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", nargs="?", choices=("compiled", "cycle"), default="compiled")
    parser.add_argument("--cache", type=Path, help="directory for machine code of the compiled engine")
    options = parser.parse_args()
    memory = Memory()
    config = VTAConfig()
    memory.write(0x1000, ISA(config).encode_program(assemble("finish", config)[0]))
    simulator = engine(options.engine, options.cache, memory)
    simulator.start(0x1000, 1)
    simulator.advance(1)
    print(time.monotonic())


if __name__ == "__main__":
    main()
