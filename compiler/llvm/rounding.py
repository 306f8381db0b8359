"""Rounding to the nearest integer for processors without an instruction for it."""

from __future__ import annotations

import re
from collections.abc import Iterator

_DECLARED = re.compile(r"^declare .* @llvm\.roundeven\.((?:v(\d+))?f32)\(.*\)$", re.MULTILINE)
_INTEGRAL = 0x4B000000
"""Bits of 2**23: float32 numbers that large have no fraction, and sums with it are rounded to integers."""
_SIGN = -(1 << 31)


def with_roundeven(text: str, prefix: str) -> str:
    """LLVM IR in which functions of its own, whose names begin with `prefix`, stand for ``llvm.roundeven``."""
    definitions = [_defined(prefix, suffix, int(lanes or 1)) for suffix, lanes in _DECLARED.findall(text)]
    return "\n".join([_DECLARED.sub("", text).replace("@llvm.roundeven.", f"@{prefix}."), *definitions])


def _defined(prefix: str, suffix: str, lanes: int) -> str:
    return "\n".join(_lines(f"@{prefix}.{suffix}", *(_vector(type, lanes) for type in ("float", "i32", "i1"))))


def _vector(type: str, lanes: int) -> str:
    return type if lanes == 1 else f"<{lanes} x {type}>"


def _lines(name: str, real: str, integer: str, truth: str) -> Iterator[str]:
    def constant(value: int) -> str:
        return str(value) if integer == "i32" else f"splat (i32 {value})"

    yield f"define internal {real} {name}({real} %x) alwaysinline nounwind {{"
    yield f"  %bits = bitcast {real} %x to {integer}"
    yield f"  %sign = and {integer} %bits, {constant(_SIGN)}"
    yield f"  %size = and {integer} %bits, {constant(~_SIGN)}"
    yield f"  %shift.bits = or {integer} %sign, {constant(_INTEGRAL)}"
    yield f"  %shift = bitcast {integer} %shift.bits to {real}"
    yield f"  %up = fadd {real} %x, %shift"
    yield f"  %rounded = fsub {real} %up, %shift"
    yield f"  %rounded.bits = bitcast {real} %rounded to {integer}"
    yield f"  %signed.bits = or {integer} %rounded.bits, %sign"
    yield f"  %signed = bitcast {integer} %signed.bits to {real}"
    yield f"  %fraction = icmp ult {integer} %size, {constant(_INTEGRAL)}"
    yield f"  %result = select {truth} %fraction, {real} %signed, {real} %x"
    yield f"  ret {real} %result"
    yield "}"
