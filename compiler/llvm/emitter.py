"""LLVM IR as text: typed values, names, blocks and declarations of one function."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from compiler.tensor.ir import DType

_FLOATS = {DType.FLOAT32: "float", DType.FLOAT64: "double"}
_SCALAR = {dtype: _FLOATS.get(dtype, f"i{dtype.bits}") for dtype in DType}
"""A float16 is its bits: not every processor has more, and none is computed with."""


def llvm_type(dtype: DType, lanes: int = 1) -> str:
    return _SCALAR[dtype] if lanes == 1 else f"<{lanes} x {_SCALAR[dtype]}>"


def memory_dtype(dtype: DType) -> DType:
    """What an element is in memory: a truth value takes a byte."""
    return DType.INT8 if dtype is DType.BOOL else dtype


def mangled(dtype: DType, lanes: int) -> str:
    """Suffix of an intrinsic overloaded on the type."""
    scalar = f"{'f' if dtype in _FLOATS else 'i'}{dtype.bits}"
    return scalar if lanes == 1 else f"v{lanes}{scalar}"


Argument = tuple[str, str]
"""Type of a call's argument, and its attributes and value."""


@dataclass(frozen=True, slots=True)
class Value:
    """An SSA name or literal. A literal is always scalar; `lanes` above 1 makes it a vector."""

    text: str
    dtype: DType
    lanes: int = 1

    @property
    def type(self) -> str:
        return llvm_type(self.dtype, self.lanes)

    @property
    def typed(self) -> str:
        return f"{self.type} {self.text}"

    @property
    def argument(self) -> Argument:
        return self.type, self.text

    @property
    def is_literal(self) -> bool:
        return not self.text.startswith("%")

    @property
    def is_scalar_literal(self) -> bool:
        return self.is_literal and self.lanes == 1


def literal(dtype: DType, value: int | float) -> Value:
    """A constant. Integers must fit `dtype`; floats are rounded to its precision."""
    if dtype in _FLOATS:  # LLVM writes a float as the bits of the double of equal value
        with np.errstate(all="ignore"):
            (bits,) = struct.unpack("<Q", np.array(value, dtype.numpy).astype("<f8").tobytes())
        return Value(f"0x{bits:016X}", dtype)
    if dtype is DType.BOOL:
        return Value("true" if value else "false", dtype)
    return Value(str(int(value)), dtype)


class Globals:
    """What the functions of a module share: declarations of intrinsics, by name, and numbered metadata."""

    def __init__(self) -> None:
        self.declarations: dict[str, str] = {}
        self.metadata: list[str] = []

    @property
    def lines(self) -> list[str]:
        return [*sorted(self.declarations.values()), *self.metadata]


class Emitter:
    """Collects the text of one function body; `block` is the label of the block being filled."""

    def __init__(self, module: Globals) -> None:
        self.entry: list[str] = []
        self.lines: list[str] = []
        self.block = "start"
        self.declarations = module.declarations
        self.metadata = module.metadata
        self._count = 0

    def name(self, hint: str = "v") -> str:
        self._count += 1
        return f"{hint}{self._count}"

    def emit(self, text: str) -> None:
        self.lines.append(f"  {text}")

    def value(self, dtype: DType, lanes: int, text: str) -> Value:
        """A new value defined by the instruction `text`."""
        name = f"%{self.name()}"
        self.emit(f"{name} = {text}")
        return Value(name, dtype, lanes)

    def pointer(self, text: str) -> str:
        """A new pointer, or vector of pointers, defined by the instruction `text`."""
        name = f"%{self.name('p')}"
        self.emit(f"{name} = {text}")
        return name

    def call(self, dtype: DType, lanes: int, intrinsic: str, *arguments: Argument) -> Value:
        """Result of ``llvm.<intrinsic>``."""
        return self.value(dtype, lanes, self._call(llvm_type(dtype, lanes), intrinsic, arguments))

    def call_void(self, intrinsic: str, *arguments: Argument) -> None:
        self.emit(self._call("void", intrinsic, arguments))

    def _call(self, result: str, intrinsic: str, arguments: tuple[Argument, ...]) -> str:
        types = ", ".join(type for type, _ in arguments)
        self.declarations[intrinsic] = f"declare {result} @llvm.{intrinsic}({types})"
        values = ", ".join(f"{type} {text}" for type, text in arguments)
        return f"call {result} @llvm.{intrinsic}({values})"

    def start(self, label: str) -> None:
        self.lines.append(f"{label}:")
        self.block = label

    def branch(self, label: str, suffix: str = "") -> None:
        self.emit(f"br label %{label}{suffix}")

    def branch_if(self, cond: Value, then: str, otherwise: str) -> None:
        self.emit(f"br i1 {cond.text}, label %{then}, label %{otherwise}")

    def loop_hint(self, *properties: str) -> str:
        """Suffix of a loop's back edge: the metadata for `properties`, e.g. ``unroll.full``."""
        first = len(self.metadata)
        for n, text in enumerate(properties, start=first + 1):
            key, _, flag = text.partition("=")
            self.metadata.append(f'!{n} = !{{!"llvm.loop.{key}"{f", i1 {flag}" if flag else ""}}}')
        members = ", ".join(f"!{first + 1 + k}" for k in range(len(properties)))
        self.metadata.insert(first, f"!{first} = distinct !{{!{first}, {members}}}")
        return f", !llvm.loop !{first}"
