"""Every claim holds, and is refuted once its bug is planted."""

from __future__ import annotations

from typing import Final

import pytest

from tests.vta_hw.rtl.formal.cases import CASES
from tests.vta_hw.rtl.formal.harness import Case, Verdict, check, plant

PLANTED: Final = [(case, claim) for case in CASES for claim in case.planted]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_claim_holds(case: Case) -> None:
    proof = case.proof(case.component())
    assert check(proof, case.depth, inductive=case.inductive, claims=case.planted) == Verdict(True)
    assert proof.claims == {claim for other in CASES if other.proof is case.proof for claim in other.planted}


@pytest.mark.parametrize(("case", "claim"), PLANTED, ids=lambda value: value if isinstance(value, str) else value.name)
def test_a_planted_bug_is_found(case: Case, claim: str) -> None:
    proof = case.proof(plant(case.component(), case.planted[claim]))
    assert check(proof, case.depth, claims=[claim]).broken == {claim}
