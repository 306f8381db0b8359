"""Random layers and networks on random configurations: VTA, LLVM and numpy must give the same bytes.

`python -m tests.fuzz_differential --count 500` tries new ones and prints the seeds of those that differ or fail;
`--seed S --count 1` repeats one.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import traceback

from tests.differential import (
    Case,
    check,
    describe,
    random_attention,
    random_extreme,
    random_given,
    random_layer,
    random_movements,
    random_network,
)


def case_of(seed: int) -> Case:
    """Single layers, networks, products of activations, movements, and extremes or given integers, in turn."""
    last = random_given if seed % 2 else random_extreme
    return (random_layer, random_network, random_attention, random_movements, last)[seed % 5](seed)


def fuzz(seed: int, count: int) -> tuple[list[int], int]:
    """Check the cases `seed` to `seed + count - 1`; returns the seeds that fail, and how many are refused."""
    failed, refused = [], 0
    for number in range(seed, seed + count):
        case = case_of(number)
        try:
            outcome = check(case)
        except Exception:  # noqa: BLE001 whatever it is, it is a finding, and the search goes on
            failed.append(number)
            print(describe(case), traceback.format_exc(limit=-4), sep="\n")
            continue
        if outcome.refusal:
            refused += 1
            print(f"seed {number} refused: {outcome.refusal}")
        if outcome.problems:
            failed.append(number)
            print(describe(case), *outcome.problems, sep="\n  ")
    return failed, refused


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500, help="cases to try (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="seed of the first case (default: a new one)")
    options = parser.parse_args()
    seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    print(f"{options.count} random graphs, seeds {seed} to {seed + options.count - 1}", flush=True)
    failed, refused = fuzz(seed, options.count)
    if refused:
        print(f"{refused} refused for lack of room")
    if failed:
        sys.exit(f"{len(failed)} of {options.count} fail: {failed}; repeat one with --seed S --count 1")
    print("no differences")


if __name__ == "__main__":
    main()
