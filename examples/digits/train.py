"""Train the digits demo network and write its two files, `digits.onnx` and `digits.npz`.

Run as `python examples/digits/train.py` with torch, scikit-learn, onnx and onnxscript installed; it takes 15 s on one
core. The result is deterministic for one version of torch on one kind of processor.

Data: Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning Repository (1998),
https://doi.org/10.24432/C50P49, CC BY 4.0, the 1797 images that scikit-learn distributes (8x8 pixels, values 0..16).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn

SPLIT_SEED = 1797
TRAIN_SEED = 3
HELD_OUT = 360
DEFAULT_FOLDER = Path(__file__).resolve().parents[2] / "vta" / "demo"


class DigitsNet(nn.Module):
    """Float32 [N,1,8,8] in 0..1 -> class probabilities [N,10].

    Every operation the compiler maps on the accelerator occurs once: convolution, residual addition, max pooling,
    strided convolution, global average pooling, dense. Softmax ends it.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = _conv_bn(1, width, stride=1)
        self.residual_1 = _conv_bn(width, width, stride=1)
        self.residual_2 = _conv_bn(width, width, stride=1)
        self.pool = nn.MaxPool2d(2)
        self.down = _conv_bn(width, 2 * width, stride=2)
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.dense = nn.Linear(2 * width, 10)

    def logits(self, image: Tensor) -> Tensor:
        stem = torch.relu(self.stem(image))
        inner = torch.relu(self.residual_1(stem))
        block = torch.relu(self.residual_2(inner) + stem)
        down = torch.relu(self.down(self.pool(block)))
        return self.dense(torch.flatten(self.global_pool(down), 1))

    def forward(self, image: Tensor) -> Tensor:
        return torch.softmax(self.logits(image), dim=1)


def _conv_bn(channels_in: int, channels_out: int, *, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out))


def split(count: int) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """(training, held-out) indices, sorted: the first 360 of a permutation from a seeded generator are held out."""
    order = np.random.default_rng(SPLIT_SEED).permutation(count).astype(np.int16)
    return np.sort(order[HELD_OUT:]), np.sort(order[:HELD_OUT])


def shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image moved by -1, 0 or 1 pixel in both directions: the only augmentation, since the data set is small."""
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    rows, columns = (torch.randint(0, 3, (len(images), 1), generator=generator) + torch.arange(8) for _ in range(2))
    return padded[torch.arange(len(images))[:, None, None], 0, rows[:, :, None], columns[:, None, :]].unsqueeze(1)


def train(images: Tensor, labels: Tensor, *, epochs: int, batch: int = 64) -> DigitsNet:
    """A network trained with Adam and a cosine schedule; seeds fixed, one thread."""
    torch.manual_seed(TRAIN_SEED)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(TRAIN_SEED)
    net = DigitsNet()
    optimiser = torch.optim.Adam(net.parameters(), lr=4e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=epochs)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for index in order.split(batch):
            optimiser.zero_grad()
            loss_of(net.logits(shifted(images[index], generator)), labels[index]).backward()
            optimiser.step()
        schedule.step()
    return net.eval()


def export(net: DigitsNet, path: Path) -> None:
    """Write the network as one ONNX file, opset 20, input `image` [N,1,8,8], output `probabilities` [N,10]."""
    batch = torch.export.Dim("N", min=1)
    torch.onnx.export(
        net,
        (torch.zeros(2, 1, 8, 8),),
        path,
        input_names=["image"],
        output_names=["probabilities"],
        opset_version=20,
        dynamo=True,
        external_data=False,
        dynamic_shapes={"image": {0: batch}},
    )
    model = onnx.load(path)
    strip_metadata(model)
    name_nodes(model)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def strip_metadata(model: onnx.ModelProto) -> None:
    """Drop the exporter's source locations and module names: they vary with the place of installation."""
    del model.metadata_props[:], model.graph.metadata_props[:]
    graph = model.graph
    for item in (*graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        del item.metadata_props[:]
        item.doc_string = ""


def name_nodes(model: onnx.ModelProto) -> None:
    """Call each node by the module whose weights it has, or by its operator and a number: reports show these names."""
    counts: dict[str, int] = {}
    for node in model.graph.node:
        weights = [name for name in node.input if name.endswith(".weight")]
        name = weights[0].split(".")[0] if weights else node.op_type.lower()
        counts[name] = counts.get(name, 0) + 1
        node.name = name if counts[name] == 1 else f"{name}_{counts[name]}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the digits demo network and write digits.onnx and digits.npz.")
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="where to write (default: vta/demo)")
    parser.add_argument("--epochs", type=int, default=40)
    arguments = parser.parse_args()
    digits = load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.uint8)
    training, held_out = split(len(images))
    inputs = torch.from_numpy(images.astype(np.float32) / 16).unsqueeze(1)
    targets = torch.from_numpy(labels.astype(np.int64))
    net = train(inputs[training], targets[training], epochs=arguments.epochs)
    with torch.no_grad():
        correct = int((net(inputs[held_out]).argmax(1) == targets[held_out]).sum())
    parameters = sum(parameter.numel() for parameter in net.parameters())
    print(f"held-out accuracy {correct}/{HELD_OUT} = {100 * correct / HELD_OUT:.2f} %, {parameters} parameters")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(arguments.folder / "digits.npz", images=images, labels=labels, train=training, test=held_out)
    export(net, arguments.folder / "digits.onnx")


if __name__ == "__main__":
    main()
