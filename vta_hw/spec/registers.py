"""The control registers: the map of the Chisel core, so that its drivers work, and this toolkit's above it.

Registers are 32 bits at byte offsets. The base map is VTA spec 6.2, in its two variants: base addresses of one
register, or of two, low half first. The extension starts at `EXTENSION_BASE` in both. The Chisel core reads 0 from any
address it does not map, so `ext_id` tells a driver whether the extension is there; `ext_words` tells how far it
reaches, so that a later version may append to it without breaking older drivers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, IntFlag
from types import MappingProxyType
from typing import Final

REGISTER_BYTES: Final = 4

EXTENSION_BASE: Final = 0x40
"""Byte offset of the first register of the extension: above both variants of the base map."""

EXTENSION_END: Final = 0x100
"""The extension ends here, because the host port of upstream simulators has 8 address bits (VTA spec 6.3)."""

EXTENSION_ID: Final = 0x56544101
"""What `ext_id` reads: "VTA" and the version of the extension in the low byte."""


class RegisterError(ValueError):
    """A register name that the map does not have."""


class Access(Enum):
    """What a host may do with a register."""

    READ_WRITE = "RW"
    READ_ONLY = "RO"
    WRITE_ONE_TO_CLEAR = "W1C"


class PointerWidth(Enum):
    """The two variants of the map: bits of a base address."""

    BITS_32 = 32
    BITS_64 = 64


class Counts(Enum):
    """What a counter counts. One cycle adds at most 1, or, of bytes, at most a word of the memory bus."""

    CYCLES = "cycles"
    EVENTS = "events"
    BYTES = "bytes"


class Control(IntFlag):
    """Bits of the `control` register.

    The machine replaces LAUNCH by FINISH at the end of a launch. A RESET that is written asks for a soft reset, and
    reads 1 until that is done.
    """

    LAUNCH = 1
    FINISH = 2
    RESET = 4


class Status(IntFlag):
    """Sticky bits of the `status` register; a 1 written to a bit clears it.

    All but STORES_OUTSTANDING are faults: the first of them leaves its instruction's index in `fault_insn`. DEADLOCK
    ends a launch that cannot go on: a token is missing, or every instruction is done and none was FINISH. It leaves all
    ones there.
    """

    UNKNOWN_OPCODE = 1 << 0
    UNKNOWN_MEMORY_TYPE = 1 << 1
    UNKNOWN_ALU_OPCODE = 1 << 2
    UOP_INDEX = 1 << 3
    INP_INDEX = 1 << 4
    WGT_INDEX = 1 << 5
    ACC_INDEX = 1 << 6
    OUT_INDEX = 1 << 7
    READ_ERROR = 1 << 8
    WRITE_ERROR = 1 << 9
    DEADLOCK = 1 << 10
    STORES_OUTSTANDING = 1 << 16


FAULTS: Final = Status(sum(Status)) & ~Status.STORES_OUTSTANDING
"""The bits of `status` that are faults."""

TOKEN_QUEUES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "l2g": "load has given compute",
        "g2l": "compute has given load",
        "g2s": "compute has given store",
        "s2g": "store has given compute",
    }
)
"""The four token queues (VTA spec 5.2) in the order of their registers, and whose tokens they hold."""

TOKEN_BITS: Final = 11
"""Bits of a token counter: one more than the 10 that programs may count on (VTA spec 11.11), so that the room that is
kept for instructions in flight is beyond those."""


@dataclass(frozen=True, kw_only=True)
class Register:
    """One entry of the map: `words` registers of 32 bits from byte `offset`, low word first.

    `counts` says what a counter counts, and is None for what is no counter.
    """

    name: str
    offset: int
    words: int
    access: Access
    meaning: str
    counts: Counts | None = None

    @property
    def bits(self) -> int:
        """Width of the value."""
        return 32 * self.words

    @property
    def end(self) -> int:
        """Byte offset behind the last word."""
        return self.offset + REGISTER_BYTES * self.words


@dataclass(frozen=True, kw_only=True)
class _Entry:
    name: str
    meaning: str
    access: Access
    words: int = 1
    pointer: bool = False
    counts: Counts | None = None


_RW: Final = Access.READ_WRITE
_RO: Final = Access.READ_ONLY


def _counter(name: str, counts: Counts, meaning: str, words: int = 1) -> _Entry:
    return _Entry(name=name, access=_RO, words=words, counts=counts, meaning=meaning)


_BASE: Final = (
    _Entry(name="control", access=_RW, meaning="bit 0 launch, bit 1 finish, bit 2 soft reset; a rising launch starts"),
    _Entry(
        name="cycle_count",
        access=_RW,
        counts=Counts.CYCLES,
        meaning="cycles of the last launch, captured at its finish",
    ),
    _Entry(name="insn_count", access=_RW, meaning="instructions to execute"),
    _Entry(name="insn_base", access=_RW, pointer=True, meaning="byte address of the first instruction"),
    _Entry(name="uop_base", access=_RW, pointer=True, meaning="added to micro-op addresses"),
    _Entry(name="inp_base", access=_RW, pointer=True, meaning="added to input addresses"),
    _Entry(name="wgt_base", access=_RW, pointer=True, meaning="added to weight addresses"),
    _Entry(name="acc_base", access=_RW, pointer=True, meaning="added to accumulator addresses"),
    _Entry(name="out_base", access=_RW, pointer=True, meaning="added to output addresses"),
    _Entry(
        name="acc_writes",
        access=_RW,
        counts=Counts.EVENTS,
        meaning="accumulator writes by GEMM and ALU, captured at finish",
    ),
)

# Counters stand for the last launch: zero at its start, at rest from its finish on. Micro-ops and bytes have 64 bits.
# This part of the map only ever grows at its end: a driver knows by `ext_words` what it may use.
_EXTENSION: Final = (
    _Entry(name="ext_id", access=_RO, meaning=f"{EXTENSION_ID:#x} where the extension exists, else 0"),
    _Entry(name="ext_words", access=_RO, meaning="registers of the extension, this one and ext_id included"),
    _Entry(name="program_digest", access=_RO, meaning="first 32 bits of the configuration's program digest"),
    _Entry(name="status", access=Access.WRITE_ONE_TO_CLEAR, meaning="faults and conditions, see Status"),
    _Entry(name="fault_insn", access=_RO, meaning="index of the first faulting instruction in its launch"),
    _counter("insn_load", Counts.EVENTS, "instructions the load unit has completed"),
    _counter("insn_compute", Counts.EVENTS, "instructions the compute unit has completed"),
    _counter("insn_store", Counts.EVENTS, "instructions the store unit has completed"),
    _counter("gemm_uops", Counts.EVENTS, "micro-ops executed by GEMM without reset", words=2),
    _counter("alu_uops", Counts.EVENTS, "micro-ops executed by the ALU", words=2),
    _counter("insn_bytes", Counts.BYTES, "bytes read by fetch", words=2),
    _counter("uop_bytes", Counts.BYTES, "bytes read as micro-ops", words=2),
    _counter("inp_bytes", Counts.BYTES, "bytes read as inputs", words=2),
    _counter("wgt_bytes", Counts.BYTES, "bytes read as weights", words=2),
    _counter("acc_bytes", Counts.BYTES, "bytes read as accumulators", words=2),
    _counter("out_bytes", Counts.BYTES, "bytes written as outputs", words=2),
    _Entry(name="irq_enable", access=_RW, meaning="bit 0: the interrupt is high while this and finish are 1"),
    *(
        _Entry(name=f"tokens_{queue}", access=_RW, meaning=f"tokens {whose}; a write between launches sets them")
        for queue, whose in TOKEN_QUEUES.items()
    ),
    _counter("load_busy", Counts.CYCLES, "cycles with an instruction in the load unit"),
    _counter("load_wait_token", Counts.CYCLES, "cycles the load unit was idle, waiting for a token"),
    _counter("load_wait_memory", Counts.CYCLES, "cycles the load unit was held up by memory"),
    _counter("gemm_busy", Counts.CYCLES, "cycles in which the compute unit had a micro-op of GEMM to do"),
    _counter("alu_busy", Counts.CYCLES, "cycles in which the compute unit had a micro-op of the ALU to do"),
    _counter("compute_load_busy", Counts.CYCLES, "cycles with a LOAD in the compute unit"),
    _counter("compute_wait_load", Counts.CYCLES, "cycles the compute unit was idle, waiting for a token of load"),
    _counter("compute_wait_store", Counts.CYCLES, "cycles the compute unit was idle, waiting for a token of store"),
    _counter("store_busy", Counts.CYCLES, "cycles with an instruction in the store unit"),
    _counter("store_wait_token", Counts.CYCLES, "cycles the store unit was idle, waiting for a token"),
    _counter("store_wait_memory", Counts.CYCLES, "cycles the store unit was held up by memory"),
    _counter("fetch_wait_queue", Counts.CYCLES, "cycles fetch waited for room in the queue of a unit"),
    _counter("read_wait", Counts.CYCLES, "cycles a read burst waited for memory to accept it"),
    _counter("write_wait", Counts.CYCLES, "cycles a write burst or its data waited for memory to accept it"),
)


@dataclass(frozen=True, kw_only=True)
class RegisterMap:
    """Every register of one variant, in the order of the offsets."""

    pointer_width: PointerWidth
    registers: tuple[Register, ...]

    def __getitem__(self, name: str) -> Register:
        for register in self.registers:
            if register.name == name:
                return register
        names = ", ".join(register.name for register in self.registers)
        raise RegisterError(f"register must be one of {names}, not {name!r}")

    def __iter__(self) -> Iterator[Register]:
        return iter(self.registers)

    @property
    def base(self) -> tuple[Register, ...]:
        """The registers of the Chisel core."""
        return tuple(register for register in self.registers if register.offset < EXTENSION_BASE)

    @property
    def extension(self) -> tuple[Register, ...]:
        """The registers of this toolkit."""
        return tuple(register for register in self.registers if register.offset >= EXTENSION_BASE)

    @property
    def parameters(self) -> tuple[Register, ...]:
        """What a launch is given: the number of its instructions, and the base addresses."""
        return tuple(register for register in self.base if register.counts is None and register.name != "control")

    @property
    def counters(self) -> tuple[Register, ...]:
        """What a launch leaves behind: the registers that count."""
        return tuple(register for register in self.registers if register.counts is not None)

    @property
    def extension_words(self) -> int:
        """What `ext_words` reads."""
        return sum(register.words for register in self.extension)

    def words(self, values: Mapping[str, int]) -> dict[int, int]:
        """Return offset and 32-bit value of each register write that sets `values`, low words first.

        Raises `RegisterError` on a name that is not in the map and on a value that does not fit.
        """
        writes = {}
        for name, value in values.items():
            register = self[name]
            if not 0 <= value < 1 << register.bits:
                raise RegisterError(f"{name} must fit {register.bits} bits, not {value!r}")
            for word in range(register.words):
                writes[register.offset + REGISTER_BYTES * word] = value >> (32 * word) & 0xFFFFFFFF
        return writes


def _place(pointer_width: PointerWidth) -> RegisterMap:
    placed = []
    for begin, entries in ((0, _BASE), (EXTENSION_BASE, _EXTENSION)):
        offset = begin
        for entry in entries:
            words = pointer_width.value // 32 if entry.pointer else entry.words
            register = Register(
                name=entry.name,
                offset=offset,
                words=words,
                access=entry.access,
                meaning=entry.meaning,
                counts=entry.counts,
            )
            placed.append(register)
            offset = register.end
    return RegisterMap(pointer_width=pointer_width, registers=tuple(placed))


REGISTERS: Final[Mapping[PointerWidth, RegisterMap]] = MappingProxyType(
    {width: _place(width) for width in PointerWidth}
)
"""Both variants of the map."""
