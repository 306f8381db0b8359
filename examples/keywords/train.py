"""Train the keyword network and write `keywords.onnx` beside this file.

Run as `python examples/keywords/train.py` with torch, scikit-learn, onnx, onnxscript and espeakng-loader installed; it
takes four minutes on two cores. The result is deterministic for one version of torch on one kind of processor.

The network is the small DS-CNN of Zhang et al., "Hello Edge: Keyword Spotting on Microcontrollers", 2017, which MLPerf
Tiny measures as well (Banbury et al. 2021).
"""

from __future__ import annotations

import argparse
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.digits.train import name_nodes, strip_metadata
from examples.keywords.data import CLASSES, held_out, training
from examples.keywords.features import COEFFICIENTS, FRAMES

SEED = 12
DEFAULT_FILE = Path(__file__).resolve().parent / "keywords.onnx"


def ds_cnn(channels: int = 64, blocks: int = 4) -> nn.Sequential:
    """Float32 [N,1,49,10] -> class probabilities [N,12]; 25x5 pixels from the first convolution on.

    A convolution of ten frames and four coefficients, four times a depthwise and a pointwise one, the mean, a dense
    layer, softmax.
    """
    layers = OrderedDict[str, nn.Module]()

    def add(name: str, convolution: nn.Conv2d) -> None:
        layers[name] = nn.Sequential(convolution, nn.BatchNorm2d(channels))
        layers[f"{name}_relu"] = nn.ReLU()

    add("stem", nn.Conv2d(1, channels, (10, 4), stride=2, padding=(5, 1), bias=False))
    for block in range(1, blocks + 1):
        add(f"depthwise_{block}", nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False))
        add(f"pointwise_{block}", nn.Conv2d(channels, channels, 1, bias=False))
    layers |= {"mean": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "dropout": nn.Dropout(0.2)}
    layers |= {"dense": nn.Linear(channels, len(CLASSES)), "softmax": nn.Softmax(dim=1)}
    return nn.Sequential(layers)


def train(inputs: Tensor, labels: Tensor, *, epochs: int, batch: int = 100) -> nn.Sequential:
    """A network trained with AdamW and one cycle of the learning rate; seeds fixed, two threads."""
    torch.manual_seed(SEED)
    torch.set_num_threads(2)
    net = ds_cnn()
    logits = net[:-1]
    optimiser = torch.optim.AdamW(net.parameters(), weight_decay=1e-2)
    steps = epochs * -(-len(inputs) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=6e-3, total_steps=steps)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    for _ in range(epochs):
        for index in torch.randperm(len(inputs)).split(batch):
            optimiser.zero_grad()
            loss_of(logits(inputs[index]), labels[index]).backward()
            optimiser.step()
            schedule.step()
    return net.eval()


def export(net: nn.Module, path: Path) -> None:
    """Write the network as ONNX, opset 20, input `sound` [N,1,49,10], output `probabilities` [N,12]."""
    torch.onnx.export(
        net,
        (torch.zeros(2, 1, FRAMES, COEFFICIENTS),),
        path,
        input_names=["sound"],
        output_names=["probabilities"],
        opset_version=20,
        dynamo=True,
        external_data=False,
        dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
    )
    model = onnx.load(path)
    strip_metadata(model)
    name_nodes(model)
    store_halves(model)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def store_halves(model: onnx.ModelProto) -> None:
    """Keep float32 weights as float16, each with a Cast that readers fold: half the file, and as many right answers."""
    graph = model.graph
    casts = []
    for weights in graph.initializer:
        if weights.data_type == TensorProto.FLOAT:
            name, stored = weights.name, f"{weights.name}.half"
            weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights).astype(np.float16), stored))
            casts.append(helper.make_node("Cast", [stored], [name], name=f"{name}.cast", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the keyword network and write keywords.onnx.")
    parser.add_argument("--output", type=Path, default=DEFAULT_FILE, help="what to write (default: beside this file)")
    parser.add_argument("--epochs", type=int, default=18)
    arguments = parser.parse_args()
    inputs, labels = (torch.from_numpy(array) for array in training())
    net = train(inputs, labels, epochs=arguments.epochs)
    inputs, labels = (torch.from_numpy(array) for array in held_out())
    with torch.no_grad():
        correct = int((net(inputs).argmax(1) == labels).sum())
    parameters = sum(parameter.numel() for parameter in net.parameters())
    print(f"held-out accuracy {correct}/{len(labels)} = {correct / len(labels):.2%}, {parameters} parameters")
    export(net, arguments.output)


if __name__ == "__main__":
    main()
