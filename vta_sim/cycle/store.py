"""The store unit (`StoreUnit` of vta_hw/rtl/store.py, with `BeatReader`)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.isa import MemoryType, Module
from vta_hw.spec.registers import Status
from vta_sim._jit import inner
from vta_sim.cycle import transfer
from vta_sim.cycle.queues import InsnQueues
from vta_sim.cycle.records import array
from vta_sim.cycle.transfer import Bursts
from vta_sim.cycle.wires import (
    Parameters,
    Wires,
    available,
    bit,
    compute_values,
    give_token,
    report_fault,
    room,
    take_token,
)
from vta_sim.functional.columns import (
    DRAM_BASE,
    FLAG_POP_PREV,
    FLAG_PUSH_PREV,
    G2S,
    MEMORY_TYPE,
    S2G,
    SRAM_BASE,
    X_SIZE,
    X_STRIDE,
    Y_SIZE,
)

_IN_FLIGHT: Final = 16  # `vta_hw.rtl.tokens.MAX_IN_FLIGHT`
_MAX_BURSTS: Final = 16  # `vta_hw.rtl.store.MAX_BURSTS`
_MODULE: Final = int(Module.STORE.value)
_OUT: Final = int(MemoryType.OUT)
_OUT_INDEX, _WRITE_ERROR = int(Status.OUT_INDEX), int(Status.WRITE_ERROR)
_UNKNOWN_MEMORY_TYPE: Final = int(Status.UNKNOWN_MEMORY_TYPE)
_BUSY, _WAIT_TOKEN, _WAIT_MEMORY = bit("store_busy"), bit("store_wait_token"), bit("store_wait_memory")
_BEGIN, _END = bit("begin_store"), bit("end_store")

_INSN, _NOP, _UNKNOWN, _PUSH = range(4)
_ADDRESS, _BEATS, _ENDS_INSN, _OUTSIDE, _FAILED = range(5)


class StoreUnit:
    """Registers of the store unit.

    order: instructions in flight, by their number modulo its length: index, whether it is a NOP, one because its memory
    type is unknown, whether it gives a token. begun, ended: how many did. places: of those that move data, by a number
    of their own, the byte of OUT where the next row to be split begins; placed, split: how many began, and are split.

    bursts: those at work, by their number modulo its length: byte address, bus words, whether it ends an instruction,
    whether an element lies outside of OUT, whether the response was an error. made, sent, read, responded, answered:
    how many were split, taken by the port, read from OUT, responded to, and told to the instruction.

    beat: bus words read of the first burst to be read; place_valid, place_last: the stage behind; word_valid,
    word_last: what is on the port.
    """

    order: NDArray[np.int64] = array(_IN_FLIGHT, 4)
    begun: int
    ended: int
    places: NDArray[np.int64] = array(_IN_FLIGHT)
    placed: int
    split: int
    bursts: NDArray[np.int64] = array(_MAX_BURSTS, 5)
    made: int
    sent: int
    read: int
    responded: int
    answered: int
    beat: int
    place_valid: int
    place_last: int
    word_valid: int
    word_last: int


@inner
def offers_burst(u: StoreUnit) -> bool:
    """Whether a burst is on the port."""
    return u.made != u.sent


@inner
def is_sending(u: StoreUnit) -> bool:
    """Whether a burst that was split, or a word of it, has yet to be taken by the port."""
    return u.made != u.sent or u.made != u.read or u.place_valid != 0 or u.word_valid != 0


@inner
def burst(u: StoreUnit) -> tuple[int, int]:
    """The burst on the port: byte address, bus words."""
    place = u.sent & _MAX_BURSTS - 1
    return u.bursts[place, _ADDRESS], u.bursts[place, _BEATS]


@inner
def is_waiting(w: Wires, flags: int) -> bool:
    """Whether the token that an instruction takes is missing, or the room for the one it gives."""
    pops, pushes = flags >> FLAG_POP_PREV & 1, flags >> FLAG_PUSH_PREV & 1
    return (pops != 0 and not available(w, G2S)) or (pushes != 0 and not room(w, S2G))


@inner
def step(
    u: StoreUnit,
    b: Bursts,
    p: Parameters,
    w: Wires,
    insn: int,
    flags: int,
    fields: NDArray[np.int64],
    sends_burst: bool,
    sends_word: bool,
    response: bool,
    error: bool,
) -> bool:
    """One cycle but for what begins; whether the head of the queue, `insn` with `flags`, begins.

    `insn` is -1 without a head; its decoded fields are in `fields` otherwise. sends_burst, sends_word: the port takes
    them. response: one comes, with or without an error.
    """
    in_flight = u.begun - u.ended
    if in_flight == 0 and insn < 0:
        return False
    begins = False
    at_work = u.made - u.answered
    splits = b.valid != 0 and at_work != _MAX_BURSTS
    reads = u.made != u.read and (u.word_valid == 0 or sends_word)
    if in_flight:
        w.bits |= _BUSY
    if insn >= 0:
        if is_waiting(w, flags):
            if in_flight == 0:
                w.bits |= _WAIT_TOKEN
        elif in_flight != _IN_FLIGHT:
            begins = is_nop(fields) or transfer.accepts(b, splits)
    refused = (u.made != u.sent and not sends_burst) or (u.word_valid != 0 and not sends_word)
    if refused or (at_work and b.rows == 0 and b.valid == 0 and not is_sending(u)):
        w.bits |= _WAIT_MEMORY
    moved = sends_burst or response
    moved = _complete(u, w) or moved
    if response:
        u.bursts[u.responded & _MAX_BURSTS - 1, _FAILED] = int(error)
        u.responded += 1
    u.sent += int(sends_burst)
    # BeatReader
    if u.word_valid == 0 or sends_word:
        last = reads and u.beat + 1 == u.bursts[u.read & _MAX_BURSTS - 1, _BEATS]
        same = u.word_valid == u.place_valid and u.word_last == u.place_last
        moved = moved or not same or u.place_valid != int(reads) or u.place_last != int(last)
        u.word_valid, u.word_last = u.place_valid, u.place_last
        u.place_valid, u.place_last = int(reads), int(last)
        if last:
            u.beat = 0
            u.read += 1
        elif reads:
            u.beat += 1
    if splits:
        _keep(u, b, p)
    if transfer.step(b, p, splits) or splits:
        moved = True
    if moved:
        w.moved = 1
    return begins


@inner
def _complete(u: StoreUnit, w: Wires) -> bool:
    """Match responses to bursts, and bursts to instructions; whether anything changes."""
    if u.begun == u.ended:
        return False
    insn = u.order[u.ended & _IN_FLIGHT - 1]
    ends = insn[_NOP] != 0
    if ends:
        if insn[_UNKNOWN]:
            report_fault(w, _UNKNOWN_MEMORY_TYPE, insn[_INSN])
    elif u.responded != u.answered:
        answered = u.bursts[u.answered & _MAX_BURSTS - 1]
        if answered[_OUTSIDE]:
            report_fault(w, _OUT_INDEX, insn[_INSN])
        if answered[_FAILED]:
            report_fault(w, _WRITE_ERROR, insn[_INSN])
        ends = answered[_ENDS_INSN] != 0
        u.answered += 1
    else:
        return False
    if ends:
        w.bits |= _END
        w.retired += 1
        give_token(w, S2G, insn[_PUSH])
        u.ended += 1
    return True


@inner
def _keep(u: StoreUnit, b: Bursts, p: Parameters) -> None:
    """Enter the burst of the splitter among those at work."""
    made = u.bursts[u.made & _MAX_BURSTS - 1]
    u.made += 1
    place = u.places[u.split & _IN_FLIGHT - 1]
    row_bytes = b.row_end - b.row
    covered = row_bytes if b.last else (b.burst + (b.beats << p.log_word) - b.row) & p.address_mask
    made[_ADDRESS] = b.burst
    made[_BEATS] = b.beats
    made[_ENDS_INSN] = b.last & b.final
    made[_OUTSIDE] = int(place + covered > p.out_bytes)
    if b.last:
        u.places[u.split & _IN_FLIGHT - 1] = place + row_bytes
        u.split += b.final


@inner
def begin(
    u: StoreUnit,
    b: Bursts,
    q: InsnQueues,
    p: Parameters,
    w: Wires,
    insn: int,
    flags: int,
    fields: NDArray[np.int64],
) -> None:
    """Begin the head of the queue, at the end of the cycle."""
    w.bits |= _BEGIN
    w.moved = 1
    q.read[_MODULE] = 1
    take_token(w, G2S, flags >> FLAG_POP_PREV & 1)
    nop = is_nop(fields)
    order = u.order[u.begun & _IN_FLIGHT - 1]
    order[_INSN] = insn
    order[_NOP] = int(nop)
    order[_UNKNOWN] = int(nop and fields[X_SIZE] != 0 and fields[Y_SIZE] != 0)
    order[_PUSH] = flags >> FLAG_PUSH_PREV & 1
    u.begun += 1
    if nop:
        return
    base, elem_bytes = p.bases[_OUT], p.elem_bytes[_OUT]
    u.places[u.placed & _IN_FLIGHT - 1] = fields[SRAM_BASE] * elem_bytes
    u.placed += 1
    nbytes = fields[X_SIZE] * elem_bytes
    address, row_step = base + fields[DRAM_BASE] * elem_bytes, fields[X_STRIDE] * elem_bytes
    transfer.begin(b, p, address, row_step, nbytes, fields[Y_SIZE])
    compute_values(w, insn)


@inner
def is_nop(fields: NDArray[np.int64]) -> bool:
    """Whether an instruction moves tokens and nothing else."""
    return bool(fields[X_SIZE] == 0 or fields[Y_SIZE] == 0 or fields[MEMORY_TYPE] != _OUT)


@inner
def horizon(u: StoreUnit, reads: bool, limit: int) -> int:
    """For how many cycles, up to `limit`, the reader only counts, in which it reads or not."""
    left = u.bursts[u.read & _MAX_BURSTS - 1, _BEATS] - u.beat
    return int(min(limit, left - 1)) if reads else limit
