"""The compute unit that works in order (`ComputeUnit` of vta_hw/rtl/compute.py)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.isa import AluOp, Module, Opcode
from vta_sim._jit import inner
from vta_sim.cycle import decode, load_engine, pipeline
from vta_sim.cycle.load_engine import LoadEngine
from vta_sim.cycle.pipeline import Pipeline
from vta_sim.cycle.queues import FLAG_FINISH, InsnQueues
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
    ALU_OPCODE,
    FLAG_POP_NEXT,
    FLAG_POP_PREV,
    FLAG_PUSH_NEXT,
    FLAG_PUSH_PREV,
    G2L,
    G2S,
    ITER_IN,
    ITER_OUT,
    L2G,
    MEMORY_TYPE,
    S2G,
)

_IN_FLIGHT: Final = 16  # `vta_hw.rtl.tokens.MAX_IN_FLIGHT`
_MODULE: Final = int(Module.COMPUTE.value)
_ALU: Final = int(Opcode.ALU)
_REQUANT: Final = int(AluOp.REQUANT)
_GEMM_BUSY, _ALU_BUSY, _LOAD_BUSY = bit("gemm_busy"), bit("alu_busy"), bit("compute_load_busy")
_WAIT_LOAD, _WAIT_STORE = bit("compute_wait_load"), bit("compute_wait_store")
_BEGIN, _END = bit("begin_compute"), bit("end_compute")
_NEXT_GEMM, _NEXT_ALU, _LOADED = bit("next_gemm"), bit("next_alu"), bit("loaded")


class ComputeUnit:
    """Registers of the compute unit, beside those of its pipeline and of its load engine.

    loads, flags: LOADs in flight, by their number modulo their length; begun, ended: how many did. is_alu: the
    instruction in the nest is one of the ALU.
    """

    loads: NDArray[np.int64] = array(_IN_FLIGHT)
    flags: NDArray[np.int64] = array(_IN_FLIGHT)
    begun: int
    ended: int
    is_alu: int


@inner
def is_waiting(w: Wires, flags: int) -> bool:
    """Whether a token that an instruction takes is missing, or the room for one it gives."""
    return (
        (flags >> FLAG_POP_PREV & 1 != 0 and not available(w, L2G))
        or (flags >> FLAG_POP_NEXT & 1 != 0 and not available(w, S2G))
        or (flags >> FLAG_PUSH_PREV & 1 != 0 and not room(w, G2L))
        or (flags >> FLAG_PUSH_NEXT & 1 != 0 and not room(w, G2S))
    )


@inner
def is_idle(u: ComputeUnit, e: Pipeline) -> bool:
    """Whether nothing is in flight."""
    return pipeline.is_empty(e) and u.begun == u.ended


@inner
def count_waits(w: Wires, flags: int) -> None:
    """Count in `compute_wait_load` and `compute_wait_store`, in a cycle in which the unit is idle."""
    if flags >> FLAG_POP_PREV & 1 and not available(w, L2G):
        w.bits |= _WAIT_LOAD
    if flags >> FLAG_POP_NEXT & 1 and not available(w, S2G):
        w.bits |= _WAIT_STORE


@inner
def retire(w: Wires, flags: int) -> None:
    """An instruction completes in this cycle."""
    w.bits |= _END
    w.retired += 1
    w.moved = 1
    give_token(w, G2L, flags >> FLAG_PUSH_PREV & 1)
    give_token(w, G2S, flags >> FLAG_PUSH_NEXT & 1)
    w.finished |= flags >> FLAG_FINISH & 1


@inner
def step(
    u: ComputeUnit,
    e: Pipeline,
    loader: LoadEngine,
    b: Bursts,
    p: Parameters,
    w: Wires,
    uops: NDArray[np.uint32],
    insn: int,
    flags: int,
    opcode: int,
    fields: NDArray[np.int64],
    taken: bool,
    beat: bool,
    error: bool,
) -> bool:
    """One cycle but for what begins; whether the head of the queue, `insn` with `flags`, begins.

    `insn` is -1 without a head; its opcode and decoded fields are `opcode` and `fields` otherwise. uops: the micro-op
    scratchpad. taken: the burst; beat: a bus word comes, with or without an error.
    """
    wait = pipeline.waits(e)
    begins = False
    if e.steps and e.work:
        w.bits |= _ALU_BUSY if u.is_alu else _GEMM_BUSY
    if u.begun != u.ended:
        w.bits |= _LOAD_BUSY
    if insn >= 0:
        if is_waiting(w, flags):
            if is_idle(u, e):
                count_waits(w, flags)
        elif decode.kind_of(p, opcode, fields) == decode.LOAD:
            begins = pipeline.is_empty(e) and u.begun - u.ended != _IN_FLIGHT
            begins = begins and load_engine.accepts(loader, b, fields[MEMORY_TYPE], taken)
        else:
            requant = opcode == _ALU and fields[ALU_OPCODE] == _REQUANT and p.last_alu_opcode >= _REQUANT
            early = requant and pipeline.is_plain(e)
            begins = u.begun == u.ended and not early and pipeline.accepts(e, wait)
    retired = pipeline.step(e, uops, p, w, wait, False)
    if retired >= 0:
        retire(w, retired)
    if load_engine.step(loader, b, p, w, taken, beat, error):
        oldest = u.ended & _IN_FLIGHT - 1
        u.ended += 1
        w.bits |= _LOADED
        compute_values(w, u.loads[oldest])
        retire(w, u.flags[oldest])
    return begins


@inner
def begin(
    u: ComputeUnit,
    e: Pipeline,
    loader: LoadEngine,
    b: Bursts,
    q: InsnQueues,
    p: Parameters,
    w: Wires,
    insn: int,
    flags: int,
    opcode: int,
    fields: NDArray[np.int64],
) -> None:
    """Begin the head of the queue, at the end of the cycle."""
    w.bits |= _BEGIN
    w.moved = 1
    q.read[_MODULE] = 1
    take_token(w, L2G, flags >> FLAG_POP_PREV & 1)
    take_token(w, S2G, flags >> FLAG_POP_NEXT & 1)
    fault = decode.fault_of(p, opcode, fields)
    if fault:
        report_fault(w, fault, insn)
    kind = decode.kind_of(p, opcode, fields)
    if kind == decode.LOAD:
        u.loads[u.begun & _IN_FLIGHT - 1] = insn
        u.flags[u.begun & _IN_FLIGHT - 1] = flags
        u.begun += 1
        load_engine.begin(loader, b, p, fields, insn)
        return
    runs = kind == decode.GEMM or kind == decode.ALU
    u.is_alu = int(kind == decode.ALU)
    if runs:
        compute_values(w, insn)
        if fields[ITER_OUT] != 0 and fields[ITER_IN] != 0:
            w.bits |= _NEXT_ALU if u.is_alu else _NEXT_GEMM
    pipeline.begin(e, fields, opcode, insn, flags, runs, False)
