"""Programs that break a rule: the simulator says which one, and at which instruction."""

from __future__ import annotations

import pytest

from tests.vta_sim.spec_model import compare, layout, pipeline
from tests.vta_sim.spec_model.every_instruction import CONFIG
from tests.vta_sim.spec_model.layout import ACC, ACC_8BIT, ALU, FINISH, GEMM, INP, LOAD, OUT, STORE, UOP, WGT
from tests.vta_sim.spec_model.machine import Machine, ModelError
from vta_hw.spec.program import Tokens
from vta_sim.errors import Deadlock, LeftoverTokens, MissingFinish, OutOfRange, SimulationError, UnknownOpcode
from vta_sim.functional.engine import FunctionalSimulator
from vta_sim.functional.report import Report

ADDRESS = 0x1000
DEPTH = {UOP: 32, INP: 16, WGT: 8, ACC: 16, ACC_8BIT: 16, OUT: 16}
NOP = layout.encode(CONFIG, LOAD)
KINDS = {OutOfRange: "out of range", Deadlock: "deadlock", UnknownOpcode: "unknown"}
QUEUE_USERS = {
    "l2g": (LOAD, UOP, "pop_prev", LOAD, INP, "push_next"),
    "g2l": (LOAD, WGT, "pop_next", LOAD, ACC, "push_prev"),
    "g2s": (STORE, OUT, "pop_prev", LOAD, UOP, "push_next"),
    "s2g": (LOAD, ACC, "pop_next", STORE, UOP, "push_prev"),
}
"""Token queue -> a NOP that pops it, a NOP that pushes it."""


def launch(*insns: int, tokens: Tokens | None = None, finish: bool = True) -> Report:
    words = layout.to_words([*insns, layout.encode(CONFIG, FINISH)] if finish else insns)
    simulator = FunctionalSimulator(compare.toolkit_config(CONFIG))
    compare.write_words(simulator.memory, ADDRESS, words)
    return simulator.launch(ADDRESS, len(words), tokens=tokens)


def refused(insn: int, error: type[SimulationError], *before: int) -> SimulationError:
    """The model and the simulator both stop at `insn`, which comes after `before` and before FINISH."""
    words = layout.to_words([*before, insn, layout.encode(CONFIG, FINISH)])
    with pytest.raises(ModelError) as mine:
        pipeline.run(Machine(CONFIG), words)
    assert mine.value.index == len(before)
    assert mine.value.kind.startswith(KINDS[error])
    with pytest.raises(error) as theirs:
        launch(*before, insn)
    assert type(theirs.value) is error
    assert theirs.value.insn == len(before)
    assert str(theirs.value).startswith(f"Instruction {len(before)} (")
    return theirs.value


WINDOWS = [
    pytest.param({"x_size": 1, "y_size": 1}, 1, id="one"),
    pytest.param({"x_size": 1, "y_size": 3, "x_stride": 9}, 3, id="rows"),
    pytest.param({"x_size": 1, "y_size": 1, "x_pad_0": 1, "x_pad_1": 2}, 4, id="x-pads"),
    pytest.param({"x_size": 1, "y_size": 1, "y_pad_0": 2, "y_pad_1": 1}, 4, id="y-pads"),
    pytest.param({"x_size": 2, "y_size": 0, "y_pad_1": 1, "x_pad_0": 1}, 3, id="only-pads"),
]


@pytest.mark.parametrize("memory", [UOP, WGT, INP, ACC, ACC_8BIT])
@pytest.mark.parametrize(("window", "size"), WINDOWS)
def test_load_stays_inside(memory: int, window: dict[str, int], size: int) -> None:
    last = DEPTH[memory] - size
    launch(NOP, layout.encode(CONFIG, LOAD, memory_type=memory, sram_base=last, **window))
    error = refused(layout.encode(CONFIG, LOAD, memory_type=memory, sram_base=last + 1, **window), OutOfRange, NOP)
    assert str(DEPTH[memory]) in error.rule
    assert str(DEPTH[memory] + 1) in error.rule


def test_load_far_outside() -> None:
    refused(layout.encode(CONFIG, LOAD, memory_type=INP, y_size=0xFFFF, x_size=0xFFFF, sram_base=0xFFFF), OutOfRange)


