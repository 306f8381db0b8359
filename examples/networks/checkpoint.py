"""Tensors of a file that PyTorch saved, without PyTorch: the format of its versions before 1.6.

Five pickles (a magic number, the version, facts of the machine, the tensors, the keys of their storages), then each
storage as its length and its elements. Nothing but what tensors need is unpickled.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

MAGIC: Final = 0x1950A86A20F9469CFC6C
STORAGES: Final[Mapping[str, str]] = MappingProxyType({"FloatStorage": "<f4", "LongStorage": "<i8"})


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage, in elements."""

    storage: tuple[Any, ...]
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known: dict[tuple[str, str], Callable[..., Any] | str] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): lambda *given: _Tensor(*given[:4]),
            **{("torch", storage): dtype for storage, dtype in STORAGES.items()},
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"Checkpoint must consist of tensors, not of {module}.{name}")
        return known[module, name]

    def persistent_load(self, pid: Any) -> Any:
        return pid


def read_checkpoint(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors by name. Raises ValueError for a file of another kind."""
    with path.open("rb") as file:
        try:
            magic, _, _, tensors, keys = (_Unpickler(file).load() for _ in range(5))
        except (pickle.UnpicklingError, EOFError) as error:
            raise ValueError(f"{path} must be a checkpoint of PyTorch before 1.6: {error}") from None
        if magic != MAGIC:
            raise ValueError(f"{path} must be a checkpoint of PyTorch before 1.6, it begins with {magic!r}")
        dtypes = {tensor.storage[2]: tensor.storage[1] for tensor in tensors.values()}
        storages = {key: _storage(file, dtypes[key]) for key in keys}
    return {name: _array(tensor, storages[tensor.storage[2]]) for name, tensor in tensors.items()}


def _storage(file: BinaryIO, dtype: str) -> NDArray[Any]:
    count = int.from_bytes(file.read(8), "little")
    return np.frombuffer(file.read(count * np.dtype(dtype).itemsize), dtype)


def _array(tensor: _Tensor, storage: NDArray[Any]) -> NDArray[Any]:
    strides = [stride * storage.itemsize for stride in tensor.strides]
    return np.ascontiguousarray(np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides))
