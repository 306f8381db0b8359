"""Schedules that no recipe makes but a person might: lowered right, or refused with the reason."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from compiler.driver import compile_graph
from compiler.errors import CompileError, LoweringError
from compiler.graph.ops.qconv import QConv2d
from compiler.tensor import interp
from compiler.tensor.ir import (
    Alloc,
    Binary,
    BinaryOp,
    Body,
    Buffer,
    Compare,
    CompareOp,
    Const,
    DType,
    Expr,
    For,
    If,
    LoopKind,
    Proc,
    Scope,
    Store,
    Var,
    binary,
    cast,
    lt,
    nest,
)
from compiler.tensor.schedule import Schedule, ScheduleError, Step
from compiler.vta.instructions import InstructionSet
from compiler.vta.lower import LaunchBuilder
from compiler.vta.microops import MicroOps
from tests.compiler.graph.build import Builder
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA
from vta_sim.functional.engine import FunctionalSimulator

CONFIG = VTAConfig()
UOPS, CODE = 1 << 20, 1 << 22
OUTER = ("v", "k")
"""Loops of the tests that are not an instruction's."""


def tiles(name: str, *shape: int, type: DType = DType.INT8, scope: Scope = Scope.DRAM) -> Buffer:
    return Buffer.of(name, type, (*shape, 1, 16), scope)


def accumulator(name: str, *shape: int) -> Buffer:
    return tiles(name, *shape, type=DType.INT32, scope=Scope.ACC)


X, Y, A, B = tiles("X", 4), tiles("Y", 4), accumulator("A", 4), accumulator("B", 4)


def tile_nest(loop: str, count: int, statement: Callable[[Var, tuple[Expr, ...]], Store | If]) -> For:
    row, column = Var(f"{loop}.n"), Var(f"{loop}.c")
    return nest([(loop, count), (f"{loop}.n", 1), (f"{loop}.c", 16)], statement(Var(loop), (row, column)))


def copy(loop: str, to: Buffer, source: Buffer, count: int = 4, at: Callable[[Expr], Expr] = lambda i: i) -> For:
    return tile_nest(loop, count, lambda i, t: Store(to, (i, *t), cast(to.type, source[(at(i), *t)])))


def immediate(loop: str, a: Buffer, value: int, guard: Callable[[Expr], Expr] | None = None, count: int = 4) -> For:
    def statement(i: Var, t: tuple[Expr, ...]) -> Store | If:
        store = Store(a, (i, *t), binary(BinaryOp.ADD, a[(i, *t)], Const(value, DType.INT32)))
        return If(guard(i), (store,)) if guard is not None else store

    return tile_nest(loop, count, statement)


def mapped(proc: Proc, prepare: Callable[[Schedule], None] | None = None) -> Proc:
    """Every nest of the procedure on the first instruction that it unifies with."""
    schedule = Schedule(proc)
    if prepare is not None:
        prepare(schedule)
    bodies = [proc.body]
    roots: list[str] = []
    while bodies:
        for stmt in bodies.pop():
            if isinstance(stmt, For) and stmt.var.name not in OUTER:
                roots.append(stmt.var.name)
            elif isinstance(stmt, For | Alloc):
                bodies.append(stmt.body)
    for root in roots:
        for instruction in InstructionSet(CONFIG).all:
            try:
                schedule.map(root, instruction.meaning)
            except ScheduleError:
                continue
            break
        else:
            raise AssertionError(f"no instruction for {root}")
    return schedule.proc


def check(proc: Proc, prepare: Callable[[Schedule], None] | None = None) -> None:
    """The simulator, from poisoned scratchpads, and the interpreter give the same bytes."""
    scheduled = mapped(proc, prepare)
    rng = np.random.default_rng(0)
    arrays: list[NDArray[np.int8]] = [rng.integers(-60, 60, b.static_shape, np.int8) for b in proc.params]
    uops, addresses = MicroOps(CONFIG.uop_depth), {b.name: (k + 1) << 14 for k, b in enumerate(proc.params)}
    launch = LaunchBuilder(CONFIG, uops, UOPS)
    launch.layer(scheduled, addresses)
    insns = launch.finish()
    simulator = FunctionalSimulator(CONFIG, poison=True)
    for buffer, array in zip(proc.params, arrays, strict=True):
        simulator.memory.write(addresses[buffer.name], array)
    simulator.memory.write(UOPS, uops.area)
    simulator.memory.write(CODE, ISA(CONFIG).encode_program(insns))
    simulator.launch(CODE, len(insns))
    interp.run(proc, arrays)
    for buffer, array in zip(proc.params, arrays, strict=True):
        got = simulator.memory.read(addresses[buffer.name], array.nbytes).view(np.int8).reshape(array.shape)
        np.testing.assert_array_equal(got, array)


def over(body: Body, params: tuple[Buffer, ...] = (X, Y), local: tuple[Buffer, ...] = (A,)) -> Proc:
    for buffer in reversed(local):
        body = (Alloc(buffer, body),)
    return Proc("handmade", params, body)


def test_conditions_of_every_kind() -> None:
    for guard in (lambda i: lt(i, 2), lambda i: Compare(CompareOp.EQ, i, Const(2))):
        check(over((copy("l", A, X), immediate("z", A, 0), immediate("g", A, 1, guard), copy("s", Y, A))))


