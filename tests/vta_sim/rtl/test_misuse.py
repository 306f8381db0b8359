"""What is no correct program: the RTL never hangs, honours tokens, wraps indices, and says what it found and where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.vta_sim.rtl.directed_cases import DATA_AT, OUT_AT, UOPS_AT, Script
from tests.vta_sim.rtl.machines import INSN_AT, PADS, TINY, left_of, simulator
from tests.vta_sim.rtl.wrapping import WrappingMachine
from tests.vta_sim.spec_model import compare, layout, pipeline
from tests.vta_sim.spec_model.layout import (
    ACC,
    ACC_8BIT,
    ADD,
    ALU,
    FINISH,
    GEMM,
    GEMM_OVERWRITE,
    INP,
    LOAD,
    OUT,
    REQUANT,
    STORE,
    UOP,
    WGT,
)
from vta_hw.rtl.tokens import MAX_IN_FLIGHT
from vta_hw.spec.program import Tokens
from vta_hw.spec.registers import Status
from vta_sim.functional.engine import Bases
from vta_sim.launch_parameters import MAX_TOKENS, parameters
from vta_sim.report import MachineReport
from vta_sim.rtl.axi_memory import DECERR, SLVERR, Errors
from vta_sim.timing import MemoryTiming

BASES = Bases(uop=UOPS_AT, wgt=DATA_AT, inp=DATA_AT, acc=DATA_AT, out=OUT_AT)
MODEL_BASES = {UOP: UOPS_AT, WGT: DATA_AT, INP: DATA_AT, ACC: DATA_AT, OUT: OUT_AT}


class Misuse(Script):
    """A program with mistakes, on the RTL and on the model that has the same manners."""

    def run(
        self,
        *,
        finish: bool = True,
        queue_depth: int = 512,
        errors: Errors | None = None,
        model: bool = True,
    ) -> MachineReport:
        """The report; memory, scratchpads and tokens are checked if the model can follow."""
        insns = [*self.insns, layout.encode(self.model, FINISH)] if finish else self.insns
        words = layout.to_words(insns)
        rtl = simulator(self.config, queue_depth)
        rtl.reset(memory=compare.toolkit_memory(self.dram), timing=self.timing, errors=errors)
        compare.write_words(rtl.memory, INSN_AT, words)
        report = rtl.launch(
            INSN_AT,
            len(words),
            bases=BASES,
            tokens=compare.as_tokens(self.tokens_before),
            allow_faults=True,
            max_cycles=20_000,
        )
        if model:
            machine = WrappingMachine(self.model, self.dram.copy())
            # Words that answer with an error read as zero and are not written.
            for bad in errors or {}:
                machine.dram.write(bad.start, np.zeros(len(bad), np.uint8))
            left = pipeline.run(machine, words, tokens=self.tokens_before, bases=MODEL_BASES)
            for bad in errors or {}:
                machine.dram.write(bad.start, self.dram.read(bad.start, len(bad)))
            assert left_of(report.tokens_left) == left.tokens
            for number, page in machine.dram.pages.items():
                assert np.array_equal(rtl.memory.read(number * 4096, 4096), page)
            for pad in PADS:
                wanted = machine.pads[pad].astype(np.int64) & 0xFFFF_FFFF
                found = rtl.scratchpad(pad).astype(np.int64) & 0xFFFF_FFFF
                assert np.array_equal(found, wanted), pad.name
        return report


def misuse(machine: str = "tiny", **options: Any) -> Misuse:
    """A program that has random numbers in all scratchpads and micro-ops (0, 0, 0), (63, 63, 31), (62, 1, 30)."""
    script = Misuse(name="misuse", machine=machine, timing=MemoryTiming(latency=1), **options)
    script.uops([(0, 0, 0), (63, 63, 31), (62, 1, 30)])
    script.load(ACC, x_size=64, dram_base=40)
    script.load(INP, x_size=64, dram_base=9)
    script.load(WGT, x_size=32, dram_base=3, push_next=1)
    script.load(UOP, x_size=0, pop_prev=1)
    return script


PREPARATION = 5
"""Instructions of `misuse`."""


def found(report: MachineReport) -> tuple[Status, int | None]:
    return report.status, report.fault_insn


@pytest.mark.parametrize(
    ("machine", "opcodes"),
    [("tiny", (GEMM_OVERWRITE, 6, 7)), ("overlap", (GEMM_OVERWRITE, 6, 7)), ("bus 256, extended", (6, 7))],
)
def test_unknown_opcodes_do_nothing_but_move_tokens(machine: str, opcodes: Sequence[int]) -> None:
    script = misuse(machine, tokens_before=(1, 0, 0, 2))
    script.step(ALU, alu_opcode=ADD, use_imm=1, imm=1)
    script.add(opcodes[0], pop_prev=1, pop_next=1, push_prev=1, push_next=1)
    for opcode in opcodes[1:]:
        script.add(opcode, push_prev=1)
    script.step(ALU, alu_opcode=ADD, use_imm=1, imm=1)
    report = script.run()
    assert found(report) == (Status.UNKNOWN_OPCODE, PREPARATION + 1)
    assert report.tokens_left == Tokens(g2l=len(opcodes), g2s=1, s2g=1)


@pytest.mark.parametrize("memory", [OUT, 6, 7])
def test_loads_of_unknown_memories_do_nothing_but_move_tokens(memory: int) -> None:
    script = misuse()
    script.load(memory, x_size=0, y_size=3, push_prev=1)
    script.load(memory, x_size=3, y_size=0, x_pad_0=1)
    script.load(memory, x_size=3, y_size=2, x_stride=5, y_pad_0=1, push_next=1)
    report = script.run()
    assert found(report) == (Status.UNKNOWN_MEMORY_TYPE, PREPARATION + 2)
    assert report.tokens_left == Tokens(g2l=1, g2s=1)


@pytest.mark.parametrize("operation", [REQUANT, 6, 7])
def test_unknown_alu_operations_do_nothing_but_move_tokens(operation: int) -> None:
    script = misuse()
    script.step(ALU, alu_opcode=operation, iter_in=9, dst_factor_in=1, push_next=1)
    script.step(ALU, alu_opcode=operation, iter_in=0, push_prev=1)
    report = script.run()
    assert found(report) == (Status.UNKNOWN_ALU_OPCODE, PREPARATION)
    assert report.counters["alu_uops"] == 0
    assert report.tokens_left == Tokens(g2l=1, g2s=1)


@pytest.mark.parametrize("memory", [UOP, WGT, ACC_8BIT, 6, 7])
def test_stores_of_other_memories_do_nothing_but_move_tokens(memory: int) -> None:
    script = misuse()
    script.step(ALU, alu_opcode=ADD, use_imm=1, imm=1, iter_in=8, dst_factor_in=1, push_next=1)
    script.add(STORE, memory_type=memory, y_size=2, x_size=0, dram_base=3, pop_prev=1)
    script.add(STORE, memory_type=memory, y_size=0, x_size=8, dram_base=3)
    script.add(STORE, memory_type=memory, y_size=1, x_size=8, dram_base=3, push_prev=1)
    script.load(UOP, x_size=0, pop_next=1)
    report = script.run()
    assert found(report) == (Status.UNKNOWN_MEMORY_TYPE, PREPARATION + 3)
    assert (report.counters["insn_store"], report.counters["out_bytes"]) == (3, 0)


WINDOWS = [
    {"sram_base": 63, "x_size": 2},
    {"sram_base": 60, "x_size": 3, "y_size": 2, "x_stride": 7, "x_pad_0": 1, "x_pad_1": 2},
    {"sram_base": 59, "x_size": 2, "y_size": 1, "y_pad_0": 2, "y_pad_1": 2},
    {"sram_base": 0xFFFE, "x_size": 5},
]


@pytest.mark.parametrize(
    ("memory", "status"),
    [
        (UOP, Status.UOP_INDEX),
        (INP, Status.INP_INDEX),
        (WGT, Status.WGT_INDEX),
        (ACC, Status.ACC_INDEX),
        (ACC_8BIT, Status.ACC_INDEX),
    ],
)
@pytest.mark.parametrize("machine", ["tiny", "overlap", "bus 512, batch 2"])
def test_loads_beyond_the_scratchpad_wrap(memory: int, status: Status, machine: str) -> None:
    script = misuse(machine)
    script.load(memory, sram_base=0)
    for window in WINDOWS:
        script.load(memory, **window)
    # Of the two that fill up to the end of 64 elements, the 32 of WGT see less: there the first already wraps.
    assert found(script.run()) == (status, PREPARATION + 1)


def test_stores_beyond_the_scratchpad_wrap() -> None:
    script = misuse()
    script.step(ALU, alu_opcode=ADD, use_imm=1, imm=1, iter_in=64, dst_factor_in=1, push_next=1)
    script.add(STORE, memory_type=OUT, y_size=1, x_size=4, sram_base=60, pop_prev=1)
    script.add(STORE, memory_type=OUT, y_size=3, x_size=4, x_stride=9, sram_base=58, dram_base=40)
    script.add(STORE, memory_type=OUT, y_size=1, x_size=4, sram_base=0xFFFF, dram_base=90, push_prev=1)
    script.load(UOP, x_size=0, pop_next=1)
    assert found(script.run()) == (Status.OUT_INDEX, PREPARATION + 2)


NESTS: list[tuple[int, dict[str, int], Status]] = [
    (GEMM, {"iter_in": 3, "dst_factor_in": 40}, Status.ACC_INDEX),
    (GEMM, {"iter_in": 3, "dst_factor_in": 40, "reset": 1}, Status.ACC_INDEX),
    (GEMM, {"iter_out": 3, "src_factor_out": 40}, Status.INP_INDEX),
    (GEMM, {"iter_out": 2, "iter_in": 2, "wgt_factor_out": 20, "wgt_factor_in": 20}, Status.WGT_INDEX),
    (GEMM, {"uop_bgn": 1, "uop_end": 2, "iter_in": 2, "dst_factor_in": 1, "wgt_factor_in": 1},
     Status.ACC_INDEX | Status.WGT_INDEX),
    (ALU, {"iter_in": 4, "dst_factor_in": 33, "use_imm": 1, "imm": 3}, Status.ACC_INDEX),
    (ALU, {"iter_in": 4, "src_factor_in": 33}, Status.ACC_INDEX),
    (ALU, {"iter_in": 4, "src_factor_in": 33, "use_imm": 1, "imm": 3}, Status(0)),
    (ALU, {"uop_bgn": 60, "uop_end": 67, "use_imm": 1, "imm": 3}, Status.UOP_INDEX),
    (GEMM, {"uop_bgn": 63, "uop_end": 66}, Status.UOP_INDEX),
    (GEMM, {"uop_bgn": 60, "uop_end": 127, "iter_in": 0}, Status(0)),
]  # fmt: skip


@pytest.mark.parametrize("machine", ["tiny", "overlap"])
@pytest.mark.parametrize(("opcode", "fields", "status"), NESTS)
def test_micro_ops_beyond_the_scratchpads_wrap(
    opcode: int, fields: dict[str, int], status: Status, machine: str
) -> None:
    script = misuse(machine)
    operation = {"alu_opcode": ADD} if opcode == ALU else {}
    script.step(opcode, **fields, **operation)
    assert found(script.run()) == (status, PREPARATION if status else None)


def test_the_first_fault_is_named_and_all_are_kept_until_the_next_launch() -> None:
    script = misuse()
    script.add(6)
    script.load(ACC, sram_base=63, x_size=2)
    script.load(7)
    report = script.run()
    assert found(report) == (Status.UNKNOWN_OPCODE | Status.ACC_INDEX | Status.UNKNOWN_MEMORY_TYPE, PREPARATION)
    rtl = simulator(script.config)
    compare.write_words(rtl.memory, INSN_AT, layout.to_words([layout.encode(script.model, FINISH)]))
    assert rtl.launch(INSN_AT, 1).status == Status(0)


NO_ROOM = MAX_TOKENS - MAX_IN_FLIGHT + 1
STUCK: list[tuple[tuple[int, ...], list[tuple[int, dict[str, int]]]]] = [
    ((0, 0, 0, 0), [(LOAD, {"memory_type": INP, "pop_next": 1})]),
    ((0, 0, 0, 0), [(LOAD, {"memory_type": UOP, "pop_prev": 1, "pop_next": 1})]),
    ((1, 0, 0, 0), [(LOAD, {"memory_type": UOP, "pop_prev": 1, "pop_next": 1})]),
    ((0, 0, 0, 0), [(STORE, {"memory_type": OUT, "pop_prev": 1})]),
    ((NO_ROOM, 0, 0, 0), [(LOAD, {"memory_type": INP, "push_next": 1})]),
    ((0, NO_ROOM, 0, 0), [(LOAD, {"memory_type": UOP, "push_prev": 1})]),
    ((0, 0, NO_ROOM, 0), [(LOAD, {"memory_type": UOP, "push_next": 1})]),
    ((0, 0, 0, NO_ROOM), [(STORE, {"memory_type": OUT, "push_prev": 1})]),
    (
        (0, 0, 0, 0),
        [(LOAD, {"memory_type": INP, "pop_next": 1, "push_next": 1}),
         (LOAD, {"memory_type": UOP, "pop_prev": 1, "push_prev": 1})],
    ),
]  # fmt: skip


@pytest.mark.parametrize("machine", ["tiny", "overlap"])
@pytest.mark.parametrize(("tokens", "insns"), STUCK)
def test_a_missing_token_ends_the_launch_and_keeps_the_others(
    tokens: tuple[int, ...], insns: list[tuple[int, dict[str, int]]], machine: str
) -> None:
    script = Misuse(name="stuck", machine=machine, tokens_before=tokens)
    for opcode, fields in insns:
        script.add(opcode, **fields)
    report = script.run(model=False)
    # A FINISH that was executed while a store waits for its token says that, too.
    assert report.status & ~Status.STORES_OUTSTANDING == Status.DEADLOCK
    assert report.fault_insn is None
    assert left_of(report.tokens_left) == tokens
    rtl = simulator(script.config)
    done = sum(report.counters[name] for name in ("insn_load", "insn_compute", "insn_store"))
    assert done < len(insns) + 1
    # What the last launch left in the queues of instructions is gone.
    again = rtl.launch(INSN_AT, len(insns) + 1, tokens=Tokens(l2g=1, g2l=1, g2s=1, s2g=1), allow_leftover_tokens=True)
    assert again.status & ~Status.STORES_OUTSTANDING == Status(0)
    assert sum(again.counters[name] for name in ("insn_load", "insn_compute", "insn_store")) == len(insns) + 1


def test_a_token_from_behind_a_full_queue_never_comes() -> None:
    """VTA spec 5.6: fetch works in order, and cannot pass the instructions that wait."""
    script = Misuse(name="full", machine="tiny")
    script.add(LOAD, memory_type=INP, pop_next=1)
    for _ in range(9):
        script.add(LOAD, memory_type=INP)
    script.add(LOAD, memory_type=UOP, push_prev=1)
    assert script.run(model=False, queue_depth=4).status == Status.DEADLOCK
    # With a longer queue the same program ends well.
    assert script.run(queue_depth=512).status == Status(0)


def test_without_finish_everything_is_done_and_the_launch_ends() -> None:
    script = misuse()
    script.step(ALU, alu_opcode=ADD, use_imm=1, imm=7, push_next=1)
    script.add(STORE, memory_type=OUT, y_size=1, x_size=1, pop_prev=1)
    report = script.run(finish=False)
    assert found(report) == (Status.DEADLOCK, None)
    counted = [report.counters[name] for name in ("insn_load", "insn_compute", "insn_store")]
    assert counted == [2, 4, 1]


def test_what_comes_after_finish_is_done_too() -> None:
    script = misuse()
    script.add(FINISH)
    script.step(ALU, alu_opcode=ADD, use_imm=1, imm=7, iter_in=5, dst_factor_in=1)
    assert found(script.run()) == (Status(0), None)


def test_a_finish_that_did_not_wait_for_stores_says_so() -> None:
    script = misuse()
    script.step(ALU, alu_opcode=ADD, use_imm=1, imm=7, iter_in=64, dst_factor_in=1, push_next=1)
    script.add(STORE, memory_type=OUT, y_size=1, x_size=64, pop_prev=1)
    assert found(script.run()) == (Status.STORES_OUTSTANDING, None)


def bus_word(address: int) -> range:
    return range(address // 8 * 8, address // 8 * 8 + 8)


def test_a_launch_of_nothing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which the driver refuses to ask for."""
    values = dict(parameters(TINY, INSN_AT, 1, BASES, Tokens(g2l=2))) | {"insn_count": 0}
    monkeypatch.setattr("vta_sim.rtl.engine.parameters", lambda *_: values)
    rtl = simulator(TINY)
    rtl.reset()
    report = rtl.launch(INSN_AT, 1, allow_faults=True, max_cycles=1000)
    assert found(report) == (Status.DEADLOCK, None)
    assert (report.tokens_left, report.counters["insn_bytes"]) == (Tokens(g2l=2), 0)