def test_store_stays_inside() -> None:
    launch(NOP, layout.encode(CONFIG, STORE, memory_type=OUT, sram_base=10, y_size=2, x_size=3))
    refused(layout.encode(CONFIG, STORE, memory_type=OUT, sram_base=11, y_size=2, x_size=3), OutOfRange, NOP)


NEST = {"uop_end": 1, "iter_out": 2, "iter_in": 3}
REACH = [
    pytest.param(GEMM, {"dst_factor_out": 1}, {"dst_factor_in": 7}, {"dst_factor_in": 8}, id="gemm-dst"),
    pytest.param(GEMM, {"src_factor_out": 1}, {"src_factor_in": 7}, {"src_factor_in": 8}, id="gemm-src"),
    pytest.param(GEMM, {"wgt_factor_out": 1}, {"wgt_factor_in": 3}, {"wgt_factor_in": 4}, id="gemm-wgt"),
    pytest.param(GEMM, {"reset": 1, "dst_factor_out": 1}, {"dst_factor_in": 7}, {"dst_factor_in": 8}, id="reset"),
    pytest.param(ALU, {"dst_factor_out": 1}, {"dst_factor_in": 7}, {"dst_factor_in": 8}, id="alu-dst"),
    pytest.param(ALU, {"src_factor_out": 1}, {"src_factor_in": 7}, {"src_factor_in": 8}, id="alu-src"),
    pytest.param(ALU, {"use_imm": 1, "dst_factor_out": 1}, {"dst_factor_in": 7}, {"dst_factor_in": 8}, id="alu-imm"),
    pytest.param(ALU, {"use_imm": 1}, {"uop_bgn": 31, "uop_end": 32}, {"uop_bgn": 31, "uop_end": 33}, id="alu-uop"),
    pytest.param(GEMM, {}, {"uop_end": 32}, {"uop_end": 33}, id="gemm-uop"),
    pytest.param(GEMM, {"reset": 1}, {"uop_end": 32}, {"uop_end": 63}, id="reset-uop"),
]


@pytest.mark.parametrize(("opcode", "fields", "inside", "outside"), REACH)
def test_micro_ops_stay_inside(
    opcode: int, fields: dict[str, int], inside: dict[str, int], outside: dict[str, int]
) -> None:
    launch(NOP, layout.encode(CONFIG, opcode, **NEST | fields | inside))
    refused(layout.encode(CONFIG, opcode, **NEST | fields | outside), OutOfRange, NOP, NOP)


@pytest.mark.parametrize(
    "insn",
    [
        pytest.param((GEMM, {"reset": 1, "src_factor_in": 15, "wgt_factor_out": 7}), id="reset-reads-nothing"),
        pytest.param((ALU, {"use_imm": 1, "src_factor_in": 15, "src_factor_out": 15}), id="imm-reads-dst-alone"),
        pytest.param((GEMM, {"iter_out": 0, "uop_end": 63, "dst_factor_in": 15}), id="no-outer-trip"),
        pytest.param((ALU, {"iter_in": 0, "uop_end": 63, "dst_factor_out": 15}), id="no-inner-trip"),
        pytest.param((GEMM, {"uop_bgn": 9, "uop_end": 9, "dst_factor_out": 15}), id="no-micro-op"),
        pytest.param((ALU, {"uop_bgn": 9, "uop_end": 2, "dst_factor_out": 15}), id="end-before-begin"),
        pytest.param((LOAD, {"memory_type": INP, "sram_base": 0xFFFF, "y_size": 9, "x_pad_0": 15}), id="nop-load"),
        pytest.param((STORE, {"memory_type": UOP, "sram_base": 0xFFFF, "y_size": 9}), id="nop-store"),
        pytest.param((LOAD, {"memory_type": 7, "sram_base": 0xFFFF, "x_size": 9, "x_pad_1": 2}), id="load-of-no-rows"),
        pytest.param((STORE, {"memory_type": WGT, "sram_base": 0xFFFF, "x_size": 9}), id="store-of-no-rows"),
    ],
)
def test_what_is_not_used_is_not_checked(insn: tuple[int, dict[str, int]]) -> None:
    opcode, fields = insn
    nest = NEST if opcode in (GEMM, ALU) else {}
    launch(NOP, layout.encode(CONFIG, opcode, **nest | fields))


