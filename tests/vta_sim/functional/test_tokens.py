"""Queues, tokens, FINISH (VTA spec 5), and every error of a launch as a whole."""

from __future__ import annotations

import numpy as np
import pytest

from tests.vta_sim.functional.bench import DATA_AT, INSN_AT, SMALL, Bench, to_bytes
from vta_hw.spec.asm import disassemble
from vta_hw.spec.isa import Alu, AluOp, Finish, Gemm, Insn, Load, MemoryType, Store
from vta_hw.spec.program import Tokens
from vta_sim.errors import Deadlock, LeftoverTokens, MissingFinish, SimulationError

LOAD_NOP = Load(memory_type=MemoryType.INP)


def _load_inp(**flags: bool) -> Load:
    base = DATA_AT // SMALL.inp_elem_bytes
    return Load(memory_type=MemoryType.INP, dram_base=base, y_size=1, x_size=1, x_stride=1, **flags)


def _increment(**flags: bool) -> Alu:
    return Alu(uop_end=1, iter_out=1, iter_in=1, alu_opcode=AluOp.ADD, use_imm=True, imm=1, **flags)


def _store(**flags: bool) -> Store:
    return Store(memory_type=MemoryType.OUT, dram_base=16, y_size=1, x_size=1, **flags)


def test_an_instruction_waits_for_its_token_though_it_stands_first() -> None:
    bench = Bench()
    bench.fill(MemoryType.WGT, np.ones(16))
    bench.simulator.memory.write(DATA_AT, to_bytes([1, 2, 3, 4], 8))
    gemm = Gemm(uop_end=1, iter_out=1, iter_in=1, pop_prev=True, push_next=True)
    bench.run_exactly([_store(pop_prev=True, push_prev=True), gemm, _load_inp(push_next=True), Finish(pop_next=True)])
    assert bench.acc[0].tolist() == [[10] * 4]
    assert bench.simulator.memory.read(64, 4).tolist() == [10] * 4


def test_without_tokens_program_order_is_kept() -> None:
    bench = Bench()
    bench.run(
        [_increment(), _store(), _increment(), Store(memory_type=MemoryType.OUT, dram_base=17, y_size=1, x_size=1)]
    )
    assert bench.simulator.memory.read(64, 8).tolist() == [1] * 4 + [2] * 4


def test_compute_takes_both_tokens_at_once() -> None:
    bench = Bench()
    both = _increment(pop_prev=True, pop_next=True)
    assert bench.run([both], tokens=Tokens(l2g=1, s2g=1)).tokens_left == Tokens()
    with pytest.raises(Deadlock) as caught:
        bench.run([both], tokens=Tokens(l2g=1))
    assert caught.value.rule.endswith("waits for a token of s2g")


def test_every_flag_moves_its_token() -> None:
    bench = Bench()
    every = {"pop_prev": True, "pop_next": True, "push_prev": True, "push_next": True}
    cases: list[tuple[Insn, Tokens, Tokens]] = [
        (Load(memory_type=MemoryType.WGT, **every), Tokens(g2l=2), Tokens(g2l=1, l2g=1)),
        (Load(memory_type=MemoryType.UOP, **every), Tokens(l2g=1, s2g=2), Tokens(s2g=1, g2l=1, g2s=1)),
        (Gemm(**every), Tokens(l2g=1, s2g=1), Tokens(g2l=1, g2s=1)),
        (Store(**every), Tokens(g2s=1, l2g=5), Tokens(s2g=1, l2g=5)),
    ]
    for insn, before, after in cases:
        assert bench.run([insn], tokens=before, allow_leftover_tokens=True).tokens_left == after
    finish = bench.run_exactly([Finish(**every)], tokens=Tokens(l2g=1, s2g=1), allow_leftover_tokens=True)
    assert finish.tokens_left == Tokens(g2l=1, g2s=1)


def test_flags_without_a_queue_are_ignored_and_reported() -> None:
    bench = Bench()
    report = bench.run([Load(memory_type=MemoryType.INP, pop_prev=True), Store(push_next=True), _increment()])
    sentence = "token flags must name a queue of the module; others are ignored here, TVM's fsim crashes"
    assert [str(lint) for lint in report.lint] == [f"Instruction 0: {sentence}", f"Instruction 1: {sentence}"]


def test_a_deadlock_names_what_every_queue_waits_for() -> None:
    bench = Bench()
    insns: list[Insn] = [
        _increment(),
        Load(memory_type=MemoryType.INP, pop_next=True),
        Gemm(pop_prev=True, pop_next=True),
        Store(pop_prev=True),
        Finish(),
    ]
    load, gemm, store = (disassemble(insn) for insn in insns[1:4])
    with pytest.raises(Deadlock) as caught:
        bench.run_exactly(insns)
    assert str(caught.value) == (
        f"Instruction 1 ({load}): every token that is waited for must come, but "
        f"instruction 1 ({load}) waits for a token of g2l, "
        f"instruction 2 ({gemm}) waits for a token of l2g and s2g, "
        f"instruction 3 ({store}) waits for a token of g2s"
    )
    assert (caught.value.insn, caught.value.disassembly) == (1, load)
    assert bench.acc[0, 0, 0] == 1


def test_leftover_tokens_are_refused_or_reported() -> None:
    bench = Bench()
    push = Load(memory_type=MemoryType.INP, push_next=True)
    insns: list[Insn] = [push, push, Gemm(push_next=True)]
    with pytest.raises(LeftoverTokens, match=r"^Launch must leave no tokens, not 2 of l2g, 1 of g2s$"):
        bench.run(insns)
    assert bench.run(insns, allow_leftover_tokens=True).tokens_left == Tokens(l2g=2, g2s=1)
    # Tokens are those the caller names, never those of the launch before.
    assert bench.run([LOAD_NOP]).tokens_left == Tokens()


def test_many_tokens_are_counted_without_loss() -> None:
    bench = Bench()
    pushes = [Load(memory_type=MemoryType.INP, push_next=True)] * 2000
    pops = [Load(memory_type=MemoryType.UOP, pop_prev=True)] * 2000
    assert bench.run([*pops, *pushes]).tokens_left == Tokens()


def test_a_launch_must_execute_finish() -> None:
    bench = Bench()
    with pytest.raises(MissingFinish, match=r"^Launch must execute FINISH, but none of its 1 instructions is one$"):
        bench.run_exactly([_increment()])
    assert bench.acc[0, 0, 0] == 1


def test_a_launch_must_have_instructions() -> None:
    with pytest.raises(SimulationError, match=r"^Launch must have at least 1 instruction, not 0$"):
        Bench().simulator.launch(INSN_AT, 0)


def test_what_follows_finish_is_executed_and_reported() -> None:
    bench = Bench()
    report = bench.run_exactly([Finish(), _increment()])
    assert bench.acc[0, 0, 0] == 1
    assert [str(lint) for lint in report.lint] == [
        "Instruction 1: nothing must follow FINISH; TVM's fsim loops for ever"
    ]
