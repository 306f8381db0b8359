"""Inputs by name, cut into batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vta.batching import Port, batches, named_inputs
from vta.errors import ApiError

IMAGE = Port(name="image", shape=(4, 1, 8, 8), dtype="float32")
MASK = Port(name="mask", shape=(4, 3), dtype="int32")


def images(count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.arange(count * 64, dtype=np.float32).reshape(count, 1, 8, 8)


def test_the_only_input_needs_no_name() -> None:
    assert named_inputs((IMAGE,), images(5)).keys() == {"image"}
    assert named_inputs((IMAGE,), {"image": images(1)}).keys() == {"image"}


@pytest.mark.parametrize(
    ("ports", "inputs", "sentence"),
    [
        ((IMAGE, MASK), images(2), "Inputs must be a dict with the names 'image', 'mask', not one array"),
        ((IMAGE,), {"img": images(2)}, "Inputs must be named 'image', not 'img'"),
        ((IMAGE,), {}, "Inputs must be named 'image', not none"),
        ((IMAGE,), [1.0], "Input 'image' must be a numpy array, not list"),
        ((IMAGE,), images(2)[0], "Input 'image' must be float32 [N, 1, 8, 8], not float32 [1, 8, 8]"),
        ((IMAGE,), images(2)[:0], "Input 'image' must be float32 [N, 1, 8, 8], not float32 [0, 1, 8, 8]"),
        (
            (IMAGE,),
            images(2).astype(np.float64),
            "Input 'image' must be float32 [N, 1, 8, 8], not float64 [2, 1, 8, 8]",
        ),
        (
            (IMAGE, MASK),
            {"image": images(2), "mask": np.zeros((3, 3), np.int32)},
            "Inputs must have one batch size, not 2, 3",
        ),
    ],
)
def test_refusals(ports: tuple[Port, ...], inputs: Any, sentence: str) -> None:
    with pytest.raises(ApiError) as caught:
        named_inputs(ports, inputs)
    assert str(caught.value) == sentence


def test_the_last_batch_is_filled_with_zeros() -> None:
    parts = list(batches({"image": images(6)}, 4))
    assert [(part["image"].shape, real) for part, real in parts] == [((4, 1, 8, 8), 4), ((4, 1, 8, 8), 2)]
    np.testing.assert_array_equal(parts[1][0]["image"][:2], images(6)[4:])
    assert not parts[1][0]["image"][2:].any()


def test_without_filling_the_last_batch_is_smaller() -> None:
    assert [len(part["image"]) for part, _ in batches({"image": images(6)}, 4, fill=False)] == [4, 2]
