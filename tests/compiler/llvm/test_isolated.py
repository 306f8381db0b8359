"""Calls in a process of their own have an outcome however they end."""

from __future__ import annotations

import ctypes

from tests.compiler.llvm.isolated import Say, outcomes


def odd(item: int, say: Say) -> str:
    say(f"{item} is looked at")
    if item == 3:
        raise ValueError("three")
    if item == 5:
        ctypes.c_int8.from_address(8).value = 1
    while item == 7:
        pass
    return "odd" if item % 2 else ""


def test_every_item_has_an_outcome() -> None:
    results = list(outcomes(odd, [2, 1, 3, 4, 5, 6, 7, 8], longest=1.0))
    problems = [each.problem for each in results]
    assert [each.item for each in results] == [2, 1, 3, 4, 5, 6, 7, 8]
    assert problems[2].endswith("ValueError: three\n")
    assert problems[:2] + problems[3:] == [
        "", "odd", "", "SIGSEGV while 5 is looked at", "", "nothing within 1 s while 7 is looked at", "",
    ]  # fmt: skip
