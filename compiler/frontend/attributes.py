"""The attributes of one ONNX node, each read once with its type; what is left over is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import onnx
from numpy.typing import NDArray

from compiler.errors import FrontendError
from compiler.frontend.tensors import decode

MAX_EXTENT: Final = 4096
"""Of kernels, strides, pads and dilations."""


class Attributes:
    def __init__(self, node: onnx.NodeProto, folder: Path | None) -> None:
        self._folder = folder
        self._left: dict[str, onnx.AttributeProto] = {}
        for attribute in node.attribute:
            if attribute.name in self._left:
                raise FrontendError(f"attribute {attribute.name!r} must be given once")
            self._left[attribute.name] = attribute

    def _take(self, name: str, kind: int) -> onnx.AttributeProto | None:
        attribute = self._left.pop(name, None)
        if attribute is not None and attribute.type != kind:
            expected = onnx.AttributeProto.AttributeType.Name(kind)
            raise FrontendError(f"attribute {name!r} must be of type {expected}")
        return attribute

    def integer(self, name: str, default: int, *, low: int = -(1 << 31), high: int = (1 << 31) - 1) -> int:
        attribute = self._take(name, onnx.AttributeProto.INT)
        value = default if attribute is None else int(attribute.i)
        if not low <= value <= high:
            raise FrontendError(f"attribute {name!r} must be {low}..{high}, not {value}")
        return value

    def integers(self, name: str) -> tuple[int, ...] | None:
        attribute = self._take(name, onnx.AttributeProto.INTS)
        return None if attribute is None else tuple(attribute.ints)

    def extents(self, name: str, count: int, default: int | None, *, low: int) -> tuple[int, ...]:
        """`count` integers in low..MAX_EXTENT; `default` each if absent, or refused when that is None."""
        values = self.integers(name)
        if values is None:
            if default is None:
                raise FrontendError(f"attribute {name!r} must be given")
            return (default,) * count
        if len(values) != count or not all(low <= value <= MAX_EXTENT for value in values):
            raise FrontendError(f"attribute {name!r} must have {count} values in {low}..{MAX_EXTENT}, not {values}")
        return values

    def number(self, name: str, default: float) -> float:
        attribute = self._take(name, onnx.AttributeProto.FLOAT)
        value = default if attribute is None else float(attribute.f)
        if not math.isfinite(value):
            raise FrontendError(f"attribute {name!r} must be finite, not {value}")
        return value

    def peek_number(self, name: str, default: float) -> float:
        """A number, an integer or not, that is still to be read."""
        attribute = self._left.get(name)
        return default if attribute is None else attribute.i or attribute.f

    def string(self, name: str, default: str) -> str:
        attribute = self._take(name, onnx.AttributeProto.STRING)
        return default if attribute is None else attribute.s.decode("ascii", "backslashreplace")

    def tensor(self, name: str) -> NDArray[Any] | None:
        attribute = self._take(name, onnx.AttributeProto.TENSOR)
        return None if attribute is None else decode(attribute.t, folder=self._folder)

    def list_of_numbers(self, name: str) -> tuple[float, ...] | None:
        attribute = self._take(name, onnx.AttributeProto.FLOATS)
        return None if attribute is None else tuple(attribute.floats)

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def finish(self) -> None:
        """Raises FrontendError when an attribute was not read: ignoring it could change the meaning of the node."""
        for name in self._left:
            raise FrontendError(f"attribute {name!r} is not supported")
