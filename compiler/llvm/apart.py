"""Object code made in a process of its own: what LLVM has no instructions for ends the process that asks for it.

As a program it reads the target, as a line of JSON, and LLVM IR from stdin, and writes an object file to stdout.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from compiler.errors import LoweringError
from compiler.llvm.target import Target, emit_object

_FOLDER = Path(__file__).parents[2]
"""Of the package, from which the child imports it as this process did."""


def emit_object_apart(text: str, target: Target, what: str) -> bytes:
    """Relocatable object code of LLVM IR `text`, to be linked. `what` is its name in messages.

    Raises LoweringError where LLVM fails, with what it says. The child ends with this call, however that ends.
    """
    request = json.dumps(asdict(target)).encode() + b"\n" + text.encode()
    command = [sys.executable, "-m", "compiler.llvm.apart"]
    result = subprocess.run(command, input=request, capture_output=True, cwd=_FOLDER, check=False)
    if result.returncode:
        raise LoweringError(
            f"{what} must be code that LLVM can make for {target.triple} ({target.cpu}), and it cannot: "
            f"{_reason(result.stderr.decode(errors='replace'), result.returncode)}"
        )
    return result.stdout


def _reason(said: str, status: int) -> str:
    """The last error that LLVM told of, else the last line, else how the child ended."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line.removeprefix("LLVM ERROR: ") for line in lines if "error:" in line.lower()]
    if errors or lines:
        return (errors or lines)[-1]
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"


def main() -> None:
    # Python would hear of Ctrl-C only after LLVM has done its work.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    head, _, text = sys.stdin.buffer.read().partition(b"\n")
    sys.stdout.buffer.write(emit_object(text.decode(), Target(**json.loads(head)), jit=False))


if __name__ == "__main__":
    main()
