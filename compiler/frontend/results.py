"""What a graph gives: of the type that the model says, and computed by a node of its own."""

from __future__ import annotations

import numpy as np
import onnx

from compiler.errors import FrontendError
from compiler.frontend.importer import Importer
from compiler.frontend.integers import encode
from compiler.graph.ops.elementwise import Cast, Identity
from compiler.tensor.ir import DType


def give(importer: Importer, info: onnx.ValueInfoProto) -> None:
    """Make an output of the model one of the graph: constants are copied, and what the graph has in float32 becomes the
    integers or the float16 that it stands for. An input stays one. Raises FrontendError naming the output."""
    name = info.name
    try:
        _give(importer, name, is_half=info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16)
    except FrontendError as error:
        raise FrontendError(f"Output {name!r} {error.reason}") from None


def _give(importer: Importer, name: str, *, is_half: bool) -> None:
    if not importer.is_known(name):
        raise FrontendError("must be computed by a node or be an input")
    if importer.is_input(name):
        return
    encoding = importer.encoding(name)
    if encoding is not None:
        value, dtype = importer.renamed(name), DType(encoding.dtype.name)
        scale, zero = np.array(encoding.scale, np.float32), np.array(encoding.zero_point, np.float32)
        encode(importer, value, name, name, scale=scale, zero=zero, dtype=dtype)
    elif importer.is_constant(name) or is_half:
        value = importer.renamed(name)
        widened = is_half and importer.type_of(value).dtype is DType.FLOAT32
        importer.add(Cast(dtype=DType.FLOAT16) if widened else Identity(), (value,), name, name)
