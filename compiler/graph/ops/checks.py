"""Conditions on operands that several ops share. Each raises GraphError naming the rule and the value."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from compiler.errors import GraphError
from compiler.graph.ir import TensorType
from compiler.tensor.ir import NUMBERS, DType

QUANTISED = (DType.INT8, DType.INT16)


def count(types: Sequence[TensorType], *allowed: int) -> None:
    if len(types) not in allowed:
        raise GraphError(f"number of inputs must be {' or '.join(map(str, allowed))}, not {len(types)}")


def rank(what: str, type: TensorType, expected: int) -> None:
    if len(type.shape) != expected:
        raise GraphError(f"{what} must have rank {expected}, not {type}")


def dtype(what: str, type: TensorType, *allowed: DType) -> None:
    if type.dtype not in allowed:
        raise GraphError(f"{what} must be {' or '.join(d.value for d in allowed)}, not {type}")


def number(what: str, type: TensorType) -> None:
    if type.dtype not in NUMBERS:
        raise GraphError(f"{what} must be of numbers to compute with, not {type}")


def same(what: str, type: TensorType, expected: TensorType) -> None:
    if type.logical != expected.logical:
        raise GraphError(f"{what} must be {expected.logical}, not {type.logical}")


def within(what: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise GraphError(f"{what} must be {low}..{high}, not {value}")


def groups(count: int, ins: int, outs: int) -> None:
    if count < 1 or ins % count or outs % count:
        raise GraphError(f"groups must divide {ins} input and {outs} output channels, not be {count}")


def activation(types: Sequence[TensorType], *allowed: DType) -> tuple[int, int, int, int]:
    """The first input is [N,C,H,W] of one of the dtypes; returns its shape."""
    rank("input", types[0], 4)
    dtype("input", types[0], *allowed)
    batch, channels, height, width = types[0].shape
    return batch, channels, height, width


def broadcast(types: Sequence[TensorType]) -> tuple[int, ...]:
    """The shape that all operands broadcast to."""
    try:
        return np.broadcast_shapes(*(t.shape for t in types))
    except ValueError:
        shapes = " and ".join(str(list(t.shape)) for t in types)
        raise GraphError(f"operands must broadcast to one shape, not have {shapes}") from None


def axis(value: int, rank: int) -> int:
    """The axis counted from the front."""
    within("axis", value, -rank, rank - 1)
    return value % rank


def clip_range(lo: int, hi: int, type: DType) -> None:
    low, high = -(1 << (type.bits - 1)), (1 << (type.bits - 1)) - 1
    if not low <= lo <= hi <= high:
        raise GraphError(f"clip range must lie within {low}..{high}, not {lo}..{hi}")


def scale(what: str, value: float) -> None:
    """A positive, finite number that is exactly a float32."""
    if not (0 < value < math.inf and float(np.float32(value)) == value):
        raise GraphError(f"{what} must be a positive finite float32, not {value!r}")


def zero_points(numbers: Sequence[int], dtype: DType) -> None:
    """Raises GraphError unless each is a number of that type."""
    for k, number in enumerate(numbers):
        within(f"zero_points[{k}]", number, *dtype.limits)


def right_shift(amount: int, *, even: bool) -> None:
    """Raises GraphError for no amount of a shift. even: the quotient is to be rounded, by what an immediate adds."""
    within("shift", amount, 1 if even else 0, 14 if even else 31)
