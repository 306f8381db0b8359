"""Random kernels of every op between inaccessible pages, against the interpreter, with new seeds every time.

`python -m tests.compiler.llvm.fuzz_kernels --count 300` tries so many shapes of each op, and prints the seeds of those
that differ, fail, or touch what is none of theirs; `--op NAME --seed S --count 1` repeats one.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time

from tests.compiler.llvm.isolated import outcomes
from tests.compiler.llvm.random_kernels import OPS, check


def fuzz(op: str, first: int, count: int) -> int:
    """Check the cases of the seeds from `first` on; returns how many are wrong."""
    began, wrong = time.monotonic(), 0
    for done, outcome in enumerate(outcomes(check, [(op, seed) for seed in range(first, first + count)]), start=1):
        if outcome.problem:
            wrong += 1
            print(f"\r{op}, seed {outcome.item[1]}: {outcome.problem}", flush=True)
        if sys.stdout.isatty():
            print(f"\r{op}: {done} of {count}", end="", flush=True)
    print(f"\r{op}: {count} from seed {first} in {time.monotonic() - began:.0f} s, {wrong} wrong", flush=True)
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500, help="shapes of each op (default: %(default)s)")
    parser.add_argument("--op", choices=OPS, action="append", metavar="NAME", help=f"one of {', '.join(OPS)}")
    parser.add_argument("--seed", type=int, help="seed of the first shape (default: a new one)")
    options = parser.parse_args()
    first = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    ops = options.op or OPS
    print(f"{options.count} shapes of each of {len(ops)} ops, seeds {first} to {first + options.count - 1}", flush=True)
    wrong = 0
    try:
        for op in ops:
            wrong += fuzz(op, first, options.count)
    except KeyboardInterrupt:
        print(f"\rinterrupted: {wrong} wrong until here")
        sys.exit(130)
    print(f"{wrong} wrong")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
