"""Between real numbers and the integers that a model has of them, where the graph has both."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.frontend.importer import Importer
from compiler.graph.ir import Op
from compiler.graph.ops.elementwise import Cast, Clip, Pointwise
from compiler.tensor.ir import DType

Parameter = NDArray[np.float32]


def encode(
    importer: Importer, value: str, output: str, name: str, *, scale: Parameter, zero: NDArray[Any], dtype: DType
) -> None:
    """Add what computes ``clip(rint(value / scale) + zero)`` as an integer of 8 or 16 bits: `output`, of node `name`.

    scale and zero broadcast to the value.
    """
    low, high = dtype.limits
    steps: list[tuple[Op, NDArray[Any] | None]] = [
        (Pointwise(function="divide"), scale),
        (Pointwise(function="round"), None),
        (Pointwise(function="add"), zero),
        (Clip(lo=low, hi=high), None),
    ]
    importer.add(Cast(dtype=dtype), (_through(importer, value, output, name, steps),), output, name)


def decode(importer: Importer, value: str, output: str, name: str, *, scale: Parameter, zero: NDArray[Any]) -> None:
    """Add what computes ``(value - zero) * scale``, the reals that integers stand for; else as `encode`."""
    real = importer.add(Cast(dtype=DType.FLOAT32), (value,), importer.fresh(f"{output}.cast"), name)
    steps: list[tuple[Op, NDArray[Any] | None]] = [(Pointwise(function="subtract"), zero)]
    real = _through(importer, real, output, name, steps)
    factor = importer.constant(scale, f"{output}.scale")
    importer.add(Pointwise(function="multiply"), (real, factor), output, name)


def _through(
    importer: Importer, value: str, output: str, name: str, steps: list[tuple[Op, NDArray[Any] | None]]
) -> str:
    """The value behind operations that each may have a constant as second operand."""
    for op, operand in steps:
        constants = () if operand is None else (importer.constant(operand.astype(np.float32), f"{output}.constant"),)
        value = importer.add(op, (value, *constants), importer.fresh(f"{output}.{op.kind}"), name)
    return value
