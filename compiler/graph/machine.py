"""What the accelerator of a configuration can do with activations, besides multiplying them by constants."""

from __future__ import annotations

from collections.abc import Sequence

from compiler.graph.ir import Op, TensorType
from compiler.graph.ops.conv import ChannelMatMul
from compiler.graph.ops.interleave import Interleave
from compiler.graph.ops.move import Concat, Pad, Slice, Transpose
from compiler.graph.ops.qmatmul import unfit
from compiler.graph.ops.upsample import QInterpolate, Repeat
from vta_hw.spec.config import VTAConfig


def adds_activations(config: VTAConfig) -> bool:
    """Whether the accumulator can load activations: ACC_8BIT, the one load that widens, reads 8-bit scalars."""
    return config.inp_bits == 8


def reads_own_tiles(config: VTAConfig) -> bool:
    """Whether what a convolution makes is what another reads, and its multipliers move and scale activations."""
    return config.batch == 1 or config.block_in == config.block_out


def why_not_weights(config: VTAConfig) -> str:
    """Why tiles of activations, positions by channels, are no tiles of weights on this machine; empty if they are."""
    if config.inp_bits != 8 or config.wgt_bits != 8:  # 4-bit ones share bytes
        return f"{config.inp_bits}-bit activations are no {config.wgt_bits}-bit weights"
    if config.block_in != config.block_out:
        return f"{config.block_in} channels are no {config.block_out} rows of weights"
    return ""


def why_not_multiplied(op: ChannelMatMul, types: Sequence[TensorType], config: VTAConfig) -> str:
    """Why the accelerator cannot compute the product of two activations; empty if it can."""
    x, w = (t.shape for t in types)
    return why_not_weights(config) or unfit(x, w, op.groups, (config.batch, config.block_in))


def _selects_pixels(op: Slice, shape: Sequence[int]) -> bool:
    """Whether a slice of a value [N,C,H,W] takes channels, rows and columns of all images."""
    return len(shape) == 4 and op.shape[0] == shape[0] and op.starts[0] == 0


def why_not_moved(op: Op, shape: Sequence[int], config: VTAConfig) -> str:
    """Why the accelerator cannot move elements of activations, the first of that shape, as `op` does; empty if it can.

    What it moves goes through its multipliers, so that it must read the tiles that it makes.
    """
    match op:
        case QInterpolate() if op.largest_weight >= 1 << (config.wgt_bits - 1):
            return f"weights of up to {op.largest_weight} are no weights of {config.wgt_bits} bits"
        case Concat(axis=1 | 2 | 3) | Transpose(order=(0, 1, 3, 2)) | Repeat() | QInterpolate() | Interleave():
            pass
        case Slice() if _selects_pixels(op, shape):
            pass
        case Pad(value=0.0, before=(0, _, _, _), after=(0, _, _, _)):
            pass
        case Pad() if op.is_border:
            pass
        case _:
            return "moves single elements between tiles"
    if not reads_own_tiles(config):
        return f"tiles of {config.block_out} channels, which are made, are not read as tiles of {config.block_in}"
    return ""
