"""The memory behind the accelerator's AXI port, as compiled code: when each channel moves, but not the data.

The same memory as `vta_sim.rtl.dram.Dram`, cycle by cycle, for every timing but an interleaved one; and as
`vta_sim.rtl.axi_memory.AxiMemory` where neither stalls. A cycle is two calls:

    answer = look(dram)                 what the memory shows in this cycle
    clock(dram, answer, ar_valid, ...)  what the master shows in it; then the clock ticks

Behind the accelerator the first cycle is the one in which the registers start a launch, in which nothing is offered yet
(`Machine` restarts its memory then): each launch has a new memory.

`look` depends on nothing that the master shows in the same cycle, as the outputs of a block that come from registers,
and changes nothing. An offer must be kept until it is taken, as AXI says. Truth values are 0 and 1; everything is
int64, addresses are byte addresses modulo 2**64, of full bus words.

An engine that steps over events need not call them for each cycle:

    cycles = steady(dram, answer, w_valid)  for how many cycles, this one included, each is like this one
    skip(dram, answer, w_valid, cycles)     the same as that many times `clock`, or fewer

Both speak of cycles in which the master takes what is shown (``r_ready`` and ``b_ready``), no address moves (none is
offered, or its channel is not ready, which then stays so), and W offers a word in each cycle, which is not the last of
its burst, or in none. While `steady` lasts, `look` gives the same answer: where it shows a read word, the next words of
the same burst follow, one in each cycle, up to the one before the last. `steady` is 0 where this cycle must go through
`clock`: if it moves the last word of a burst or a response, if words have gaps or take turns on a shared bus, if words
that are read may be errors, in the first cycle, in one that shows a word which the master has not taken before, and
whenever the timing has stalls. It may be less than the cycles that really pass so, never more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vta_sim._jit import inner
from vta_sim.timing import MOST_BURSTS, MemoryTiming, error_words

FOREVER: Final = 1 << 62
"""What `steady` says where nothing changes by itself."""

# Registers of the memory, by the name of the one in `vta_sim.rtl.dram` where there is one.
(
    _LATENCY,
    _OUTSTANDING,
    _READ_GAP,
    _WRITE_GAP,
    _SHARED_BUS,
    _STALL_THRESHOLD,
    _WORD_SHIFT,
    _NOW,
    # Read bursts that were accepted and are not answered to the end; ends of their queue; words shown of the first.
    _UNFINISHED,
    _READ_HEAD,
    _READ_TAIL,
    _READ_BEAT,
    _R_HELD,
    # Write addresses, and bursts of words, that were accepted and are not answered.
    _ADDRESSED,
    _FILLED,
    _WRITE_HEAD,
    _WRITE_TAIL,
    # Words that were accepted and not yet written; words written of the first burst of the queue, the worst response.
    _WORDS,
    _WRITE_BEAT,
    _WORST,
    _B_HEAD,
    _B_TAIL,
    _B_HELD,
    # Cycles from which on a direction may move a word.
    _READ_FREE,
    _WRITE_FREE,
    _READ_WAS_LAST,
    _W_WAITS,
    _RANDOM,
    _REGISTERS,
) = range(29)

# Queues of bursts behind the registers, and what they hold: the first cycle in which an answer may be shown is `_DUE`.
_FIELDS: Final = 4
_ADDRESS, _LEN, _ID, _DUE = range(_FIELDS)
_RESPONSE = _LEN
_READS, _WRITES, _RESPONSES, _END = (32 + queue * _FIELDS * MOST_BURSTS for queue in range(4))
_AR, _R, _AW, _W, _B = (8 * byte for byte in range(5))
"""Which byte of the random state makes a channel pause."""


class Dram(NamedTuple):
    """State of a memory.

    state: int64 [3104], registers and queues in one array, because each array of a call costs. errors: int64 [N][3],
    see `error_words`.
    """

    state: NDArray[np.int64]
    errors: NDArray[np.int64]


class Answer(NamedTuple):
    """What the memory shows in a cycle; what belongs to R or B counts only while it is valid."""

    ar_ready: int
    aw_ready: int
    w_ready: int
    r_valid: int
    r_id: int
    r_last: int
    r_resp: int
    b_valid: int
    b_id: int
    b_resp: int


def new_dram(timing: MemoryTiming, bus_bytes: int, errors: Mapping[range, int] | None = None) -> Dram:
    """A memory at reset. Raises ValueError for a timing that it cannot have (see `MemoryTiming.settings`)."""
    settings = timing.settings(bus_bytes)
    state = np.zeros(_END, np.int64)
    state[_LATENCY] = settings.latency
    state[_OUTSTANDING] = settings.outstanding
    state[_READ_GAP] = settings.read_gap
    state[_WRITE_GAP] = settings.write_gap
    state[_SHARED_BUS] = settings.shared_bus
    state[_STALL_THRESHOLD] = settings.stall_threshold
    state[_WORD_SHIFT] = bus_bytes.bit_length() - 1
    state[_RANDOM] = np.uint64(settings.random_state).view(np.int64)
    words = np.array(error_words(errors or {}, bus_bytes), np.int64).reshape(-1, 3)
    return Dram(state=state, errors=words)


@inner
def look(dram: Dram) -> Answer:
    """What the memory shows in this cycle."""
    state = dram.state
    now = state[_NOW]
    # No channel is ready in the first cycle.
    takes = int(now > 0)
    ar_ready = int(takes and state[_UNFINISHED] < state[_OUTSTANDING] and not _pauses(dram, _AR))
    aw_ready = int(takes and state[_ADDRESSED] < state[_OUTSTANDING] and not _pauses(dram, _AW))
    reads = int(_next_read(dram) <= now and not _pauses(dram, _R))
    writes = int(takes and state[_FILLED] < state[_OUTSTANDING] and state[_WRITE_FREE] <= now and not _pauses(dram, _W))
    if state[_SHARED_BUS]:
        if writes and state[_W_WAITS] and state[_READ_WAS_LAST]:
            reads = 0
        writes &= 1 - reads
    r_valid = state[_R_HELD] | reads
    r_id, r_last, r_resp = 0, 0, 0
    if r_valid:
        first = _row(_READS, state[_READ_HEAD])
        r_id = state[first + _ID]
        r_last = int(state[_READ_BEAT] == state[first + _LEN])
        r_resp = _response(dram, state[first + _ADDRESS], state[_READ_BEAT])
    response = _row(_RESPONSES, state[_B_HEAD])
    b_valid = state[_B_HELD]
    if not b_valid and state[_B_HEAD] != state[_B_TAIL]:
        b_valid = int(state[response + _DUE] <= now and not _pauses(dram, _B))
    b_id, b_resp = state[response + _ID], state[response + _RESPONSE]
    return Answer(ar_ready, aw_ready, writes, r_valid, r_id, r_last, r_resp, b_valid, b_id, b_resp)


@inner
def clock(
    dram: Dram,
    answer: Answer,
    ar_valid: int,
    ar_address: int,
    ar_len: int,
    ar_id: int,
    aw_valid: int,
    aw_address: int,
    aw_len: int,
    aw_id: int,
    w_valid: int,
    w_last: int,
    r_ready: int,
    b_ready: int,
) -> None:
    """End this cycle, of which `answer` is what the memory showed; the rest is what the master did."""
    state = dram.state
    now = state[_NOW]
    w_taken = w_valid & answer.w_ready
    _move_read(dram, answer, r_ready)
    if answer.b_valid:
        state[_B_HELD] = 1 - b_ready
        state[_B_HEAD] += b_ready
        state[_ADDRESSED] -= b_ready
        state[_FILLED] -= b_ready
    if ar_valid & answer.ar_ready:
        _push(state, _row(_READS, state[_READ_TAIL]), ar_address, ar_len, ar_id, now + 1 + state[_LATENCY])
        state[_READ_TAIL] += 1
        state[_UNFINISHED] += 1
    if aw_valid & answer.aw_ready:
        _push(state, _row(_WRITES, state[_WRITE_TAIL]), aw_address, aw_len, aw_id, 0)
        state[_WRITE_TAIL] += 1
        state[_ADDRESSED] += 1
    if w_taken:
        state[_WORDS] += 1
        state[_FILLED] += w_last
        _occupy_write(state, now)
    state[_W_WAITS] = w_valid - w_taken
    if state[_WORDS] and state[_WRITE_HEAD] != state[_WRITE_TAIL]:
        _write_word(dram)
    state[_NOW] = now + 1
    # In the first cycle, in which nothing is ready, the RTL only takes over the first number.
    if state[_STALL_THRESHOLD] and now:
        state[_RANDOM] = _next_random(state[_RANDOM])


@inner
def steady(dram: Dram, answer: Answer, w_valid: int) -> int:
    """For how many cycles each is like this one, in the sense of this file; `FOREVER` if nothing changes by itself."""
    state = dram.state
    now = state[_NOW]
    if now == 0 or state[_STALL_THRESHOLD] or state[_R_HELD] or answer.b_valid:
        return 0
    w_taken = w_valid & answer.w_ready
    cycles = FOREVER
    if answer.r_valid:
        if state[_READ_GAP] or (state[_SHARED_BUS] and w_valid) or dram.errors.shape[0]:
            return 0
        cycles = state[_row(_READS, state[_READ_HEAD]) + _LEN] - state[_READ_BEAT]
    elif state[_READ_HEAD] != state[_READ_TAIL]:
        # A word that is due and not shown has lost the bus to a write, for this cycle.
        cycles = _next_read(dram) - now
    if state[_B_HEAD] != state[_B_TAIL]:
        cycles = min(cycles, state[_row(_RESPONSES, state[_B_HEAD]) + _DUE] - now)
    if w_taken:
        if state[_WRITE_GAP]:
            return 0
    elif state[_WRITE_FREE] > now:
        cycles = min(cycles, state[_WRITE_FREE] - now)
    if (state[_WORDS] or w_taken) and state[_WRITE_HEAD] != state[_WRITE_TAIL]:
        cycles = min(cycles, state[_row(_WRITES, state[_WRITE_HEAD]) + _LEN] - state[_WRITE_BEAT])
    return int(max(cycles, 0))


@inner
def skip(dram: Dram, answer: Answer, w_valid: int, cycles: int) -> None:
    """Pass 1 to `steady` cycles at once; `answer` and `w_valid` as there."""
    state = dram.state
    last = state[_NOW] + cycles - 1
    w_taken = w_valid & answer.w_ready
    if answer.r_valid:
        state[_READ_BEAT] += cycles
        _occupy_read(state, last)
    if w_taken:
        state[_WORDS] += cycles
        _occupy_write(state, last)
    state[_W_WAITS] = w_valid - w_taken
    if state[_WRITE_HEAD] != state[_WRITE_TAIL]:
        written = min(cycles, state[_WORDS])
        state[_WORDS] -= written
        for _ in range(written if dram.errors.shape[0] else 0):
            _meet_error(dram)
            state[_WRITE_BEAT] += 1
        if not dram.errors.shape[0]:
            state[_WRITE_BEAT] += written
    state[_NOW] = last + 1


@inner
def _next_read(dram: Dram) -> int:
    """The first cycle in which a new read word may be shown, if nothing more is accepted or taken."""
    state = dram.state
    if state[_R_HELD] or state[_READ_HEAD] == state[_READ_TAIL]:
        return FOREVER
    return int(max(state[_row(_READS, state[_READ_HEAD]) + _DUE], state[_READ_FREE]))


@inner
def _move_read(dram: Dram, answer: Answer, r_ready: int) -> None:
    state = dram.state
    if not answer.r_valid:
        return
    if not state[_R_HELD]:
        _occupy_read(state, state[_NOW])
    state[_R_HELD] = 1 - r_ready
    if r_ready:
        state[_READ_BEAT] = 0 if answer.r_last else state[_READ_BEAT] + 1
        state[_READ_HEAD] += answer.r_last
        state[_UNFINISHED] -= answer.r_last


@inner
def _occupy_read(state: NDArray[np.int64], now: int) -> None:
    state[_READ_FREE] = now + 1 + state[_READ_GAP]
    if state[_SHARED_BUS]:
        state[_WRITE_FREE] = state[_READ_FREE]
    state[_READ_WAS_LAST] = 1


@inner
def _occupy_write(state: NDArray[np.int64], now: int) -> None:
    state[_WRITE_FREE] = now + 1 + state[_WRITE_GAP]
    if state[_SHARED_BUS]:
        state[_READ_FREE] = state[_WRITE_FREE]
    state[_READ_WAS_LAST] = 0


@inner
def _write_word(dram: Dram) -> None:
    """Write the oldest word, which in `vta_sim.rtl.dram` happens in the next cycle."""
    state = dram.state
    burst = _row(_WRITES, state[_WRITE_HEAD])
    _meet_error(dram)
    state[_WORDS] -= 1
    state[_WRITE_BEAT] += 1
    if state[_WRITE_BEAT] > state[burst + _LEN]:
        due = state[_NOW] + 1 + state[_LATENCY]
        _push(state, _row(_RESPONSES, state[_B_TAIL]), 0, state[_WORST], state[burst + _ID], due)
        state[_B_TAIL] += 1
        state[_WRITE_HEAD] += 1
        state[_WRITE_BEAT] = 0
        state[_WORST] = 0


@inner
def _meet_error(dram: Dram) -> None:
    state = dram.state
    address = state[_row(_WRITES, state[_WRITE_HEAD]) + _ADDRESS]
    state[_WORST] = max(state[_WORST], _response(dram, address, state[_WRITE_BEAT]))


@inner
def _response(dram: Dram, address: int, beat: int) -> int:
    """The response of a word of a burst."""
    response = 0
    if dram.errors.shape[0]:
        shift = dram.state[_WORD_SHIFT]
        word = (address >> shift & (1 << (64 - shift)) - 1) + beat
        for number in range(dram.errors.shape[0]):
            if dram.errors[number, 0] <= word < dram.errors[number, 1]:
                response = dram.errors[number, 2]
    return response


@inner
def _row(queue: int, number: int) -> int:
    """Where a burst of a queue lies, which is the `number`-th that entered it."""
    return queue + _FIELDS * (number & MOST_BURSTS - 1)


@inner
def _push(state: NDArray[np.int64], row: int, address: int, length: int, ident: int, due: int) -> None:
    state[row + _ADDRESS] = address
    state[row + _LEN] = length
    state[row + _ID] = ident
    state[row + _DUE] = due


@inner
def _pauses(dram: Dram, channel: int) -> bool:
    threshold = dram.state[_STALL_THRESHOLD]
    if threshold == 0:
        return False
    return bool(dram.state[_RANDOM] >> channel & 255 < threshold)


@inner
def _next_random(state: int) -> int:
    """Xorshift with the shifts 13, 7 and 17, which goes through all numbers of 64 bits but zero."""
    state ^= state << 13
    state ^= state >> 7 & (1 << 57) - 1
    return state ^ state << 17
