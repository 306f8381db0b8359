"""Random designs with one clock: compiled, and in Amaranth's simulator.

`python -m tests.vta_sim.rtl.netlist.fuzz_netlist --count 500` tries new ones and prints what differs, and of which of
its pieces a design still does so; `--seed S --count 1` repeats one. A design takes about a second.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import secrets
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from amaranth.hdl import UnusedElaboratable

from tests.vta_sim.rtl.netlist.compare import differences
from tests.vta_sim.rtl.netlist.random_design import piece_count, random_design

STEPS = 60


def problems(seed: int, pieces: Sequence[int] | None = None) -> list[str]:
    """What differs in the design of a seed; a crash is a difference like any other."""
    # Machine code that is wrong may end the process.
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("fork")) as child:
        try:
            return child.submit(compared, seed, pieces).result()
        except BrokenProcessPool:
            return ["the process ended"]
        except Exception as error:  # noqa: BLE001  # a crash is a difference like any other
            return [f"{type(error).__name__}: {error}"]


def compared(seed: int, pieces: Sequence[int] | None) -> list[str]:
    """What differs in the design of a seed."""
    return list(differences(functools.partial(random_design, seed, pieces=pieces), seed=seed, steps=STEPS))


def shrunk(seed: int) -> list[int]:
    """Pieces of a design in which something differs that are enough for that."""
    pieces = list(range(piece_count(seed)))
    for piece in reversed(pieces.copy()):
        fewer = [other for other in pieces if other != piece]
        if problems(seed, fewer):
            pieces = fewer
    return pieces


def fuzz(seed: int, count: int) -> int:
    """Try the designs of seeds `seed` to `seed + count - 1`; returns in how many something differs."""
    failed = 0
    for number in range(seed, seed + count):
        found = problems(number)
        if not found:
            continue
        failed += 1
        pieces = shrunk(number)
        print(f"seed {number}: {found[0]}; pieces {pieces}: {problems(number, pieces)[0]}", flush=True)
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500, help="designs to try (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="seed of the first design (default: a new one)")
    options = parser.parse_args()
    seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    print(f"{options.count} random designs, seeds {seed} to {seed + options.count - 1}", flush=True)
    # Of a design that is refused Amaranth would say so too.
    warnings.simplefilter("ignore", UnusedElaboratable)
    failed = fuzz(seed, options.count)
    if failed:
        sys.exit(f"{failed} of {options.count} designs differ; repeat one with --seed S --count 1")
    print("no differences")


if __name__ == "__main__":
    main()
