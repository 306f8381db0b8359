"""Instructions and DRAM bytes of ResNet-18's convolutions, held against those of a compiler that was tuned for them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from compiler.tensor.define import Requantize, Tiled, Window, conv2d
from compiler.vta.lower import LaunchBuilder
from compiler.vta.microops import MicroOps
from compiler.vta.schedule import schedule
from compiler.vta.tiling import TilingProblem
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.instructions import Alu, Gemm, Insn, Load, Store

MOST_INSTRUCTIONS, MOST_BYTES = 2.0, 1.5
"""Times those of the table."""


@dataclass(frozen=True)
class Layer:
    """A convolution of a square image, and what its instruction stream counts.

    Source: TVM's tuned schedules for VTA (TopHub), measured. `instructions`, `nbytes` (of DRAM), `gemms` and `alus`
    (micro-ops executed) are of its streams for the default configuration.
    """

    size: int
    channels: int
    outs: int
    kernel: int
    stride: int
    instructions: int
    nbytes: int
    gemms: int
    alus: int

    def __str__(self) -> str:
        return f"{self.size}x{self.size} {self.channels}-{self.outs} {self.kernel}x{self.kernel} by {self.stride}"


LAYERS = [
    Layer(56, 64, 64, 3, 1, 300, 948_448, 451_584, 50_176),
    Layer(56, 64, 128, 3, 2, 180, 820_984, 225_792, 25_088),
    Layer(56, 64, 128, 1, 2, 180, 501_392, 25_088, 25_088),
    Layer(28, 128, 128, 3, 1, 276, 827_184, 451_584, 25_088),
    Layer(28, 128, 256, 3, 2, 148, 749_008, 225_792, 12_544),
    Layer(28, 128, 256, 1, 2, 148, 297_616, 25_088, 12_544),
    Layer(14, 256, 256, 3, 1, 244, 843_216, 451_584, 12_544),
    Layer(14, 256, 512, 3, 2, 127, 1_309_912, 225_792, 6_272),
    Layer(14, 256, 512, 1, 2, 127, 244_880, 25_088, 6_272),
    Layer(7, 512, 512, 3, 1, 223, 2_439_384, 451_584, 6_272),
]


def stream(layer: Layer, config: VTAConfig, *, multiplier: bool) -> list[Insn]:
    """The instructions of the layer alone, with a bias, a shift and the two halves of a clip, as TVM's have."""
    out, pad = layer.size // layer.stride, layer.kernel // 2
    x = Tiled(batches=1, blocks=layer.channels // 16, height=layer.size, width=layer.size, n=1, c=16)
    y = Tiled(batches=1, blocks=layer.outs // 16, height=out, width=out, n=1, c=16)
    window = Window(kernel=(layer.kernel,) * 2, stride=(layer.stride,) * 2, padding=(pad,) * 4)
    proc = conv2d("conv", x, y, window, Requantize(shift=8, low=0, high=127, multiplier=multiplier))
    scheduled = schedule(proc, config, TilingProblem(proc, config).best())
    builder = LaunchBuilder(config, MicroOps(config.uop_depth), 1 << 28)
    builder.layer(scheduled.proc, {parameter.name: at << 24 for at, parameter in enumerate(proc.params)})
    return builder.finish()


def dram_bytes(insns: list[Insn], config: VTAConfig) -> int:
    return sum(
        insn.y_size * insn.x_size * config.dram_elem_bytes(insn.memory_type)
        for insn in insns
        if isinstance(insn, Load | Store)
    )


def trips(insn: Gemm | Alu) -> int:
    return insn.iter_out * insn.iter_in * (insn.uop_end - insn.uop_bgn)


@pytest.mark.parametrize("multiplier", [False, True], ids=["shift", "multiplier"])
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_resnet_18(layer: Layer, multiplier: bool) -> None:
    config = VTAConfig()
    insns = stream(layer, config, multiplier=multiplier)
    assert len(insns) <= MOST_INSTRUCTIONS * layer.instructions
    assert dram_bytes(insns, config) <= MOST_BYTES * layer.nbytes
    # No work is done twice: one GEMM micro-op for each 16x16 products of a position and tap.
    assert sum(trips(insn) for insn in insns if isinstance(insn, Gemm) and not insn.reset) == layer.gemms
    tiles = (layer.size // layer.stride) ** 2 * layer.outs // 16
    assert sum(trips(insn) for insn in insns if isinstance(insn, Alu)) == tiles * (5 if multiplier else 4)


def test_in_total_no_more_than_the_tuned_streams() -> None:
    config = VTAConfig()
    streams = [stream(layer, config, multiplier=False) for layer in LAYERS]
    assert sum(map(len, streams)) <= sum(layer.instructions for layer in LAYERS)
    assert sum(dram_bytes(insns, config) for insns in streams) <= sum(layer.nbytes for layer in LAYERS)
