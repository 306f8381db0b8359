"""Read an ONNX model as a graph."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Final

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # no stubs, one class used

from compiler.errors import FrontendError
from compiler.frontend.attributes import Attributes
from compiler.frontend.folding import ELEMENTWISE, GROWING, REARRANGING, can_fold, fold
from compiler.frontend.importer import Encoding, Importer, OnnxNode
from compiler.frontend.operators import BY_DOMAIN, CONVERTERS
from compiler.frontend.quantized import KEEPING, READING
from compiler.frontend.results import give
from compiler.frontend.tensors import check_shape, decode, known_type
from compiler.graph.ir import Graph, TensorType

OLDEST_OPSET: Final = 13
MAX_NODES: Final = 1 << 16
MAX_FILE_BYTES: Final = 1 << 31
STANDARD_DOMAINS: Final = ("", "ai.onnx")

KNOWN: Final = frozenset(CONVERTERS) | ELEMENTWISE | GROWING | REARRANGING
"""The operators that some model may have; those that are not converted are computed of constants alone."""


def load_onnx(source: str | Path | bytes | onnx.ModelProto, *, batch: int | None = None) -> Graph:
    """Import a model, float or quantised: one main graph, opset 13 or later, weights known.

    What is float16 in the model is computed in float32, and converted where it comes and goes. A model that is
    quantised, in QDQ or in QOperator form, becomes a graph of float32 values with a `FakeQuantize` wherever it makes
    integers, and its weights keep their scales (`Graph.weight_scales`).

    source: path of a file, its bytes, or a parsed model; tensors in files of their own are read for a path only, and
    only from the model's folder. batch: extent of the first dimension of the inputs where the model leaves it open, 1
    if not given. Every other extent must be fixed. Raises FrontendError, whatever the bytes are.
    """
    if batch is not None and batch < 1:
        raise FrontendError(f"Batch must be at least 1, not {batch}")
    model, folder = _parse(source)
    opset = _opset(model)
    graph = model.graph
    if len(graph.node) > MAX_NODES:
        raise FrontendError(f"Model must have at most {MAX_NODES} nodes, not {len(graph.node)}")
    if graph.sparse_initializer:
        raise FrontendError("Model must have dense weights, not sparse ones")
    importer = Importer(_names(graph))
    for tensor in graph.initializer:
        importer.add_static(tensor.name, decode(tensor, folder=folder))
    for value in graph.input:
        if not importer.is_known(value.name):
            importer.add_input(value.name, _input_type(value, batch))
    hidden: dict[str, str] = {}
    for node in _in_order(graph):
        _convert(importer, node, opset, folder, hidden)
    if not graph.output:
        raise FrontendError("Model must have an output")
    for output in {value.name: value for value in graph.output}.values():
        if output.name in hidden:
            raise FrontendError(f"Output {output.name!r} must not be {hidden[output.name]}")
        give(importer, output)
    return importer.graph(graph.name or "model", tuple(value.name for value in graph.output))


def _parse(source: str | Path | bytes | onnx.ModelProto) -> tuple[onnx.ModelProto, Path | None]:
    """The model, and the folder of its file if it comes from one."""
    if isinstance(source, onnx.ModelProto):
        return source, None
    data, folder = source if isinstance(source, bytes) else b"", None
    if not isinstance(source, bytes):
        path = Path(source)
        folder = path.parent
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise FrontendError(f"Model file must have at most {MAX_FILE_BYTES} bytes, not {path.stat().st_size}")
            data = path.read_bytes()
        except OSError as error:
            raise FrontendError(f"Model file {str(source)!r} must be readable: {error.strerror}") from None
    if not data:  # which protobuf takes for a model without anything
        raise FrontendError("Model must be an ONNX file: this one is empty")
    try:
        return onnx.ModelProto.FromString(data), folder
    except DecodeError:
        raise FrontendError("Model must be an ONNX file: this one is damaged, cut off, or of another kind") from None


def _opset(model: onnx.ModelProto) -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS]
    if len(versions) != 1:
        raise FrontendError(f"Model must import one version of the standard operators, not {versions}")
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= versions[0] <= newest:
        raise FrontendError(f"Opset must be {OLDEST_OPSET}..{newest}, not {versions[0]}")
    return int(versions[0])


def _names(graph: onnx.GraphProto) -> frozenset[str]:
    """Every name of the model, so that names made here differ from all of them."""
    names = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
    return frozenset(names.union(*(set(node.output) for node in graph.node)))


def _in_order(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes, each behind those whose results it reads, and otherwise as they are.

    ONNX demands that order; converters that write others exist, and onnxruntime reads their files. Nodes that read what
    no node makes, or each other's results, come last.
    """
    pending = list(graph.node)
    unmade = Counter(value for node in pending for value in node.output if value)
    ordered: list[onnx.NodeProto] = []
    while pending:
        waiting = []
        for node in pending:
            if any(unmade[value] for value in node.input):
                waiting.append(node)
                continue
            ordered.append(node)
            unmade.subtract(value for value in node.output if value)
        if len(waiting) == len(pending):
            return [*ordered, *waiting]
        pending = waiting
    return ordered


