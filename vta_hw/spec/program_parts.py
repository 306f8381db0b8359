"""The values a program is made of; each checks itself at construction and raises `ProgramError`."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from operator import index
from types import MappingProxyType
from typing import Any, Final

from vta_hw.spec import strict_json

ADDRESS_LIMIT: Final = 1 << 32
"""Physical addresses have 32 bits (VTA spec 1.2)."""

COUNT_LIMIT: Final = 1 << 63
TOKEN_LIMIT: Final = 1 << 20
MAX_RANK: Final = 16
MAX_NAME: Final = 1024

MAX_OBJECT_DEPTH: Final = strict_json.MAX_DEPTH - 8
"""Nesting of a free-form object; the levels above it in the manifest must fit as well."""

DTYPE_BITS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "int4": 4,
        "bool": 8,
        **{f"{kind}{bits}": bits for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
        **{f"float{bits}": bits for bits in (16, 32, 64)},
    }
)
"""Bits of a scalar in memory, by its type: int4, of which there are two in a byte, and numpy's names."""
"""Bits of one scalar of each buffer type; two `int4` share a byte, the first in the low half."""


class ProgramError(ValueError):
    """A program, or a program file, that breaks a rule; the message is one sentence."""


class Role(Enum):
    """What a buffer is for."""

    INPUT = "input"
    OUTPUT = "output"
    CONSTANT = "constant"
    WORKSPACE = "workspace"


def shown(value: object) -> str:
    """Return `repr(value)` for an error message, shortened if it is long."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 160
    return short.repr(value)


def check_kind(subject: str, value: object, kind: type | tuple[type, ...], rule: str) -> None:
    """Require an instance of `kind`, which `rule` describes."""
    if not isinstance(value, kind):
        raise ProgramError(f"{subject} must be {rule}, not {shown(value)}")


def check_integer(subject: str, value: object, low: int, high: int) -> int:
    """Return `value` as an `int` if it is an integer from `low` to `high`."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = index(value)  # type: ignore[arg-type]  # TypeError is what is waited for
    except TypeError:
        raise ProgramError(f"{subject} must be an integer, not {shown(value)}") from None
    if not low <= number <= high:
        raise ProgramError(f"{subject} must be {low} to {high}, not {shown(number)}")
    return number


