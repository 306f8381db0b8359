"""Words as LLVM instructions.

A word of w bits is held in a type of 1, 8, 16, 32, 64 or a multiple of 64 bits. The bits of the type above w are zeros
(`ZERO`), copies of the sign (`SIGN`), or anything (`ANY`); an operation asks for what it needs, and an extension is
written where it is first needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from vta_sim.rtl.netlist.ranges import Ranges
from vta_sim.rtl.netlist.words import REGISTER_BITS, Place, Word, container

ZERO, SIGN, ANY = "z", "s", "x"


class Value(NamedTuple):
    """A name or constant of LLVM, of `bits` bits, and what is above those of the word."""

    name: str
    bits: int
    above: str


_COMPARED: Final = {"ult": ZERO, "ule": ZERO, "slt": SIGN, "sle": SIGN}


def held(width: int) -> int:
    """Bits of the type that holds a word."""
    return 1 if width == 1 else container(width)


def wide_division(op: str, bits: int) -> str:
    """A function for `udiv` or `urem` beyond a register, bit by bit: for some widths LLVM would call a library."""
    result = {"udiv": "quotient.next", "urem": "rest.next"}[op]
    return f"""
define internal i{bits} @{op}{bits}(i{bits} %one, i{bits} %other) {{
  br label %loop
loop:
  %step = phi i{bits} [ {bits - 1}, %0 ], [ %step.next, %loop ]
  %rest = phi i{bits} [ 0, %0 ], [ %rest.next, %loop ]
  %quotient = phi i{bits} [ 0, %0 ], [ %quotient.next, %loop ]
  %moved = lshr i{bits} %one, %step
  %bit = and i{bits} %moved, 1
  %high = icmp slt i{bits} %rest, 0
  %doubled = shl i{bits} %rest, 1
  %dividend = or i{bits} %doubled, %bit
  %more = icmp uge i{bits} %dividend, %other
  %fits = or i1 %high, %more
  %less = sub i{bits} %dividend, %other
  %rest.next = select i1 %fits, i{bits} %less, i{bits} %dividend
  %digit = zext i1 %fits to i{bits}
  %shifted = shl i{bits} %quotient, 1
  %quotient.next = or i{bits} %shifted, %digit
  %step.next = sub i{bits} %step, 1
  %last = icmp eq i{bits} %step, 0
  br i1 %last, label %done, label %loop
done:
  ret i{bits} %{result}
}}
"""


class Emitter:
    """Writes one function. `load` gives the address of a place as an LLVM pointer."""

    def __init__(self, ranges: Ranges, prefix: str = "") -> None:
        self.lines: list[str] = []
        self._ranges = ranges
        self._prefix = prefix
        self.wide_divisions: set[tuple[str, int]] = set()
        self._count = 0
        self._values: dict[int, Value] = {}
        self._converted: dict[tuple[int, str, int], str] = {}
        self._pointers: dict[tuple[str, int], str] = {}
        self.read_row: Callable[[Word], Value] | None = None
        self.moving: Callable[[Word], str | None] = lambda word: None
        self.outside: Callable[[Word], Place | None] = lambda word: None

    def name(self) -> str:
        self._count += 1
        return f"%v{self._prefix}{self._count}"

    def line(self, expression: str) -> str:
        """Append an instruction, and return the name of its result."""
        name = self.name()
        self.lines.append(f"  {name} = {expression}")
        return name

    def pointer(self, base: str, offset: int) -> str:
        if offset == 0:
            return base
        known = self._pointers.get((base, offset))
        if known is None:
            known = self._pointers[base, offset] = self.line(f"getelementptr inbounds i8, ptr {base}, i64 {offset}")
        return known

    def bind(self, word: Word, value: Value) -> None:
        """Let a word be known by a value that was computed otherwise."""
        self._values[word.number] = value

    def is_known(self, word: Word) -> bool:
        return word.number in self._values

    def load(self, base: str, place: Place) -> Value:
        return self.load_from(self.pointer(base, place.offset), place.width)

    def load_from(self, pointer: str, width: int) -> Value:
        bits = container(width)
        name = self.line(f"load i{bits}, ptr {pointer}, align 1")
        return Value(self.line(f"trunc i{bits} {name} to i1"), 1, ZERO) if width == 1 else Value(name, bits, ZERO)

    def store(self, word: Word, pointer: str) -> None:
        bits = container(word.width)
        self.lines.append(f"  store i{bits} {self.get(word, ZERO, bits)}, ptr {pointer}, align 1")

    def get(self, word: Word, above: str, bits: int = 0) -> str:
        """The word in a type of `bits` bits, by default the smallest, with `above` above it."""
        bits = bits or held(word.width)
        if word.op == "const":
            return self._constant(word, above, bits)
        key = (word.number, above, bits)
        known = self._converted.get(key)
        if known is None:
            known = self._converted[key] = self._convert(self.value(word), word.width, above, bits)
        return known

    def bit(self, word: Word) -> str:
        """A word of one bit, as i1."""
        return self.get(word, ZERO, 1)

    def value(self, word: Word) -> Value:
        """The word as it is computed."""
        value = self._values.get(word.number)
        if value is None:
            pointer, place = self.moving(word), self.outside(word)
            if pointer is not None:
                value = self.load_from(pointer, word.width)
            else:
                value = self._compute(word) if place is None else self.load("%t", place)
            self._values[word.number] = value
        return value

    @contextmanager
    def when(self, condition: str) -> Iterator[None]:
        """What is written inside is executed if `condition` is true; what it computes is not known outside."""
        if condition == "true":
            yield
            return
        label = self.name()[1:]
        self.lines += [f"  br i1 {condition}, label %then{label}, label %end{label}", f"then{label}:"]
        with self.scope():
            yield
        self.lines += [f"  br label %end{label}", f"end{label}:"]

    @contextmanager
    def scope(self) -> Iterator[None]:
        """What is computed inside is not known outside."""
        kept = self._values, self._converted, self._pointers
        self._values, self._converted, self._pointers = (dict(each) for each in kept)  # type: ignore[assignment]  # copied alike
        yield
        self._values, self._converted, self._pointers = kept

    @staticmethod
    def _constant(word: Word, above: str, bits: int) -> str:
        value: int = word.param
        if bits == 1:
            return "true" if value else "false"
        if above == SIGN and value >> (word.width - 1):
            value -= 1 << word.width
        return str(value)

    def _convert(self, value: Value, width: int, above: str, bits: int) -> str:
        name, now, kind = value.name, value.bits, value.above
        if now == width:
            kind = above if above != ANY else ZERO
        elif kind != above and above != ANY:
            if above == ZERO:
                name = self.line(f"and i{now} {name}, {(1 << width) - 1}")
            else:
                shifted = self.line(f"shl i{now} {name}, {now - width}")
                name = self.line(f"ashr i{now} {shifted}, {now - width}")
            kind = above
        if bits != now:
            name = self.line(f"{'sext' if kind == SIGN else 'zext'} i{now} {name} to i{bits}")
        return name

    def _compute(self, word: Word) -> Value:
        width, args, bits = word.width, word.args, held(word.width)
        match word.op:
            case "const":
                return Value(self._constant(word, ZERO, bits), bits, ZERO)
            case "slice":
                return self._slice(word)
            case "concat":
                return self._concat(word)
            case "zext":
                return Value(self.get(args[0], ZERO, bits), bits, ZERO)
            case "sext":
                return Value(self.get(args[0], SIGN, bits), bits, SIGN)
            case "add" | "sub" | "mul":
                return self._arithmetic(word)
            case "udiv" | "urem":
                return self._division(word)
            case "and" | "or" | "xor":
                alike = self._values_alike(args, width)
                name = self.line(f"{word.op} i{bits} {alike[0].name}, {alike[1].name}")
                return Value(name, bits, alike[0].above)
            case "not":
                kind = self._above(args[0], width)
                kind = SIGN if kind == SIGN else ANY
                name = self.line(f"xor i{bits} {self.get(args[0], kind, bits)}, {'true' if bits == 1 else -1}")
                return Value(name, bits, kind)
            case "shl" | "lshr" | "ashr":
                return self._shift(word)
            case "eq" | "ne":
                wide = max(held(args[0].width), 1)
                one, other = self.get(args[0], ZERO, wide), self.get(args[1], ZERO, wide)
                return Value(self.line(f"icmp {word.op} i{wide} {one}, {other}"), 1, ZERO)
            case "ult" | "ule" | "slt" | "sle":
                wide, kind = held(args[0].width), _COMPARED[word.op]
                one, other = self.get(args[0], kind, wide), self.get(args[1], kind, wide)
                return Value(self.line(f"icmp {word.op} i{wide} {one}, {other}"), 1, ZERO)
            case "any":
                wide = held(args[0].width)
                return Value(self.line(f"icmp ne i{wide} {self.get(args[0], ZERO, wide)}, 0"), 1, ZERO)
            case "all":
                wide, full = held(args[0].width), (1 << args[0].width) - 1
                return Value(self.line(f"icmp eq i{wide} {self.get(args[0], ZERO, wide)}, {full}"), 1, ZERO)
            case "parity":
                wide = held(args[0].width)
                ones = self.line(f"call i{wide} @llvm.ctpop.i{wide}(i{wide} {self.get(args[0], ZERO, wide)})")
                return Value(self.line(f"trunc i{wide} {ones} to i1"), 1, ZERO)
            case "select":
                alike = self._values_alike(args[1:], width)
                name = self.line(f"select i1 {self.bit(args[0])}, i{bits} {alike[0].name}, i{bits} {alike[1].name}")
                return Value(name, bits, alike[0].above)
            case "assign":
                values = self._values_alike((args[0], *args[2::2]), width)
                name = values[0].name
                for condition, value in zip(args[1::2], values[1:], strict=True):
                    name = self.line(f"select i1 {self.bit(condition)}, i{bits} {value.name}, i{bits} {name}")
                return Value(name, bits, values[0].above)
            case "match":
                return self._match(word)
            case "load":
                return self.load("%s", word.param)
            case "read":
                assert self.read_row is not None
                return self.read_row(word)
        raise AssertionError(f"unknown operation {word.op}")

    def _above(self, word: Word, width: int) -> str:
        """What is above a word as it comes, or `ZERO` where there is nothing."""
        if word.op == "const":
            return ZERO
        value = self.value(word)
        return ZERO if value.bits == width else value.above

    def _values_alike(self, words: tuple[Word, ...], width: int) -> list[Value]:
        """Words of one width with the same above them, as cheaply as they can be had."""
        bits = held(width)
        if bits == width:
            return [Value(self.get(word, ANY, bits), bits, ZERO) for word in words]
        kinds = {self._above(word, width) for word in words if word.op != "const"}
        kind = kinds.pop() if len(kinds) == 1 else ZERO if not kinds else ANY
        return [Value(self.get(word, kind, bits), bits, kind) for word in words]

    def _arithmetic(self, word: Word) -> Value:
        width, bits = word.width, held(word.width)
        if bits == 1:
            op = "and" if word.op == "mul" else "xor"
            return Value(self.line(f"{op} i1 {self.bit(word.args[0])}, {self.bit(word.args[1])}"), 1, ZERO)
        kind = self._exact(word) if bits != width else ANY
        one, other = (self.get(arg, kind, bits) for arg in word.args)
        return Value(self.line(f"{word.op} i{bits} {one}, {other}"), bits, kind)

    def _exact(self, word: Word) -> str:
        """How operands must be extended so that the result is extended too; `ANY` if it may overflow."""
        ranges = [self._ranges(arg) for arg in word.args]
        add = sum if word.op == "mul" else lambda each: max(each) + 1
        if any(arg.op == "sext" for arg in word.args) or word.op == "sub":
            return SIGN if add([signed for _, signed in ranges]) <= word.width else ANY
        return ZERO if add([unsigned for unsigned, _ in ranges]) <= word.width else ANY

    def _division(self, word: Word) -> Value:
        bits = max(8, held(word.width))
        one, other = (self.get(arg, ZERO, bits) for arg in word.args)
        none = self.line(f"icmp eq i{bits} {other}, 0")
        divisor = self.line(f"select i1 {none}, i{bits} 1, i{bits} {other}")
        if bits <= REGISTER_BITS:
            result = self.line(f"{word.op} i{bits} {one}, {divisor}")
        else:
            self.wide_divisions.add((word.op, bits))
            result = self.line(f"call i{bits} @{word.op}{bits}(i{bits} {one}, i{bits} {divisor})")
        result = self.line(f"select i1 {none}, i{bits} 0, i{bits} {result}")
        return self._trimmed(Value(result, bits, ZERO), word.width)

    def _trimmed(self, value: Value, width: int) -> Value:
        """A value in the type that its width calls for."""
        bits = held(width)
        if bits == value.bits:
            return value
        name = self.line(f"trunc i{value.bits} {value.name} to i{bits}")
        return Value(name, bits, value.above if bits > width else ZERO)

    def _shift(self, word: Word) -> Value:
        value, amount = word.args
        bits = max(8, held(word.width))
        kind = {"shl": ANY, "lshr": ZERO, "ashr": SIGN}[word.op]
        one = self.get(value, kind, bits)
        if amount.op == "const":
            distance = min(amount.param, bits)
            if distance >= word.width:
                if word.op != "ashr":
                    return Value("false" if held(word.width) == 1 else "0", held(word.width), ZERO)
                distance = word.width - 1
            return self._trimmed(Value(self.line(f"{word.op} i{bits} {one}, {distance}"), bits, kind), word.width)
        wide = max(bits, held(amount.width))
        most = self._ranges(amount)[0]
        distance_name = self.get(amount, ZERO, wide)
        too_far = None
        if most > 10 or (1 << most) - 1 >= bits:
            too_far = self.line(f"icmp uge i{wide} {distance_name}, {bits}")
            limit = bits - 1 if word.op == "ashr" else 0
            distance_name = self.line(f"select i1 {too_far}, i{wide} {limit}, i{wide} {distance_name}")
        if wide != bits:
            distance_name = self.line(f"trunc i{wide} {distance_name} to i{bits}")
        result = self.line(f"{word.op} i{bits} {one}, {distance_name}")
        if too_far is not None and word.op != "ashr":
            result = self.line(f"select i1 {too_far}, i{bits} 0, i{bits} {result}")
        return self._trimmed(Value(result, bits, kind), word.width)

    def _slice(self, word: Word) -> Value:
        source, low = word.args[0], word.param
        now, bits, end = held(source.width), held(word.width), low + word.width
        above = self._above(source, source.width)
        kind = above if end == source.width and above != ANY else ANY
        name = self.get(source, kind, now)
        if low:
            name = self.line(f"{'ashr' if kind == SIGN else 'lshr'} i{now} {name}, {low}")
        if now != bits:
            name = self.line(f"trunc i{now} {name} to i{bits}")
        return Value(name, bits, ZERO if bits == word.width else kind)

    def _concat(self, word: Word) -> Value:
        bits = held(word.width)
        low, result = 0, None
        for part in word.args:
            last = low + part.width == word.width
            if not (part.op == "const" and part.param == 0):
                name = self.get(part, ANY if last and bits == word.width else ZERO, bits)
                if low:
                    name = self.line(f"shl i{bits} {name}, {low}")
                result = name if result is None else self.line(f"or i{bits} {result}, {name}")
            low += part.width
        return Value(result or "0", bits, ZERO)

    def _match(self, word: Word) -> Value:
        source = word.args[0]
        bits, full = held(source.width), (1 << source.width) - 1
        result = None
        for mask, wanted in word.param:
            if bits == 1:
                fits = self.bit(source) if wanted else self.line(f"xor i1 {self.bit(source)}, true")
            else:
                name = self.get(source, ZERO, bits)
                if mask != full:
                    name = self.line(f"and i{bits} {name}, {mask}")
                fits = self.line(f"icmp eq i{bits} {name}, {wanted}")
            result = fits if result is None else self.line(f"or i1 {result}, {fits}")
        return Value(result or "false", 1, ZERO)
