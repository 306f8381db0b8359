"""Minimal filtering: the transforms between which a 3x3 convolution is a product at each point, and where it pays.

The transforms are those of Toom and Cook: polynomials are multiplied by way of their values (Lavin and Gray, "Fast
Algorithms for Convolutional Neural Networks", 2015).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.tensor.tiles import Tiled, Weighted

Array = NDArray[Any]
Row = tuple[Fraction, ...]
Matrix = tuple[Row, ...]

KERNEL = 3


@dataclass(frozen=True, kw_only=True)
class Minimal:
    """F(m x m, 3 x 3), of the values at zero, at each of `pairs` and its negative, and the leading coefficients.

    Pairs are made of few bits, so that no coefficient of the input's and the result's transform is rounded, and lie
    around one, so that sums grow little (Barabasz and others, "Error Analysis and Improving the Accuracy of Winograd
    Convolution for Deep Neural Networks", 2020).
    """

    pairs: tuple[Fraction, ...]

    @property
    def outputs(self) -> int:
        """m."""
        return 2 * len(self.pairs)

    @property
    def size(self) -> int:
        """Rows and columns of what a tile reads, and points of each."""
        return self.outputs + KERNEL - 1

    @property
    def points(self) -> int:
        return self.size**2

    def steps(self, matrix: Matrix) -> int:
        """About how many sums it takes to transform a tile by `matrix`, along both axes."""
        terms = sum(sum(1 for factor in row if factor) for row in matrix) - len(matrix)
        return terms * (len(matrix[0]) + len(matrix))

    @property
    def _places(self) -> tuple[Fraction, ...]:
        return (Fraction(0), *(place for pair in self.pairs for place in (pair, -pair)))

    @property
    def data(self) -> Matrix:
        """The transform of a column of the input: [size, size]."""
        places = self._places
        rows = [_polynomial([q for q in places if q != p]) for p in places]
        return (*((*row, Fraction(0)) for row in rows), _polynomial(places))

    @property
    def weights(self) -> Matrix:
        """The transform of a column of the kernel: [size, 3]."""
        places = self._places
        scale = [math.prod((p - q for q in places if q != p), start=Fraction(1)) for p in places]
        rows = [tuple(p**k / s for k in range(KERNEL)) for p, s in zip(places, scale, strict=True)]
        return (*rows, (Fraction(0), Fraction(0), Fraction(1)))

    @property
    def result(self) -> Matrix:
        """The transform of a column of points: [m, size]."""
        last = self.outputs - 1
        return tuple((*(p**k for p in self._places), Fraction(k == last)) for k in range(last + 1))


def _polynomial(roots: Sequence[Fraction]) -> Row:
    """Coefficients, from that of degree zero on."""
    row = [Fraction(1)]
    for root in roots:
        row = [a - root * b for a, b in zip([Fraction(0), *row], [*row, Fraction(0)], strict=True)]
    return tuple(row)


F2 = Minimal(pairs=(Fraction(1),))
F4 = Minimal(pairs=(Fraction(3, 4), Fraction(3, 2)))


def transform_weights(w: Array, scheme: Minimal) -> Array:
    """w [blocks_y, blocks_x, 3, 3, c_x, c_y] -> [blocks_y, points, blocks_x, c_x, c_y] float32, rounded once."""
    taps = w.astype(np.float64).reshape(*w.shape[:2], KERNEL**2, *w.shape[4:])
    values = np.empty((len(w), scheme.points, w.shape[1], *w.shape[4:]), np.float32)
    for point, (row, column) in enumerate(itertools.product(scheme.weights, repeat=2)):
        factors = [float(a * b) for a, b in itertools.product(row, column)]  # in this order on every machine
        values[:, point] = sum(factor * taps[:, :, tap] for tap, factor in enumerate(factors) if factor)
    return values


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How the result is cut: `strips` of `rows` x `columns` tiles of a scheme. The last may reach beyond its end."""

    scheme: Minimal
    strips: int
    rows: int
    columns: int

    @property
    def tiles(self) -> int:
        """In a strip."""
        return self.rows * self.columns


_STRIP = 128 * 1024
"""Bytes of a transformed strip, if there can be several: a part of a cache of the second level."""
_FEWEST = 4
"""Strips that are worth it: threads share them."""
_READ = 15
"""Products that take as long as it does to get a weight from memory."""
_SUM = 2
"""Products that take as long as a step of a transform, with what it loads and stores."""


def best_tiling(source: Weighted, y: Tiled) -> Tiling | None:
    """The tiles in which a convolution takes the least time; None if it takes less without, or cannot have any."""
    x, window = source.x, source.window
    can = window.kernel == (KERNEL, KERNEL) and window.stride == window.dilation == (1, 1) and not source.blockwise
    if not can or x.c != y.c:
        return None
    ins, outs = x.blocks * x.c, y.blocks * y.c
    times: dict[Tiling | None, float] = {None: KERNEL**2 * ins * outs * (x.batches * y.height * y.width + _READ)}
    for scheme in (F2, F4):
        tiling = _in_strips(scheme, x, y)
        tiles = x.batches * tiling.strips * tiling.tiles
        steps = ins * scheme.steps(scheme.data) + outs * scheme.steps(scheme.result)
        times[tiling] = scheme.points * ins * outs * (tiles + _READ) + _SUM * tiles * steps
    return min(times, key=lambda tiling: times[tiling])


def _in_strips(scheme: Minimal, x: Tiled, y: Tiled) -> Tiling:
    """All in one strip where the weights are more than what is transformed, so that they are read once."""
    rows, columns = -(-y.height // scheme.outputs), -(-y.width // scheme.outputs)
    row = scheme.points * columns * x.blocks * x.c * 4
    weights = scheme.points * x.blocks * x.c * y.blocks * y.c * 4
    strips = -(-rows // max(_STRIP // row, 1))
    if weights > rows * row or strips < _FEWEST:
        strips = 1
    together = -(-rows // strips)
    return Tiling(scheme=scheme, strips=-(-rows // together), rows=together, columns=columns)
