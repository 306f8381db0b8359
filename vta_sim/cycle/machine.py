"""The units together, cycle by cycle (`_control` of vta_hw/rtl/core.py), and over many at once where they only count.

In each cycle the units are stepped in an order in which what they show each other comes from registers that have not
changed yet; what one gives another (tokens, instructions in queues) arrives at the end of the cycle. A cycle in which
no register changed but those that count is followed by others like it, up to the smallest horizon of the units.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec import instructions, registers
from vta_hw.spec.isa import MemoryType, Module, Opcode
from vta_hw.spec.registers import FAULTS, Status
from vta_sim import pages, timing, trace, trace_build
from vta_sim._jit import entry, inner, source_stamp
from vta_sim.cycle import (
    compute,
    decode,
    dram,
    fetch,
    load,
    load_engine,
    memory_engine,
    overlap,
    pipeline,
    queues,
    ranges,
    records,
    store,
    transfer,
    values,
    wires,
)
from vta_sim.cycle.compute import ComputeUnit
from vta_sim.cycle.dram import Answer, Dram
from vta_sim.cycle.fetch import Fetch
from vta_sim.cycle.load import LoadUnit
from vta_sim.cycle.load_engine import LoadEngine
from vta_sim.cycle.memory_engine import COMPUTE, FETCH, LOAD, MemoryEngine
from vta_sim.cycle.overlap import Overlap
from vta_sim.cycle.pipeline import Pipeline
from vta_sim.cycle.queues import FLAG_FINISH, InsnQueues
from vta_sim.cycle.ranges import Scanner
from vta_sim.cycle.records import array
from vta_sim.cycle.store import StoreUnit
from vta_sim.cycle.transfer import Bursts
from vta_sim.cycle.wires import Parameters, Wires, bit
from vta_sim.functional import alu, columns, gemm, launch, nest, packing, state, vector
from vta_sim.functional import load as functional_load
from vta_sim.functional import store as functional_store
from vta_sim.functional.columns import FIELD_COUNT, MEMORY_TYPE, RESET, X_SIZE, Y_SIZE, Code
from vta_sim.functional.state import Machine
from vta_sim.pages import PageTable
from vta_sim.trace_build import SAMPLED

RUNNING, OVER, NO_FRAMES, LOG_FULL, STORED = range(5)
"""What `RUN` ends with: the cycles it was given are over; the launch is; page frames are needed; room in the log is;
there is a memory with errors, and it was written."""

_QUIET_CYCLES: Final = 16  # `vta_hw.rtl.core.QUIET_CYCLES`
_LOAD_QUEUE, _COMPUTE_QUEUE, _STORE_QUEUE = (int(module.value) for module in Module)
_DEADLOCK, _STORES_OUTSTANDING = int(Status.DEADLOCK), int(Status.STORES_OUTSTANDING)
_FAULTS: Final = int(FAULTS)
_INP, _WGT, _UOP = int(MemoryType.INP), int(MemoryType.WGT), int(MemoryType.UOP)
_FINISH: Final = int(Opcode.FINISH)
_LOAD_OPCODE, _STORE_OPCODE, _GEMM, _ALU = (
    int(opcode) for opcode in (Opcode.LOAD, Opcode.STORE, Opcode.GEMM, Opcode.ALU)
)
_GROW, _DONE = int(Code.GROW), int(Code.DONE)
_FETCH_BLOCKED: Final = bit("fetch_wait_queue")
_EVENTS: Final = len(SAMPLED)
_WAITS: Final = (
    bit("load_wait_token"),
    bit("compute_wait_load") | bit("compute_wait_store"),
    bit("store_wait_token"),
)


class Control:
    """The course of a launch, and what it counts.

    cycle: cycles so far. complete, finished, quiet: as in the RTL. over: the launch has ended. status, fault_insn: as
    the registers. bits: the events (`SAMPLED`) of the last cycle, and of all since cycle `bits_since`; events: cycles
    of each before that. waits_since: for each unit, since which cycle it has done nothing but wait for tokens, or -1.
    changes: entries of the log. The others are counters of the register map.
    """

    cycle: int
    complete: int
    finished: int
    quiet: int
    over: int
    status: int
    fault_insn: int
    bits: int
    bits_since: int
    events: NDArray[np.int64] = array(_EVENTS)
    waits_since: NDArray[np.int64] = array(3)
    changes: int
    insn_bytes: int
    gemm_uops: int
    alu_uops: int
    acc_writes: int
    uop_bytes: int
    inp_bytes: int
    wgt_bytes: int
    acc_bytes: int
    out_bytes: int


class Heads:
    """The heads of the queues of load, compute and store: index (-1 without one), flags, opcode, fields.

    stored: a STORE was executed. single, fault: room for those who execute.
    """

    insn: NDArray[np.int64] = array(3)
    flags: NDArray[np.int64] = array(3)
    opcode: NDArray[np.int64] = array(3)
    fields: NDArray[np.int64] = array(3, FIELD_COUNT)
    stored: int
    single: NDArray[np.int64] = array(FIELD_COUNT)
    fault: NDArray[np.int64] = array(4)


class Units:
    """The registers of all units, in one record because each array of a call costs.

    A machine that overlaps has `overlap` and `scanner` in place of `compute`, and in `alu_pipeline` a second one.
    """

    parameters: Parameters
    wires: Wires
    control: Control
    heads: Heads
    queues: InsnQueues
    fetch: Fetch
    fetch_bursts: Bursts
    load: LoadUnit
    load_engine: LoadEngine
    load_bursts: Bursts
    compute: ComputeUnit
    overlap: Overlap
    scanner: Scanner
    pipeline: Pipeline
    alu_pipeline: Pipeline
    compute_engine: LoadEngine
    compute_bursts: Bursts
    store: StoreUnit
    store_bursts: Bursts
    engine: MemoryEngine


class Program(NamedTuple):
    """The instructions of a launch.

    words: uint64 [N][2]. module, flags: uint8 [N], as in `columns.Queues`. members: int64 [N], the instructions of
    load, of compute, of store, each in order; first: int64 [4], where those of each begin, and the end. places: see
    `columns.field_positions`.
    """

    words: NDArray[np.uint64]
    module: NDArray[np.uint8]
    flags: NDArray[np.uint8]
    members: NDArray[np.int64]
    first: NDArray[np.int64]
    places: NDArray[np.int64]


@inner
def _start(u: Units, d: Dram) -> None:
    """The registers in the first cycle of a launch."""
    fetch.start(u.fetch, u.fetch_bursts, u.parameters)
    transfer.reset(u.load_bursts)
    transfer.reset(u.compute_bursts)
    transfer.reset(u.store_bursts)
    pipeline.reset(u.pipeline)
    pipeline.reset(u.alu_pipeline)
    memory_engine.reset(u.engine)
    heads, control = u.heads, u.control
    control.fault_insn = wires.NO_INSN
    for unit in range(3):
        heads.insn[unit] = -1
        control.waits_since[unit] = -1
    # The cycle in which the registers start the launch.
    dram.clock(d, dram.look(d), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1)


@inner
def _show_heads(heads: Heads, q: InsnQueues, program: Program) -> None:
    """Decode the instructions that came to the heads of their queues."""
    for module in range(3):
        if not q.shows[module]:
            heads.insn[module] = -1
            continue
        insn = program.members[program.first[module] + q.head[module]]
        if insn != heads.insn[module]:
            heads.insn[module] = insn
            opcode = launch.decode(program.words, insn, program.places, heads.fields[module])
            heads.opcode[module] = opcode
            heads.flags[module] = program.flags[insn] | (opcode == _FINISH) << FLAG_FINISH


@inner
def _count(c: Control, bits: int, log: NDArray[np.int64]) -> None:
    """Count the cycles since the last change, and note that the events of the cycle at hand are others."""
    if bits == c.bits:
        return
    cycles = c.cycle - c.bits_since
    for event in range(_EVENTS):
        c.events[event] += (c.bits >> event & 1) * cycles
    for unit in range(3):
        if bits & _WAITS[unit] == 0:
            c.waits_since[unit] = -1
        elif c.bits & _WAITS[unit] == 0:
            c.waits_since[unit] = c.cycle
    c.bits = bits
    c.bits_since = c.cycle
    if log.shape[0]:
        log[c.changes, 0] = c.cycle
        log[c.changes, 1] = bits
        c.changes += 1


@inner
def _is_idle(u: Units) -> bool:
    """Whether the compute unit has nothing in flight."""
    if u.parameters.overlap:
        return overlap.is_idle(u.overlap)
    return compute.is_idle(u.compute, u.pipeline)


@inner
def _step_compute(u: Units, uops: NDArray[np.uint32], taken: bool, beat: bool, error: bool) -> None:
    """One cycle of the compute unit, of either kind. taken: its burst; beat: a bus word comes, maybe with an error."""
    p, w, heads, q = u.parameters, u.wires, u.heads, u.queues
    loader, b, pipe = u.compute_engine, u.compute_bursts, u.pipeline
    insn, flags = heads.insn[_COMPUTE_QUEUE], heads.flags[_COMPUTE_QUEUE]
    opcode, fields = heads.opcode[_COMPUTE_QUEUE], heads.fields[_COMPUTE_QUEUE]
    if p.overlap:
        begins = overlap.step(
            u.overlap, u.scanner, pipe, u.alu_pipeline, loader, b, q, p, w, uops, insn, flags, opcode, fields, taken,
            beat, error,
        )  # fmt: skip
    else:
        begins = compute.step(u.compute, pipe, loader, b, p, w, uops, insn, flags, opcode, fields, taken, beat, error)
        if begins:
            compute.begin(u.compute, pipe, loader, b, q, p, w, insn, flags, opcode, fields)
    if begins:
        _count_work(u.control, p, opcode, fields)


@inner
def _follow_launch(
    u: Units, done: bool, finish: bool, gave_up: bool, at_rest: bool, handed_out: bool, store_works: bool
) -> None:
    """The status of the launch, and for how long nothing has happened, from what the units have shown and done."""
    w, c = u.wires, u.control
    found = w.fault_status
    if finish and not (done and c.finished) and not gave_up:
        found |= _DEADLOCK
    if found & _FAULTS and not c.status & _FAULTS:
        c.fault_insn = w.fault_insn
    c.status |= found
    if w.finished:
        c.finished = 1
        if store_works:
            c.status |= _STORES_OUTSTANDING
    handed_out = handed_out or w.bits & _FETCH_BLOCKED != 0
    quiet = min(c.quiet + 1, _QUIET_CYCLES) if at_rest and handed_out else 0
    if quiet != c.quiet:
        c.quiet = quiet
        w.moved = 1
    c.complete += w.retired
    c.over = int(finish)


@inner
def _cycle(
    u: Units,
    d: Dram,
    answer: Answer,
    uops: NDArray[np.uint32],
    module: NDArray[np.uint8],
    log: NDArray[np.int64],
) -> bool:
    """One cycle; whether the heads of queues may have changed. uops: the scratchpad; module: of each instruction."""
    p, w, c, heads, q = u.parameters, u.wires, u.control, u.heads, u.queues
    f, fb, lu, le, lb = u.fetch, u.fetch_bursts, u.load, u.load_engine, u.load_bursts
    s, sb, e = u.store, u.store_bursts, u.engine
    cb = u.compute_bursts
    wires.begin_cycle(w)

    # What the units show, from registers that the cycle before left.
    fetch_wants, load_wants, compute_wants = fetch.wants(f, fb), lb.valid != 0, cb.valid != 0
    offers_burst = store.offers_burst(s)
    reader = memory_engine.grant(e, fetch_wants, load_wants, compute_wants)
    sends_burst = offers_burst and e.aw_spare == 0
    sends_word = s.word_valid != 0 and e.w_spare == 0
    last_word = s.word_last != 0
    beat, error, response, failed = e.beat, e.beat_error != 0, e.response != 0, e.response_error != 0
    insn_load, insn_compute = heads.insn[_LOAD_QUEUE], heads.insn[_COMPUTE_QUEUE]
    insn_store = heads.insn[_STORE_QUEUE]
    store_works = s.begun != s.ended or insn_store >= 0
    quiet_memory = not (fetch_wants or load_wants or compute_wants or offers_burst or s.word_valid)
    quiet_memory = quiet_memory and memory_engine.reads_are_answered(e) and memory_engine.writes_are_answered(e)
    quiet_memory = quiet_memory and fetch.is_idle(f, fb)
    done = quiet_memory and c.complete == p.count
    gave_up = f.failed != 0
    handed_out = f.index == p.count or gave_up
    at_rest = False
    flags_load, flags_store = heads.flags[_LOAD_QUEUE], heads.flags[_STORE_QUEUE]
    if quiet_memory and lu.begun == lu.ended and s.begun == s.ended and _is_idle(u):
        at_rest = insn_load < 0 or load.is_waiting(w, flags_load)
        at_rest = at_rest and (insn_store < 0 or store.is_waiting(w, flags_store))
        at_rest = at_rest and (insn_compute < 0 or compute.is_waiting(w, heads.flags[_COMPUTE_QUEUE]))
    finish = done or c.quiet == _QUIET_CYCLES

    # What they do.
    read_address, read_beats = 0, 0
    if reader == FETCH:
        read_address, read_beats = fb.burst, fb.beats
    elif reader == LOAD:
        read_address, read_beats = lb.burst, lb.beats
    elif reader == COMPUTE:
        read_address, read_beats = cb.burst, cb.beats
    write_address, write_beats = store.burst(s)
    fetch.step(f, fb, q, p, w, module, reader == FETCH, beat == FETCH, error)
    loads = load.step(
        lu, le, lb, q, p, w, insn_load, flags_load, heads.fields[_LOAD_QUEUE], reader == LOAD, beat == LOAD, error
    )
    _step_compute(u, uops, reader == COMPUTE, beat == COMPUTE, error)
    stores = store.step(
        s, sb, p, w, insn_store, flags_store, heads.fields[_STORE_QUEUE], sends_burst, sends_word, response, failed
    )
    memory_engine.step(
        e, d, answer, w, reader, read_address, read_beats, sends_burst, write_address, write_beats, sends_word,
        last_word,
    )  # fmt: skip
    if loads:
        load.begin(lu, le, lb, q, p, w, insn_load, flags_load, heads.fields[_LOAD_QUEUE])
        _count_work(c, p, heads.opcode[_LOAD_QUEUE], heads.fields[_LOAD_QUEUE])
    if stores:
        store.begin(s, sb, q, p, w, insn_store, flags_store, heads.fields[_STORE_QUEUE])
        _count_work(c, p, heads.opcode[_STORE_QUEUE], heads.fields[_STORE_QUEUE])

    _follow_launch(u, done, finish, gave_up, at_rest, handed_out, store_works)
    _count(c, w.bits, log)
    c.cycle += 1
    wires.exchange_tokens(w)
    shows = queues.step(q)
    w.moved |= int(shows)
    return shows


@inner
def _count_work(c: Control, p: Parameters, opcode: int, fields: NDArray[np.int64]) -> None:
    """Count the bytes or micro-op steps of an instruction that begins."""
    kind = fields[MEMORY_TYPE]
    if opcode == _STORE_OPCODE:
        if not store.is_nop(fields):
            c.out_bytes += fields[X_SIZE] * fields[Y_SIZE] * p.elem_bytes[kind]
    elif opcode == _LOAD_OPCODE:
        nbytes = fields[X_SIZE] * fields[Y_SIZE] * p.elem_bytes[kind]
        if kind == _INP:
            c.inp_bytes += nbytes
        elif kind == _WGT:
            c.wgt_bytes += nbytes
        elif decode.kind_of(p, opcode, fields) == decode.LOAD:
            if kind == _UOP:
                c.uop_bytes += nbytes
            else:
                c.acc_bytes += nbytes
    elif decode.kind_of(p, opcode, fields) == decode.ALU:
        c.alu_uops += pipeline.steps_of(fields)
        c.acc_writes += pipeline.steps_of(fields)
    elif decode.kind_of(p, opcode, fields) == decode.GEMM:
        c.acc_writes += pipeline.steps_of(fields)
        if opcode != _GEMM or fields[RESET] == 0:
            c.gemm_uops += pipeline.steps_of(fields)


@inner
def _compute_values(u: Units, m: Machine, table: PageTable, program: Program, fields: NDArray[np.int64]) -> bool:
    """Execute the instructions that are due; False if page frames ran out, with the rest still due."""
    w, heads = u.wires, u.heads
    while w.due_count:
        insn = w.due[0]
        opcode = launch.decode(program.words, insn, program.places, fields)
        status = values.execute(m, table, opcode, fields, heads.single, u.parameters.bases, heads.fault)
        if status == _GROW:
            return False
        if status != _DONE and program.module[insn] == _COMPUTE_QUEUE and opcode != _LOAD_OPCODE:
            if opcode == _ALU and u.parameters.overlap:
                pipeline.find_faults(u.alu_pipeline, m, u.parameters, opcode)
            else:
                pipeline.find_faults(u.pipeline, m, u.parameters, opcode)
        heads.stored |= int(opcode == _STORE_OPCODE)
        w.due_count -= 1
        for number in range(w.due_count):
            w.due[number] = w.due[number + 1]
    return True


@inner
def _leap(u: Units, d: Dram, answer: Answer, before: Answer, uops: NDArray[np.uint32], limit: int) -> int:
    """Pass as many cycles like the last as there are, up to `limit`; return how many.

    In the last one, in which the memory showed `before`, nothing moved; `answer` is what it shows now.
    """
    p, s, e, pi = u.parameters, u.store, u.engine, u.pipeline
    beat = answer.r_id if answer.r_valid else -1
    if beat != e.beat or (e.w_valid and answer.w_ready != before.w_ready):
        return 0
    if (e.ar_valid and answer.ar_ready) or (e.aw_valid and answer.aw_ready) or e.w_last:
        return 0
    cycles = min(limit, dram.steady(d, answer, e.w_valid))
    reads = s.made != s.read and (s.word_valid == 0 or e.w_spare == 0)
    cycles = store.horizon(s, reads, cycles)
    cycles = load_engine.horizon(u.load_engine, beat == LOAD, cycles)
    cycles = load_engine.horizon(u.compute_engine, beat == COMPUTE, cycles)
    alone = False
    if p.overlap:
        # The bank of ACC that a bus word, a pad, or a step uses matters to who works beside it.
        loads = beat == COMPUTE or u.compute_engine.run != 0
        alone = not loads and (pipeline.is_empty(pi) or pipeline.is_empty(u.alu_pipeline))
        cycles = 0 if loads else pipeline.horizon(u.alu_pipeline, alone, cycles)
    cycles = pipeline.horizon(pi, alone, cycles)
    if cycles < 1:
        return 0
    dram.skip(d, answer, e.w_valid, cycles)
    if reads:
        s.beat += cycles
    load_engine.advance(u.load_engine, beat == LOAD, cycles)
    load_engine.advance(u.compute_engine, beat == COMPUTE, cycles)
    pipeline.advance(pi, uops, p, cycles)
    pipeline.advance(u.alu_pipeline, uops, p, cycles)
    u.control.cycle += cycles
    return cycles


Run = Callable[[NDArray[np.void], Dram, Machine, PageTable, Program, NDArray[np.int64], int], int]


def _build(stamp: str) -> Run:
    @entry
    def run(
        units: NDArray[np.void],
        d: Dram,
        m: Machine,
        table: PageTable,
        program: Program,
        log: NDArray[np.int64],
        until: int,
    ) -> int:
        _ = stamp
        u: Units = units[0]
        c, w = u.control, u.wires
        fields = np.zeros(FIELD_COUNT, np.int64)
        if c.cycle == 0:
            _start(u, d)
        if not _compute_values(u, m, table, program, fields):
            return NO_FRAMES
        before = dram.look(d)
        while c.cycle < until and not c.over:
            answer = dram.look(d)
            if c.cycle and not w.moved and _leap(u, d, answer, before, m.uop, until - c.cycle):
                before = answer
                w.moved = 1
                continue
            if log.shape[0] and c.changes == log.shape[0]:
                return LOG_FULL
            if _cycle(u, d, answer, m.uop, program.module, log):
                _show_heads(u.heads, u.queues, program)
            before = answer
            if w.due_count and not _compute_values(u, m, table, program, fields):
                return NO_FRAMES
            if d.errors.shape[0] and u.heads.stored:
                u.heads.stored = 0
                return STORED
        if c.over:
            _count(c, -1, log[:0])
            c.insn_bytes = fetch.bytes_read(u.fetch, u.parameters)
            return OVER
        return RUNNING

    return run


_SOURCES = (
    alu, columns, compute, decode, dram, fetch, functional_load, functional_store, gemm, instructions, launch, load,
    load_engine, memory_engine, nest, overlap, packing, pages, pipeline, queues, ranges, records, registers, state,
    store, timing, trace, trace_build, transfer, values, vector, wires,
)  # fmt: skip

RUN = _build(source_stamp(__file__, *(str(module.__file__) for module in _SOURCES)))
"""Run a launch up to cycle `until`, or as far as it goes; return RUNNING, OVER, or what keeps it from going on.

Arguments: units, memory as seen from the port, machine of the functional engine, page table, program, log of changes of
events (int64 [K][2], none are noted if K is 0; entries are `Control.changes`), cycle. After anything but OVER it is
called again, with a new page table or log where that was called for and everything else the same.
"""
