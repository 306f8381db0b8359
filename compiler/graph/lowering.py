"""How a node becomes a tensor-IR procedure: the tensors' places in memory, and what `Op.lower` gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import LoweringError
from compiler.tensor.ir import DType, Proc
from compiler.tensor.tiles import Tiled, Weighted
from vta_hw.spec.config import VTAConfig

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """The tile of the machine: images, input channels and output channels of one matrix product.

    dot: neighbouring channels whose products a CPU sums at a time; 0 for a machine of matrix products. weight_bits: of
    what activations are multiplied by. overlap: whether it adds and scales beside its matrix products,
    at no cost in time.
    """

    batch: int = 1
    block_in: int = 16
    block_out: int = 16
    dot: int = 0
    weight_bits: int = 8
    overlap: bool = False

    @staticmethod
    def of(config: VTAConfig) -> Blocks:
        """Those of a machine."""
        return Blocks(
            batch=config.batch,
            block_in=config.block_in,
            block_out=config.block_out,
            weight_bits=config.wgt_bits,
            overlap=config.overlap,
        )


@dataclass(frozen=True)
class Lowered:
    """A definition, and what its parameters are.

    arguments: for each parameter but the last, which is the result: the position of the node's input, or a constant
    array in the shape of the parameter. Parameters view the tensors' bytes in a shape of their own.
    """

    proc: Proc
    arguments: tuple[int | Array, ...]


@dataclass(frozen=True)
class Placed:
    """An operand or result of a node being lowered: logical shape, tile in memory, value if constant, and what its
    integers are known to be within."""

    shape: tuple[int, ...]
    dtype: DType
    tile: tuple[int, int] | None
    value: Array | None = None
    limits: tuple[int, int] | None = None

    @property
    def image(self) -> tuple[int, int, int, int]:
        """The shape as [N,C,H,W]; trailing dimensions that are missing count one."""
        if len(self.shape) > 4:
            raise LoweringError(f"Tensor must have at most 4 dimensions, not {self.shape}")
        n, c, h, w = (*self.shape, 1, 1, 1, 1)[:4]
        return n, c, h, w

    def tiled(self, channels: int, batch: int) -> Tiled:
        """The tensor as tiles of `batch` images by `channels`, several to a stored block where the block is wider."""
        if self.tile is None:
            raise LoweringError(f"Tensor of shape {self.shape} must be packed to be computed on")
        n, c = self.tile
        if n != batch or c % channels or (n > 1 and c != channels):
            raise LoweringError(f"Tensor packed by {n}x{c} must consist of tiles of {batch}x{channels}")
        images, count, height, width = self.image
        return Tiled(
            batches=-(-images // n),
            blocks=-(-count // c),
            height=height,
            width=width,
            subs=c // channels,
            n=n,
            c=channels,
            dtype=self.dtype,
            limits=self.limits,
        )

    def in_blocks(self) -> Tiled:
        """The tensor in blocks of channels, each pixel's a vector; row-major ones are blocks of one channel."""
        n, c = packed_tile(self)
        if n != 1:
            raise LoweringError(f"Tensor must have tiles of one image, not {n}x{c}")
        images, count, height, width = self.image
        return Tiled(
            batches=images, blocks=-(-count // c), height=height, width=width, n=1, c=c, dtype=self.dtype
        )

    def is_read_by_products(self, blocks: Blocks) -> bool:
        """Whether the tensor lies in tiles that a matrix product reads."""
        if self.tile is None:
            return False
        n, c = self.tile
        return n == blocks.batch and c % blocks.block_in == 0 and (n == 1 or c == blocks.block_in)

    def constant(self) -> Array:
        """The value. Raises LoweringError if it is computed."""
        if self.value is None:
            raise LoweringError(f"Operand of shape {self.shape} must be constant to be packed at compile time")
        return self.value


@dataclass(frozen=True)
class GroupedWeights:
    """Weights [O,I/groups,KH,KW] of a convolution from `x` to `y`, which become tiles.

    Products of tiles sum over whole blocks of channels: where groups meet in a tile, zeros stand for what is not
    connected.
    """

    w: Array
    groups: int
    x: Tiled
    y: Tiled

    @property
    def blockwise(self) -> bool:
        """Whether each block of output channels reads only the block of input channels at its own place."""
        outs, ins = self.w.shape[:2]
        block = self.x.subs * self.x.c
        alike = self.x.blocks == self.y.blocks and block == self.y.subs * self.y.c
        return alike and self.groups > 1 and outs == ins * self.groups and block % ins == 0

    def packed(self) -> Array:
        """[blocks_y, subs_y, blocks_x, subs_x, KH, KW, c_y, c_x], with one for blocks_x if `blockwise`.

        Missing channels become zero.
        """
        return self._tiles(1 if self.blockwise else self.x.blocks)

    def _tiles(self, blocks: int) -> Array:
        x, y = self.x, self.y
        outs, ins, *kernel = self.w.shape
        full = np.zeros((y.blocks * y.subs * y.c, blocks * x.subs * x.c, *kernel), self.w.dtype)
        row = np.arange(outs)[:, None]
        column = row // (outs // self.groups) * ins + np.arange(ins)
        full[row, column % full.shape[1]] = self.w
        tiles = full.reshape(y.blocks, y.subs, y.c, blocks, x.subs, x.c, *kernel)
        return np.ascontiguousarray(tiles.transpose(0, 1, 3, 4, 6, 7, 2, 5))

    def by_neighbours(self, count: int) -> Array:
        """[blocks_y, subs_y, blocks_x, KH, KW, c_x/count, c_y, count] of an `x` without subs, as `packed`."""
        tiles = self.packed()[:, :, :, 0]
        split = tiles.reshape(*tiles.shape[:-1], self.x.c // count, count)
        return np.ascontiguousarray(np.moveaxis(split, -2, -3))

    def by_input(self) -> Array:
        """[blocks_y, blocks_x, KH, KW, c_x, c_y], of every output by every input channel; missing ones become zero."""
        return np.ascontiguousarray(self._tiles(self.x.blocks)[:, 0, :, 0].swapaxes(-1, -2))


def diagonal(m: Array, r: Placed, y: Tiled, blocks: Blocks) -> tuple[Weighted, Array]:
    """A residual `r` of the result `y` as what weights multiply, and the weights: each channel by its `m` [O]."""
    if blocks.dot:
        x = replace(r.tiled(y.c, y.n), height=y.height, width=y.width)
        source = Weighted(x=x, weight=DType(m.dtype.name), channelwise=True, blockwise=True)
        return source, pack_channels(m, y)[:, :, 0].reshape(y.blocks, y.subs, 1, 1, y.c)
    tiled = r.tiled(blocks.block_in, blocks.batch)
    weights = GroupedWeights(m.reshape(-1, 1, 1, 1), len(m), tiled, y)
    return Weighted(x=tiled, weight=DType(m.dtype.name), blockwise=weights.blockwise), weights.packed()


def weight_type(blocks: Blocks) -> DType:
    """What holds a weight of the machine."""
    return DType.INT16 if blocks.weight_bits == 16 else DType.INT8


def unit_tiles(x: Tiled, y: Tiled, blocks: Blocks) -> Array:
    """Weights [subs_y, subs_x, c_y, c_x] that make a block of channels of `y` of the same block of `x`."""
    unit = np.eye(x.subs * x.c, dtype=weight_type(blocks).numpy)
    tiles = unit.reshape(y.subs, y.c, x.subs, x.c)
    return np.ascontiguousarray(tiles.transpose(0, 2, 1, 3))


def pack_channels(values: Array, y: Tiled) -> Array:
    """[O] to [blocks, subs, n, c], each channel repeated over the rows of a tile."""
    padded = np.zeros(y.blocks * y.subs * y.c, values.dtype)
    padded[: len(values)] = values
    tiles = padded.reshape(y.blocks, y.subs, 1, y.c)
    return np.ascontiguousarray(np.broadcast_to(tiles, (y.blocks, y.subs, y.n, y.c)))


def pack_depthwise(w: Array, y: Tiled) -> Array:
    """Weights [O,1,KH,KW] of a channel each to [blocks_y, 1, KH, KW, 1, c_y]; missing channels become zero."""
    outs, _, *kernel = w.shape
    full = np.zeros((y.blocks * y.c, *kernel), w.dtype)
    full[:outs] = w[:, 0]
    blocks = full.reshape(y.blocks, 1, y.c, *kernel, 1)
    return np.ascontiguousarray(blocks.transpose(0, 1, 3, 4, 5, 2))


def pack_numbers(values: Sequence[int], y: Tiled) -> Array:
    """Numbers to int32 [numbers, n, c], each repeated over a tile."""
    numbers = np.array(values, np.int32).reshape(-1, 1, 1)
    return np.ascontiguousarray(np.broadcast_to(numbers, (len(values), y.n, y.c)))


def pack_positions(values: Array, y: Tiled) -> Array:
    """[OH,OW] to [OH, OW, n, c], each repeated over the whole tile."""
    return np.ascontiguousarray(np.broadcast_to(values[:, :, None, None], (*values.shape, y.n, y.c)))


def packed_tile(operand: Placed) -> tuple[int, int]:
    """The tile of a packed operand; one element if it lies row-major."""
    return operand.tile or (1, 1)


def stored_elements(operand: Placed) -> int:
    """Number of elements in memory, those that fill up tiles among them."""
    if operand.tile is None:
        return elements([operand])
    images, channels, height, width = operand.image
    n, c = operand.tile
    return -(-images // n) * n * -(-channels // c) * c * height * width


def elements(operands: Sequence[Placed]) -> int:
    """Number of elements, the same for all operands."""
    return int(np.prod(operands[0].shape, dtype=np.int64))
