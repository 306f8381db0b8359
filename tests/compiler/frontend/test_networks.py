"""ONNX networks with operators of every kind, from import to the accelerator's answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

import vta
from compiler.driver import Target, compile_graph
from compiler.frontend.onnx import load_onnx
from compiler.graph.ir import Place
from compiler.graph.passes.pipeline import place
from runtime.session import Session
from tests.compiler.frontend.models import floats, model
from vta.engines import Engine, open_session
from vta_hw.spec.config import preset


def _weights(*shape: int, seed: int) -> np.ndarray:
    return floats(*shape, seed=seed) / np.float32(np.sqrt(np.prod(shape[1:])))


def decoder() -> onnx.ModelProto:
    """An image that becomes smaller and larger again: scale and offset, hard swish, slices, concatenation, resizing,
    a transposed convolution, a gate of each channel."""
    node = helper.make_node
    constants = {
        "mean": floats(1, 3, 1, 1), "deviation": np.full((1, 3, 1, 1), 1.5, np.float32),
        "w1": _weights(16, 3, 3, 3, seed=1), "w2": _weights(16, 16, 3, 3, seed=2), "b2": floats(16, seed=3),
        "wt": _weights(16, 8, 2, 2, seed=4) * 4, "bt": floats(8, seed=5), "w3": _weights(4, 24, 1, 1, seed=6),
        "wg": _weights(16, 16, 1, 1, seed=7), "scales": np.array([1, 1, 2, 2], np.float32),
        "low": np.array([0], np.int64), "high": np.array([8], np.int64), "axis": np.array([1], np.int64),
    }
    nodes = [
        node("Sub", ["x", "mean"], ["centred"]),
        node("Div", ["centred", "deviation"], ["normal"]),
        node("Conv", ["normal", "w1"], ["c1"], pads=[1, 1, 1, 1], strides=[2, 2]),
        node("HardSwish", ["c1"], ["h1"]),
        node("GlobalAveragePool", ["h1"], ["pooled"]),
        node("Conv", ["pooled", "wg"], ["gate"]),
        node("HardSigmoid", ["gate"], ["opened"]),
        node("Mul", ["h1", "opened"], ["gated"]),
        node("Conv", ["gated", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1]),
        node("LeakyRelu", ["c2"], ["h2"]),
        node("Resize", ["h2", "", "scales"], ["large"], mode="linear"),
        node("ConvTranspose", ["gated", "wt", "bt"], ["up"], strides=[2, 2]),
        node("Slice", ["large", "low", "high", "axis"], ["half"]),
        node("Concat", ["half", "up", "up"], ["both"], axis=1),
        node("Conv", ["both", "w3"], ["y"]),
    ]
    return model(nodes, {"x": (1, 3, 12, 12)}, ["y"], constants)


def unet() -> onnx.ModelProto:
    """Smaller, and larger again by both ways of resizing, beside what was before; 24 channels fill no tiles."""
    node = helper.make_node
    constants = {"scales": np.array([1, 1, 2, 2], np.float32)}
    nodes: list[onnx.NodeProto] = []
    widths = [("x", 3, "e1", 16), ("p1", 16, "e2", 24), ("p2", 24, "e3", 24), ("u2", 48, "d2", 16), ("u1", 32, "d1", 8)]
    for number, (source, ins, name, outs) in enumerate(widths):
        constants[f"w{name}"] = _weights(outs, ins, 3, 3, seed=number)
        nodes.append(node("Conv", [source, f"w{name}"], [f"c{name}"], pads=[1, 1, 1, 1]))
        nodes.append(node("Relu", [f"c{name}"], [name]))
        if name in ("e1", "e2"):
            nodes.append(node("MaxPool", [name], [f"p{name[1]}"], kernel_shape=[2, 2], strides=[2, 2]))
        if name in ("e3", "d2"):
            mode, level = ("nearest", 2) if name == "e3" else ("linear", 1)
            nodes.append(node("Resize", [name, "", "scales"], [f"r{level}"], mode=mode))
            nodes.append(node("Concat", [f"e{level}", f"r{level}"], [f"u{level}"], axis=1))
    constants["wy"] = _weights(4, 8, 1, 1, seed=9)
    nodes.append(node("Conv", ["d1", "wy"], ["y"]))
    return model(nodes, {"x": (1, 3, 12, 12)}, ["y"], constants)


def test_float_networks_on_the_cpu_equal_onnx() -> None:
    proto, x = decoder(), floats(1, 3, 12, 12, seed=9)
    program = compile_graph(load_onnx(proto), preset("sim"), target=Target.CPU)
    session: Session = open_session(program, Engine.LLVM)
    (expected,) = ReferenceEvaluator(proto).run(None, {"x": x})
    np.testing.assert_allclose(session.run({"x": x})["y"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("isa", ["tvm", "extended"])
@pytest.mark.parametrize("network", [decoder, unet])
def test_quantised_networks_are_near_onnx_and_engines_agree(
    network: Callable[[], onnx.ModelProto], isa: str
) -> None:
    proto, x = network(), floats(4, 3, 12, 12, seed=9)
    config = replace(preset("sim"), isa=isa)
    compiled = vta.compile(proto, config=config, calibration=floats(32, 3, 12, 12, seed=8))
    expected = np.concatenate([ReferenceEvaluator(proto).run(None, {"x": x[k : k + 1]})[0] for k in range(len(x))])
    answers = [compiled.run(x, engine) for engine in ("functional", "cycle", "llvm", "reference")]
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer, answers[0])
    noise = np.mean((answers[0] - expected) ** 2) / np.var(expected)
    assert noise < 0.01  # 20 dB


@pytest.mark.parametrize("overlap", [False, True])
def test_what_makes_images_larger_runs_on_the_accelerator(overlap: bool) -> None:
    config = replace(preset("sim"), overlap=overlap)
    compiled = vta.compile(unet(), config=config, calibration=floats(8, 3, 12, 12, seed=8))
    hosts = compiled.program.attributes["hosts"]
    assert set(hosts.values()) == {"float32 input", "float32 result", "moves single elements between tiles"}
    assert [name for name, reason in hosts.items() if "moves" in reason] == [next(iter(hosts)) + ".unfold"]
    kinds = [layer.attributes["op"] for layer in compiled.program.layers]
    # The second concatenation takes nothing: both of its operands fill tiles.
    assert {kind: kinds.count(kind) for kind in ("repeat", "concat", "qinterpolate")} == {
        "repeat": 1, "concat": 1, "qinterpolate": 1,
    }


def test_convolutions_of_such_networks_run_on_the_accelerator() -> None:
    compiled = vta.compile(decoder(), calibration=floats(8, 3, 12, 12, seed=8))
    assert compiled.graph is not None
    graph = place(compiled.graph, preset("sim"))
    places = {node.name: node.placement for node in graph.nodes if node.op.kind in ("qconv2d", "rescaled_conv2d")}
    assert len(places) >= 5
    assert all(placement is not None and placement.place is Place.ACCELERATOR for placement in places.values())
