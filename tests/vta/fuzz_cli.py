"""Damaged program and configuration files through the command line: ``python -m tests.vta.fuzz_cli --count N``.

Whatever the file, the command ends with exit code 2 and one sentence, without a traceback and without a file; a damaged
configuration may also be another valid one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import secrets
import sys
import tempfile
from pathlib import Path

from tests.runtime.fake import program
from tests.vta.damage import damaged
from tests.vta.streams import raw_program
from vta.cli.errors import run_guarded
from vta.cli.root import root
from vta_hw.spec.config import VTAConfig

NAMES = ("raw.vta", "compiled.vta", "config.json")
COMMANDS = (
    ("raw.vta", ("exec", "raw.vta", "--dump", "0:16=out.bin", "--save", "copy.vta")),
    ("compiled.vta", ("run", "compiled.vta", "--input", "x.npy", "--output", "y.npy")),
    ("compiled.vta", ("disasm", "compiled.vta")),
    ("config.json", ("config", "config.json", "--json")),
)


def originals() -> dict[str, bytes]:
    """The files before the damage, by the names of `NAMES`."""
    contents = (raw_program().to_bytes(), program().to_bytes(), VTAConfig(log_block_in=5).to_json().encode())
    return dict(zip(NAMES, contents, strict=True))


def problems(seed: int, files: dict[str, bytes], folder: Path) -> list[str]:
    """What one damage of each file made the commands do wrong."""
    rng = random.Random(seed)
    for name, data in files.items():
        (folder / name).write_bytes(damaged(data, rng))
    before = sorted(path.name for path in folder.iterdir())
    found = []
    for name, arguments in COMMANDS:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run_guarded(root, arguments)
        sentence = err.getvalue()
        refused = code == 2 and not out.getvalue() and sentence.startswith("error: ") and sentence.count("\n") == 1
        if not refused and not (code == 0 and name == "config.json"):
            found.append(f"seed {seed}: vta {' '.join(arguments)} gave {code}: {sentence or out.getvalue()!r}")
    if sorted(path.name for path in folder.iterdir()) != before:
        found.append(f"seed {seed}: files were left behind")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500, help="damages to each file (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="seed of the first damage (default: a new one)")
    options = parser.parse_args()
    seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    print(f"{options.count} damaged files of each kind, seeds {seed} to {seed + options.count - 1}", flush=True)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        files = originals()
        failed = [line for number in range(options.count) for line in problems(seed + number, files, Path(folder))]
    print(*failed, sep="\n", end="\n" if failed else "")
    if failed:
        sys.exit(f"{len(failed)} failures; repeat one with --seed S --count 1")
    print("all refused")


if __name__ == "__main__":
    main()
