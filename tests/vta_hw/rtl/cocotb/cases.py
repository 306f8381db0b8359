"""Launches for the scenarios, and what must come of them by the functional simulator."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from runtime.device import PAGE_BYTES, Bases
from tests.vta_hw.rtl.cocotb.launches import BASES, Launch, Launches, Pages, registers_after
from tests.vta_sim.spec_model.compare import as_tokens, random_program
from tests.vta_sim.spec_model.generate import ARENA_PAGES, Size
from tests.vta_sim.spec_model.layout import ACC, INP, OUT, UOP, WGT
from vta_hw.spec.asm import assemble
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA
from vta_hw.spec.program import Tokens
from vta_hw.spec.registers import Status
from vta_sim.functional import engine

SLVERR: Final = 2
DECERR: Final = 3

SIZE: Final = Size(micro_ops=60, transfer_bytes=512)
_MODEL_NAMES: Final = {"uop": UOP, "inp": INP, "wgt": WGT, "acc": ACC, "out": OUT}


class Author:
    """Writes launches for one machine, and knows by simulation what each must do; they are run in this order."""

    def __init__(self, config: VTAConfig) -> None:
        self.config = config
        self._simulator = engine.FunctionalSimulator(config)
        self._launches: list[Launch] = []

    @property
    def launches(self) -> Launches:
        """All there are so far."""
        return Launches(config=self.config, launches=tuple(self._launches))

    def add(
        self,
        words: NDArray[np.uint64],
        insn_address: int,
        *,
        written: Pages | None = None,
        bases: Bases | None = None,
        tokens: Tokens | None = None,
        stored: Iterable[int] = (),
    ) -> Launch:
        """Append a launch of instructions, uint64 [N][2]; returns it.

        stored: pages that the file shall hold even if this launch does not change them.
        """
        memory, ports = self._simulator.memory, bases or Bases()
        for address, page in (written or {}).items():
            memory.write(address, page)
        memory.write(insn_address, words.astype("<u8"))
        touched = {*(written or {}), *_pages(insn_address, 16 * len(words))}
        before = {address: memory.read(address, PAGE_BYTES) for address in memory.page_addresses().tolist()}
        report = self._simulator.launch(
            insn_address,
            len(words),
            bases=engine.Bases(**dataclasses.asdict(ports)),
            tokens=tokens,
            allow_leftover_tokens=True,
        )
        after = {address: memory.read(address, PAGE_BYTES) for address in memory.page_addresses().tolist()}
        launch = Launch(
            insn_address=insn_address,
            insn_count=len(words),
            bases=ports,
            tokens=tokens or Tokens(),
            written={address: before[address] for address in sorted(touched)},
            stored={
                address: page
                for address, page in after.items()
                if address in stored or address not in before or not np.array_equal(before[address], page)
            },
            registers=registers_after(self.config, words, report.tokens_left),
        )
        self._launches.append(launch)
        return launch

    def add_failing(self, launch: Launch, status: Status, fault_insn: int | None, errors: Mapping[range, int]) -> None:
        """Append a launch that differs from one that was added: memory answers with errors, or tokens are missing."""
        registers = {"status": int(status)} | ({} if fault_insn is None else {"fault_insn": fault_insn})
        self._launches.append(dataclasses.replace(launch, errors=errors, stored=None, registers=registers))

    def add_clearing(self) -> None:
        """Append a launch after which all scratchpads are zero, as they were at first."""
        config = self.config
        depths = {"uop": config.uop_depth, "inp": config.inp_depth, "wgt": config.wgt_depth, "acc": config.acc_depth}
        loads = [f"load.{name} x_size={depth} y_pad_0=1" for name, depth in depths.items()]
        loads[2] += " push_next"
        reset = f"gemm reset uop_end=1 iter_in=1 iter_out={config.acc_depth} dst_factor_out=1 pop_prev"
        self.add(self.assemble([*loads, reset, "finish"]), 0x8000)

    def add_random(self, seed: int, length: int) -> None:
        """Append a random program of about `length` instructions; the scratchpads must be zero."""
        program = random_program(seed, config=self.config, length=length, size=SIZE)
        self.add(
            program.words,
            program.insn_address,
            written={
                address: program.dram.read(address, PAGE_BYTES)
                for address in _pages(program.arena, ARENA_PAGES * PAGE_BYTES)
            },
            bases=Bases(**{name: program.bases[_MODEL_NAMES[name]] for name in BASES}),
            tokens=as_tokens(program.tokens_before),
        )

    def assemble(self, lines: Sequence[str]) -> NDArray[np.uint64]:
        """The instructions of an assembler text."""
        return ISA(self.config).encode_program(assemble("\n".join(lines), self.config)[0])


def _pages(address: int, nbytes: int) -> range:
    return range(address // PAGE_BYTES * PAGE_BYTES, address + nbytes, PAGE_BYTES)


TILES: Final = 5
PLACES: Final = {"uop": 0x1000, "inp": 0x2000, "wgt": 0x3000, "acc": 0x5000, "out": 0x6000, "insn": 0x8000}


def product_lines(config: VTAConfig) -> list[str]:
    """Five output tiles, each input by one weight tile, plus accumulators, plus one; every unit has something to do."""
    units = {
        "uop": config.uop_elem_bytes,
        "inp": config.inp_elem_bytes,
        "wgt": config.wgt_elem_bytes,
        "acc": config.acc_elem_bytes,
        "out": config.out_elem_bytes,
    }

    def transfer(name: str, count: int) -> str:
        return f"{name} dram_base={PLACES[name] // units[name]} y_size=1 x_size={count} x_stride={count}"

    nest = f"uop_end=1 iter_out=1 iter_in={TILES} dst_factor_in=1 src_factor_in=1"
    return [
        f"load.{transfer('uop', 1)}",
        f"load.{transfer('inp', TILES)}",
        f"load.{transfer('wgt', 1)} push_next",
        f"load.{transfer('acc', TILES)}",
        f"gemm {nest} pop_prev",
        f"alu.add {nest} use_imm imm=1 push_next",
        f"store.{transfer('out', TILES)} pop_prev push_prev",
        "load.uop pop_next",
        "finish",
    ]


def add_product(author: Author) -> Launch:
    """Append the program of `product_lines` with its data; it depends on nothing that was there before."""
    rng = np.random.default_rng(7)
    data = {PLACES[name]: rng.integers(0, 256, PAGE_BYTES).astype(np.uint8) for name in ("inp", "wgt", "acc")}
    data[PLACES["uop"]] = np.zeros(PAGE_BYTES, np.uint8)
    words = author.assemble(product_lines(author.config))
    return author.add(words, PLACES["insn"], written=data, stored=[PLACES["out"]])


def random_launches(config: VTAConfig, seeds: Sequence[int], length: int, *, clear: bool) -> Launches:
    """Random programs of about `length` instructions, one after the other; `clear`: also before the first."""
    author = Author(config)
    for number, seed in enumerate(seeds):
        if number or clear:
            author.add_clearing()
        author.add_random(seed, length)
    return author.launches


def product_launch(config: VTAConfig) -> Launches:
    """One launch that depends on nothing that was there before."""
    author = Author(config)
    add_product(author)
    return author.launches


def bus_error_launches(config: VTAConfig, responses: Sequence[int]) -> Launches:
    """Errors under fetch, load, compute's loads and store, each before a launch without."""
    author = Author(config)
    product = add_product(author)
    word = config.bus_bits // 8
    bad_insn = PLACES["insn"] + 5 * 16 // word * word
    kinds = {
        "insn": (range(bad_insn, bad_insn + word), Status.READ_ERROR, (bad_insn - PLACES["insn"]) // 16),
        "inp": (range(PLACES["inp"], PLACES["inp"] + 1), Status.READ_ERROR, 1),
        "wgt": (range(PLACES["wgt"], PLACES["wgt"] + 1), Status.READ_ERROR, 2),
        "uop": (range(PLACES["uop"], PLACES["uop"] + 1), Status.READ_ERROR, 0),
        "acc": (range(PLACES["acc"], PLACES["acc"] + 1), Status.READ_ERROR, 3),
        "out": (range(PLACES["out"], PLACES["out"] + 1), Status.WRITE_ERROR, 6),
    }
    for number, (place, status, index) in enumerate(kinds.values()):
        author.add_failing(product, status, index, {place: responses[number % len(responses)]})
        add_product(author)
    return author.launches


def deadlock_launches(config: VTAConfig) -> Launches:
    """A token that nobody gives, between launches that are sound."""
    author = Author(config)
    product = add_product(author)
    lines = product_lines(config)
    lines[2] = lines[2].removesuffix(" push_next")
    page = author.assemble(lines).astype("<u8").view(np.uint8).reshape(-1)
    insns = np.zeros(PAGE_BYTES, np.uint8)
    insns[: len(page)] = page
    stuck = dataclasses.replace(product, written={**product.written, PLACES["insn"]: insns})
    author.add_failing(stuck, Status.DEADLOCK, None, {})
    add_product(author)
    return author.launches


def write_cases(config: VTAConfig, folder: Path) -> None:
    """Files for `scenarios`, in which `random_programs_on_model` comes first: only it finds the scratchpads at zero."""
    files = {
        "random": random_launches(config, range(4), 16, clear=False),
        "random_again": random_launches(config, range(10, 12), 12, clear=True),
        "bus_errors": bus_error_launches(config, (SLVERR, DECERR)),
        "deadlock": deadlock_launches(config),
        "product": product_launch(config),
    }
    for name, launches in files.items():
        launches.save(folder / f"{name}.npz")
