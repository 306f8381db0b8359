"""Random programs behind random memories: the cycle engine against the compiled RTL, in every counter and every byte.

`python -m tests.vta_sim.cycle.fuzz --count 500` tries new ones and prints what differs; `--seed S --count 1` repeats
one. Compiling a machine takes seconds, a program milliseconds. `--simulators compiled amaranth` compares two others.
"""

from __future__ import annotations

import argparse
import secrets
import sys

from tests.vta_sim.cycle.cases import TIMED_MACHINES, TimedCase, timed_case
from tests.vta_sim.cycle.comparison import SIMULATORS, check

PROGRAMS_A_MACHINE = 20
"""Seeds that follow each other on the same machine."""


def case_of(seed: int) -> TimedCase:
    machines = list(TIMED_MACHINES)
    return timed_case(machines[seed // PROGRAMS_A_MACHINE % len(machines)], seed)


def fuzz(seed: int, count: int, simulators: tuple[str, str]) -> int:
    """Try programs `seed` to `seed + count - 1`; returns on how many the simulators differ."""
    failed = 0
    for number in range(seed, seed + count):
        timed = case_of(number)
        try:
            problems = list(check(timed, *simulators))
        except Exception as error:  # noqa: BLE001  a crash is a difference like any other
            problems = [f"{timed.case.name}: {type(error).__name__}: {error}"]
        failed += bool(problems)
        for problem in problems:
            print(problem, f"({timed.case.timing})", flush=True)
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500, help="programs to try (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="seed of the first program (default: a new one)")
    parser.add_argument(
        "--simulators", nargs=2, choices=list(SIMULATORS), default=["cycle", "compiled"], help="two to compare"
    )
    options = parser.parse_args()
    seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    print(f"{options.count} random programs, seeds {seed} to {seed + options.count - 1}", flush=True)
    failed = fuzz(seed, options.count, tuple(options.simulators))
    if failed:
        sys.exit(f"{failed} of {options.count} programs differ; repeat one with --seed S --count 1")
    print("no differences")


if __name__ == "__main__":
    main()
