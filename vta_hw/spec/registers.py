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


class Control(IntFlag):
    """Bits of the `control` register; the machine replaces LAUNCH by FINISH at the end of a launch."""

    LAUNCH = 1
    FINISH = 2


class Status(IntFlag):
    """Sticky bits of the `status` register; a 1 written to a bit clears it.

    All but STORES_OUTSTANDING are faults: the first of them leaves its instruction's index in `fault_insn`.
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
    STORES_OUTSTANDING = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Register:
    """One entry of the map: `words` registers of 32 bits from byte `offset`, low word first."""

    name: str
    offset: int
    words: int
    access: Access
    meaning: str

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


_RW: Final = Access.READ_WRITE
_RO: Final = Access.READ_ONLY

_BASE: Final = (
    _Entry(name="control", access=_RW, meaning="bit 0 launch, bit 1 finish; a rising launch starts"),
    _Entry(name="cycle_count", access=_RW, meaning="cycles of the last launch, captured at its finish"),
    _Entry(name="insn_count", access=_RW, meaning="instructions to execute"),
    _Entry(name="insn_base", access=_RW, pointer=True, meaning="byte address of the first instruction"),
    _Entry(name="uop_base", access=_RW, pointer=True, meaning="added to micro-op addresses"),
    _Entry(name="inp_base", access=_RW, pointer=True, meaning="added to input addresses"),
    _Entry(name="wgt_base", access=_RW, pointer=True, meaning="added to weight addresses"),
    _Entry(name="acc_base", access=_RW, pointer=True, meaning="added to accumulator addresses"),
    _Entry(name="out_base", access=_RW, pointer=True, meaning="added to output addresses"),
    _Entry(name="acc_writes", access=_RW, meaning="accumulator writes by GEMM and ALU, captured at finish"),
)

# Counters stand for the last launch and are captured at its finish. Bytes and cycles have 64 bits.
_EXTENSION: Final = (
    _Entry(name="ext_id", access=_RO, meaning=f"{EXTENSION_ID:#x} where the extension exists, else 0"),
    _Entry(name="ext_words", access=_RO, meaning="registers of the extension, this one and ext_id included"),
    _Entry(name="program_digest", access=_RO, meaning="first 32 bits of the configuration's program digest"),
    _Entry(name="status", access=Access.WRITE_ONE_TO_CLEAR, meaning="faults and conditions, see Status"),
    _Entry(name="fault_insn", access=_RO, meaning="index of the first faulting instruction in its launch"),
    _Entry(name="insn_load", access=_RO, meaning="instructions the load unit has completed"),
    _Entry(name="insn_compute", access=_RO, meaning="instructions the compute unit has completed"),
    _Entry(name="insn_store", access=_RO, meaning="instructions the store unit has completed"),
    _Entry(name="gemm_uops", access=_RO, words=2, meaning="micro-ops executed by GEMM without reset"),
    _Entry(name="alu_uops", access=_RO, words=2, meaning="micro-ops executed by the ALU"),
    _Entry(name="insn_bytes", access=_RO, words=2, meaning="bytes read by fetch"),
    _Entry(name="uop_bytes", access=_RO, words=2, meaning="bytes read as micro-ops"),
    _Entry(name="inp_bytes", access=_RO, words=2, meaning="bytes read as inputs"),
    _Entry(name="wgt_bytes", access=_RO, words=2, meaning="bytes read as weights"),
    _Entry(name="acc_bytes", access=_RO, words=2, meaning="bytes read as accumulators"),
    _Entry(name="out_bytes", access=_RO, words=2, meaning="bytes written as outputs"),
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
            register = Register(name=entry.name, offset=offset, words=words, access=entry.access, meaning=entry.meaning)
            placed.append(register)
            offset = register.end
    return RegisterMap(pointer_width=pointer_width, registers=tuple(placed))


REGISTERS: Final[Mapping[PointerWidth, RegisterMap]] = MappingProxyType(
    {width: _place(width) for width in PointerWidth}
)
"""Both variants of the map."""
