"""Random programs on random machines: the RTL on Amaranth's simulator against the functional simulator.

`python -m tests.vta_sim.rtl.fuzz_programs --count 500` tries new ones and prints what differs; `--seed S --count 1`
repeats one. A program takes about a second, machines included.
"""

from __future__ import annotations

import argparse
import random
import secrets
import sys
from dataclasses import replace

from tests.vta_sim.rtl.machines import Case, check
from tests.vta_sim.rtl.random_cases import draw
from tests.vta_sim.spec_model import compare
from tests.vta_sim.spec_model.generate import random_config
from vta_hw.spec.config import VTAConfig

PROGRAMS_A_MACHINE = 20
"""Seeds that share a machine, because it takes longer to build one than to run a program."""
MOST_PRODUCTS = 256
MOST_ACC_BITS = 2048


def random_machine(seed: int) -> VTAConfig:
    """A machine that Amaranth's simulator can take."""
    rng = random.Random(seed)
    while True:
        config = compare.toolkit_config(random_config(rng))
        products = config.batch * config.block_in * config.block_out
        if products <= MOST_PRODUCTS and config.acc_elem_bytes * 8 <= MOST_ACC_BITS:
            break
    multipliers = ["dsp", "lut"] + ["packed"] * (max(config.inp_bits, config.wgt_bits) <= 8)
    return replace(
        config,
        log_bus_width=rng.choice([6, 7, 8, 9]),
        overlap=rng.random() < 0.5,
        multiplier=rng.choice(multipliers),
    )


def random_case(seed: int) -> Case:
    number = seed // PROGRAMS_A_MACHINE
    config = random_machine(number)
    return draw(config.name, config, seed, queue_depth=random.Random(number).choice([2, 5, 512]))


def fuzz(seed: int, count: int) -> int:
    """Try programs `seed` to `seed + count - 1`; returns on how many the two differ."""
    failed = 0
    for number in range(seed, seed + count):
        case = random_case(number)
        try:
            problems = list(check(case))
        except Exception as error:  # noqa: BLE001  a crash is a difference like any other
            problems = [f"{case.name}: {type(error).__name__}: {error}"]
        failed += bool(problems)
        for problem in problems:
            print(problem, f"({case.config})", flush=True)
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
        sys.exit(f"{failed} of {options.count} programs differ; repeat one with --seed S --count 1")
    print("no differences")


if __name__ == "__main__":
    main()
