"""The vector code by itself: that it is vector code, and that it is right whatever the shape of the loops."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray

from vta_sim.functional.vector import make_panel, make_transpose

Panel = Callable[[NDArray[np.int32], NDArray[np.int16], NDArray[np.int16], NDArray[np.int64]], None]


def _compiled_panel(lanes: int) -> Panel:
    panel = make_panel(lanes, lanes // 2)

    def run(acc: NDArray[np.int32], inp: NDArray[np.int16], wgt: NDArray[np.int16], n: NDArray[np.int64]) -> None:
        panel(acc, inp, wgt, n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8], n[9], n[10], n[11])

    return cast(Panel, njit(nogil=True)(run))


@pytest.mark.parametrize("lanes", [8, 16])
def test_panel_equals_the_dot_products(lanes: int) -> None:
    rng = np.random.default_rng(2)
    run = _compiled_panel(lanes)
    for _ in range(20):
        trips = rng.integers(0, 4, 3)
        steps = rng.integers(0, 40, (3, 2))
        starts = rng.integers(0, 5, 3)
        acc = rng.integers(-(1 << 31), 1 << 31, 500).astype(np.int32)
        inp = rng.choice(np.array([-32768, 32767, 1, -1, 12345]), 500).astype(np.int16)
        wgt = rng.choice(np.array([-32768, 32767, 1, -1, -4321]), lanes * lanes + 5).astype(np.int16)
        block = wgt[starts[2] :][: lanes * lanes].reshape(lanes // 2, lanes, 2).astype(np.int64)
        matrix = block.transpose(1, 0, 2).reshape(lanes, lanes)
        expected = acc.astype(np.int64)
        for index in np.ndindex(*(int(n) for n in trips)):
            a, i = (int(starts[k] + np.dot(index, steps[:, k])) for k in range(2))
            expected[a : a + lanes] += matrix @ inp[i : i + lanes].astype(np.int64)
        loops = [int(n) for n, (a, i) in zip(trips, steps, strict=True) for n in (n, a, i)]
        run(acc, inp, wgt, np.array([*starts, *loops]))
        np.testing.assert_array_equal(acc, expected.astype(np.int32))


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names instructions of x86")
def test_pairs_are_multiplied_and_added_by_one_instruction() -> None:
    run = _compiled_panel(16)
    run(np.zeros(16, np.int32), np.zeros(16, np.int16), np.zeros(256, np.int16), np.zeros(12, np.int64))
    (code,) = run.inspect_asm().values()  # type: ignore[attr-defined]  # numba's dispatcher, which its stubs do not know
    assert "pmaddwd" in code or "pdpwssd" in code
    assert "pmulld" not in code


@pytest.mark.parametrize("lanes", [8, 16])
def test_transpose(lanes: int) -> None:
    transpose = make_transpose(lanes)

    @njit(nogil=True)
    def run(source: NDArray[np.int32], step: int, target: NDArray[np.int32]) -> None:
        transpose(source, 3, step, target, 1)

    source = np.arange(1000, dtype=np.int32)
    target = np.zeros(1 + lanes * lanes // 2, np.int32)
    run(source, 37, target)
    rows = [source[3 + 37 * row :][: lanes // 2] for row in range(lanes)]
    np.testing.assert_array_equal(target[1:].reshape(lanes // 2, lanes), np.transpose(rows))
