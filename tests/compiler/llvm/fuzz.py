"""Random procedures through LLVM and the interpreter, with new seeds every time.

`python -m tests.compiler.llvm.fuzz --count 500` prints the seeds whose results differ; `--seed S --count 1` repeats it.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import traceback

import numpy as np

from tests.compiler.llvm.test_random import check
from tests.compiler.tensor.random_procs import random_proc


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare LLVM code with the interpreter.")
    parser.add_argument("--count", type=int, default=500, help="how many procedures (default 500)")
    parser.add_argument("--seed", type=int, default=None, help="seed of the first procedure (default: a new one)")
    arguments = parser.parse_args()
    first = secrets.randbelow(1 << 32) if arguments.seed is None else arguments.seed
    wrong = 0
    for seed in range(first, first + arguments.count):
        rng = np.random.default_rng(seed)
        try:
            check(random_proc(rng), rng)
        except Exception:  # noqa: BLE001 - whatever went wrong, the seed is what helps
            wrong += 1
            print(f"seed {seed}:\n{traceback.format_exc()}")
    print(f"{arguments.count} procedures from seed {first}: {wrong} wrong")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
