"""Fifty damaged files, always the same; `python -m tests.compiler.frontend.fuzz` tries new ones."""

from __future__ import annotations

import pytest

from tests.compiler.frontend.fuzz import problem
from tests.compiler.frontend.models import residual_network
from tests.compiler.frontend.mutate import mutation

INTACT = residual_network().SerializeToString()


@pytest.mark.parametrize("seed", range(50))
def test_damaged_file_is_refused_in_one_sentence_or_harmless(seed: int) -> None:
    assert problem(mutation(INTACT, seed).data) is None


def test_intact_file_has_no_problem() -> None:
    assert problem(INTACT) is None
