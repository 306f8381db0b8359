"""Geometry of sliding windows over [N,C,H,W], shared by convolutions and pools."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from compiler.errors import GraphError
from compiler.graph.ir import Array
from compiler.tensor import tiles

Pair = tuple[int, int]
Quad = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class Window(tiles.Window):
    """That of the definitions, with what graph ops ask of it.

    kernel, stride, dilation: (vertical, horizontal). padding: (top, left, bottom, right), in elements.
    """

    @property
    def is_pixel(self) -> bool:
        """Whether each window is the pixel at its own place."""
        return (self.kernel, self.stride, self.padding) == ((1, 1), (1, 1), (0, 0, 0, 0))

    @property
    def span(self) -> Pair:
        """Rows and columns from the first to the last tap, both included."""
        return (self.kernel[0] - 1) * self.dilation[0] + 1, (self.kernel[1] - 1) * self.dilation[1] + 1

    def output(self, height: int, width: int) -> Pair:
        """Rows and columns of the result. Raises GraphError for attributes out of range and for an empty result."""
        for what, values in (("kernel", self.kernel), ("stride", self.stride), ("dilation", self.dilation)):
            if min(values) < 1:
                raise GraphError(f"{what} must be at least 1 in both directions, not {values}")
        if min(self.padding) < 0:
            raise GraphError(f"padding must not be negative, not {self.padding}")
        top, left, bottom, right = self.padding
        padded = height + top + bottom, width + left + right
        if padded[0] < self.span[0] or padded[1] < self.span[1]:
            raise GraphError(f"window of {self.span[0]}x{self.span[1]} must fit in the padded input, "
                             f"not exceed its {padded[0]}x{padded[1]}")
        return (padded[0] - self.span[0]) // self.stride[0] + 1, (padded[1] - self.span[1]) // self.stride[1] + 1

    def taps(self, array: Array, fill: float) -> Iterator[tuple[int, int, Array]]:
        """(row, column, view [N,C,OH,OW]) for each tap of the kernel, row by row; `fill` is what padding holds."""
        height, width = self.output(*array.shape[2:])
        top, left, bottom, right = self.padding
        widths = ((0, 0), (0, 0), (top, bottom), (left, right))
        padded = np.pad(array, widths, constant_values=fill) if any(self.padding) else array
        for row in range(self.kernel[0]):
            for column in range(self.kernel[1]):
                y, x = row * self.dilation[0], column * self.dilation[1]
                rows = slice(y, y + (height - 1) * self.stride[0] + 1, self.stride[0])
                columns = slice(x, x + (width - 1) * self.stride[1] + 1, self.stride[1])
                yield row, column, padded[:, :, rows, columns]

    def covered(self, height: int, width: int) -> Array:
        """int32 [OH,OW]: how many taps of each window lie inside the input."""
        rows, columns = self.output(height, width)
        return np.multiply.outer(self._covered(0, height, rows), self._covered(1, width, columns))

    def _covered(self, axis: int, size: int, outputs: int) -> Array:
        """The same along one axis, int32 [outputs]."""
        first = np.arange(outputs) * self.stride[axis] - self.padding[axis]
        taps = first[:, None] + np.arange(self.kernel[axis]) * self.dilation[axis]
        inside: Array = np.count_nonzero((taps >= 0) & (taps < size), axis=1)
        return inside.astype(np.int32)
