"""Photographs that packages carry, as EfficientNet-Lite0 wants them; nothing of them is kept here.

Labelled: the twenty of ImageNet in `foolbox`. Others: those of scikit-image, to
calibrate with, and the two of scikit-learn.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vta.images import read_image

MEAN, STD = 0.498, 0.502
"""Of pixels from 0 to 1."""


def labelled(size: int = 224) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """float32 [20, 3, size, size] and their classes of ImageNet. Raises ImportError where packages are missing."""
    files = sorted(_folder("foolbox", "data").glob("imagenet_*"))
    classes = [int(file.stem.rsplit("_", 1)[1]) for file in files]
    return np.stack([read_photo(file, size) for file in files]), np.array(classes)


def unlabelled(size: int = 224) -> NDArray[np.float32]:
    """float32 [N, 3, size, size], the colour photographs of scikit-image. Raises ImportError where it is missing."""
    names = ("astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "rocket.jpg")
    folder = _folder("skimage", "data")
    return np.stack([read_photo(folder / name, size) for name in names if (folder / name).is_file()])


def others(size: int = 224) -> NDArray[np.float32]:
    """float32 [2, 3, size, size], the photographs of scikit-learn. Raises ImportError where it is missing."""
    return np.stack([read_photo(file, size) for file in sorted(_folder("sklearn", "datasets/images").glob("*.jpg"))])


def read_photo(path: Path, size: int) -> NDArray[np.float32]:
    """float32 [3, size, size]: the square in the middle, resized and normalised. Raises ImportError without Pillow."""
    return read_image(path, 3, (size, size), mean=(MEAN,), std=(STD,))


def _folder(package: str, name: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        project = {"skimage": "scikit-image", "sklearn": "scikit-learn"}.get(package, package)
        raise ImportError(f"Photographs come with packages: pip install {project}")
    return Path(spec.origin).parent / name
