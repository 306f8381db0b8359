"""Machines of all kinds as RTL, and what a program leaves on one, compared with the functional simulator.

Building a simulator takes seconds, so each is kept and reset.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import overload

import numpy as np
from numpy.typing import NDArray

from tests.vta_sim.spec_model import compare
from tests.vta_sim.spec_model.dram import Dram
from tests.vta_sim.spec_model.layout import ACC, INP, OUT, UOP, WGT
from vta_hw.spec.config import VTAConfig, preset
from vta_hw.spec.isa import ISA, MemoryType, Opcode
from vta_hw.spec.program import Tokens
from vta_hw.spec.registers import Status
from vta_sim.functional.engine import Bases, FunctionalSimulator
from vta_sim.functional.report import Report
from vta_sim.report import MachineReport
from vta_sim.rtl.engine import AmaranthSimulator
from vta_sim.timing import MemoryTiming

PADS = (MemoryType.UOP, MemoryType.INP, MemoryType.WGT, MemoryType.ACC, MemoryType.OUT)
INSN_AT = 0x4_0000
"""Where programs written by hand are put."""

TINY = preset("tiny")
WIDE_ADDRESSES = replace(TINY, log_address_width=6)
EXTENDED = replace(TINY, isa="extended")

MACHINES: Mapping[str, VTAConfig] = {
    "tiny": TINY,
    "default": VTAConfig(),
    "bus 128, 64-bit addresses": replace(WIDE_ADDRESSES, log_bus_width=7),
    "bus 256, extended": replace(EXTENDED, log_bus_width=8),
    "bus 512, batch 2": replace(TINY, log_bus_width=9, log_batch=1, log_inp_buff_size=9, log_acc_buff_size=11),
    "overlap": replace(TINY, overlap=True),
    "overlap, extended, bus 128, packed": replace(
        EXTENDED, overlap=True, log_bus_width=7, multiplier="packed", log_address_width=6
    ),
    "batch 4, block 2 x 8, products of LUTs": replace(
        TINY,
        log_batch=2,
        log_block_in=1,
        log_block_out=3,
        log_inp_buff_size=9,
        log_wgt_buff_size=9,
        log_acc_buff_size=12,
        multiplier="lut",
    ),
    "block 16 x 4, int16 and int8": replace(
        TINY, log_inp_width=4, log_block_in=4, log_block_out=2, log_inp_buff_size=10, log_wgt_buff_size=11, max_dsp=20
    ),
    "int4, block 8 x 4, extended": replace(
        EXTENDED, log_inp_width=2, log_wgt_width=2, log_block_in=3, log_inp_buff_size=8, log_bus_width=7
    ),
    "int4 and int16, block 4 x 16, extended": replace(
        EXTENDED, log_inp_width=2, log_wgt_width=4, log_block_out=4, log_wgt_buff_size=11, log_acc_buff_size=11
    ),
    "elements of one byte, bus 512": replace(
        TINY, log_inp_width=2, log_wgt_width=2, log_block_in=1, log_block_out=1, log_bus_width=9, log_wgt_buff_size=7
    ),
    "scratchpads of two elements": replace(
        TINY, log_uop_buff_size=3, log_inp_buff_size=3, log_wgt_buff_size=5, log_acc_buff_size=5
    ),
    "deep micro-ops, batch 8": replace(
        TINY, log_batch=3, log_uop_buff_size=12, log_inp_buff_size=9, log_wgt_buff_size=6, log_acc_buff_size=10
    ),
}
"""Every bus width, both address widths, batches, blocks that differ, operands of 4, 8 and 16 bits, elements from 1 to
256 bytes, scratchpads down to two elements, both instruction sets, and every way to build the array."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Launches that follow one another on a new machine; tokens that one leaves are there for the next.

    random: whether it was drawn, and not written by hand.
    """

    name: str
    config: VTAConfig
    dram: Dram
    launches: tuple[NDArray[np.uint64], ...]
    insn_address: int = INSN_AT
    bases: Mapping[int, int]
    tokens_before: tuple[int, ...] = (0, 0, 0, 0)
    timing: MemoryTiming = field(default_factory=MemoryTiming)
    queue_depth: int = 512
    random: bool = False


def simulator(config: VTAConfig, queue_depth: int = 512) -> AmaranthSimulator:
    """The simulator of a machine, in whatever state its last user left it: to be reset."""
    return _simulator(config, queue_depth)


@functools.lru_cache(maxsize=2)
def _simulator(config: VTAConfig, queue_depth: int) -> AmaranthSimulator:
    return AmaranthSimulator(config, queue_depth=queue_depth)


def check(case: Case) -> Iterator[str]:
    """A sentence for each thing in which the RTL differs from the functional simulator after one of the launches."""
    functional = FunctionalSimulator(case.config, memory=compare.toolkit_memory(case.dram))
    rtl = simulator(case.config, case.queue_depth)
    rtl.reset(memory=compare.toolkit_memory(case.dram), timing=case.timing)
    both = zip(execute(case, functional), execute(case, rtl, max_cycles=100_000), strict=True)
    for number, (expected, report) in enumerate(both):
        for difference in (*contents_differ(functional, rtl), *counters_differ(expected, report)):
            yield f"{case.name}, launch {number}: {difference}"


@overload
def execute(case: Case, simulator: FunctionalSimulator) -> Iterator[Report]: ...


@overload
def execute(case: Case, simulator: AmaranthSimulator, *, max_cycles: int) -> Iterator[MachineReport]: ...


def execute(
    case: Case, simulator: FunctionalSimulator | AmaranthSimulator, **options: int
) -> Iterator[Report | MachineReport]:
    """Run the launches of a case one after the other, and give the report of each."""
    names = {UOP: "uop", INP: "inp", WGT: "wgt", ACC: "acc", OUT: "out"}
    bases = Bases(**{names[memory]: base for memory, base in case.bases.items()})
    tokens = compare.as_tokens(case.tokens_before)
    for words in case.launches:
        compare.write_words(simulator.memory, case.insn_address, words)
        report = simulator.launch(
            case.insn_address, len(words), bases=bases, tokens=tokens, allow_leftover_tokens=True, **options
        )
        yield report
        tokens = report.tokens_left


def contents_differ(functional: FunctionalSimulator, rtl: AmaranthSimulator) -> Iterator[str]:
    """Every byte of DRAM and every scalar of the scratchpads."""
    pages = np.union1d(functional.memory.page_addresses(), rtl.memory.page_addresses())
    for address in pages.tolist():
        mine, theirs = (each.memory.read(address, 4096) for each in (rtl, functional))
        if not np.array_equal(mine, theirs):
            bad = np.flatnonzero(mine != theirs)
            yield f"DRAM differs in {len(bad)} bytes of the page {address:#x}, first at offset {bad[0]:#x}"
    for pad in PADS:
        found, wanted = rtl.scratchpad(pad), functional.scratchpad(pad)
        if not np.array_equal(found, wanted):
            first = tuple(np.argwhere(found != wanted)[0].tolist())
            count = np.count_nonzero(found != wanted)
            yield f"{pad.name} differs in {count} scalars, first at {first}: {found[first]}, not {wanted[first]}"


def counters_differ(expected: Report, report: MachineReport) -> Iterator[str]:
    """Tokens, status, and every counter that does not count cycles."""
    if report.tokens_left != expected.tokens_left:
        yield f"tokens left are {report.tokens_left}, not {expected.tokens_left}"
    if report.status & ~Status.STORES_OUTSTANDING:
        yield f"status is {report.status!r}"
    for name, value in expected_counters(expected).items():
        if report.counters[name] != value:
            yield f"{name} is {report.counters[name]}, not {value}"


def expected_counters(report: Report) -> Mapping[str, int]:
    """The registers' counters, from the instructions. Bytes are those of DRAM: 8-bit accumulators are a quarter."""
    config, counted = report.config, report.counters
    rows = ISA(config).decode_fields(report.words)
    narrow = (rows["opcode"] == Opcode.LOAD) & np.isin(
        rows["memory_type"], [code for code in MemoryType if code.is_narrow]
    )
    narrow_bytes = int((rows["x_size"] * rows["y_size"])[narrow].sum()) * config.acc_elem_bytes // 4
    resets = (rows["opcode"] == Opcode.GEMM) & (rows["reset"] == 1)
    steps = rows["iter_out"] * rows["iter_in"] * np.maximum(rows["uop_end"] - rows["uop_bgn"], 0)
    return {
        "insn_bytes": 16 * len(report.words),
        "uop_bytes": counted.uop_load_nbytes,
        "inp_bytes": counted.inp_load_nbytes,
        "wgt_bytes": counted.wgt_load_nbytes,
        "acc_bytes": counted.acc_load_nbytes - 3 * narrow_bytes,
        "out_bytes": counted.out_store_nbytes,
        "gemm_uops": counted.gemm_counter,
        "alu_uops": counted.alu_counter,
        "acc_writes": counted.gemm_counter + counted.alu_counter + int(steps[resets].sum()),
        **units(rows),
    }


def units(rows: NDArray[np.void]) -> Mapping[str, int]:
    """How many instructions each unit completes."""
    stores = rows["opcode"] == Opcode.STORE
    loads = (rows["opcode"] == Opcode.LOAD) & np.isin(rows["memory_type"], (MemoryType.INP, MemoryType.WGT))
    return {
        "insn_load": int(loads.sum()),
        "insn_store": int(stores.sum()),
        "insn_compute": int((~loads & ~stores).sum()),
    }


def left_of(tokens: Tokens) -> tuple[int, ...]:
    """Tokens in the order in which programs have them."""
    return tokens.l2g, tokens.g2l, tokens.g2s, tokens.s2g
