"""Legal sequences of primitives keep the answer; illegal calls are refused and leave nothing behind.

`fuzz_schedule` says what is checked after every call; it also tries other seeds, and more of them.
"""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.compiler.tensor.fuzz_schedule import check

PRIMITIVES = {
    "cut",
    "drop_unit_loops",
    "fuse",
    "merge",
    "narrow",
    "reorder",
    "rotate",
    "set_kind",
    "set_scope",
    "split",
    "split_fill",
    "stage",
}


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(st.randoms(use_true_random=False))
def test_sequences_that_shrink(r: random.Random) -> None:
    run = check(r, 12)
    assume(run is not None)
    assert run is not None
    assert run.problem is None, run.problem


def test_numbered_sequences() -> None:
    """Random numbers reach further than hypothesis, which prefers the simple; and every primitive must take part."""
    legal: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for seed in range(150):
        run = check(random.Random(seed), 25)
        if run is None:
            continue
        assert run.problem is None, f"seed {seed}: {run.problem}"
        legal += run.legal
        refused += run.refused
    assert set(legal) == PRIMITIVES
    assert set(refused) == PRIMITIVES - {"drop_unit_loops"}
