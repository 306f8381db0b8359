"""What networks gain by cross-layer equalisation, as they are and with channels that are far apart.

    python bench/equalisation.py [--json] [NETWORK ...]

The networks, calibrations and inputs are those of bench/accuracy.py. `apart`: log2 of how far apart channels between
two convolutions are made beforehand, by random powers of two that leave the float network what it is to the last bit;
all that is lost, 8 bits lose. Channels before a clip that is not at 0 stay, which are nearly all of EfficientNet-Lite0,
behind its ReLU6: that is measured as it is alone. Agreement is of the first class, noise that of the outputs, and of
the layer that adds most.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import vta
from bench.accuracy import Task, command_line, compared, float_answers
from compiler.frontend.onnx import load_onnx
from compiler.graph.ir import Graph
from compiler.graph.ops.fused import FusedConv
from compiler.graph.passes.equalize import Channels
from compiler.graph.passes.pipeline import prepare
from compiler.graph.quantize.values import QuantizeOptions
from vta_hw.spec.config import preset

MACHINES: Final[Mapping[str, tuple[str, bool]]] = MappingProxyType(
    {
        "TVM's instructions": ("tvm", True),
        "extended": ("extended", True),
        "powers of two alone": ("tvm", False),
    }
)
"""Instruction set, and whether each channel has a factor of its own."""

APART: Final = (0, 1, 3, 6)
NOISE_INPUTS: Final = 32


@dataclass(frozen=True, kw_only=True)
class Gain:
    """Of a machine, with channels 2**apart from each other. noise_db: of all outputs. layer_db: of the worst layer."""

    machine: str
    apart: int
    equalised: bool
    inputs: int
    agreement: int
    noise_db: float
    layer_db: float


def driven_apart(graph: Graph, bits: int) -> Graph:
    """A prepared graph whose channels between convolutions are multiplied by random 1..2**bits, and divided again."""
    channels, random = Channels(graph), np.random.default_rng(0)
    for joint in channels.joints:
        channels.multiply(joint, random.integers(0, bits + 1, joint.channels))
    return channels.graph()


def measure(task: Task) -> Iterator[Gain]:
    source = load_onnx(task.model)
    exact = float_answers(source, task.inputs)
    for machine, (isa, multiply) in MACHINES.items():
        config = replace(preset("sim"), isa=isa)
        plain = prepare(source, config, QuantizeOptions(equalise=False))
        convolutions = sum(isinstance(node.op, FusedConv) for node in plain.nodes)
        few = 3 * len(Channels(plain).joints) < convolutions
        for apart in APART[:1] if few else APART:
            graph = driven_apart(plain, apart)
            for equalised in (False, True):
                options = QuantizeOptions(multiply=multiply, equalise=equalised)
                program = vta.compile(graph, config=config, calibration=task.calibration, options=options)
                result = compared("", program.run(task.inputs, "functional"), exact, task.classes)
                samples = task.calibration[:NOISE_INPUTS]
                losses = vta.layer_noise(graph, config=config, calibration=samples, options=options)
                yield Gain(
                    machine=machine,
                    apart=apart,
                    equalised=equalised,
                    inputs=result.inputs,
                    agreement=result.agreement,
                    noise_db=result.noise_db,
                    layer_db=round(min(loss.own for loss in losses), 1),
                )


def shown(name: str, rows: list[Gain]) -> None:
    print(f"{name:19} apart   left as it is                                equalised")
    for left, even in zip(rows[::2], rows[1::2], strict=True):
        print(f"{left.machine:19} {left.apart:>5}   {_outcome(left):44} {_outcome(even)}")


def _outcome(gain: Gain) -> str:
    return f"{gain.agreement} of {gain.inputs}, {gain.noise_db} dB, worst layer {gain.layer_db}"


if __name__ == "__main__":
    command_line(__doc__, measure, shown)
