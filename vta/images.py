"""Folders of photographs as the inputs of a network: what calibration wants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vta.errors import ApiError

SUFFIXES: Final = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
MOST_IMAGES: Final = 256
"""Of a folder: the first in the order of their names. Calibration learns little from more."""

Images = NDArray[np.float32]


def read_folder(
    folder: str | Path,
    shape: Sequence[int],
    *,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    progress: Callable[[int, int], None] | None = None,
) -> Images:
    """float32 [N, C, H, W] of the images in a folder, for an input of `shape` [., C, H, W] with one or three channels.

    mean, std: of pixels from 0 to 1, one number or one for each channel. progress: called with (images done, images).
    Raises ApiError for a folder without images, one that cannot be read, or a shape that is no image's.
    """
    if len(shape) != 4 or shape[1] not in (1, 3):
        raise ApiError(f"Images must be for an input [N, 1 or 3, height, width], not {list(shape)}")
    for what, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, shape[1]):
            raise ApiError(f"{what} must have 1 or {shape[1]} numbers, not {len(values)}")
    if min(std) <= 0:
        raise ApiError(f"std must be positive, not {min(std)}")
    try:
        files = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in SUFFIXES)[:MOST_IMAGES]
    except OSError as error:
        raise ApiError(f"{folder}: must be a folder of images: {error.strerror}") from None
    if not files:
        raise ApiError(f"{folder}: must have images ({', '.join(sorted(SUFFIXES))}), and has none")
    images = []
    for done, file in enumerate(files):
        if progress is not None:
            progress(done, len(files))
        images.append(read_image(file, shape[1], (shape[2], shape[3]), mean=mean, std=std))
    return np.stack(images)


def read_image(
    path: Path, channels: int, size: tuple[int, int], *, mean: Sequence[float], std: Sequence[float]
) -> Images:
    """float32 [channels, *size]: the largest part in the middle that has the proportions of `size`, resized (bicubic).

    Raises ApiError when it cannot be read, ImportError without Pillow.
    """
    try:
        from PIL import Image
    except ImportError:
        raise ImportError("Images are read by Pillow: pip install vta-toolkit[images]") from None
    rows, columns = size
    try:
        with Image.open(path) as image:
            scale = min(image.height / rows, image.width / columns)
            high, wide = rows * scale, columns * scale
            left, top = (image.width - wide) / 2, (image.height - high) / 2
            part = (left, top, left + wide, top + high)
            mode = "RGB" if channels == 3 else "L"
            resized = image.convert(mode).resize((columns, rows), Image.Resampling.BICUBIC, part)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ApiError(f"{path}: must be an image: {error}") from None
    pixels = np.asarray(resized, np.float32).reshape(rows, columns, channels) / 255
    normal = (pixels - np.array(mean, np.float32)) / np.array(std, np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1))
