"""What the units tell each other within a cycle, the parameters that they share, and the tokens between them."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import MemoryType
from vta_sim._jit import inner
from vta_sim.cycle.records import array
from vta_sim.functional.engine import Kernel
from vta_sim.trace_build import SAMPLED

NO_INSN: Final = 0xFFFF_FFFF
"""The index of a fault that belongs to no instruction, larger than any other."""

DUE_DEPTH: Final = 8
"""More instructions than the units begin and complete in a cycle."""

LAST_ROOM: Final = 2047 - 16
"""Tokens in a queue beyond which no instruction that gives one begins (`TokenQueue`: 11 bits, 16 in flight)."""

_INSN_BYTES: Final = 16
_PREFETCH_BITS: Final = 256 * 8 * _INSN_BYTES  # `vta_hw.rtl.fetch.PREFETCH`


def bit(name: str) -> int:
    """The bit of a counter or strobe in `Wires.bits`, as in a sample for traces."""
    return 1 << SAMPLED.index(name)


class Parameters:
    """What does not change in a launch.

    log_word: log2 of the bytes of a bus word. address_mask: of byte addresses. count: instructions. base: byte address
    of the first. first_lane: its place in its bus word. beats: bus words of an instruction; lanes: instructions of a
    bus word, one of both is 1. prefetch: bus words that fetch asks for ahead. queue_depth: of the instruction queues.
    overlap: whether the compute unit has lanes. acc_mask: of accumulator indices. inp_depth, wgt_depth: elements.
    acc_banks, uop_banks: banks of these scratchpads if it has lanes (`vta_hw.rtl.scratchpad.Geometry`). out_bytes: of
    OUT. last_opcode, last_alu_opcode, last_memory_type: beyond which codes are unknown. bases, elem_bytes, depths: by
    memory type; uop_places: lowest bit and mask of dst, src, wgt in a micro-op.
    """

    log_word: int
    address_mask: int
    count: int
    base: int
    first_lane: int
    beats: int
    lanes: int
    prefetch: int
    queue_depth: int
    overlap: int
    acc_mask: int
    inp_depth: int
    wgt_depth: int
    acc_banks: int
    uop_banks: int
    out_bytes: int
    last_opcode: int
    last_alu_opcode: int
    last_memory_type: int
    bases: NDArray[np.int64] = array(8)
    elem_bytes: NDArray[np.int64] = array(8)
    depths: NDArray[np.int64] = array(8)
    uop_places: NDArray[np.int64] = array(3, 2)


def set_parameters(
    record: NDArray[np.void], config: VTAConfig, kernel: Kernel, *, base: int, count: int, queue_depth: int
) -> None:
    """Fill the record of a launch of `count` instructions from byte `base` on."""
    word = config.bus_bits // 8
    lanes = max(word // _INSN_BYTES, 1)
    values: dict[str, int | NDArray[np.int64]] = {
        "log_word": word.bit_length() - 1,
        "address_mask": (1 << config.address_bits) - 1 if config.address_bits < 64 else -1,
        "count": count,
        "base": base if base < 1 << 63 else base - (1 << 64),
        "first_lane": base // _INSN_BYTES % lanes,
        "beats": max(_INSN_BYTES // word, 1),
        "lanes": lanes,
        "prefetch": _PREFETCH_BITS // max(config.bus_bits, 8 * _INSN_BYTES),
        "queue_depth": queue_depth,
        "overlap": int(config.overlap),
        "acc_mask": config.acc_depth - 1,
        "inp_depth": config.inp_depth,
        "wgt_depth": config.wgt_depth,
        "acc_banks": max(4 * config.bus_bits // (8 * config.acc_elem_bytes), 4),
        "uop_banks": config.bus_bits // (8 * config.uop_elem_bytes),
        "out_bytes": config.depth(MemoryType.OUT) * config.out_elem_bytes,
        "bases": kernel.bases,
    }
    for name in (
        "last_opcode", "last_alu_opcode", "last_memory_type", "elem_bytes", "depths", "uop_places",
    ):  # fmt: skip
        values[name] = getattr(kernel.machine, name)
    for name, value in values.items():
        record[name] = value


class Wires:
    """Signals of one cycle.

    moved: whether any register of the machine changes that does not merely count. bits: the counters that count and
    the strobes that are high (`vta_sim.trace_build.SAMPLED`). tokens: in the queues, in the order of `columns.L2G` and
    so on; take, give: what changes at the end of the cycle, if `exchanged`. retired: instructions that complete, and
    whether one is a FINISH. fault_status, fault_insn: what is reported, and the smallest index it is due to. due:
    instructions whose values are to be computed at the end of the cycle.
    """

    moved: int
    bits: int
    tokens: NDArray[np.int64] = array(4)
    take: NDArray[np.int64] = array(4)
    give: NDArray[np.int64] = array(4)
    exchanged: int
    retired: int
    finished: int
    fault_status: int
    fault_insn: int
    due_count: int
    due: NDArray[np.int64] = array(DUE_DEPTH)


@inner
def begin_cycle(w: Wires) -> None:
    """Forget the signals of the cycle before."""
    w.moved = 0
    w.bits = 0
    w.retired = 0
    w.finished = 0
    w.fault_status = 0
    w.fault_insn = NO_INSN


@inner
def report_fault(w: Wires, status: int, insn: int) -> None:
    """Report bits of `Status`, due to an instruction (`vta_hw.rtl.instruction.earliest`)."""
    w.fault_status |= status
    w.fault_insn = min(w.fault_insn, insn)
    w.moved = 1


@inner
def available(w: Wires, queue: int) -> bool:
    """Whether there is a token to take (`TokenQueue.pop`)."""
    return bool(w.tokens[queue] != 0)


@inner
def room(w: Wires, queue: int) -> bool:
    """Whether an instruction may begin that gives a token (`TokenQueue.push`)."""
    return bool(w.tokens[queue] <= LAST_ROOM)


@inner
def take_token(w: Wires, queue: int, wanted: int) -> None:
    """Take a token, if `wanted`."""
    if wanted:
        w.take[queue] = 1
        w.exchanged = 1


@inner
def give_token(w: Wires, queue: int, wanted: int) -> None:
    """Give a token, if `wanted`."""
    if wanted:
        w.give[queue] = 1
        w.exchanged = 1


@inner
def exchange_tokens(w: Wires) -> None:
    """The clock edge of the token queues: a token given in one cycle can be taken in the next."""
    if w.exchanged:
        w.exchanged = 0
        w.moved = 1
        for queue in range(4):
            w.tokens[queue] += w.give[queue] - w.take[queue]
            w.give[queue] = 0
            w.take[queue] = 0


@inner
def compute_values(w: Wires, insn: int) -> None:
    """Let an instruction be executed at the end of the cycle: who begins later sees what it wrote."""
    w.due[w.due_count] = insn
    w.due_count += 1
