"""Damaged program files: reading one gives a `ProgramError` or, where the digests were made good, a program.

`python -m tests.vta_hw.fuzz_program --count 500` tries new damage and prints the seeds of what went wrong;
`--seed S --count 1` repeats one.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import traceback

from tests.vta_hw.mutate import Mutation, mutation
from tests.vta_hw.samples import compiled_program, raw_program
from vta_hw.spec.program import Program, ProgramError


def problem(damage: Mutation) -> str | None:
    """Say what is wrong about how a damaged file is read; `None` if nothing is."""
    try:
        program = Program.from_bytes(damage.data)
    except ProgramError as error:
        return None if str(error) and "\n" not in str(error) else f"message is not a sentence: {error!r}"
    except Exception:  # noqa: BLE001 - that no other exception leaves is what is tested
        return traceback.format_exc()
    if not damage.sealed:
        return "damage was not noticed"
    return None if program.to_bytes() == damage.data else "what was read is not what the file says"


def fuzz(seed: int, count: int) -> list[int]:
    """Read the damaged files `seed` to `seed + count - 1`; returns the seeds that fail, having printed how."""
    failed = []
    samples = (compiled_program().to_bytes(), raw_program().to_bytes())
    for number in range(seed, seed + count):
        damage = mutation(samples[number % 4 == 0], number)
        found = problem(damage)
        if found is not None:
            failed.append(number)
            print(f"seed {number}: {damage.kind}: {found}")
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500, help="files to try (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="seed of the first file (default: a new one)")
    options = parser.parse_args()
    seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    print(f"{options.count} damaged program files, seeds {seed} to {seed + options.count - 1}", flush=True)
    failed = fuzz(seed, options.count)
    if failed:
        sys.exit(f"{len(failed)} of {options.count} files went wrong; repeat one with --seed S --count 1")
    print("every one refused or understood")


if __name__ == "__main__":
    main()
