"""Launches on Amaranth's simulator: results, errors, waveforms, limits. The instructions have tests of their own."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.vta_sim.rtl.machines import INSN_AT, PADS, simulator
from vta_hw.spec.asm import assemble
from vta_hw.spec.config import preset
from vta_hw.spec.isa import ISA, MemoryType
from vta_hw.spec.program import Tokens
from vta_hw.spec.registers import Status
from vta_sim.errors import (
    BusError,
    CycleLimit,
    Deadlock,
    LeftoverTokens,
    MissingFinish,
    OutOfRange,
    SimulationError,
    UnknownOpcode,
)
from vta_sim.functional.engine import Bases, FunctionalSimulator
from vta_sim.memory import Memory
from vta_sim.rtl.axi_memory import SLVERR
from vta_sim.rtl.engine import AmaranthSimulator
from vta_sim.timing import MemoryTiming

TINY = preset("tiny")
UOPS, INPUTS, WEIGHTS, OUTPUTS = 0x1000, 0x2000, 0x3000, 0x4000

# out[t] = low bytes of inp[t] @ wgt.T + 1 for three tiles of 4 channels.
SOURCE = f"""
load.uop dram_base={UOPS // 4} y_size=1 x_size=1 x_stride=1
load.inp dram_base={INPUTS // 4} y_size=1 x_size=3 x_stride=3
load.wgt dram_base={WEIGHTS // 16} y_size=1 x_size=1 x_stride=1 push_next
gemm uop_end=1 iter_out=1 iter_in=3 dst_factor_in=1 reset
gemm uop_end=1 iter_out=1 iter_in=3 dst_factor_in=1 src_factor_in=1 pop_prev
alu.add uop_end=1 iter_out=1 iter_in=3 dst_factor_in=1 src_factor_in=1 use_imm imm=1 push_next
store.out dram_base={OUTPUTS // 4} y_size=1 x_size=3 x_stride=3 pop_prev push_prev
load.uop pop_next
finish
"""


def write(memory: Memory, source: str, address: int = INSN_AT) -> int:
    """Assemble to `address`; how many instructions that are."""
    words = ISA(TINY).encode_program(assemble(source, TINY)[0])
    memory.write(address, words)
    return len(words)


def with_data(memory: Memory) -> NDArray[np.int8]:
    """Inputs and weights for `SOURCE`; the outputs it has to give."""
    rng = np.random.default_rng(7)
    inputs, weights = (rng.integers(-128, 128, shape, dtype=np.int8) for shape in ((3, 4), (4, 4)))
    memory.write(INPUTS, inputs)
    memory.write(WEIGHTS, weights)
    return np.asarray(inputs.astype(int) @ weights.astype(int).T + 1, np.int64).astype(np.int8)


def fresh(**settings: Any) -> AmaranthSimulator:
    machine = simulator(TINY)
    machine.reset(**settings)
    return machine


def launch(source: str, **options: Any) -> Any:
    machine = fresh()
    return machine.launch(INSN_AT, write(machine.memory, source), **options)


@pytest.mark.parametrize(
    "timing", [MemoryTiming(), MemoryTiming(latency=50), MemoryTiming(stalls=0.4, interleave=True, seed=3)]
)
def test_a_launch(timing: MemoryTiming) -> None:
    machine = fresh(timing=timing)
    expected = with_data(machine.memory)
    count = write(machine.memory, SOURCE)
    report = machine.launch(INSN_AT, count)
    assert machine.memory.read(OUTPUTS, 12).tobytes() == expected.tobytes()
    assert (report.status, report.fault_insn, report.tokens_left) == (Status(0), None, Tokens())
    counted = {name: report.counters[name] for name in ("insn_load", "insn_compute", "insn_store", "inp_bytes")}
    assert counted == {"insn_load": 2, "insn_compute": 6, "insn_store": 1, "inp_bytes": 12}
    assert report.counters["gemm_uops"] == report.counters["alu_uops"] == 3
    assert report.cycles == report.counters["cycle_count"] > 60


def test_memory_latency_and_stalls_cost_cycles() -> None:
    cycles = []
    for timing in (MemoryTiming(), MemoryTiming(latency=30), MemoryTiming(stalls=0.5)):
        machine = fresh(timing=timing)
        cycles.append(machine.launch(INSN_AT, write(machine.memory, SOURCE)).cycles)
    # Instructions, loads, the store's response: one waits for the other.
    assert cycles[1] - cycles[0] >= 2 * 30
    assert cycles[2] > cycles[0]


def test_scratchpads_have_the_layout_of_the_functional_simulator_and_stay() -> None:
    machine, functional = fresh(), FunctionalSimulator(TINY)
    for each in (machine, functional):
        with_data(each.memory)
        each.launch(INSN_AT, write(each.memory, SOURCE))
        each.launch(INSN_AT, write(each.memory, "alu.add uop_end=1 iter_out=1 iter_in=1 use_imm imm=5\nfinish"))
    for pad in PADS:
        mine, theirs = machine.scratchpad(pad), functional.scratchpad(pad)
        assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
        assert np.array_equal(mine, theirs)
    assert machine.scratchpad(MemoryType.ACC).any()
    machine.reset()
    assert not any(machine.scratchpad(pad).any() for pad in PADS)


def test_tokens_go_from_launch_to_launch_only_if_given() -> None:
    machine = fresh()
    count = write(machine.memory, "load.uop push_prev push_next\nfinish pop_prev")
    left = machine.launch(INSN_AT, count, tokens=Tokens(l2g=4, s2g=1023), allow_leftover_tokens=True).tokens_left
    assert left == Tokens(l2g=3, g2l=1, g2s=1, s2g=1023)
    with pytest.raises(Deadlock):
        machine.launch(INSN_AT, count)
    assert machine.launch(INSN_AT, count, tokens=left, allow_leftover_tokens=True).tokens_left.l2g == 2


def test_bases_are_added() -> None:
    machine = fresh()
    expected = with_data(machine.memory)
    shift = 0x10_0000
    for address, nbytes in ((INPUTS, 12), (WEIGHTS, 16)):
        machine.memory.write(address + shift, machine.memory.read(address, nbytes))
        machine.memory.write(address, np.zeros(nbytes, np.uint8))
    bases = Bases(inp=shift, wgt=shift, out=2 * shift)
    machine.launch(INSN_AT, write(machine.memory, SOURCE), bases=bases)
    assert machine.memory.read(OUTPUTS + 2 * shift, 12).tobytes() == expected.tobytes()


WAITS = "every token that is waited for must come, but"
REFUSALS: list[tuple[str, type[SimulationError], str]] = [
    (
        "load.uop\nload.acc sram_base=63 y_size=1 x_size=2 x_stride=2\nfinish",
        OutOfRange,
        "accesses must stay within the scratchpads, but the status is ACC_INDEX",
    ),
    (
        "load.uop\nalu.5 uop_end=1 iter_out=1 iter_in=1\nfinish",
        UnknownOpcode,
        "codes must be those of the instruction set, but the status is UNKNOWN_ALU_OPCODE",
    ),
    (
        "load.inp push_next\nload.uop pop_prev pop_next\nfinish",
        Deadlock,
        f"{WAITS} instruction 1 (load.uop pop_prev pop_next) waits since cycle 11 for a token of s2g",
    ),
    (
        "store.out pop_prev\nload.uop pop_prev pop_next\nfinish",
        Deadlock,
        (
            f"{WAITS} instruction 0 (store.out pop_prev) waits since cycle 9 for a token of g2s, "
            f"instruction 1 (load.uop pop_prev pop_next) waits since cycle 11 for a token of l2g and s2g"
        ),
    ),
    ("load.uop\nload.uop", MissingFinish, "Launch must execute FINISH, but none of its 2 instructions is one"),
    ("finish push_next push_prev", LeftoverTokens, "Launch must leave no tokens, not 1 of g2l, 1 of g2s"),
]


@pytest.mark.parametrize(("source", "kind", "sentence"), REFUSALS, ids=range(len(REFUSALS)))
def test_what_the_functional_simulator_refuses(source: str, kind: type[SimulationError], sentence: str) -> None:
    functional = FunctionalSimulator(TINY)
    with pytest.raises(kind) as theirs:
        functional.launch(INSN_AT, write(functional.memory, source))
    with pytest.raises(kind) as caught:
        launch(source)
    assert caught.value.rule == sentence
    assert (theirs.value.insn, theirs.value.disassembly) == (caught.value.insn, caught.value.disassembly)


def test_the_report_instead_of_an_error() -> None:
    report = launch("load.acc sram_base=63 y_size=1 x_size=2\nfinish push_next", allow_faults=True)
    assert (report.status, report.fault_insn, report.tokens_left) == (Status.ACC_INDEX, 0, Tokens(g2s=1))


@pytest.mark.parametrize(
    ("address", "status"), [(INPUTS, Status.READ_ERROR), (INSN_AT, Status.READ_ERROR), (OUTPUTS, Status.WRITE_ERROR)]
)
def test_errors_of_memory(address: int, status: Status) -> None:
    machine = fresh(errors={range(address, address + 1): SLVERR})
    with pytest.raises(BusError, match=f"memory must answer without errors, but the status is {status.name}$"):
        machine.launch(INSN_AT, write(machine.memory, SOURCE))


IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"insn_count": 0}, "Launch must have at least 1 instruction, not 0"),
    ({"insn_address": 0x1008}, "Instructions must begin at a multiple of 16 bytes, not at 0x1008"),
    (
        {"insn_address": (1 << 32) - 16, "insn_count": 2},
        "Instructions must end within the 32 address bits, not at 0x100000010",
    ),
    ({"bases": Bases(inp=2)}, "Base register inp must be a multiple of 4 bytes, not 0x2"),
    ({"bases": Bases(wgt=4)}, "Base register wgt must be a multiple of 8 bytes, not 0x4"),
    ({"bases": Bases(out=1 << 32)}, "Base register out must fit the 32 address bits, not 0x100000000"),
    ({"tokens": Tokens(g2s=2048)}, "Tokens of g2s must be at most 2047, not 2048"),
]


@pytest.mark.parametrize(("change", "sentence"), IMPOSSIBLE)
def test_what_the_registers_cannot_hold(change: dict[str, Any], sentence: str) -> None:
    arguments: dict[str, Any] = {"insn_address": INSN_AT, "insn_count": 1}
    with pytest.raises(SimulationError) as caught:
        fresh().launch(**arguments | change)
    assert str(caught.value) == sentence


def test_a_launch_that_takes_too_long_is_given_up_and_the_machine_goes_on() -> None:
    machine = fresh(timing=MemoryTiming(latency=400))
    expected = with_data(machine.memory)
    count = write(machine.memory, SOURCE)
    with pytest.raises(CycleLimit, match=r"^Launch must be over within 500 cycles, and is not$"):
        machine.launch(INSN_AT, count, max_cycles=500)
    assert not machine.memory.read(OUTPUTS, 12).any()
    machine.launch(INSN_AT, count)
    assert machine.memory.read(OUTPUTS, 12).tobytes() == expected.tobytes()


def test_the_limit_is_the_number_of_cycles() -> None:
    machine = fresh()
    count = write(machine.memory, SOURCE)
    cycles = machine.launch(INSN_AT, count).cycles
    for limit in (cycles - 2, cycles - 1):
        with pytest.raises(CycleLimit):
            machine.launch(INSN_AT, count, max_cycles=limit)
    for limit in (cycles, cycles + 1):
        assert machine.launch(INSN_AT, count, max_cycles=limit).cycles == cycles


def test_a_launch_piece_by_piece() -> None:
    machine = fresh()
    machine.start(INSN_AT, write(machine.memory, SOURCE))
    pieces = 0
    while not machine.advance(10):
        pieces += 1
        with pytest.raises(SimulationError, match=r"^Launch must be over before the simulator is used again, and is"):
            machine.start(INSN_AT, 1)
    cycles = machine.report().cycles
    # Besides the launch itself, two cycles for each register word that is written or read.
    assert cycles + 80 < 10 * pieces < cycles + 300


class Interrupting(Memory):
    """Ctrl-C in the middle of a store, once there is nothing more to prepare."""

    ready = False

    def write(self, address: int, data: Any) -> None:
        if self.ready:
            raise KeyboardInterrupt
        super().write(address, data)


def test_a_broken_simulation_must_be_reset() -> None:
    memory = Interrupting()
    machine = fresh(memory=memory)
    count = write(memory, SOURCE)
    memory.ready = True
    with pytest.raises(KeyboardInterrupt):
        machine.launch(INSN_AT, count)
    with pytest.raises(SimulationError, match=r"^Simulator must be reset after a simulation that broke off, not be "):
        machine.launch(INSN_AT, count)
    machine.reset()
    machine.launch(INSN_AT, write(machine.memory, SOURCE))


def test_poison_is_what_the_functional_simulator_poisons_with() -> None:
    machine, functional = AmaranthSimulator(TINY, poison=True), FunctionalSimulator(TINY, poison=True)
    for pad in PADS:
        assert np.array_equal(machine.scratchpad(pad), functional.scratchpad(pad))
    machine.reset()
    assert np.array_equal(machine.scratchpad(MemoryType.ACC), functional.scratchpad(MemoryType.ACC))


def test_a_waveform(tmp_path: Path) -> None:
    path = tmp_path / "wave.vcd"
    with AmaranthSimulator(TINY, vcd=path) as machine:
        machine.launch(INSN_AT, write(machine.memory, "finish"))
        with pytest.raises(SimulationError, match=r"^Simulator must not be reset while it writes a waveform$"):
            machine.reset()
    text = path.read_text()
    assert text.startswith("$comment Generated by Amaranth $end")
    assert "m_axi_araddr" in text
    # 1 fs is a unit; the last stamp is behind the launch, the transfers of registers included.
    assert int(text[text.rindex("#") + 1 :].split()[0]) > 100 * 10_000_000


def test_a_waveform_of_a_simulation_that_breaks_off_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "wave.vcd"
    memory = Interrupting()
    count = write(memory, SOURCE)
    memory.ready = True
    with AmaranthSimulator(TINY, memory=memory, vcd=path) as machine, pytest.raises(KeyboardInterrupt):
        machine.launch(INSN_AT, count)
    assert re.fullmatch(r"#[0-9]+|[01].+|b[01]+ .+|s.+", path.read_text().splitlines()[-1])


def test_wide_tiles_have_masks_of_many_digits() -> None:
    """Amaranth writes them as decimal numbers, and Python reads no more than 4300 digits unless told to."""
    wide = replace(TINY, log_wgt_width=4, log_block_in=5, log_block_out=5, log_wgt_buff_size=12, log_acc_buff_size=9)
    assert 10 ** sys.get_int_max_str_digits() < 1 << 8 * wide.wgt_elem_bytes
    machine = AmaranthSimulator(wide)
    assert machine.scratchpad(MemoryType.WGT).shape == (2, 32, 32)


def test_the_same_seed_takes_the_same_cycles() -> None:
    cycles = []
    for seed in (1, 1, 2):
        machine = fresh(timing=MemoryTiming(stalls=0.5, seed=seed))
        cycles.append(machine.launch(INSN_AT, write(machine.memory, SOURCE)).cycles)
    assert cycles[0] == cycles[1] != cycles[2]
