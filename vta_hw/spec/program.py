"""The program: what a compiler hands to a simulator or a board, as a value and as a `.vta` file.

A file is read as data from a stranger: nothing in it is executed, and whatever is wrong with it is a `ProgramError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.config import VTAConfig
from vta_hw.spec.container import ContainerError, container_pieces, read_container, write_whole
from vta_hw.spec.isa import MemoryType
from vta_hw.spec.manifest import BINARIES, MANIFEST, digest_of, members_of, read_members
from vta_hw.spec.placement import Interval, place_instructions
from vta_hw.spec.program_parts import (
    ADDRESS_LIMIT,
    DTYPE_BITS,
    Buffer,
    Host,
    Launch,
    Layer,
    ProgramError,
    Role,
    Segment,
    Step,
    Tokens,
    check_integer,
    check_kind,
    check_object,
    shown,
)

__all__ = [
    "ADDRESS_LIMIT",
    "DTYPE_BITS",
    "Buffer",
    "Host",
    "Launch",
    "Layer",
    "Program",
    "ProgramError",
    "Role",
    "Segment",
    "Step",
    "Tokens",
]

_NO_TOKENS: Final = Tokens()
_SEQUENCES: Final[Mapping[str, tuple[type, ...]]] = MappingProxyType(
    {"buffers": (Buffer,), "steps": (Launch, Host), "layers": (Layer,), "segments": (Segment,)}
)


@dataclass(frozen=True)
class _Region:
    begin: int
    end: int
    what: str
    shareable: bool = False


@dataclass(frozen=True, kw_only=True)
class Program:
    """Instructions, micro-ops, constants and host steps for one configuration; checked as a whole at construction.

    Compiled programs live in one arena: `arena_bytes` > 0, every address is relative to it, and workspace buffers may
    share memory with each other but with nothing else. Raw programs of third parties have `arena_bytes` == 0, physical
    addresses, their micro-ops and data in `segments`, and one launch of all their instructions.

    `insns` are 16 bytes and `uops` 4 bytes each, as `ISA.encode_program` and `ISA.encode_uops` give them.
    `tokens_before` are in the queues before the first launch. `attributes` is free-form JSON. Raises `ProgramError`.
    """

    config: VTAConfig
    insns: bytes
    insn_address: int = 0
    uops: bytes = b""
    uop_address: int = 0
    arena_bytes: int = 0
    buffers: tuple[Buffer, ...] = ()
    steps: tuple[Step, ...] = ()
    layers: tuple[Layer, ...] = ()
    segments: tuple[Segment, ...] = ()
    tokens_before: Tokens = _NO_TOKENS
    attributes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_kind("program config", self.config, VTAConfig, "a VTAConfig")
        check_kind("program tokens_before", self.tokens_before, Tokens, "Tokens")
        _check_code("insns", self.insns, self.config.insn_bytes)
        _check_code("uops", self.uops, self.config.uop_elem_bytes)
        for name, kinds in _SEQUENCES.items():
            object.__setattr__(self, name, _check_tuple(name, getattr(self, name), kinds))
        for name in ("insn_address", "uop_address", "arena_bytes"):
            object.__setattr__(self, name, check_integer(f"program {name}", getattr(self, name), 0, ADDRESS_LIMIT))
        object.__setattr__(self, "attributes", check_object("program attributes", self.attributes))
        self._check_names()
        self._check_ranges()
        self._check_memory()
        if self.is_raw:
            self._check_raw()

    @classmethod
    def raw(
        cls,
        *,
        config: VTAConfig,
        insns: bytes | NDArray[np.uint64],
        segments: Iterable[Segment] = (),
        tokens: Tokens = _NO_TOKENS,
        insn_address: int | None = None,
        bases: Mapping[MemoryType, int] | None = None,
        reserved: Iterable[Interval] = (),
        attributes: dict[str, Any] | None = None,
    ) -> Program:
        """Return a third-party program: instructions, and the contents of physical memory before it starts.

        Without `insn_address` the instructions go where they meet no segment, nothing that they load or store with
        the base registers at `bases`, and none of the `reserved` (first byte, byte after the last).
        """
        code = insns if isinstance(insns, bytes) else np.ascontiguousarray(insns, dtype="<u8").tobytes()
        kept = tuple(segments)
        if insn_address is None:
            taken = [(segment.address, segment.address + len(segment.data)) for segment in kept]
            insn_address = place_instructions(config, code, bases=bases or {}, taken=[*taken, *reserved])
        return cls(
            config=config,
            insns=code,
            insn_address=insn_address,
            steps=(Launch(insn_begin=0, insn_count=len(code) // config.insn_bytes),),
            segments=kept,
            tokens_before=tokens,
            attributes=attributes or {},
        )

    @property
    def is_raw(self) -> bool:
        """Whether this is a third-party program at physical addresses."""
        return self.arena_bytes == 0

    @property
    def insn_count(self) -> int:
        """Instructions in the program."""
        return len(self.insns) // self.config.insn_bytes

    @property
    def uop_count(self) -> int:
        """Micro-ops in the program."""
        return len(self.uops) // self.config.uop_elem_bytes

    @property
    def inputs(self) -> tuple[Buffer, ...]:
        """The input buffers, in the order of the table."""
        return tuple(buffer for buffer in self.buffers if buffer.role is Role.INPUT)

    @property
    def outputs(self) -> tuple[Buffer, ...]:
        """The output buffers, in the order of the table."""
        return tuple(buffer for buffer in self.buffers if buffer.role is Role.OUTPUT)

    @property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) of everything in the program."""
        return digest_of(self)

    def buffer(self, name: str) -> Buffer:
        """Return the buffer of that name; `ProgramError` lists the names there are."""
        for buffer in self.buffers:
            if buffer.name == name:
                return buffer
        names = ", ".join(buffer.name for buffer in self.buffers)
        raise ProgramError(f"buffer must be one of {names or 'none'}, not {name!r}")

    def to_bytes(self) -> bytes:
        """Return the `.vta` file; equal programs give equal bytes. Raises `ProgramError` if it would reach 4 GiB."""
        return b"".join(self._pieces())

    def _pieces(self) -> list[bytes]:
        try:
            return container_pieces(members_of(self))
        except ContainerError as error:
            raise ProgramError(f"program file cannot be written: {error}") from error

    @classmethod
    def from_bytes(cls, data: bytes) -> Program:
        """Read a `.vta` file; raises `ProgramError` unless it is, byte for byte, what `to_bytes` would give."""
        program = cls(**read_members(_members(data)))
        if not _consists_of(data, program._pieces()):
            raise ProgramError("program file must be in canonical form, as saved, not rewritten or damaged")
        return program

    def save(self, path: str | Path) -> None:
        """Write the file in one step: `path` holds the old contents or the new, never a part."""
        write_whole(Path(path), self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Program:
        """Read a `.vta` file from disk; raises `ProgramError` naming the file."""
        try:
            nbytes = Path(path).stat().st_size
            if nbytes >= ADDRESS_LIMIT:
                raise ProgramError(f"{path}: program file must be smaller than {ADDRESS_LIMIT} bytes, not {nbytes}")
            data = Path(path).read_bytes()
        except ProgramError:
            raise
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ProgramError(f"{path}: program file cannot be read: {reason}") from error
        try:
            return cls.from_bytes(data)
        except ProgramError as error:
            raise ProgramError(f"{path}: {error}") from error

    def _check_names(self) -> None:
        seen: set[str] = set()
        for buffer in self.buffers:
            if buffer.name in seen:
                raise ProgramError(f"buffer names must differ, not {shown(buffer.name)} twice")
            seen.add(buffer.name)
        for step in self.steps:
            if isinstance(step, Launch):
                continue
            for name in step.buffers:
                if name not in seen:
                    raise ProgramError(f"host step {shown(step.name)} must use known buffers, not {shown(name)}")

    def _check_ranges(self) -> None:
        count = self.insn_count
        for step in self.steps:
            if isinstance(step, Launch) and step.insn_begin + step.insn_count > count:
                rule = f"end within the {count} instructions"
                raise ProgramError(f"launch must {rule}, not at {step.insn_begin + step.insn_count}")
        end = 0
        for layer in sorted(self.layers, key=lambda layer: (layer.insn_begin, layer.insn_end)):
            if layer.insn_end > count:
                rule = f"end within the {count} instructions"
                raise ProgramError(f"layer {shown(layer.name)} must {rule}, not at {layer.insn_end}")
            if layer.insn_begin < end:
                rule = f"begin after the layer before it, at {end}"
                raise ProgramError(f"layer {shown(layer.name)} must {rule}, not at {layer.insn_begin}")
            end = layer.insn_end

    def _check_memory(self) -> None:
        code = self._code_regions()
        for name, align in (("insn_address", 8), ("uop_address", 4)):
            if getattr(self, name) % align:
                raise ProgramError(f"program {name} must be a multiple of {align}, not {getattr(self, name)}")
        buffers = [
            _Region(
                buffer.address,
                buffer.address + buffer.nbytes,
                f"buffer {shown(buffer.name)}",
                shareable=buffer.role is Role.WORKSPACE,
            )
            for buffer in self.buffers
        ]
        segments = [
            _Region(segment.address, segment.address + len(segment.data), f"segment at {segment.address}")
            for segment in self.segments
        ]
        limit = self.arena_bytes or ADDRESS_LIMIT
        for region in (*code, *buffers, *segments):
            if region.end > limit:
                raise ProgramError(f"{region.what} must end within {limit} bytes of memory, not at {region.end}")
        _check_disjoint([*code, *buffers])
        # A segment fills buffers, so it may lie over them, but it must not overwrite code or another segment.
        _check_disjoint([*code, *segments])

    def _code_regions(self) -> list[_Region]:
        regions = (
            _Region(self.insn_address, self.insn_address + len(self.insns), "instructions"),
            _Region(self.uop_address, self.uop_address + len(self.uops), "micro-ops"),
        )
        return [region for region in regions if region.end > region.begin]

    def _check_raw(self) -> None:
        for name in ("buffers", "layers", "uops"):
            if getattr(self, name):
                raise ProgramError(f"raw program must have no {name}, not {len(getattr(self, name))}")
        whole = Launch(insn_begin=0, insn_count=self.insn_count) if self.insns else None
        if self.steps != (whole,):
            rule = f"one launch of all {self.insn_count} instructions"
            raise ProgramError(f"raw program must have {rule} as its only step, not {shown(self.steps)}")


def _check_code(name: str, value: bytes, nbytes: int) -> None:
    check_kind(f"program {name}", value, bytes, "bytes")
    if len(value) % nbytes:
        raise ProgramError(f"program {name} must be a multiple of {nbytes} bytes, not {len(value)}")


def _check_tuple(name: str, value: Sequence[object], kinds: tuple[type, ...]) -> tuple[object, ...]:
    check_kind(f"program {name}", value, (tuple, list), "a sequence")
    for item in value:
        check_kind(f"program {name}", item, kinds, f"a sequence of {' or '.join(kind.__name__ for kind in kinds)}")
    return tuple(value)


def _check_disjoint(regions: Sequence[_Region]) -> None:
    # One sweep; of the regions passed so far only the farthest ends of the two classes matter.
    fixed = shared = _Region(0, 0, "")
    for region in sorted(regions, key=lambda region: (region.begin, region.end)):
        rivals = (fixed,) if region.shareable else (fixed, shared)
        for rival in rivals:
            if region.begin < rival.end:
                overlap = f"{region.begin} to {region.end} and {rival.begin} to {rival.end}"
                raise ProgramError(f"{region.what} and {rival.what} must not overlap, not lie at {overlap}")
        if region.shareable:
            shared = max(shared, region, key=lambda region: region.end)
        else:
            fixed = max(fixed, region, key=lambda region: region.end)


def _members(data: bytes) -> dict[str, bytes]:
    try:
        return read_container(data, (MANIFEST, *BINARIES))
    except ContainerError as error:
        raise ProgramError(f"program file cannot be read: {error}") from error


def _consists_of(data: bytes, pieces: Sequence[bytes]) -> bool:
    """Whether `data` is the pieces, one after the other; none is copied."""
    at = 0
    for piece in pieces:
        if not data.startswith(piece, at):
            return False
        at += len(piece)
    return at == len(data)