@pytest.mark.parametrize("response", [SLVERR, DECERR])
@pytest.mark.parametrize(
    ("address", "index"), [(UOPS_AT, 0), (DATA_AT + 100 * 16, 1), (DATA_AT + 9 * 4, 2), (DATA_AT + 30 * 16, 3)]
)
def test_read_errors_name_the_instruction_and_the_launch_goes_on(address: int, index: int, response: int) -> None:
    script = misuse()
    report = script.run(errors={bus_word(address): response})
    assert found(report) == (Status.READ_ERROR, index)
    assert sum(report.counters[name] for name in ("insn_load", "insn_compute")) == PREPARATION + 1


@pytest.mark.parametrize("response", [SLVERR, DECERR])
def test_write_errors_name_the_instruction_and_the_launch_goes_on(response: int) -> None:
    script = misuse()
    script.step(ALU, alu_opcode=ADD, use_imm=1, imm=7, iter_in=9, dst_factor_in=1, push_next=1)
    script.add(STORE, memory_type=OUT, y_size=1, x_size=1, dram_base=8, pop_prev=1)
    script.add(STORE, memory_type=OUT, y_size=2, x_size=4, x_stride=8, dram_base=16)
    script.add(STORE, memory_type=OUT, y_size=1, x_size=1, dram_base=40, push_prev=1)
    script.load(UOP, x_size=0, pop_next=1)
    report = script.run(errors={bus_word(OUT_AT + 64): response})
    assert found(report) == (Status.WRITE_ERROR, PREPARATION + 2)
    assert report.counters["insn_store"] == 3


def test_an_error_of_fetch_ends_the_launch() -> None:
    script = misuse()
    report = script.run(model=False, errors={bus_word(INSN_AT + 48): SLVERR})
    assert found(report) == (Status.READ_ERROR, 3)
    assert simulator(TINY).launch(INSN_AT + 80, 1).status == Status(0)
