"""ONNX tensors as numpy arrays, decoded with suspicion: a file may claim any shape and hold any number of bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from compiler.errors import FrontendError
from compiler.tensor.ir import DType

MAX_ELEMENTS: Final = 1 << 28
"""Of any one tensor: a gigabyte of float32."""

_DTYPES: Final[Mapping[int, np.dtype[Any]]] = MappingProxyType(
    {
        onnx.TensorProto.FLOAT: np.dtype("<f4"),
        onnx.TensorProto.DOUBLE: np.dtype("<f8"),
        onnx.TensorProto.FLOAT16: np.dtype("<f2"),
        onnx.TensorProto.INT64: np.dtype("<i8"),
        onnx.TensorProto.INT32: np.dtype("<i4"),
        onnx.TensorProto.INT16: np.dtype("<i2"),
        onnx.TensorProto.INT8: np.dtype("i1"),
        onnx.TensorProto.UINT16: np.dtype("<u2"),
        onnx.TensorProto.UINT32: np.dtype("<u4"),
        onnx.TensorProto.UINT64: np.dtype("<u8"),
        onnx.TensorProto.UINT8: np.dtype("u1"),
        onnx.TensorProto.BOOL: np.dtype("?"),
    }
)

TYPES: Final[Mapping[int, DType]] = MappingProxyType({number: DType(t.name) for number, t in _DTYPES.items()})
"""The element types that the graph has, by ONNX's number."""

_FIELDS: Final[Mapping[int, str]] = MappingProxyType(
    {
        onnx.TensorProto.FLOAT: "float_data",
        onnx.TensorProto.DOUBLE: "double_data",
        onnx.TensorProto.INT64: "int64_data",
        onnx.TensorProto.INT32: "int32_data",
        onnx.TensorProto.FLOAT16: "int32_data",
        onnx.TensorProto.INT16: "int32_data",
        onnx.TensorProto.INT8: "int32_data",
        onnx.TensorProto.UINT16: "int32_data",
        onnx.TensorProto.UINT32: "uint64_data",
        onnx.TensorProto.UINT64: "uint64_data",
        onnx.TensorProto.UINT8: "int32_data",
        onnx.TensorProto.BOOL: "int32_data",
    }
)


def decode(tensor: onnx.TensorProto, *, folder: Path | None) -> NDArray[Any]:
    """The tensor's value. folder: that of the model file, or None when there is none and external data is refused.

    Raises FrontendError naming the tensor.
    """
    try:
        return _decode(tensor, folder)
    except FrontendError as error:
        raise FrontendError(f"Tensor {tensor.name!r} {error.reason}") from None


def _decode(tensor: onnx.TensorProto, folder: Path | None) -> NDArray[Any]:
    if tensor.data_type not in _DTYPES:
        raise FrontendError(f"must have a supported element type, not {type_name(tensor.data_type)}")
    shape, dtype = tuple(tensor.dims), _DTYPES[tensor.data_type]
    check_shape(shape)
    if tensor.HasField("segment"):
        raise FrontendError("must be whole, not a segment")
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return _elements(_external(tensor, folder, math.prod(shape) * dtype.itemsize), dtype, shape)
    if tensor.HasField("raw_data"):
        return _elements(bytes(tensor.raw_data), dtype, shape)
    listed = getattr(tensor, _FIELDS[tensor.data_type])
    if len(listed) != math.prod(shape):
        raise FrontendError(f"of shape {shape} must have {math.prod(shape)} elements, not {len(listed)}")
    if tensor.data_type == onnx.TensorProto.FLOAT16:
        return _bits(listed, dtype).reshape(shape)
    wide = np.array(listed, {"u": np.uint64, "i": np.int64, "b": np.int64}.get(dtype.kind, dtype))
    narrow = wide.astype(dtype)
    if not np.array_equal(narrow, wide, equal_nan=dtype.kind == "f"):
        raise FrontendError(f"must have elements that fit in {dtype.name}")
    return narrow.reshape(shape)


def _bits(listed: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Half floats whose bits are listed as integers."""
    if any(not 0 <= value < 1 << 16 for value in listed):
        raise FrontendError("must have elements that fit in 16 bits")
    return np.array(listed, np.uint16).view(dtype)


def check_shape(shape: tuple[int, ...], *, least: int = 0) -> None:
    """Raises FrontendError when an extent is below `least` or there are more than `MAX_ELEMENTS` elements."""
    if any(extent < least for extent in shape):
        raise FrontendError(f"must have extents of at least {least}, not shape {shape}")
    if math.prod(shape) > MAX_ELEMENTS or max(shape, default=0) > MAX_ELEMENTS:
        raise FrontendError(f"must have at most {MAX_ELEMENTS} elements, not shape {shape}")


def type_name(number: int) -> str:
    """ONNX's name of an element type, or its number."""
    names = onnx.TensorProto.DataType.items()
    return next((name for name, value in names if value == number), str(number))


def known_type(what: str, number: int) -> DType:
    """Raises FrontendError for an element type that the graph has not."""
    if number not in TYPES:
        names = ", ".join(sorted(type_name(known) for known in TYPES))
        raise FrontendError(f"{what} must be one of {names}, not {type_name(number)}")
    return TYPES[number]


def _elements(data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise FrontendError(f"of shape {shape} must have {math.prod(shape) * dtype.itemsize} bytes, not {len(data)}")
    if dtype.kind == "b" and data.strip(b"\x00\x01"):
        raise FrontendError("must have booleans of 0 or 1")
    return np.frombuffer(data, dtype).reshape(shape)


def _external(tensor: onnx.TensorProto, folder: Path | None, nbytes: int) -> bytes:
    """The bytes of a tensor kept in a file of its own, which must lie in the model's folder or below."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise FrontendError(f"must be inside the model when that is not read from a file, not in {location!r}")
    path = _inside(folder, location)
    try:
        offset, length = int(entries.get("offset", "0")), int(entries.get("length", str(nbytes)))
    except ValueError:
        raise FrontendError(f"must have a numeric offset and length in {location!r}") from None
    if offset < 0 or length != nbytes:
        raise FrontendError(f"must have {nbytes} bytes at a positive offset, not {length} at {offset}")
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data: bytes = file.read(length)
            return data
    except (OSError, OverflowError) as error:
        raise FrontendError(f"must be readable from {location!r}: {error}") from None


def _inside(folder: Path, location: str) -> Path:
    """The file of that name in the folder or below, symbolic links followed."""
    try:
        path = (folder / location).resolve()
        if location and path.is_relative_to(folder.resolve()):
            return path
    except (OSError, RuntimeError, ValueError):  # a name too long, a loop of links, a null character
        pass
    raise FrontendError(f"must lie inside the model's folder, not in {location!r}")
