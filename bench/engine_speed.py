"""Simulated cycles per second of every engine with a clock, and of Verilator, on the default machine with its memory.

Two layers: a convolution that keeps the multipliers busy, and a dense layer that waits for its weights. Engines take
turns within a repetition, so that whatever else the machine does meets all of them; seconds are of processor time, and
figures are medians. Every engine must end with the same memory and the same counters, or there are no figures. Then the
time from starting Python to the first cycle, with empty caches (cold) and with full ones (warm).

    python bench/engine_speed.py [--json] [--repeat 5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np

# A script's own directory is on the path, not the one that contains it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.verilator_core.build import Build, build, lacks_verilator
from bench.verilator_core.core import VerilatedCore
from bench.workloads import Pages, Workload, layer, pages_of
from runtime.device import PAGE_BYTES
from vta_hw.spec.config import VTAConfig
from vta_sim.memory import Memory
from vta_sim.timing import MemoryTiming

TIMING: Final = MemoryTiming(latency=32)

CLASSES: Final[Mapping[str, tuple[str, str]]] = {
    "compiled": ("vta_sim.rtl.compiled", "CompiledSimulator"),
    "cycle": ("vta_sim.cycle.engine", "CycleSimulator"),
}
"""Engines of this process: module and class."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One run of a workload: simulated cycles and processor seconds of its launches, their counters, memory after."""

    cycles: int
    seconds: float
    counters: Sequence[Mapping[str, int]]
    memory: Pages


Engine = Callable[[Workload], Outcome]


def simulator_class(name: str) -> Any:
    """The class of an engine of `CLASSES`."""
    module, attribute = CLASSES[name]
    return getattr(import_module(module), attribute)


def available(name: str) -> bool:
    """Whether there is such an engine of `CLASSES`."""
    package, _, module = CLASSES[name][0].rpartition(".")
    return find_spec(package) is not None and find_spec(f"{package}.{module}") is not None


def python_engine(name: str, config: VTAConfig, cache: Path | None = None) -> Engine:
    """An engine of `CLASSES`; `cache` is the directory for the machine code of the compiled one."""
    options = {"cache": cache} if name == "compiled" else {}
    simulator = simulator_class(name)(config, timing=TIMING, **options)

    def run(workload: Workload) -> Outcome:
        memory = Memory()
        simulator.reset(memory=memory, timing=TIMING)
        counters, seconds = [], 0.0
        for start in workload.starts:
            for address, page in start.written.items():
                memory.write(address, page)
            begin = time.process_time()
            report = simulator.launch(start.insn_address, start.insn_count, bases=start.simulator_bases)
            seconds += time.process_time() - begin
            counters.append(dict(report.counters))
        cycles = sum(each["cycle_count"] for each in counters)
        return Outcome(cycles=cycles, seconds=seconds, counters=counters, memory=pages_of(memory))

    return run


def verilator_engine(built: Build) -> Engine:
    """The simulator that Verilator made."""

    def run(workload: Workload) -> Outcome:
        core = VerilatedCore(built, memory_bytes=workload.memory_bytes, timing=TIMING)
        launches, memory = core.run(workload.starts)
        counters = [dict(launch.counters) for launch in launches]
        return Outcome(
            cycles=sum(each["cycle_count"] for each in counters),
            seconds=sum(launch.seconds for launch in launches),
            counters=counters,
            memory={address: memory[address : address + PAGE_BYTES] for address in workload.memory},
        )

    return run


def check(workload: Workload, name: str, outcome: Outcome, other: Outcome) -> None:
    """Raises SystemExit unless an engine did what the functional simulator and another engine did."""
    for address, page in workload.memory.items():
        if not np.array_equal(outcome.memory.get(address, 0), page):
            raise SystemExit(f"{workload.name}: {name} differs from the functional simulator at {address:#x}")
    for number, (mine, others) in enumerate(zip(outcome.counters, other.counters, strict=True)):
        for counter, value in mine.items():
            if others[counter] != value:
                raise SystemExit(
                    f"{workload.name}, launch {number}: {counter} is {value} by {name}, {others[counter]} by another"
                )


