"""From Amaranth's netlist to words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from amaranth.hdl import _nir as nir

from vta_sim.rtl.netlist import cells
from vta_sim.rtl.netlist.cuts import Cuts, Piece, used_bits
from vta_sim.rtl.netlist.logic import Field, Logic, Memory, Part, Read, Register, Write
from vta_sim.rtl.netlist.loops import LEAST
from vta_sim.rtl.netlist.words import REGISTER_BITS, Place, Word, Words, container, excludes

_BINARY: Final = {"+": "add", "-": "sub", "*": "mul", "u//": "udiv", "u%": "urem"}
_SHIFTS: Final = {"<<": "shl", "u>>": "lshr", "s>>": "ashr"}
# Operation, and whether the operands change places.
_COMPARISONS: Final = {
    "u<": ("ult", False),
    "u>": ("ult", True),
    "u<=": ("ule", False),
    "u>=": ("ule", True),
    "s<": ("slt", False),
    "s>": ("slt", True),
    "s<=": ("sle", False),
    "s>=": ("sle", True),
}
_LOGIC: Final = {"&": "and", "|": "or", "^": "xor"}
# Results whose low bits depend on the low bits of the operands alone.
_NARROWED: Final = ("+", "-", "*", "<<")
_ROW_ALIGNMENT: Final = 64


class Flattener:
    """Makes the `Logic` of a netlist. constants: inputs that have a fixed value in it, by name.

    observed: further outputs, by name. The layout of the state does not depend on `constants`.
    """

    def __init__(self, netlist: nir.Netlist, observed: Mapping[str, nir.Value], constants: Mapping[str, int]) -> None:
        self._cells: list[nir.Cell] = netlist.cells
        self._netlist = netlist
        self._observed = observed
        self._constants = constants
        self._words = Words()
        self._cuts = Cuts(netlist)
        self._order = self._cuts.order()
        self._used = used_bits(netlist, observed.values())
        self._places: dict[Piece, Place] = {}
        self._known: dict[Piece, Word] = {}
        self._memories = {number: index for index, number in enumerate(self._of_kind(nir.Memory))}
        self._write_ports = {number: index for index, number in enumerate(self._of_kind(nir.SyncWritePort))}

    def logic(self) -> Logic:
        input_bytes = self._place_inputs()
        state_bytes = self._place_state(input_bytes)
        self._load_state()
        for piece in self._order:
            self._known[piece] = self._compute(piece)
        top: nir.Top = self._cells[0]
        outputs = {**top.ports_o, **self._observed}
        return Logic(
            words=self._words,
            inputs={name: self._input_fields(name) for name in top.ports_i},
            input_bytes=input_bytes,
            state_bytes=state_bytes,
            registers=[
                self._register(cell, piece) for cell in self._of_kind(nir.FlipFlop) for piece in self._pieces(cell)
            ],
            memories=[self._memory(cell) for cell in self._memories],
            reads=[self._read(cell) for cell in self._of_kind(nir.SyncReadPort)],
            writes=[self._write(cell) for cell in self._write_ports],
            arrays=list(self._arrays()),
            outputs={name: self._words_of(value) for name, value in outputs.items()},
            names=self._names(),
        )

    def _arrays(self) -> Iterator[list[Word]]:
        """In the order in which their last words are computed."""
        last = {cell: at for at, (cell, _) in enumerate(self._order)}
        for cell in sorted(last, key=lambda cell: last[cell]):
            if isinstance(self._cells[cell], nir.PriorityMatch):
                continue
            words = [self._known[cell, number] for number, _, _ in self._pieces(cell)]
            if len(words) >= LEAST and len({(word.op, word.width) for word in words}) == 1:
                yield words

    # Layout

    def _of_kind(self, kind: type[nir.Cell]) -> list[int]:
        return [number for number, cell in enumerate(self._cells) if isinstance(cell, kind)]

    def _pieces(self, cell: int) -> list[tuple[int, int, int]]:
        """(number, lowest bit, width) of each piece."""
        return [(number, low, high - low) for number, (low, high) in enumerate(self._cuts.pieces(cell))]

    def _place_inputs(self) -> int:
        offset = 0
        for start, bits in self._cells[0].ports_i.values():
            for number, low, width in self._pieces(0):
                if start <= low < start + bits:
                    offset = self._place((0, number), width, offset)
        return _aligned(offset, _ROW_ALIGNMENT)

    def _place_state(self, offset: int) -> int:
        """Registers of equal width beside each other: loops over them are wanted to be regular."""
        numbers = self._of_kind(nir.FlipFlop) + self._of_kind(nir.SyncReadPort)
        numbers.sort(key=lambda number: (self._cells[number].module_idx, cells.width(self._cells[number]), number))
        for cell in numbers:
            pieces = self._pieces(cell)
            if len(pieces) > 1:
                offset = _aligned(offset, _ROW_ALIGNMENT)
            for number, _, width in pieces:
                offset = self._place((cell, number), width, offset)
        return _aligned(offset, _ROW_ALIGNMENT)

    def _place(self, piece: Piece, width: int, offset: int) -> int:
        nbytes = container(width) // 8
        offset = _aligned(offset, min(nbytes, REGISTER_BITS // 8))
        self._places[piece] = Place(offset, width)
        return offset + nbytes

    def _load_state(self) -> None:
        for piece, place in self._places.items():
            self._known[piece] = self._words.make("load", place.width, (), place)
        for name, value in self._constants.items():
            for field, piece in zip(self._input_fields(name), self._input_pieces(name), strict=True):
                self._known[piece] = self._words.const(value >> field.low, field.place.width)

    def _input_pieces(self, name: str) -> list[Piece]:
        start, bits = self._cells[0].ports_i[name]
        return [(0, number) for number, low, _ in self._pieces(0) if start <= low < start + bits]

    def _input_fields(self, name: str) -> tuple[Field, ...]:
        low, fields = 0, []
        for piece in self._input_pieces(name):
            fields.append(Field(low, self._places[piece]))
            low += self._places[piece].width
        return tuple(fields)

    def _row(self, memory: int) -> tuple[tuple[Field, ...], int]:
        """Fields of a row, and its bytes."""
        offset, fields = 0, []
        for _, low, width in self._pieces(memory):
            nbytes = container(width) // 8
            offset = _aligned(offset, min(nbytes, REGISTER_BITS // 8))
            fields.append(Field(low, Place(offset, width)))
            offset += nbytes
        unit = 1
        while unit < min(offset, _ROW_ALIGNMENT):
            unit *= 2
        return tuple(fields), _aligned(offset, unit)

    # State

    def _register(self, cell: int, piece: tuple[int, int, int]) -> Register:
        number, low, width = piece
        flop: nir.FlipFlop = self._cells[cell]
        return Register(
            place=self._places[cell, number],
            init=flop.init >> low & (1 << width) - 1,
            next=self._word(flop.data[low : low + width]),
        )

    def _memory(self, number: int) -> Memory:
        cell: nir.Memory = self._cells[number]
        fields, row_bytes = self._row(number)
        mask = (1 << cell.width) - 1
        return Memory(
            name=".".join((*self._netlist.modules[cell.module_idx].name[1:], cell.name)),
            width=cell.width,
            depth=cell.depth,
            row_bytes=row_bytes,
            fields=fields,
            init={row: value & mask for row, value in enumerate(cell.init) if value},
        )

    def _read(self, number: int) -> Read:
        port: nir.SyncReadPort = self._cells[number]
        return Read(
            memory=self._memories[port.memory],
            address=self._word(port.addr),
            enable=self._word(nir.Value(port.en)),
            targets=tuple((piece, self._places[number, piece]) for piece, _, _ in self._pieces(number)),
            transparent=tuple(self._write_ports[each] for each in port.transparent_for),
        )

    def _write(self, number: int) -> Write:
        port: nir.SyncWritePort = self._cells[number]
        fields = [
            (piece, self._word(nir.Value(port.en[low])), self._word(port.data[low : low + width]))
            for piece, low, width in self._pieces(port.memory)
        ]
        return Write(memory=self._memories[port.memory], address=self._word(port.addr), fields=tuple(fields))

    def _names(self) -> Mapping[str, tuple[Part, ...]]:
        """Every signal that is in the state."""
        names: dict[str, tuple[Part, ...]] = {}
        for module in self._netlist.modules:
            for signal, name in module.signal_names.items():
                value = self._netlist.signals[signal]
                if all(net.is_const or cells.is_state(self._cells[net.cell]) for net in value):
                    names[".".join((*module.name[1:], name))] = tuple(self._parts(value))
        return names

    def _parts(self, value: nir.Value) -> Iterator[Part]:
        low = 0
        for cell, start, length in cells.runs(value):
            if cell < 0:
                yield Part(low, length, None, start)
                low += length
                continue
            for number, begin, width in self._cuts.covering((cell, start, length)):
                yield Part(low, width, self._places[cell, number], begin)
                low += width

    # Values

    def _words_of(self, value: nir.Value) -> tuple[Word, ...]:
        """Words of a register each, lowest first."""
        return tuple(
            self._word(value[low : low + REGISTER_BITS]) for low in range(0, max(1, len(value)), REGISTER_BITS)
        )

    def _word(self, value: nir.Value) -> Word:
        """One word, however wide. A top bit that is repeated is a sign extension."""
        if not len(value):
            return self._words.const(0, 1)
        core = cells.without_extension(value)
        if len(core) < len(value):
            return self._words.extend(self._word(core), len(value), signed=True)
        parts = []
        for cell, start, bits in cells.runs(value):
            if cell < 0:
                parts.append(self._words.const(start, bits))
                continue
            for number, low, width in self._cuts.covering((cell, start, bits)):
                parts.append(self._words.slice(self._known[cell, number], low, width))
        return self._words.concat(parts)

    def _bit(self, net: nir.Net) -> Word:
        return self._word(nir.Value(net))

    def _compute(self, piece: Piece) -> Word:
        number, part = piece
        cell = self._cells[number]
        low, high = list(self._cuts.pieces(number))[part] if cells.is_cuttable(cell) else (part, part + 1)
        words = self._words
        match cell:
            case nir.Operator():
                return self._operator(number, cell, low, high)
            case nir.Part():
                return self._part(cell, low, high)
            case nir.Matches():
                patterns = tuple((_pattern(each, "01"), _pattern(each, "1")) for each in cell.patterns)
                return words.match(self._word(cell.value), patterns)
            case nir.PriorityMatch():
                own = self._bit(cell.inputs[part])
                before = (self._bit(net) for net in cell.inputs[:part])
                others = [words.invert(other) for other in before if not excludes(own, other)]
                return words.all_of([self._bit(cell.en), *others, own])
            case nir.AssignmentList():
                assignments = [
                    (self._bit(each.cond), self._word(each.value[low - each.start : high - each.start]))
                    for each in cell.assignments
                    if each.start <= low and high <= each.start + len(each.value)
                ]
                return words.assign(self._word(cell.default[low:high]), assignments)
            case nir.AsyncReadPort():
                field = [begin for begin, _ in self._cuts.pieces(cell.memory)].index(low)
                where = self._memories[cell.memory], field
                return words.make("read", high - low, (self._word(cell.addr),), where)
        raise AssertionError(f"{type(cell).__name__} has no value within a cycle")

    def _operator(self, number: int, cell: nir.Operator, low: int, high: int) -> Word:
        words, operator = self._words, cell.operator
        if operator in _LOGIC:
            one, other = (self._word(value[low:high]) for value in cell.inputs)
            return words.bitwise(_LOGIC[operator], one, other)
        if operator == "~":
            return words.invert(self._word(cell.inputs[0][low:high]))
        if operator == "m":
            condition, one, other = cell.inputs
            return words.select(self._word(condition), self._word(one[low:high]), self._word(other[low:high]))
        width = len(cell.inputs[0])
        if operator in _NARROWED:
            width = max(1, min(width, self._used.get(number, width)))
        if operator in ("b", "r|", "r&", "r^", "==", "!="):
            return self._reduction(operator, cell.inputs)
        args = [self._word(value[:width]) for value in cell.inputs]
        if operator in _BINARY:
            zero = words.const(0, width)
            first, second = (zero, args[0]) if len(args) == 1 else args
            result = words.make(_BINARY[operator], width, (first, second))
        elif operator in _SHIFTS:
            result = words.make(_SHIFTS[operator], width, (args[0], self._word(cell.inputs[1])))
        else:
            op, swapped = _COMPARISONS[operator]
            return words.make(op, 1, (args[1], args[0]) if swapped else (args[0], args[1]))
        # The bits beyond are used by no one.
        return words.extend(result, len(cell.inputs[0]))

    def _reduction(self, operator: str, values: Sequence[nir.Value]) -> Word:
        """Piece by piece, so that nothing wide comes into being."""
        words = self._words
        if not len(values[0]):
            return words.const(int(operator in ("r&", "==")), 1)
        bounds = self._common_bounds(values)
        op = {"b": "any", "r|": "any", "r&": "all", "r^": "parity", "==": "eq", "!=": "ne"}[operator]
        results = []
        for low, high in bounds:
            args = tuple(self._word(value[low:high]) for value in values)
            if len(args) == 1 and args[0].width == 1:
                results.append(args[0])
            elif len(args) == 2 and args[0].width == 1:
                differ = words.bitwise("xor", *args)
                results.append(words.invert(differ) if op == "eq" else differ)
            else:
                results.append(words.make(op, 1, args))
        join = {"any": "or", "ne": "or", "all": "and", "eq": "and", "parity": "xor"}[op]
        result = results[0]
        for other in results[1:]:
            result = words.bitwise(join, result, other)
        return result

    def _common_bounds(self, values: Sequence[nir.Value]) -> list[tuple[int, int]]:
        length = len(values[0])
        if length <= REGISTER_BITS:
            return [(0, length)]
        return [(low, min(low + REGISTER_BITS, length)) for low in range(0, length, REGISTER_BITS)]

    def _part(self, cell: nir.Part, low: int, high: int) -> Word:
        """Bits low..high-1 of a selection: the value is moved down by a power of two for each bit of the offset."""
        words = self._words
        value = cell.value
        if not len(value):
            return words.const(0, high - low)
        fill = self._word(nir.Value(value[-1])) if cell.value_signed else words.const(0, 1)
        length = len(value)

        def window(begin: int, width: int) -> Word:
            """Bits of the value from `begin` on; beyond its end they are the sign, or 0."""
            inside = max(0, min(length - begin, width))
            parts = [self._word(value[begin : begin + inside])] if inside else []
            if inside < width:
                parts.append(words.extend(fill, width - inside, signed=True))
            return words.concat(parts)

        width = high - low
        # Offsets that matter: beyond them there is nothing but the fill.
        count = min(1 << len(cell.offset), -(-length // cell.stride) + 1)
        if cell.stride == 1 and length <= REGISTER_BITS:
            moved = words.make(
                "ashr" if cell.value_signed else "lshr", length, (self._word(value), self._word(cell.offset))
            )
            whole = words.extend(moved, max(length, high), signed=cell.value_signed)
            return words.slice(whole, low, width)
        choices = [window(number * cell.stride + low, width) for number in range(count)]
        bits = (count - 1).bit_length()
        last = words.extend(fill, width, signed=True) if width > 1 else fill
        for bit in range(bits):
            condition = self._bit(cell.offset[bit])
            choices.extend([last] * (len(choices) % 2))
            choices = [words.select(condition, choices[pair + 1], choices[pair]) for pair in range(0, len(choices), 2)]
        result = choices[0]
        if len(cell.offset) > bits:
            beyond = self._reduction("r|", [cell.offset[bits:]])
            result = words.select(beyond, last, result)
        return result


def _aligned(offset: int, unit: int) -> int:
    return -(-offset // unit) * unit


def _pattern(pattern: str, ones: Iterable[str]) -> int:
    """Number with a 1 for each of those characters; patterns begin with the highest bit."""
    return int("0" + "".join("1" if each in ones else "0" for each in pattern), 2)
