"""Write one of the networks as an ONNX file.

python examples/networks/build.py --list
python examples/networks/build.py resnet18 -o resnet18.onnx
vta compile resnet18.onnx --calibrate images.npy -o resnet18.vta
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

import onnx

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.networks.efficientnet import efficientnet_lite0
from examples.networks.mobilenet import mobilenet_v1, mobilenet_v2
from examples.networks.resnet import resnet
from examples.networks.transformer import encoder_block
from vta.demo.data import model_bytes

KEYWORDS: Final = Path(__file__).resolve().parents[1] / "keywords" / "keywords.onnx"

NETWORKS: Final[Mapping[str, Callable[[], onnx.ModelProto]]] = MappingProxyType(
    {
        "resnet18": partial(resnet, 18),
        "resnet34": partial(resnet, 34),
        "resnet50": partial(resnet, 50),
        "mobilenet_v1": mobilenet_v1,
        "mobilenet_v2": mobilenet_v2,
        "efficientnet_lite0": efficientnet_lite0,
        "encoder_block": encoder_block,
        "digits": lambda: onnx.load_from_string(model_bytes()),
        "keywords": lambda: onnx.load(KEYWORDS),
    }
)
"""Each network as a function that builds it."""


def main() -> None:
    """Build the network that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", nargs="?", choices=NETWORKS, metavar="NETWORK", help="one of those of --list")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="the model (default: NETWORK.onnx)")
    parser.add_argument("--list", action="store_true", help="print the names of the networks")
    given = parser.parse_args()
    if given.list:
        print("\n".join(NETWORKS))
        return
    if given.network is None:
        parser.error(f"NETWORK must be one of {', '.join(NETWORKS)}")
    output = given.output or Path(f"{given.network}.onnx")
    try:
        model = NETWORKS[given.network]()
    except ImportError as error:
        parser.error(str(error))
    output.write_bytes(model.SerializeToString())
    print(f"{output}: {len(model.graph.node)} nodes, {output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
