"""The scratchpads of the machine as arrays, in the layouts that the compiled kernels want."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA, AluOp, Format, MemoryType, Opcode, codes_of
from vta_sim.functional.vector import VECTOR_LANES

_BUFFER_BYTES: Final = 4096
WIDE_LANES: Final = 16
"""Output channels of a block of weights, and twice its pairs; the narrow kernel has half."""

_POISON: Final = 0x5A5A5A5A

Scalar = TypeVar("Scalar", np.int16, np.int32)


class Machine(NamedTuple):
    """Geometry and contents of the scratchpads; compiled code changes the arrays in place.

    A weight tile is kept widened to int16 in blocks of `lanes` output channels, as [group][pair of inputs][lane][2].
    Input rows are padded with zeros to `inp_row` scalars, accumulator rows to `acc_row`, accumulator tiles to
    `acc_tile`; what lies in the padding of the accumulator is never seen.

    OUT[d] is the truncation of ACC[d] after every GEMM and ALU micro-op (VTA spec 11.6), so it is stored only where a
    LOAD has put the two apart: `parted[d]` is 1 there, and `out` holds the low 16 bits that OUT[d] is cut from.
    """

    batch: int
    block_in: int
    block_out: int
    inp_bits: int
    wgt_bits: int
    out_bits: int
    last_opcode: int  # above it, codes are unknown
    last_alu_opcode: int
    last_memory_type: int
    lanes: int
    inp_row: int
    acc_row: int
    acc_tile: int
    depths: NDArray[np.int64]  # elements of each memory type's scratchpad, [8]
    elem_bytes: NDArray[np.int64]  # bytes in memory of an element of each memory type, [8]
    uop_places: NDArray[np.int64]  # lowest bit and mask of dst, src, wgt in a micro-op, [3, 2]
    uop: NDArray[np.uint32]  # [uop_depth]
    inp: NDArray[np.int16]  # [inp_depth * batch * inp_row]
    wgt: NDArray[np.int16]  # [wgt_depth * acc_row * inp_row]
    acc: NDArray[np.int32]  # [(acc_depth + 1) * acc_tile], the last tile holds the immediate of an ALU instruction
    out: NDArray[np.int16]  # [acc_depth * acc_tile]
    parted: NDArray[np.uint8]  # [acc_depth]
    uop_bytes: NDArray[np.uint8]  # the bytes of `uop`
    acc_bytes: NDArray[np.uint8]  # the bytes of `acc`
    wgt_pairs: NDArray[np.int32]  # `wgt`, two neighbouring inputs at a time
    buffer: NDArray[np.uint8]  # bytes on their way from or to memory
    scalars: NDArray[np.int16]  # the numbers in `buffer`
    scalar_pairs: NDArray[np.int32]  # `scalars`, two at a time
    runs: NDArray[np.int32]  # [most micro-ops of an instruction so far, 6], see `RUN_DST` and `with_room_for`


RUN_DST, RUN_SRC, RUN_WGT, RUN_LENGTH, RUN_DST_STEP, RUN_SRC_STEP = range(6)
"""Columns of `Machine.runs`: consecutive micro-ops with one weight tile and constant steps of dst and src."""


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def _by_type(config: VTAConfig, value: Callable[[int], int]) -> NDArray[np.int64]:
    """Return int64 [8], indexed by memory type; 0 for the codes that the machine does not know."""
    known = codes_of(MemoryType, config.isa)
    return np.array([value(code) if code in known else 0 for code in range(8)], np.int64)


def make_machine(config: VTAConfig) -> Machine:
    """Return a machine whose scratchpads are all zero (VTA spec 3.7)."""
    # A block of weights is square, and as near to the tile as the two compiled kernels allow.
    lanes = WIDE_LANES if max(config.block_in, config.block_out) >= WIDE_LANES else WIDE_LANES // 2
    inp_row = _round_up(config.block_in, lanes)
    acc_row = _round_up(config.block_out, lanes)
    acc_tile = _round_up(config.batch * acc_row, VECTOR_LANES)
    uop = np.zeros(config.uop_depth, np.uint32)
    wgt = np.zeros(config.wgt_depth * acc_row * inp_row, np.int16)
    acc = np.zeros((config.acc_depth + 1) * acc_tile, np.int32)
    buffer = np.zeros(_BUFFER_BYTES, np.uint8)
    scalars = np.zeros(2 * _BUFFER_BYTES, np.int16)
    return Machine(
        batch=config.batch,
        block_in=config.block_in,
        block_out=config.block_out,
        inp_bits=config.inp_bits,
        wgt_bits=config.wgt_bits,
        out_bits=config.out_bits,
        last_opcode=int(max(codes_of(Opcode, config.isa))),
        last_alu_opcode=int(max(codes_of(AluOp, config.isa))),
        last_memory_type=int(max(codes_of(MemoryType, config.isa))),
        lanes=lanes,
        inp_row=inp_row,
        acc_row=acc_row,
        acc_tile=acc_tile,
        depths=_by_type(config, config.depth),
        elem_bytes=_by_type(config, config.dram_elem_bytes),
        uop_places=np.array([(field.lsb, field.high) for field in ISA(config).layout(Format.UOP)], np.int64),
        uop=uop,
        inp=np.zeros(config.inp_depth * config.batch * inp_row, np.int16),
        wgt=wgt,
        acc=acc,
        out=np.zeros(config.acc_depth * acc_tile, np.int16),
        parted=np.zeros(config.acc_depth, np.uint8),
        uop_bytes=uop.view(np.uint8),
        acc_bytes=acc.view(np.uint8),
        wgt_pairs=wgt.view(np.int32),
        buffer=buffer,
        scalars=scalars,
        scalar_pairs=scalars.view(np.int32),
        runs=np.zeros((0, 6), np.int32),
    )


def with_room_for(machine: Machine, micro_ops: int) -> Machine:
    """The same machine, able to execute instructions of that many micro-ops."""
    if micro_ops <= len(machine.runs):
        return machine
    return machine._replace(runs=np.zeros((max(micro_ops, 2 * len(machine.runs)), 6), np.int32))


def fill_with_pattern(machine: Machine) -> None:
    """Fill all scratchpads with a pattern, to show up programs that read what they have not written."""
    machine.uop[:] = 0xFFFFFFFF
    _inp_view(machine)[:] = _sign_extended(_POISON, machine.inp_bits)
    _wgt_view(machine)[:] = _sign_extended(_POISON, machine.wgt_bits)
    machine.acc[:] = _POISON


def contents(machine: Machine, memory_type: MemoryType) -> NDArray[np.generic]:
    """Return a copy of one scratchpad as the specification sees it.

    UOP uint32 [depth]; INP int16 [depth][batch][block_in]; WGT int16 [depth][block_out][block_in]; ACC int32
    [depth][batch][block_out]; OUT int16 of the same shape, truncated to its width and sign-extended.
    """
    match memory_type.scratchpad:
        case MemoryType.UOP:
            return machine.uop.copy()
        case MemoryType.INP:
            return _inp_view(machine).copy()
        case MemoryType.WGT:
            return _wgt_view(machine).reshape(-1, machine.block_out, machine.block_in).copy()
        case MemoryType.ACC:
            return _acc_view(machine, machine.acc).copy()
        case _:
            parted = machine.parted.astype(bool)[:, None, None]
            source = np.where(parted, _acc_view(machine, machine.out), _acc_view(machine, machine.acc))
            return _sign_extended(source, machine.out_bits).astype(np.int16)


def _inp_view(machine: Machine) -> NDArray[np.int16]:
    return machine.inp.reshape(-1, machine.batch, machine.inp_row)[:, :, : machine.block_in]


def _wgt_view(machine: Machine) -> NDArray[np.int16]:
    blocks = machine.wgt.reshape(-1, machine.acc_row // machine.lanes, machine.inp_row // 2, machine.lanes, 2)
    # [depth][group][pair][lane][2] -> [depth][group][lane][pair][2]; a tile narrower than a block has one group.
    lanes = blocks.transpose(0, 1, 3, 2, 4)
    return lanes[:, :, : machine.block_out, : machine.block_in // 2]


def _acc_view(machine: Machine, tiles: NDArray[Scalar]) -> NDArray[Scalar]:
    depth = machine.parted.size
    used = tiles.reshape(-1, machine.acc_tile)[:depth, : machine.batch * machine.acc_row]
    rows = used.reshape(depth, machine.batch, machine.acc_row)
    return rows[:, :, : machine.block_out]


def _sign_extended(values: int | NDArray[np.int32], bits: int) -> NDArray[np.int32]:
    return np.asarray(values, np.int32) << (32 - bits) >> (32 - bits)
