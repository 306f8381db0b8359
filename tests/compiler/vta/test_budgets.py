"""Cycles and DRAM bytes of ResNet-18's convolutions, held against those of a compiler that was tuned for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from compiler.tensor.define import Requantize, Rescale, conv2d, rescaled_conv2d
from compiler.tensor.ir import Proc
from compiler.tensor.tiles import Tiled, Weighted, Window
from compiler.vta.lower import LaunchBuilder
from compiler.vta.microops import MicroOps
from compiler.vta.schedule import schedule
from compiler.vta.tiling import TilingProblem
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.instructions import Alu, Gemm, GemmOverwrite, Insn, Load, MemoryType, Store
from vta_hw.spec.isa import ISA
from vta_sim.cycle.engine import CycleSimulator
from vta_sim.memory import Memory
from vta_sim.timing import MemoryTiming

_UOP_ADDRESS, _INSN_ADDRESS = 1 << 28, 1 << 29

MOST_TRAFFIC, MOST_TRAFFIC_IN_ALL = 1.25, 1.05
"""DRAM bytes of operands, times those of each tensor once: of a layer, and of all."""

TOTAL, TOTAL_OVERLAP = 7_231_477, 6_876_744
TOTAL_EXTENDED, TOTAL_EXTENDED_OVERLAP = 6_842_179, 6_721_239
"""Cycles of all ten shapes with their counts."""

MOST_FETCHED = 0.04
"""Bytes of instructions, as a part of those of operands."""


@dataclass(frozen=True)
class Layer:
    """A convolution of a square image, how often ResNet-18 has it, and what TVM's stream for it counts.

    Source: TVM's tuned schedules for VTA (TopHub), measured. `nbytes` (of DRAM), `gemms` and `alus` (micro-ops
    executed) are of its streams for the default configuration. cycles: those that our stream takes.
    """

    size: int
    channels: int
    outs: int
    kernel: int
    stride: int
    count: int
    nbytes: int
    gemms: int
    alus: int
    cycles: int

    @property
    def compulsory(self) -> int:
        """Bytes of input, weights, bias and output."""
        weights = self.channels * self.outs * self.kernel**2
        out = self.size // self.stride
        return self.size**2 * self.channels + weights + 4 * self.outs + out**2 * self.outs

    def __str__(self) -> str:
        return f"{self.size}x{self.size} {self.channels}-{self.outs} {self.kernel}x{self.kernel} by {self.stride}"


LAYERS = [
    Layer(56, 64, 64, 3, 1, 4, 948_448, 451_584, 50_176, 516_832),
    Layer(56, 64, 128, 3, 2, 1, 820_984, 225_792, 25_088, 260_809),
    Layer(56, 64, 128, 1, 2, 1, 501_392, 25_088, 25_088, 58_926),
    Layer(28, 128, 128, 3, 1, 3, 827_184, 451_584, 25_088, 487_539),
    Layer(28, 128, 256, 3, 2, 1, 749_008, 225_792, 12_544, 244_576),
    Layer(28, 128, 256, 1, 2, 1, 297_616, 25_088, 12_544, 45_873),
    Layer(14, 256, 256, 3, 1, 3, 843_216, 451_584, 12_544, 470_232),
    Layer(14, 256, 512, 3, 2, 1, 1_309_912, 225_792, 6_272, 236_736),
    Layer(14, 256, 512, 1, 2, 1, 244_880, 25_088, 6_272, 48_316),
    Layer(7, 512, 512, 3, 1, 3, 2_439_384, 451_584, 6_272, 465_200),
]


def definition(layer: Layer, *, multiplier: bool, extended: bool) -> Proc:
    """The layer with a bias, a shift and the halves of a clip, as TVM's have, or with what REQUANT does."""
    out, pad = layer.size // layer.stride, layer.kernel // 2
    x = Tiled(batches=1, blocks=layer.channels // 16, height=layer.size, width=layer.size, n=1, c=16)
    y = Tiled(batches=1, blocks=layer.outs // 16, height=out, width=out, n=1, c=16)
    window = Window(kernel=(layer.kernel,) * 2, stride=(layer.stride,) * 2, padding=(pad,) * 4)
    if extended:
        return rescaled_conv2d("conv", Weighted(x=x, window=window), y, Rescale(relu=True))
    return conv2d("conv", Weighted(x=x, window=window), y, Requantize(shift=8, low=0, high=127, multiplier=multiplier))


def stream(layer: Layer, config: VTAConfig, *, multiplier: bool) -> tuple[list[Insn], NDArray[np.uint32]]:
    """Instructions and micro-ops of the layer alone."""
    proc = definition(layer, multiplier=multiplier, extended=config.is_extended)
    scheduled = schedule(proc, config, TilingProblem(proc, config).best())
    builder = LaunchBuilder(config, MicroOps(config.uop_depth), _UOP_ADDRESS)
    builder.layer(scheduled.proc, {parameter.name: at << 24 for at, parameter in enumerate(proc.params)})
    return builder.finish(), builder.uops.area


def dram_bytes(insns: list[Insn], config: VTAConfig) -> int:
    return sum(
        insn.y_size * insn.x_size * config.dram_elem_bytes(insn.memory_type)
        for insn in insns
        if isinstance(insn, Load | Store) and insn.memory_type != MemoryType.UOP
    )


def trips(insn: Gemm | GemmOverwrite | Alu) -> int:
    return insn.iter_out * insn.iter_in * (insn.uop_end - insn.uop_bgn)


@pytest.mark.parametrize("multiplier", [False, True], ids=["shift", "multiplier"])
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_resnet_18(layer: Layer, multiplier: bool) -> None:
    config = VTAConfig()
    insns, _ = stream(layer, config, multiplier=multiplier)
    moved = dram_bytes(insns, config)
    assert moved <= layer.nbytes
    assert moved <= MOST_TRAFFIC * layer.compulsory
    assert 16 * len(insns) <= MOST_FETCHED * moved
    # No work is done twice: one GEMM micro-op for each 16x16 products of a position and tap.
    assert sum(trips(insn) for insn in insns if isinstance(insn, Gemm) and not insn.reset) == layer.gemms
    tiles = (layer.size // layer.stride) ** 2 * layer.outs // 16
    assert sum(trips(insn) for insn in insns if isinstance(insn, Alu)) == tiles * (5 if multiplier else 4)


def cycles(layer: Layer, config: VTAConfig) -> int:
    """Cycles of the layer on the cycle engine, behind a memory of latency 32."""
    insns, uops = stream(layer, config, multiplier=False)
    memory = Memory()
    memory.write(_UOP_ADDRESS, uops.astype("<u4").tobytes())
    memory.write(_INSN_ADDRESS, ISA(config).encode_program(insns).astype("<u8").tobytes())
    simulator = CycleSimulator(config, memory=memory, timing=MemoryTiming(latency=32))
    return simulator.launch(_INSN_ADDRESS, len(insns)).counters["cycle_count"]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_cycles_of_resnet_18(layer: Layer) -> None:
    """On TVM's instruction set a tile costs a reset and four ALU steps besides its products; nothing overlaps them."""
    tiles = (layer.size // layer.stride) ** 2 * layer.outs // 16
    least = layer.gemms + 5 * tiles
    assert least < cycles(layer, VTAConfig()) == layer.cycles


def test_traffic_of_resnet_18_in_all() -> None:
    """TVM's streams: 1.35."""
    config = VTAConfig()
    moved = sum(dram_bytes(stream(layer, config, multiplier=False)[0], config) for layer in LAYERS)
    assert moved <= MOST_TRAFFIC_IN_ALL * sum(layer.compulsory for layer in LAYERS)


@pytest.mark.parametrize(
    ("isa", "overlap", "total"),
    [
        ("tvm", False, TOTAL),
        ("tvm", True, TOTAL_OVERLAP),
        ("extended", False, TOTAL_EXTENDED),
        ("extended", True, TOTAL_EXTENDED_OVERLAP),
    ],
)
def test_cycles_of_resnet_18_in_all(isa: str, overlap: bool, total: int) -> None:
    """Published, with tuned schedules on the first: 7,729,601 (pull request 30 of tvm-vta). Products: 6,623,232."""
    config = VTAConfig(isa=isa, overlap=overlap)
    assert sum(layer.count * cycles(layer, config) for layer in LAYERS) == total


def test_the_extended_set_does_without_resets_and_with_one_alu_step() -> None:
    for layer in LAYERS:
        insns, _ = stream(layer, VTAConfig(isa="extended"), multiplier=False)
        products = [insn for insn in insns if isinstance(insn, Gemm | GemmOverwrite)]
        assert not any(isinstance(insn, Gemm) and insn.reset for insn in products)
        assert sum(trips(insn) for insn in products) == layer.gemms
        tiles = (layer.size // layer.stride) ** 2 * layer.outs // 16
        assert sum(trips(insn) for insn in products if isinstance(insn, GemmOverwrite)) == tiles
        assert sum(trips(insn) for insn in insns if isinstance(insn, Alu)) == tiles