def check_name(subject: str, value: object) -> None:
    """Require a text of 1 to `MAX_NAME` printable characters."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME or not value.isprintable():
        raise ProgramError(f"{subject} must be a text of 1 to {MAX_NAME} printable characters, not {shown(value)}")


def check_object(subject: str, value: object) -> dict[str, Any]:
    """Return a deep copy of a JSON object in canonical form: sorted keys, lists for tuples."""
    if not isinstance(value, Mapping):
        raise ProgramError(f"{subject} must be a JSON object, not {shown(value)}")
    try:
        strict_json.check_depth(value, MAX_OBJECT_DEPTH)
    except strict_json.JsonError as error:
        raise ProgramError(f"{subject} cannot be kept: {error}") from None
    return {key: _json(f"{subject}[{shown(key)}]", item) for key, item in sorted(_keys(subject, value))}


def _keys(subject: str, value: Mapping[Any, Any]) -> list[tuple[str, Any]]:
    for key in value:
        if not isinstance(key, str):
            raise ProgramError(f"{subject} must have texts as keys, not {shown(key)}")
    return list(value.items())


def _json(subject: str, value: object) -> Any:
    if isinstance(value, Mapping):
        return {key: _json(f"{subject}[{shown(key)}]", item) for key, item in sorted(_keys(subject, value))}
    if isinstance(value, (list, tuple)):
        return [_json(f"{subject}[{place}]", item) for place, item in enumerate(value)]
    if value is None or isinstance(value, (bool, str)):
        return value
    if type(value) is int and -COUNT_LIMIT <= value < COUNT_LIMIT:
        return value
    if type(value) is float and math.isfinite(value):
        return value
    raise ProgramError(f"{subject} must be a JSON value (integers of 64 bits, finite numbers), not {shown(value)}")


def _set(target: object, name: str, value: object) -> None:
    # The one way to store a normalised value in a frozen dataclass while it is being constructed.
    object.__setattr__(target, name, value)


@dataclass(frozen=True, kw_only=True)
class Buffer:
    """A tensor in the arena.

    `shape` is the physical shape, row-major as stored; `layout` is free-form JSON that says what it means (logical
    shape and packing). `address` and `nbytes` are bytes; the address is a multiple of the scalar's size.
    """

    name: str
    role: Role
    dtype: str
    shape: tuple[int, ...]
    layout: dict[str, Any] | None = None
    address: int
    nbytes: int

    def __post_init__(self) -> None:
        check_name("buffer name", self.name)
        subject = f"buffer {shown(self.name)}"
        check_kind(f"{subject} role", self.role, Role, "a Role")
        check_kind(f"{subject} dtype", self.dtype, str, "a text")
        if self.dtype not in DTYPE_BITS:
            raise ProgramError(f"{subject} dtype must be one of {', '.join(DTYPE_BITS)}, not {shown(self.dtype)}")
        _set(self, "shape", self._checked_shape(subject))
        if self.layout is not None:
            _set(self, "layout", check_object(f"{subject} layout", self.layout))
        bits = DTYPE_BITS[self.dtype]
        _set(self, "address", check_integer(f"{subject} address", self.address, 0, ADDRESS_LIMIT - 1))
        if self.address % max(1, bits // 8):
            raise ProgramError(f"{subject} address must be a multiple of {bits // 8} bytes, not {self.address}")
        _set(self, "nbytes", check_integer(f"{subject} nbytes", self.nbytes, 1, ADDRESS_LIMIT))
        expected = (math.prod(self.shape) * bits + 7) // 8
        if self.nbytes != expected:
            rule = f"{expected} for {self.dtype} of shape {shown(list(self.shape))}"
            raise ProgramError(f"{subject} nbytes must be {rule}, not {self.nbytes}")

    def _checked_shape(self, subject: str) -> tuple[int, ...]:
        check_kind(f"{subject} shape", self.shape, (tuple, list), "a list of integers")
        if len(self.shape) > MAX_RANK:
            raise ProgramError(f"{subject} shape must have at most {MAX_RANK} extents, not {len(self.shape)}")
        return tuple(check_integer(f"{subject} shape", extent, 1, ADDRESS_LIMIT) for extent in self.shape)


@dataclass(frozen=True, kw_only=True)
class Launch:
    """A step that runs `insn_count` instructions from index `insn_begin` on the accelerator."""

    insn_begin: int
    insn_count: int

    def __post_init__(self) -> None:
        _set(self, "insn_begin", check_integer("launch insn_begin", self.insn_begin, 0, ADDRESS_LIMIT))
        # A launch of nothing makes the Chisel core fetch 2^32 - 1 beats (VTA spec 5.6).
        _set(self, "insn_count", check_integer("launch insn_count", self.insn_count, 1, ADDRESS_LIMIT))


@dataclass(frozen=True, kw_only=True)
class Host:
    """A step that runs on the host: a serialised tensor-IR procedure, opaque here, and its arguments by name."""

    name: str
    proc: dict[str, Any]
    buffers: tuple[str, ...]

    def __post_init__(self) -> None:
        check_name("host step name", self.name)
        subject = f"host step {shown(self.name)}"
        _set(self, "proc", check_object(f"{subject} proc", self.proc))
        check_kind(f"{subject} buffers", self.buffers, (tuple, list), "a list of names")
        for name in self.buffers:
            check_name(f"{subject} buffer", name)
        _set(self, "buffers", tuple(self.buffers))


Step = Launch | Host


@dataclass(frozen=True, kw_only=True)
class Layer:
    """The instructions `insn_begin` to `insn_end - 1` and the layer of the network they came from."""

    name: str
    insn_begin: int
    insn_end: int
    macs: int = 0
    attributes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name("layer name", self.name)
        subject = f"layer {shown(self.name)}"
        _set(self, "insn_begin", check_integer(f"{subject} insn_begin", self.insn_begin, 0, ADDRESS_LIMIT))
        _set(self, "insn_end", check_integer(f"{subject} insn_end", self.insn_end, self.insn_begin, ADDRESS_LIMIT))
        _set(self, "macs", check_integer(f"{subject} macs", self.macs, 0, COUNT_LIMIT - 1))
        _set(self, "attributes", check_object(f"{subject} attributes", self.attributes))


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Initial contents of memory: `data` at byte `address`."""

    address: int
    data: bytes

    def __post_init__(self) -> None:
        _set(self, "address", check_integer("segment address", self.address, 0, ADDRESS_LIMIT - 1))
        check_kind("segment data", self.data, bytes, "bytes")
        if not self.data:
            raise ProgramError("segment data must be at least 1 byte, not 0")


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Tokens in the four dependence queues (VTA spec 5.2): load to compute, compute to load, and to and from store."""

    l2g: int = 0
    g2l: int = 0
    g2s: int = 0
    s2g: int = 0

    def __post_init__(self) -> None:
        for name in ("l2g", "g2l", "g2s", "s2g"):
            _set(self, name, check_integer(f"tokens {name}", getattr(self, name), 0, TOKEN_LIMIT))
