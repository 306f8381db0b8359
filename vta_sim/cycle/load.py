"""The load unit (`LoadUnit` of vta_hw/rtl/load.py): LOADs of INP and WGT, and NOPs, in order."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.isa import Module
from vta_sim._jit import inner
from vta_sim.cycle import load_engine
from vta_sim.cycle.load_engine import LoadEngine
from vta_sim.cycle.queues import InsnQueues
from vta_sim.cycle.records import array
from vta_sim.cycle.transfer import Bursts
from vta_sim.cycle.wires import Parameters, Wires, available, bit, compute_values, give_token, room, take_token
from vta_sim.functional.columns import FLAG_POP_NEXT, FLAG_PUSH_NEXT, G2L, L2G, MEMORY_TYPE, X_SIZE

_IN_FLIGHT: Final = 16  # `vta_hw.rtl.tokens.MAX_IN_FLIGHT`
_BUSY, _WAIT_TOKEN, _WAIT_MEMORY = bit("load_busy"), bit("load_wait_token"), bit("load_wait_memory")
_BEGIN, _END = bit("begin_load"), bit("end_load")
_MODULE: Final = int(Module.LOAD.value)
_INSN, _NOP, _PUSH = range(3)


class LoadUnit:
    """Registers of the load unit.

    order: index, NOP or not, and whether it gives a token, of the instructions in flight, by their number modulo its
    length; begun, ended: how many did. ahead: loads that are done behind a NOP that has yet to retire.
    """

    order: NDArray[np.int64] = array(_IN_FLIGHT, 3)
    begun: int
    ended: int
    ahead: int


@inner
def is_waiting(w: Wires, flags: int) -> bool:
    """Whether the token that an instruction takes is missing, or the room for the one it gives."""
    pops, pushes = flags >> FLAG_POP_NEXT & 1, flags >> FLAG_PUSH_NEXT & 1
    return (pops != 0 and not available(w, G2L)) or (pushes != 0 and not room(w, L2G))


@inner
def step(
    u: LoadUnit,
    e: LoadEngine,
    b: Bursts,
    q: InsnQueues,
    p: Parameters,
    w: Wires,
    insn: int,
    flags: int,
    fields: NDArray[np.int64],
    taken: bool,
    beat: bool,
    error: bool,
) -> bool:
    """One cycle but for what begins; whether the head of the queue, `insn` with `flags`, begins.

    `insn` is -1 without a head; its decoded fields are in `fields` otherwise. taken: the burst; beat: a bus word comes,
    with or without an error.
    """
    in_flight = u.begun - u.ended
    begins = False
    if in_flight:
        w.bits |= _BUSY
        if not e.writes:
            w.bits |= _WAIT_MEMORY
    if insn >= 0:
        if is_waiting(w, flags):
            if in_flight == 0:
                w.bits |= _WAIT_TOKEN
        elif in_flight != _IN_FLIGHT:
            begins = fields[X_SIZE] == 0 or load_engine.accepts(e, b, fields[MEMORY_TYPE], taken)
    done = load_engine.step(e, b, p, w, taken, beat, error)
    if in_flight:
        oldest = u.order[u.ended & _IN_FLIGHT - 1]
        nop = oldest[_NOP] != 0
        if nop or done or u.ahead:
            w.bits |= _END
            w.retired += 1
            w.moved = 1
            give_token(w, L2G, oldest[_PUSH])
            if not nop:
                u.ahead -= 1
                compute_values(w, oldest[_INSN])
            u.ended += 1
    u.ahead += int(done)
    return begins


@inner
def begin(
    u: LoadUnit,
    e: LoadEngine,
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
    take_token(w, G2L, flags >> FLAG_POP_NEXT & 1)
    order = u.order[u.begun & _IN_FLIGHT - 1]
    order[_INSN] = insn
    order[_NOP] = int(fields[X_SIZE] == 0)
    order[_PUSH] = flags >> FLAG_PUSH_NEXT & 1
    u.begun += 1
    if fields[X_SIZE] != 0:
        load_engine.begin(e, b, p, fields, insn)
