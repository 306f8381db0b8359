"""Arrays of any number of images, cut into the batches that a program was compiled for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vta.errors import ApiError

Array = NDArray[np.generic]


@dataclass(frozen=True, kw_only=True)
class Port:
    """One input or output of a program: logical shape with the compiled batch in front, and dtype.

    tile: (images, channels) of a tile where the buffer is stored in tiles, see `compiler.graph.layout`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    tile: tuple[int, int] | None = None

    def of_any_batch(self) -> str:
        """Such as ``float32 [N, 1, 8, 8]``."""
        return f"{self.dtype} [{', '.join(['N', *map(str, self.shape[1:])])}]"


def named_inputs(
    ports: tuple[Port, ...], inputs: Mapping[str, Array] | Array, subject: str = "Input", *, by_image: bool = True
) -> dict[str, Array]:
    """Inputs by name, of one batch size for all. Raises ApiError for a wrong name, shape, dtype or batch size.

    by_image: whether the batch may be any; otherwise shapes are those of the ports.
    """
    if not isinstance(inputs, Mapping):
        if len(ports) != 1:
            raise ApiError(f"Inputs must be a dict with the names {names(ports)}, not one array")
        inputs = {ports[0].name: inputs}
    if inputs.keys() != {port.name for port in ports}:
        raise ApiError(f"Inputs must be named {names(ports)}, not {', '.join(map(repr, inputs)) or 'none'}")
    for port in ports:
        array = inputs[port.name]
        if not isinstance(array, np.ndarray):
            raise ApiError(f"{subject} {port.name!r} must be a numpy array, not {type(array).__name__}")
        if not by_image:
            if array.shape != port.shape or array.dtype != np.dtype(port.dtype):
                raise ApiError(
                    f"{subject} {port.name!r} must be {port.dtype} {list(port.shape)}, as compiled for a model that "
                    f"does not work image by image, not {array.dtype} {list(array.shape)}"
                )
            continue
        if not port.shape:
            raise ApiError(f"{subject} {port.name!r} must have a first dimension, and is a scalar of the model")
        fits = array.ndim == len(port.shape) and array.shape[1:] == port.shape[1:] and len(array) > 0
        if not fits or array.dtype != np.dtype(port.dtype):
            raise ApiError(
                f"{subject} {port.name!r} must be {port.of_any_batch()}, not {array.dtype} {list(array.shape)}"
            )
    if not by_image:
        return {port.name: inputs[port.name] for port in ports}
    sizes = {len(inputs[port.name]) for port in ports}
    if len(sizes) != 1:
        raise ApiError(f"Inputs must have one batch size, not {', '.join(map(str, sorted(sizes)))}")
    return {port.name: inputs[port.name] for port in ports}


def refuse_infinite(arrays: Mapping[str, Array]) -> None:
    """Raises ApiError for a number that is no integer however it is scaled, naming the first and where it is."""
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            at = np.unravel_index(int(np.isfinite(array).argmin()), array.shape)
            raise ApiError(f"Input {name!r} must be finite to become integers, not {array[at]} at {list(map(int, at))}")


def names(ports: tuple[Port, ...]) -> str:
    """Quoted names with commas."""
    return ", ".join(repr(port.name) for port in ports)


def batches(inputs: Mapping[str, Array], batch: int, *, fill: bool = True) -> Iterator[tuple[dict[str, Array], int]]:
    """(inputs of `batch` images, how many of them are real): the last one is filled up with zeros if `fill`."""
    count = len(next(iter(inputs.values())))
    for begin in range(0, count, batch):
        real = min(batch, count - begin)
        part = {name: array[begin : begin + real] for name, array in inputs.items()}
        if fill and real < batch:
            part = {name: filled(array, batch) for name, array in part.items()}
        yield part, real


def filled(array: Array, batch: int) -> Array:
    """`array` with zeros behind its last image."""
    whole = np.zeros((batch, *array.shape[1:]), array.dtype)
    whole[: len(array)] = array
    return whole