def test_reversed_copies_and_operands() -> None:
    check(over((copy("l", A, X, at=lambda i: Const(3) - i), immediate("z", A, 0), copy("s", Y, A))))
    added = tile_nest("g", 4, lambda i, t: Store(A, (i, *t), A[(i, *t)] + B[(Const(3) - i, *t)]))
    check(over((copy("l", A, X), copy("m", B, X), added, copy("s", Y, A)), local=(A, B)))


def test_virtual_threads_out_of_step_keep_their_buffers() -> None:
    x, y, w = (tiles(name, 2, 4) for name in "XYW")
    p, q, v, k = accumulator("P", 4), accumulator("Q", 1), Var("v"), Var("k")

    def move(loop: str, a: Buffer, dram: Buffer, first: Expr, count: int, store: bool = False) -> For:
        def statement(i: Var, t: tuple[Expr, ...]) -> Store:
            near, far = (i, *t), (v, first + i, *t)
            return Store(dram, far, cast(dram.type, a[near])) if store else Store(a, near, cast(a.type, dram[far]))

        return tile_nest(loop, count, statement)

    zero = Const(0)
    short = Alloc(q, (move("a", q, x, k, 1), immediate("b", q, 1, count=1), move("c", q, y, k, 1, store=True)))
    whole = Alloc(p, (move("d", p, x, zero, 4), immediate("e", p, 2), move("f", p, w, zero, 4, store=True)))
    proc = Proc("threads", (x, y, w), (nest([("v", 2)], nest([("k", v * 3 + 1)], short), whole),))
    check(proc)
    check(proc, lambda s: s.set_kind("v", LoopKind.VTHREAD))


def refusal(proc: Proc) -> str:
    with pytest.raises(LoweringError) as refused:
        LaunchBuilder(CONFIG, MicroOps(CONFIG.uop_depth), UOPS).layer(mapped(proc), {b.name: 0 for b in proc.params})
    return str(refused.value)


def test_refusals() -> None:
    assert refusal(over((copy("l", A, X), copy("s", Y, A)))) == (
        "Layer 'handmade' must compute what it stores: VTA stores OUT, which a load does not reach"
    )
    either = immediate("g", A, 1, lambda i: Binary(BinaryOp.OR, lt(i, 1), lt(2, i)))
    assert refusal(over((copy("l", A, X), either, copy("s", Y, A)))) == (
        "Condition g < 1 or 2 < g must be a comparison to be an instruction's"
    )
    skewed = tile_nest("g", 3, lambda i, t: Store(A, (i + 1, *t), A[(i + 1, *t)] + A[(i, *t)]))
    assert refusal(over((copy("l", A, X), skewed, copy("s", Y, A)))) == (
        "Layer 'handmade' must not read other tiles of 'A' where it writes that buffer"
    )
    again = (copy("l", A, X), immediate("g", A, 1), copy("s", Y, A), copy("m", A, Y))
    assert refusal(over(again)) == "Layer 'handmade' must not read 'Y', which it writes"
    assert refusal(over((), local=(Buffer.of("L", DType.INT32, (4, 1, 16), Scope.LOCAL),))) == (
        "Layer 'handmade': buffer 'L' must lie in a scratchpad, not in local"
    )


def test_an_immediate_has_16_bits() -> None:
    for value, fits in ((32767, True), (-32768, True), (32768, False), (-32769, False)):
        schedule = Schedule(over((immediate("g", A, value),)))
        add = next(i for i in InstructionSet(CONFIG).alu if i.name == "alu.add.imm")
        if fits:
            schedule.map("g", add.meaning)
        else:
            with pytest.raises(ScheduleError):
                schedule.map("g", add.meaning)


def test_a_trace_is_data_from_elsewhere() -> None:
    proc = over((immediate("g", A, 1),))
    with pytest.raises(ScheduleError, match=r"^primitive must be one of split, .*, mark, not 'nosuch'$"):
        Schedule.replay(proc, [Step("nosuch", ())])
    with pytest.raises(ScheduleError, match=r"^split must have its arguments: "):
        Schedule.replay(proc, [Step("split", ("g",))])
    for name in ("gemm", "nonsense"):
        marked = Schedule.replay(proc, [Step("mark", ("g", name))]).proc
        with pytest.raises(LoweringError, match=rf"^Layer 'handmade' must be made of instructions, not map '{name}'$"):
            LaunchBuilder(CONFIG, MicroOps(CONFIG.uop_depth), UOPS).layer(marked, {"X": 0, "Y": 0})


def test_numbers_that_the_machine_cannot_hold_are_refused() -> None:
    b = Builder()
    x = b.input(1, 16, 4, 4, dtype=DType.INT8)
    w = b.constant(np.full((16, 16, 1, 1), 100, np.int8))
    m, bias = b.constant(np.ones(16, np.int32)), b.constant(np.zeros(16, np.int32))
    graph = b.graph(b(QConv2d(shift=8, lo=-128, hi=127), x, w, m, bias))
    with pytest.raises(CompileError, match=r"must fit the machine's 4 bits, not reach 100..100$"):
        compile_graph(graph, VTAConfig(log_wgt_width=2, log_wgt_buff_size=17))
    with pytest.raises(CompileError, match=r"must fit the machine's 4 bits, not reach -128..127$"):
        compile_graph(graph, VTAConfig(log_inp_width=2, log_inp_buff_size=14))
