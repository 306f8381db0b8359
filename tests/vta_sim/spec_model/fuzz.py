"""Random programs, sound and damaged, on the functional simulator and on the model of the specification.

`python -m tests.vta_sim.spec_model.fuzz --count 500` tries new programs and prints the seeds of those on which the two
differ; `--seed S --count 1` repeats one.
"""

from __future__ import annotations

import argparse
import secrets
import sys

from tests.vta_sim.spec_model.compare import check, random_program, summary
from tests.vta_sim.spec_model.damage import check_damaged


def fuzz(seed: int, count: int) -> list[int]:
    """Compare programs `seed` to `seed + count - 1`, as they are and damaged; returns the seeds that differ."""
    failed = []
    for number in range(seed, seed + count):
        problems = check(number) + [f"damaged: {problem}" for problem in check_damaged(number)]
        if problems:
            failed.append(number)
            print(f"seed {number}: {summary(random_program(number))}")
            for problem in problems:
                print(f"  {problem}")
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500, help="programs to try (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="seed of the first program (default: a new one)")
    options = parser.parse_args()
    seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    print(f"{options.count} random programs, seeds {seed} to {seed + options.count - 1}", flush=True)
    failed = fuzz(seed, options.count)
    if failed:
        sys.exit(f"{len(failed)} of {options.count} programs differ; repeat one with --seed S --count 1")
    print("no differences")


if __name__ == "__main__":
    main()
