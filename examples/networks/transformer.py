"""An encoder block of a transformer (Vaswani et al. 2017), normalised first (Xiong et al. 2020); random weights."""

from __future__ import annotations

import onnx

from examples.networks.writer import Writer


def encoder_block(*, tokens: int = 128, width: int = 384, heads: int = 12, hidden: int = 1536) -> onnx.ModelProto:
    """float32 [N, tokens, width] to the same; the default is as wide as MiniLM-L6 (Wang et al. 2020).

    Raises ValueError unless the heads share the width evenly.
    """
    if width % heads:
        raise ValueError(f"Heads must divide the width of {width}, not be {heads}")
    writer = Writer("encoder_block", (tokens, width))
    x = writer.node("Add", "x", _attention(writer, writer.layer_norm("x", "norm1"), heads))
    y = writer.linear(writer.layer_norm(x, "norm2"), hidden, "mlp.in")
    x = writer.node("Add", x, writer.linear(writer.node("Gelu", y), width, "mlp.out"))
    return writer.model(x, (tokens, width))


def _attention(writer: Writer, x: str, heads: int) -> str:
    """Softmax of queries times keys, times values, in so many parts of the channels."""
    width = writer.channels[x]
    size = width // heads
    queries, keys, values = (
        writer.node("Transpose", _reshape(writer, writer.linear(x, width, name), (0, 0, heads, size)), perm=order)
        for name, order in (("queries", (0, 2, 1, 3)), ("keys", (0, 2, 3, 1)), ("values", (0, 2, 1, 3)))
    )
    scores = writer.node("Div", writer.node("MatMul", queries, keys), writer.number(size**0.5, "root"))
    mixed = writer.node("MatMul", writer.node("Softmax", scores, axis=-1), values)
    joined = _reshape(writer, writer.node("Transpose", mixed, perm=(0, 2, 1, 3)), (0, 0, width))
    writer.channels[joined] = width
    return writer.linear(joined, width, "projection")


def _reshape(writer: Writer, x: str, shape: tuple[int, ...]) -> str:
    """0 keeps an extent."""
    return writer.node("Reshape", x, writer.extents(shape))
