"""Programs with a fault on the RTL and on the cycle engine, behind memories of very different timing: whatever differs,
the checker reports.

`python -m tests.vta_sim.check.fuzz_rtl --count 300` tries new ones and prints the seeds of those of which the checker
says nothing; `--seed S --count 1` repeats one. A program takes a tenth of a second, the compiled RTL some seconds.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import random
import secrets
import sys
from collections.abc import Iterator

from tests.vta_sim.check.cases import SIZE, errors, stream_of
from tests.vta_sim.check.faulty import FAULTS, with_fault
from tests.vta_sim.check.timings import Stream
from tests.vta_sim.rtl.machines import PADS, TINY
from tests.vta_sim.spec_model import compare
from tests.vta_sim.spec_model.dram import PAGE
from tests.vta_sim.spec_model.layout import ACC, INP, OUT, UOP, WGT
from vta_hw.spec.registers import FAULTS as FAULT_BITS
from vta_sim.cycle.engine import CycleSimulator
from vta_sim.functional.engine import Bases
from vta_sim.rtl.compiled import CompiledSimulator
from vta_sim.timing import MemoryTiming

PORTS = {UOP: "uop", INP: "inp", WGT: "wgt", ACC: "acc", OUT: "out"}
MAX_CYCLES = 5_000_000

TIMINGS = (
    MemoryTiming(),
    MemoryTiming(latency=100),
    MemoryTiming(latency=7, outstanding=1),
    MemoryTiming(latency=300, read_bytes=1),
    MemoryTiming(write_bytes=1),
    MemoryTiming(latency=30, shared_bus=True, read_bytes=2),
    MemoryTiming(stalls=0.9, seed=1),
    MemoryTiming(latency=20, stalls=0.9, seed=2),
    MemoryTiming(latency=60, stalls=0.5, seed=3),
)
"""Loads late and stores at once, the other way round, one burst at a time, and pauses."""


class Rtl:
    """One small machine, as compiled RTL and as cycle engine, to run programs on behind every memory of `TIMINGS`."""

    def __init__(self) -> None:
        self._simulators = (CompiledSimulator(TINY), CycleSimulator(TINY))

    def results(self, stream: Stream, insn_address: int) -> set[str]:
        """What it comes to, each once: how the launch ended, and a digest of all that is left."""
        both = itertools.product(self._simulators, TIMINGS)
        return {self._result(simulator, stream, insn_address, timing) for simulator, timing in both}

    @staticmethod
    def _result(
        simulator: CompiledSimulator | CycleSimulator, stream: Stream, insn_address: int, timing: MemoryTiming
    ) -> str:
        memory = compare.toolkit_memory(stream.dram)
        compare.write_words(memory, insn_address, stream.words)
        simulator.reset(memory=memory, timing=timing)
        report = simulator.launch(
            insn_address,
            len(stream.words),
            bases=Bases(**{PORTS[port]: base for port, base in stream.bases.items()}),
            tokens=compare.as_tokens(stream.tokens),
            allow_faults=True,
            max_cycles=MAX_CYCLES,
        )
        faults = report.status & FAULT_BITS
        digest = hashlib.sha256(repr((faults, report.tokens_left)).encode())
        for address in memory.page_addresses().tolist():
            page = memory.read(address, PAGE)
            if page.any():
                digest.update(address.to_bytes(8, "little") + page.tobytes())
        for pad in PADS:
            digest.update(simulator.scratchpad(pad).tobytes())
        return f"{faults.name or 'ended'} {digest.hexdigest()}"


def problems(rtl: Rtl, seed: int) -> Iterator[str]:
    """What is wrong with the checker on the faulty program of a seed, or with the RTL on the sound one."""
    length = random.Random(seed).choice([5, 8, 12])
    program = compare.random_program(seed, config=TINY, length=length, size=SIZE)
    sound = stream_of(program)
    faulty = with_fault(sound, FAULTS[seed % len(FAULTS)], random.Random(seed))
    results = rtl.results(faulty, program.insn_address)
    if not errors(faulty) and not agreed(results):
        yield f"nothing is reported, but memories lead to {sorted(results)}"
    results = rtl.results(sound, program.insn_address)
    if errors(sound) or not agreed(results):
        yield f"without the fault, {errors(sound)}, and memories lead to {sorted(results)}"


def agreed(results: set[str]) -> bool:
    """Whether all launches came to their end, and to the same."""
    return len(results) == 1 and all(result.startswith("ended ") for result in results)


def fuzz(seed: int, count: int) -> list[int]:
    """Try the programs `seed` to `seed + count - 1`; returns the seeds on which the checker is wrong."""
    rtl = Rtl()
    failed = []
    for number in range(seed, seed + count):
        found = list(problems(rtl, number))
        if found:
            failed.append(number)
            print(f"seed {number}", *found, sep="\n  ")
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="programs to try (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="seed of the first program (default: a new one)")
    options = parser.parse_args()
    seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    print(f"{options.count} faulty programs on the RTL, seeds {seed} to {seed + options.count - 1}", flush=True)
    failed = fuzz(seed, options.count)
    if failed:
        sys.exit(f"{len(failed)} of {options.count} programs differ; repeat one with --seed S --count 1")
    print("no differences")


if __name__ == "__main__":
    main()
