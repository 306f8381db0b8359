"""REQUANT by hand: every line was computed on paper from decision 0006, none by a program of this repository."""

from __future__ import annotations

from typing import NamedTuple


class Example(NamedTuple):
    """One scalar: what is in ACC[d], bias, factor, shift, zero point, whether bit 15 of imm is set; the result."""

    acc: int
    bias: int
    factor: int
    shift: int
    zero_point: int
    relu: bool
    result: int


TOP, BOTTOM = 2**31 - 1, -(2**31)
MOST = 2**24 - 1

INTO_8_BITS = (
    # Halves go away from zero: 0.5, 1.5, 2.5 and their negatives.
    Example(1, 0, 1, 1, 0, False, 1),
    Example(-1, 0, 1, 1, 0, False, -1),
    Example(3, 0, 1, 1, 0, False, 2),
    Example(-3, 0, 1, 1, 0, False, -2),
    Example(5, 0, 1, 1, 0, False, 3),
    Example(-5, 0, 1, 1, 0, False, -3),
    # 7 * 3 / 2**3 = 2.625, 4 * 3 / 2**3 = 1.5, and just below a half: 7 * 1 / 2**4 = 0.4375.
    Example(7, 0, 3, 3, 0, False, 3),
    Example(-7, 0, 3, 3, 0, False, -3),
    Example(-4, 0, 3, 3, 0, False, -2),
    Example(7, 0, 1, 4, 0, False, 0),
    Example(-7, 0, 1, 4, 0, False, 0),
    Example(-3, 0, 1, 2, 0, False, -1),
    # Rounding comes before the zero point: -2.5 is -3 and not -2, which -2.5 + 10 = 7.5 would make of it.
    Example(-5, 0, 1, 1, 10, False, 7),
    Example(5, 0, 1, 1, -10, False, -7),
    # A shift by 0, a factor of 0, saturation at both ends.
    Example(100, -30, 1, 0, 0, False, 70),
    Example(-128, 0, 1, 0, 0, False, -128),
    Example(12345, 0, 0, 0, -7, False, -7),
    Example(128, 0, 1, 0, 0, False, 127),
    Example(-129, 0, 1, 0, 0, False, -128),
    Example(TOP, 0, MOST, 0, 0, False, 127),
    Example(BOTTOM, 0, MOST, 0, 0, False, -128),
    # 2**18 - 0.5 goes away from zero, and is then a bit longer.
    Example(524287, 0, 1, 1, 0, False, 127),
    Example(-524287, 0, 1, 1, 0, False, -128),
    # The bias wraps at 32 bits: 2**31 is -2**31.
    Example(TOP, 1, 1, 31, 0, False, -1),
    Example(BOTTOM, -1, 1, 31, 0, False, 1),
    # The largest products: -2**31 * (2**24 - 1) is just less than 2**55 away from zero.
    Example(BOTTOM, 0, MOST, 55, 0, False, -1),
    Example(BOTTOM, 0, MOST, 56, 0, False, 0),
    Example(BOTTOM, 0, MOST, 63, 3, False, 3),
    Example(BOTTOM, 0, 2**23, 55, 0, False, -1),
    Example(-BOTTOM // 2, 0, 2**23, 54, 0, False, 1),
    Example(BOTTOM // 2, 0, 2**23, 55, 0, False, 0),
    # Bit 15: nothing below the zero point, but OUT has its own ends.
    Example(-5, 0, 1, 0, 0, True, 0),
    Example(5, 0, 1, 0, 0, True, 5),
    Example(-5, 0, 1, 0, 10, True, 10),
    Example(7, 0, 1, 0, 10, True, 17),
    Example(-50, 0, 1, 0, -3, True, -3),
    Example(-50, 0, 1, 0, -128, True, -128),
    Example(-500, 0, 1, 0, 200, True, 127),
    Example(-500, 0, 1, 0, -200, True, -128),
    Example(210, 0, 1, 0, -200, True, 10),
    # Zero points beyond OUT.
    Example(-100, 0, 1, 0, 200, False, 100),
    Example(0, 0, 1, 0, -16384, False, -128),
    Example(-16300, 0, 1, 0, 16383, False, 83),
    Example(16300, 0, 1, 0, -16384, False, -84),
)

INTO_4_BITS = (
    Example(7, 0, 1, 0, 0, False, 7),
    Example(8, 0, 1, 0, 0, False, 7),
    Example(-9, 0, 1, 0, 0, False, -8),
    Example(-3, 0, 1, 1, -1, False, -3),
    Example(-9, 0, 1, 0, 9, True, 7),
    Example(-9, 0, 1, 0, -9, True, -8),
)

INTO_16_BITS = (
    Example(300, 0, 1, 0, 0, False, 300),
    Example(32768, 0, 1, 0, 0, False, 32767),
    Example(-32769, 0, 1, 0, 0, False, -32768),
    Example(-65537, 0, 1, 1, 16383, False, -16386),
    Example(-5, 0, 1, 0, 16383, True, 16383),
    Example(-20000, 0, 1, 0, -16384, True, -16384),
)

BY_BITS = {8: INTO_8_BITS, 4: INTO_4_BITS, 16: INTO_16_BITS}
