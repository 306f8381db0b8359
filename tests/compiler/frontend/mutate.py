"""Damage to ONNX files, repeatable by seed: at the level of bytes, and of the fields of the message."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.message import Message


@dataclass(frozen=True, kw_only=True)
class Mutation:
    kind: str
    data: bytes


def mutation(data: bytes, seed: int) -> Mutation:
    """The damaged file of one seed; it differs from the intact model `data`."""
    rng = random.Random(seed)
    while True:
        kind = rng.choice(list(_KINDS))
        damaged = _KINDS[kind](rng, data)
        if damaged != data:
            return Mutation(kind=kind, data=damaged)


def truncate(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def flip_bits(rng: random.Random, data: bytes) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def splice(rng: random.Random, data: bytes) -> bytes:
    """Replace a stretch by random bytes, or by another stretch of the file."""
    begin = rng.randrange(len(data) + 1)
    end = min(len(data), begin + rng.choice([0, 1, 4, 64]))
    other, length = rng.randrange(len(data)), rng.choice([0, 1, 4, 22, 64, 300])
    patch = rng.randbytes(length) if rng.random() < 0.5 else data[other : other + length]
    return data[:begin] + patch + data[end:]


def edit_fields(rng: random.Random, data: bytes) -> bytes:
    """Change one to three fields of the parsed message: another value, one more, one less, none."""
    model = onnx.ModelProto.FromString(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        message, field = rng.choice([*_fields(model)])
        _edit(rng, message, field)
    return bytes(model.SerializeToString())


def rewire(rng: random.Random, data: bytes) -> bytes:
    """Make a node read another value, write another, be another operator, or stand elsewhere."""
    model = onnx.ModelProto.FromString(data)
    nodes = model.graph.node
    node = rng.choice(nodes)
    names = [name for each in nodes for name in (*each.input, *each.output)] + ["", "x", "nothing"]
    match rng.randrange(4):
        case 0 if node.input:
            node.input[rng.randrange(len(node.input))] = rng.choice(names)
        case 1:
            node.output[0] = rng.choice(names)
        case 2:
            node.op_type = rng.choice([each.op_type for each in nodes] + ["Loop", "Shape", "Flatten", "Clip", "Concat"])
        case _:
            other = rng.choice(nodes)
            kept = onnx.NodeProto.FromString(node.SerializeToString())
            node.CopyFrom(onnx.NodeProto.FromString(other.SerializeToString()))
            other.CopyFrom(kept)
    return bytes(model.SerializeToString())


_KINDS: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "truncate": truncate,
    "flip bits": flip_bits,
    "splice": splice,
    "edit fields": edit_fields,
    "edit fields again": edit_fields,
    "rewire": rewire,
}

_INTEGERS = (-(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 7, 64, 1000, 4096, 2**20, 2**31 - 1, 2**31, 2**40, 2**63 - 1)
_FLOATS = (0.0, -1.0, 1e-30, 1e38, float("nan"), float("inf"), -float("inf"))
_TEXTS = ("", "x", "y", "w1", "SAME_LOWER", "pads", "axis", "../../etc/passwd", "\u00e9", "z" * 5000)


def _fields(message: Message) -> Iterator[tuple[Message, Field]]:
    """Every message of a tree with each of its fields, set or not."""
    for field in message.DESCRIPTOR.fields:
        yield message, field
        if field.type != Field.TYPE_MESSAGE:
            continue
        value = getattr(message, field.name)
        for child in value if field.is_repeated else ([value] if message.HasField(field.name) else []):
            yield from _fields(child)


def _edit(rng: random.Random, message: Message, field: Field) -> None:
    if rng.random() < 0.2:
        message.ClearField(field.name)
        return
    if field.type == Field.TYPE_MESSAGE:
        if field.is_repeated and len(values := getattr(message, field.name)):
            values.add().CopyFrom(rng.choice(list(values)))
        return
    value = _value(rng, field)
    if not field.is_repeated:
        setattr(message, field.name, value)
        return
    values = getattr(message, field.name)
    if len(values) and rng.random() < 0.6:
        values[rng.randrange(len(values))] = value
    else:
        values.append(value)


def _value(rng: random.Random, field: Field) -> Any:
    match field.cpp_type:
        case Field.CPPTYPE_STRING:
            text = rng.choice(_TEXTS)
            return text if field.type == Field.TYPE_STRING else text.encode()
        case Field.CPPTYPE_FLOAT | Field.CPPTYPE_DOUBLE:
            return rng.choice(_FLOATS)
        case Field.CPPTYPE_ENUM:
            return rng.choice([value.number for value in field.enum_type.values])
        case Field.CPPTYPE_INT32:
            return rng.choice([value for value in _INTEGERS if abs(value) < 2**31])
        case Field.CPPTYPE_UINT64:
            return rng.choice([value for value in _INTEGERS if value >= 0])
        case _:
            return rng.choice(_INTEGERS)
