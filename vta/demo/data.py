"""The demo's model and data, read from the two files that are installed beside this module.

Data: Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning Repository (1998),
https://doi.org/10.24432/C50P49, CC BY 4.0; the 1797 images that scikit-learn distributes. `examples/digits/train.py`
writes both files.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from importlib import resources

import numpy as np
from numpy.typing import NDArray

PIXEL_MAX = 16


@dataclass(frozen=True, kw_only=True)
class Digits:
    """1797 images of ten classes, with a fixed split of 1437 training and 360 held-out images.

    images: uint8 [1797,8,8], grey values 0..16. labels: uint8 [1797], 0..9.
    train, test: int16 indices, ascending, disjoint.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    train: NDArray[np.int16]
    test: NDArray[np.int16]

    def inputs(self, indices: NDArray[np.int16]) -> NDArray[np.float32]:
        """Network input of the chosen images: float32 [len(indices),1,8,8], grey values divided by 16."""
        return (self.images[indices, None].astype(np.float32) / np.float32(PIXEL_MAX)).astype(np.float32)

    def targets(self, indices: NDArray[np.int16]) -> NDArray[np.int64]:
        """Class of each chosen image: int64 [len(indices)]."""
        return self.labels[indices].astype(np.int64)


def model_bytes() -> bytes:
    """The trained network as an ONNX file: `image` float32 [N,1,8,8] -> `probabilities` float32 [N,10]."""
    return resources.files(__package__).joinpath("digits.onnx").read_bytes()


def load_digits() -> Digits:
    """The data set with its split."""
    data = resources.files(__package__).joinpath("digits.npz").read_bytes()
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return Digits(images=arrays["images"], labels=arrays["labels"], train=arrays["train"], test=arrays["test"])
