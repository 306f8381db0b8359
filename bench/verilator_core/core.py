"""Launches on the simulator that Verilator made."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.verilator_core.build import Build
from bench.workloads import Pages, Start
from runtime.device import PAGE_BYTES
from vta_hw.rtl.registers import register_map
from vta_hw.spec.registers import REGISTER_BYTES, Control, RegisterMap
from vta_sim.launch_parameters import parameters
from vta_sim.timing import MemoryTiming

LIMIT: Final = 1_000_000_000
"""Cycles in which a launch must be over."""

_OTHER_REGISTERS: Final = ("status", "fault_insn")


@dataclass(frozen=True, kw_only=True)
class VerilatedRun:
    """A launch: clock cycles until the interrupt, and seconds of processor time for them.

    counters: what every counter read afterwards, by name. registers: those, `status` and `fault_insn`.
    """

    clock_cycles: int
    seconds: float
    counters: Mapping[str, int]
    registers: Mapping[str, int]


class VerilatedCore:
    """A machine with a memory of `memory_bytes` bytes from address 0 on; each `run` begins with a fresh one.

    Raises ValueError for a timing that its memory does not have.
    """

    def __init__(self, build: Build, *, memory_bytes: int, timing: MemoryTiming) -> None:
        if timing != MemoryTiming(latency=timing.latency, outstanding=timing.outstanding):
            raise ValueError(f"Memory behind Verilator must have latency and outstanding bursts alone, not {timing!r}")
        self._build = build
        self._memory_bytes = memory_bytes
        self._timing = timing
        self._registers: RegisterMap = register_map(build.config)

    def run(self, starts: Sequence[Start]) -> tuple[list[VerilatedRun], NDArray[np.uint8]]:
        """Do launches in order; a report of each, and memory after the last, uint8 [memory_bytes].

        Raises RuntimeError with what the program says if it fails.
        """
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            lines = [f"memory {self._memory_bytes} {self._timing.latency} {self._timing.outstanding}"]
            for number, start in enumerate(starts):
                lines += self._launch(start, folder / f"launch{number}")
            lines.append(f"save 0 {self._memory_bytes} {folder / 'memory'}")
            (folder / "script").write_text("".join(f"{line}\n" for line in lines))
            result = subprocess.run(
                [self._build.program, folder / "script"], capture_output=True, encoding="utf-8", check=False
            )
            if result.returncode:
                raise RuntimeError(f"Simulator must succeed, and says: {result.stderr.strip()}")
            reports = [self._report(run) for run in json.loads(result.stdout)]
            return reports, np.fromfile(folder / "memory", np.uint8)

    def _launch(self, start: Start, stem: Path) -> Iterator[str]:
        """Lines of the script."""
        for number, (address, data) in enumerate(_runs(start.written)):
            path = stem.with_suffix(f".{number}")
            data.tofile(path)
            yield f"load {address} {path}"
        values = parameters(
            self._build.config, start.insn_address, start.insn_count, start.simulator_bases, start.tokens
        )
        for offset, word in self._registers.words({**values, "irq_enable": 1, "control": Control.LAUNCH}).items():
            yield f"write {offset} {word}"
        yield f"run {LIMIT}"
        names = [register.name for register in self._registers.counters]
        for register in (self._registers[name] for name in (*names, *_OTHER_REGISTERS)):
            for word in range(register.words):
                yield f"read {register.name}.{word} {register.offset + REGISTER_BYTES * word}"
        yield f"write {self._registers['control'].offset} 0"

    def _report(self, run: Mapping[str, object]) -> VerilatedRun:
        words = run["registers"]
        assert isinstance(words, dict)
        values: dict[str, int] = {}
        for name, word in words.items():
            register, _, place = name.partition(".")
            values[register] = values.get(register, 0) | word << (32 * int(place))
        counters = {register.name: values[register.name] for register in self._registers.counters}
        return VerilatedRun(
            clock_cycles=int(str(run["cycles"])),
            seconds=float(str(run["seconds"])),
            counters=counters,
            registers=values,
        )


def _runs(pages: Pages) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """(address, bytes) of each run of neighbouring pages."""
    addresses = sorted(pages)
    begin = 0
    for end in range(1, len(addresses) + 1):
        if end == len(addresses) or addresses[end] != addresses[end - 1] + PAGE_BYTES:
            yield addresses[begin], np.concatenate([pages[address] for address in addresses[begin:end]])
            begin = end