def measure(workload: Workload, engines: Mapping[str, Engine], repeat: int) -> dict[str, Any]:
    """Cycles per second of each engine, and how many times as fast as each other it is."""
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    # The first run of an engine may compile it.
    first, *_ = [engine(workload) for engine in engines.values()]
    for _ in range(repeat):
        for name, engine in engines.items():
            outcome = engine(workload)
            check(workload, name, outcome, first)
            seconds[name].append(outcome.seconds)
    speed = {name: first.cycles / statistics.median(times) for name, times in seconds.items()}
    return {
        "workload": workload.name,
        "cycles": first.cycles,
        "cycles_per_second": speed,
        "ratios": {f"{one}/{other}": speed[one] / speed[other] for one in speed for other in speed if one != other},
        "counters": first.counters,
    }


def start_seconds(name: str, cache: Path) -> float:
    """Wall-clock seconds from the start of a new interpreter to the first cycle; machine code is kept in `cache`."""
    command = [sys.executable, "-m", "bench.first_cycle", name, "--cache", str(cache)]
    # The engines that numba compiles keep their code where this variable says.
    environment = ["env", f"NUMBA_CACHE_DIR={cache / 'numba'}"]
    begin = time.monotonic()
    printed = subprocess.check_output([*environment, *command], cwd=Path(__file__).parents[1], encoding="utf-8")
    return float(printed) - begin


def starts(name: str, repeat: int) -> dict[str, float]:
    """Cold and warm start of an engine of `CLASSES`, in seconds."""
    cold, warm = [], []
    for _ in range(repeat):
        with tempfile.TemporaryDirectory() as cache:
            cold.append(start_seconds(name, Path(cache)))
            warm += [start_seconds(name, Path(cache)) for _ in range(2)]
    return {"cold": statistics.median(cold), "warm": statistics.median(warm)}


def workloads() -> list[Workload]:
    return [layer("conv 3x3 64->64 56x56", 64, 64, 56), layer("dense 512->2048", 512, 2048, 1, kernel=1)]


def run(repeat: int) -> dict[str, Any]:
    """Everything; engines that are not there, and Verilator where it is not installed, are left out."""
    config = VTAConfig()
    names = [name for name in CLASSES if available(name)]
    result: dict[str, Any] = {"config": config.name, "latency": TIMING.latency, "missing": []}
    with tempfile.TemporaryDirectory() as folder:
        engines = {name: python_engine(name, config) for name in names}
        missing = lacks_verilator()
        if missing is None:
            built = build(config, Path(folder))
            result["verilator_build_seconds"] = {
                "verilator": built.verilate_seconds,
                "compiler": built.compile_seconds,
                "total": built.seconds,
            }
            engines["verilator"] = verilator_engine(built)
        else:
            result["missing"].append(missing)
        result["workloads"] = [measure(workload, engines, repeat) for workload in workloads()]
    result["start_seconds"] = {name: starts(name, repeat) for name in names}
    return result


def report(result: Mapping[str, Any]) -> None:
    """Print a table."""
    for sentence in result["missing"]:
        print(sentence)
    for row in result["workloads"]:
        print(f"{row['workload']}: {row['cycles']} cycles")
        for name, speed in row["cycles_per_second"].items():
            print(f"  {name:10} {speed / 1e6:9.3f} M cycles/s")
        print("  " + ", ".join(f"{pair} {ratio:.2f}" for pair, ratio in row["ratios"].items() if ratio >= 1))
    for name, seconds in result["start_seconds"].items():
        print(f"{name}: from Python to the first cycle {seconds['cold']:.2f} s cold, {seconds['warm']:.2f} s warm")
    if "verilator_build_seconds" in result:
        print(f"verilator: built in {result['verilator_build_seconds']['total']:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--repeat", type=int, default=5, help="runs of each engine and workload (default: %(default)s)")
    options = parser.parse_args()
    result = run(options.repeat)
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        report(result)


if __name__ == "__main__":
    main()
