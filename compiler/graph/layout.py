"""How a logical [N,C,H,W] tensor lies in memory: tiles of n images by c channels, the elements of VTA's scratchpads.

The order (N/n, C/c, H, W, n, c) is that of VTA spec 8.5; `lowering` packs the parameters of layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Layout:
    """Tile of `n` images by `c` channels, both at least 1."""

    n: int
    c: int

    def __post_init__(self) -> None:
        if self.n < 1 or self.c < 1:
            raise ValueError(f"Layout must have tiles of at least 1x1, not {self.n}x{self.c}")

    def __str__(self) -> str:
        return f"n{self.n}c{self.c}"

    def physical(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape in memory of a logical [N,C,H,W]: (ceil(N/n), ceil(C/c), H, W, n, c)."""
        batch, channels, height, width = shape
        return (-(-batch // self.n), -(-channels // self.c), height, width, self.n, self.c)


def pack(array: NDArray[T], layout: Layout) -> NDArray[T]:
    """Logical [N,C,H,W] -> contiguous [N/n,C/c,H,W,n,c]; missing images and channels become zeros."""
    outer_n, outer_c, height, width, n, c = layout.physical(array.shape)
    padded = np.zeros((outer_n * n, outer_c * c, height, width), array.dtype)
    padded[: array.shape[0], : array.shape[1]] = array
    tiles = padded.reshape(outer_n, n, outer_c, c, height, width)
    return np.ascontiguousarray(tiles.transpose(0, 2, 4, 5, 1, 3))


def unpack(array: NDArray[T], shape: tuple[int, ...]) -> NDArray[T]:
    """Inverse of `pack`: [N/n,C/c,H,W,n,c] -> contiguous logical `shape`; what padding holds is ignored."""
    outer_n, outer_c, height, width, n, c = array.shape
    if Layout(n, c).physical(shape) != array.shape:
        raise ValueError(f"Packed array of logical shape {shape} must have shape {Layout(n, c).physical(shape)}, "
                         f"not {array.shape}")
    logical = array.transpose(0, 4, 1, 5, 2, 3).reshape(outer_n * n, outer_c * c, height, width)
    return np.ascontiguousarray(logical[: shape[0], : shape[1]])
