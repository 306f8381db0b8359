"""onnx's own node tests: nothing is wrong, nearly all pass, and the manual says which."""

from __future__ import annotations

from pathlib import Path

import onnx

from tests.compiler.frontend.backend_tests import Outcome, node_tests, page, share

PAGE = Path(__file__).parents[3] / "docs" / "onnx.md"


def test_nodes_pass_or_are_refused_as_the_manual_says() -> None:
    results = [test.result() for test in node_tests()]
    assert len(results) >= 500
    assert [result for result in results if result.outcome is Outcome.WRONG] == []
    assert all(result.reason for result in results if result.outcome is Outcome.REFUSED)
    assert share(results) >= 0.95
    text = PAGE.read_text()
    if f"(onnx {onnx.__version__})" in text:  # other versions have other tests
        assert text == page(results)
