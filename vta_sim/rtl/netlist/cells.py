"""What the compiler needs to know of each kind of cell of Amaranth's netlist."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from amaranth.hdl import _nir as nir

from vta_sim.rtl.netlist.errors import Unsupported

BITWISE: Final = frozenset({"~", "&", "|", "^", "m"})

_REFUSED: Final = {
    nir.AsyncPrint: "Print",
    nir.SyncPrint: "Print",
    nir.AsyncProperty: "Assert, Assume or Cover",
    nir.SyncProperty: "Assert, Assume or Cover",
    nir.Initial: "Initial",
    nir.AnyValue: "AnyConst or AnySeq",
    nir.Instance: "Instance",
    nir.IOBuffer: "IOBuffer",
}

Clocked = nir.FlipFlop | nir.SyncReadPort | nir.SyncWritePort
Run = tuple[int, int, int]
"""Cell, its lowest bit, number of bits: neighbouring outputs of a cell that stand beside each other in a value."""


def check_supported(netlist: nir.Netlist) -> None:
    """Raises Unsupported for a cell that cannot be compiled, and for more than one clock."""
    clocks = set()
    for cell in netlist.cells:
        if refused := _REFUSED.get(type(cell)):
            raise Unsupported(f"Design must not contain {refused}, but has one {_where(cell)}")
        if isinstance(cell, nir.Operator) and cell.operator in ("s//", "s%"):
            raise Unsupported(f"Design must not divide signed numbers, but does so {_where(cell)}")
        if isinstance(cell, Clocked):
            clocks.add(cell.clk)
            if cell.clk_edge != "pos":
                raise Unsupported(f"Clocks must be used with their rising edge, not the falling one as {_where(cell)}")
        if isinstance(cell, nir.FlipFlop) and cell.arst != 0:
            raise Unsupported(f"Resets must be synchronous, not asynchronous as {_where(cell)}")
    if len(clocks) > 1:
        raise Unsupported(f"Design must have one clock, not {len(clocks)}")
    for clock in clocks:
        if clock.is_const or clock.cell != 0:
            raise Unsupported("The clock must be an input of the design, not be made by it")


def _where(cell: nir.Cell) -> str:
    file, line = cell.src_loc if cell.src_loc else ("an unknown place", 0)
    return f"at {file}:{line}"


def width(cell: nir.Cell) -> int:
    """Bits of the output; of a memory, those of a row."""
    match cell:
        case nir.Top():
            return max((start + bits for start, bits in cell.ports_i.values()), default=2)
        case nir.Operator() | nir.Part() | nir.Memory() | nir.SyncReadPort() | nir.AsyncReadPort():
            return int(cell.width)
        case nir.Matches():
            return 1
        case nir.PriorityMatch():
            return len(cell.inputs)
        case nir.AssignmentList():
            return len(cell.default)
        case nir.FlipFlop():
            return len(cell.data)
    return 0


def is_cuttable(cell: nir.Cell) -> bool:
    """Whether output bits of the cell can be had without the others."""
    if isinstance(cell, nir.Operator):
        return cell.operator in BITWISE
    return isinstance(
        cell,
        nir.FlipFlop | nir.AssignmentList | nir.SyncReadPort | nir.AsyncReadPort | nir.Part | nir.Memory | nir.Top,
    )


def is_state(cell: nir.Cell) -> bool:
    """Whether the outputs are there when a cycle begins."""
    return isinstance(cell, nir.FlipFlop | nir.SyncReadPort | nir.Top | nir.Memory)


def aligned_inputs(cell: nir.Cell) -> list[tuple[int, nir.Value]]:
    """Inputs whose bits go to the output bits from the given one on, and which a cut of the output cuts as well."""
    match cell:
        case nir.Operator() if cell.operator in BITWISE:
            return [(0, value) for value in (cell.inputs[1:] if cell.operator == "m" else cell.inputs)]
        case nir.AssignmentList():
            return [(0, cell.default), *((each.start, each.value) for each in cell.assignments)]
        case nir.FlipFlop():
            return [(0, cell.data)]
    return []


def inputs(cell: nir.Cell) -> list[nir.Value]:
    """All values that a cell computes with, clocks left out."""
    match cell:
        case nir.Operator():
            return list(cell.inputs)
        case nir.Part():
            return [cell.value, cell.offset]
        case nir.Matches():
            return [cell.value]
        case nir.PriorityMatch():
            return [nir.Value(cell.en), *map(nir.Value, cell.inputs)]
        case nir.AssignmentList():
            values = [cell.default, *(each.value for each in cell.assignments)]
            return [*values, *(nir.Value(each.cond) for each in cell.assignments)]
        case nir.FlipFlop():
            return [cell.data]
        case nir.AsyncReadPort():
            return [cell.addr]
        case nir.SyncReadPort():
            return [cell.addr, nir.Value(cell.en)]
        case nir.SyncWritePort():
            return [cell.addr, cell.data, *map(nir.Value, cell.en)]
        case nir.Top():
            return list(cell.ports_o.values())
    return []


def inputs_of(cell: nir.Cell, low: int, high: int) -> list[nir.Value]:
    """The values that output bits low..high-1 depend on within a cycle."""
    match cell:
        case nir.Operator() if cell.operator in BITWISE:
            parts = [value[low:high] for _, value in aligned_inputs(cell)]
            return [cell.inputs[0], *parts] if cell.operator == "m" else parts
        case nir.AssignmentList():
            values = [cell.default[low:high]]
            for each in cell.assignments:
                begin, end = max(low, each.start), min(high, each.start + len(each.value))
                if begin < end:
                    values += [nir.Value(each.cond), each.value[begin - each.start : end - each.start]]
            return values
        case nir.PriorityMatch():
            return [nir.Value(cell.en), nir.Value(cell.inputs[:high])]
    return inputs(cell)


def without_extension(value: nir.Value) -> nir.Value:
    """A value without the copies of its top bit that extend its sign."""
    length = len(value)
    while length > 1 and value[length - 1] == value[length - 2] and not value[length - 1].is_const:
        length -= 1
    return value[:length]


def lanes(value: nir.Value) -> Iterator[int]:
    """Bits of each part that a value is put together from: neighbouring outputs, with their extension."""
    begin = at = 0
    while at < len(value):
        at += 1
        while at < len(value) and value[at] == value[at - 1] + 1 and not value[at].is_const:
            at += 1
        while at < len(value) and (value[at] == value[at - 1] or value[at] == 0):
            at += 1
        yield at - begin
        begin = at


def runs(value: nir.Value) -> Iterator[Run]:
    """What a value consists of, from the lowest bits up. A constant is a run of cell -1, its value the bit."""
    at = 0
    while at < len(value):
        net, end = value[at], at + 1
        if net.is_const:
            constant = int(net)
            while end < len(value) and value[end].is_const:
                constant |= int(value[end]) << (end - at)
                end += 1
            yield -1, constant, end - at
        else:
            while end < len(value) and value[end] == net + (end - at):
                end += 1
            yield net >> 16, net & 0xFFFF, end - at
        at = end
