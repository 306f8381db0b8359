"""Programs with a fault: whatever goes wrong with one in some timing, the checker reports; and what it reports is so.

`python -m tests.vta_sim.check.fuzz --count 300` tries new ones and prints the seeds of those on which the checker is
wrong; `--seed S --count 1` repeats one. A program takes about a third of a second.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from collections import Counter
from dataclasses import dataclass

from tests.vta_sim.check.brute import effects, unordered_pairs
from tests.vta_sim.check.cases import errors, faulty_stream
from tests.vta_sim.check.faulty import FAULTS
from tests.vta_sim.check.timings import Stream, is_result, outcomes
from tests.vta_sim.spec_model import layout
from tests.vta_sim.spec_model.machine import ModelError
from vta_sim.check.findings import Race, Rule


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """goes_wrong: whether some timing that was tried has another result than another, or none. reported: whether the
    checker has errors. problems: in what the checker is wrong."""

    goes_wrong: bool
    reported: bool
    problems: tuple[str, ...]


def judge(seed: int) -> Verdict:
    """The checker on the faulty program of a seed, against what the timings show."""
    stream = faulty_stream(seed)
    results = outcomes(stream, seed)
    goes_wrong = len(results) > 1 or not all(map(is_result, results))
    reported = bool(errors(stream))
    problems = compare_with_brute_force(stream)
    if goes_wrong and not reported:
        problems.append(f"nothing is reported, but timings lead to {sorted(results)}")
    return Verdict(goes_wrong=goes_wrong, reported=reported, problems=tuple(problems))


def compare_with_brute_force(stream: Stream) -> list[str]:
    """A sentence for each race, or deadlock, that only one of the two finds."""
    found = errors(stream)
    insns = [layout.decode(stream.config, word) for word in layout.from_words(stream.words)]
    problems = []
    stuck = len(effects(stream, insns)) < len(insns)
    if stuck != any(finding.rule is Rule.DEADLOCK for finding in found):
        problems.append(f"deadlock: {stuck}, reported: {not stuck}")
    refused = any(finding.rule in (Rule.OUT_OF_RANGE, Rule.UNKNOWN_CODE) for finding in found)
    try:
        expected = unordered_pairs(stream)
    except ModelError as error:
        return problems if refused or stuck else [*problems, f"not reported: {error}"]
    if refused:  # what such an instruction touches is nobody's guess
        return problems
    races = [finding for finding in found if isinstance(finding, Race)]
    problems += [f"no race: {race}" for race in races if (race.other.insn, race.place.insn) not in expected]
    if expected and not races:
        problems.append(f"races that are not reported: {sorted(expected)}")
    return problems


def fuzz(seed: int, count: int) -> list[int]:
    """Judge the programs `seed` to `seed + count - 1`; returns the seeds on which the checker is wrong."""
    failed = []
    kinds: Counter[tuple[str, bool, bool]] = Counter()
    for number in range(seed, seed + count):
        verdict = judge(number)
        kinds[FAULTS[number % len(FAULTS)], verdict.goes_wrong, verdict.reported] += 1
        if verdict.problems:
            failed.append(number)
            print(f"seed {number}")
            for problem in verdict.problems:
                print(f"  {problem}")
    for (kind, goes_wrong, reported), programs in sorted(kinds.items()):
        what = f"{'differs or stops' if goes_wrong else 'has one result'}, {'' if reported else 'not '}reported"
        print(f"{kind}: {programs} programs, {what}")
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="programs to try (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="seed of the first program (default: a new one)")
    options = parser.parse_args()
    seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    print(f"{options.count} faulty programs, seeds {seed} to {seed + options.count - 1}", flush=True)
    failed = fuzz(seed, options.count)
    if failed:
        sys.exit(f"{len(failed)} of {options.count} programs differ; repeat one with --seed S --count 1")
    print("no differences")


if __name__ == "__main__":
    main()