def _input_type(value: onnx.ValueInfoProto, batch: int | None) -> TensorType:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
        raise FrontendError(f"Input {value.name!r} must be a tensor with a shape")
    dtype = known_type(f"Type of input {value.name!r}", tensor.elem_type)
    shape = []
    for position, dimension in enumerate(tensor.shape.dim):
        if dimension.HasField("dim_value"):
            extent = dimension.dim_value
            if position == 0 and batch is not None and batch != extent:
                raise FrontendError(f"Input {value.name!r} must have the batch it is fixed at, {extent}, not {batch}")
        elif position == 0:
            extent = batch or 1
        else:
            name = dimension.dim_param or "unnamed"
            raise FrontendError(f"Input {value.name!r} must have fixed extents behind the batch, not the open {name!r}")
        shape.append(extent)
    try:
        check_shape(tuple(shape), least=1)
    except FrontendError as error:
        raise FrontendError(f"Input {value.name!r} {error.reason}") from None
    return TensorType(tuple(shape), dtype)


def _operator(proto: onnx.NodeProto) -> str:
    """The operator as messages show it: with its domain unless that is the standard one, quoted unless it is a word."""
    name = f"{proto.domain}.{proto.op_type}".lstrip(".")
    return name if name.replace(".", "_").isidentifier() else repr(name)


def _kept_encoding(importer: Importer, proto: onnx.NodeProto) -> Encoding | None:
    """That of the results, if the node moves integers of one encoding. Raises FrontendError if it cannot read them."""
    encodings = {value: encoding for value in proto.input if (encoding := importer.encoding(value)) is not None}
    if not encodings or proto.op_type in READING:
        return None
    if proto.op_type not in KEEPING:
        raise FrontendError(f"must read {next(iter(encodings))!r} through a DequantizeLinear, since that is quantised")
    first, *others = dict.fromkeys(encodings.values())
    if others:
        raise FrontendError(f"must read integers of one scale and zero point, not {first} and {others[0]}")
    return first


def _convert(
    importer: Importer, proto: onnx.NodeProto, opset: int, folder: Path | None, hidden: dict[str, str]
) -> None:
    """Add one node. hidden: values that the model has and the graph will not, with the reason."""
    name = proto.name or next(iter(proto.output), "")
    try:
        converters = BY_DOMAIN.get(proto.domain, {})
        if proto.op_type not in converters and (proto.domain not in STANDARD_DOMAINS or proto.op_type not in KNOWN):
            raise FrontendError(f"operator must be one of {', '.join(sorted(CONVERTERS))}")
        if not proto.output:
            raise FrontendError("must have a result")
        for value in proto.input:
            if value in hidden:
                raise FrontendError(f"must not read {hidden[value]}")
            if value and not importer.is_known(value):
                raise FrontendError(f"must read values defined before it, not {value!r}")
        encoding = _kept_encoding(importer, proto)
        constants = importer.known_inputs(proto.input) if proto.domain in STANDARD_DOMAINS else None
        if constants is not None and can_fold(proto, list(constants.values())):
            names = [value for value in proto.output if value]
            for value, array in zip(names, fold(proto, opset, constants), strict=True):
                importer.add_static(value, array)
            return
        if proto.op_type not in converters:
            raise FrontendError("operator must have constant inputs")
        attributes = Attributes(proto, folder)
        node = OnnxNode(
            name=name,
            op=proto.op_type,
            opset=opset,
            inputs=tuple(proto.input),
            outputs=tuple(proto.output),
            attributes=attributes,
        )
        converters[proto.op_type](importer, node)
        if encoding is not None:
            for value in proto.output:
                importer.set_encoding(value, encoding)
        attributes.finish()
    except FrontendError as error:
        raise FrontendError(error.reason, node=name, op=_operator(proto)) from None
    for position, extra in enumerate(proto.output[1:], start=1):
        if extra and not importer.is_known(extra):
            hidden[extra] = f"output {position} of node {name!r}, which is not computed at inference"