@pytest.mark.parametrize("opcode", [5, 6, 7])
def test_unknown_opcode(opcode: int) -> None:
    refused(layout.encode(CONFIG, opcode), UnknownOpcode, NOP)


@pytest.mark.parametrize("memory", [OUT, 6, 7])
def test_unknown_memory_type_of_load(memory: int) -> None:
    refused(layout.encode(CONFIG, LOAD, memory_type=memory, y_size=1, x_size=1), UnknownOpcode, NOP)


@pytest.mark.parametrize("memory", [UOP, WGT, INP, ACC, ACC_8BIT, 6, 7])
def test_unknown_memory_type_of_store(memory: int) -> None:
    refused(layout.encode(CONFIG, STORE, memory_type=memory, y_size=1, x_size=1), UnknownOpcode, NOP)


@pytest.mark.parametrize("operation", [5, 6, 7])
def test_unknown_alu_operation(operation: int) -> None:
    refused(layout.encode(CONFIG, ALU, alu_opcode=operation, **NEST), UnknownOpcode, NOP)


@pytest.mark.parametrize("queue", pipeline.QUEUES)
def test_deadlock_on_one_queue(queue: str) -> None:
    opcode, memory, flag, *_ = QUEUE_USERS[queue]
    error = refused(layout.encode(CONFIG, opcode, memory_type=memory, **{flag: 1}), Deadlock, NOP, NOP, NOP)
    assert queue in error.rule


@pytest.mark.parametrize("queue", pipeline.QUEUES)
def test_one_token_is_enough(queue: str) -> None:
    opcode, memory, flag, *_ = QUEUE_USERS[queue]
    launch(layout.encode(CONFIG, opcode, memory_type=memory, **{flag: 1}), tokens=Tokens(**{queue: 1}))


def test_deadlock_in_a_ring() -> None:
    """Load and compute wait for each other; the first of them in the program is named."""
    wait = layout.encode(CONFIG, LOAD, memory_type=INP, pop_next=1, push_next=1)
    with pytest.raises(Deadlock) as error:
        launch(NOP, wait, layout.encode(CONFIG, LOAD, pop_prev=1, push_prev=1))
    assert error.value.insn == 1
    assert "l2g" in error.value.rule
    assert "g2l" in error.value.rule


def test_a_push_after_the_pop_in_the_same_module_is_too_late() -> None:
    blocked = layout.encode(CONFIG, LOAD, pop_prev=1)
    with pytest.raises(Deadlock) as error:
        launch(
            layout.encode(CONFIG, LOAD, memory_type=INP, pop_next=1),
            layout.encode(CONFIG, LOAD, memory_type=INP, push_next=1),
            blocked,
            layout.encode(CONFIG, LOAD, push_prev=1),
        )
    assert error.value.insn == 0


@pytest.mark.parametrize("queue", pipeline.QUEUES)
def test_leftover_tokens(queue: str) -> None:
    *_, opcode, memory, flag = QUEUE_USERS[queue]
    with pytest.raises(LeftoverTokens, match=queue):
        launch(layout.encode(CONFIG, opcode, memory_type=memory, **{flag: 1}))
    with pytest.raises(LeftoverTokens, match=f"2 of {queue}"):
        launch(NOP, tokens=Tokens(**{queue: 2}))


@pytest.mark.parametrize(
    ("opcode", "memory", "flag"),
    [(LOAD, INP, "pop_prev"), (LOAD, INP, "push_prev"), (STORE, OUT, "pop_next"), (STORE, OUT, "push_next")],
)
def test_flags_without_a_queue_mean_nothing(opcode: int, memory: int, flag: str) -> None:
    launch(layout.encode(CONFIG, opcode, memory_type=memory, **{flag: 1}))


def test_finish_is_missing() -> None:
    with pytest.raises(MissingFinish):
        launch(NOP, NOP, finish=False)
