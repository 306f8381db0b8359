"""Damaged files, always the same; `python -m tests.compiler.frontend.fuzz` tries new ones."""

from __future__ import annotations

import pytest

from tests.compiler.frontend.fuzz import INTACT, problem
from tests.compiler.frontend.mutate import mutation


@pytest.mark.parametrize("seed", range(90))
def test_damaged_file_is_refused_in_one_sentence_or_harmless(seed: int) -> None:
    assert problem(mutation(INTACT[seed % len(INTACT)], seed).data) is None


@pytest.mark.parametrize("data", INTACT, ids=["float", "QDQ", "QOperator"])
def test_intact_file_has_no_problem(data: bytes) -> None:
    assert problem(data) is None
