"""The logic of a design: what its state becomes in a clock cycle, in words.

This is all that the rest of the compiler sees of a netlist.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vta_sim.rtl.netlist.words import Place, Word, Words


@dataclass(frozen=True, slots=True)
class Field:
    """The bits of a value from `low` on, and where they are: a word of the state or of the row of a memory."""

    low: int
    place: Place


@dataclass(frozen=True, slots=True)
class Part:
    """The `width` bits of a value from `low` on, and where they are: in a word of the state, from its bit `begin` on.

    Without a place they are the number `begin`.
    """

    low: int
    width: int
    place: Place | None
    begin: int


@dataclass(frozen=True, kw_only=True)
class Register:
    """A word of state, its value after power-on, and what it becomes with the clock."""

    place: Place
    init: int
    next: Word


@dataclass(frozen=True, kw_only=True)
class Memory:
    """`depth` rows of `row_bytes` bytes, of which `fields` tells the contents; init: rows, the others are 0."""

    name: str
    width: int
    depth: int
    row_bytes: int
    fields: tuple[Field, ...]
    init: Mapping[int, int]


@dataclass(frozen=True, kw_only=True)
class Read:
    """A synchronous read port: with `enable`, the fields of a row go to `targets`, or what is written there now.

    transparent: numbers of the write ports whose data it sees.
    """

    memory: int
    address: Word
    enable: Word
    targets: tuple[tuple[int, Place], ...]
    transparent: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Write:
    """A write port: (number of the field, enable, data) for each field of the memory."""

    memory: int
    address: Word
    fields: tuple[tuple[int, Word, Word], ...]


@dataclass(frozen=True, kw_only=True)
class Logic:
    """A whole design. inputs, outputs and names: of ports, and of all signals that are in the state.

    arrays: of wide values that are computed, the words of equal width that they consist of, arguments first. Outputs
    are computed from state and inputs of the same cycle. state_bytes: of inputs and registers, inputs first.
    """

    words: Words
    inputs: Mapping[str, tuple[Field, ...]]
    input_bytes: int
    state_bytes: int
    registers: Sequence[Register]
    memories: Sequence[Memory]
    reads: Sequence[Read]
    writes: Sequence[Write]
    arrays: Sequence[Sequence[Word]]
    outputs: Mapping[str, tuple[Word, ...]]
    names: Mapping[str, tuple[Part, ...]]
