"""The parts of the checker on their own, against the same said slowly."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from tests.vta_sim.check.cases import faulty_stream
from tests.vta_sim.check.timings import Stream
from tests.vta_sim.spec_model import compare, layout
from tests.vta_sim.spec_model.machine import Machine
from tests.vta_sim.spec_model.pipeline import MODULES, POPS, PUSHES, QUEUES, module_of, queues_of
from vta_hw.spec.asm import assemble
from vta_hw.spec.config import preset
from vta_hw.spec.isa import ISA, MemoryType, Module, Uop
from vta_hw.spec.program import Tokens
from vta_sim.check.dram import Cells, Dram, Rows
from vta_sim.check.history import History
from vta_sim.check.order import Limits, TokenFlow, way
from vta_sim.check.touches import MicroOps, Toucher, fields_of, spread, units_of
from vta_sim.token_queues import ENDS

TINY = preset("tiny")


def launch(source: str, tokens: Tokens | None = None) -> TokenFlow:
    words = ISA(TINY).encode_program(assemble(source, TINY)[0])
    return TokenFlow(ISA(TINY).decode_fields(words), tokens or Tokens())


def test_clocks_go_with_tokens() -> None:
    order = launch("""
        load.inp
        load.inp push_next
        load.uop
        load.uop pop_prev push_next
        load.inp
        store.out pop_prev push_prev
        load.uop pop_next
    """).execute()
    assert order.sequence == tuple(range(7))
    assert [order.clocks[index] for index in range(7)] == [
        (0, 0, 0),
        (1, 0, 0),
        (0, 0, 0),
        (2, 1, 0),
        (2, 0, 0),
        (2, 2, 0),
        (2, 2, 1),
    ]


def test_tokens_from_before_tell_nothing() -> None:
    """The first pop takes the token that was there, the second that of the LOAD."""
    order = launch("load.inp push_next\nload.uop pop_prev\nload.uop pop_prev", Tokens(l2g=1)).execute()
    assert (order.clocks[1], order.clocks[2]) == ((0, 0, 0), (1, 1, 0))


def test_an_instruction_may_wait_for_one_behind_it() -> None:
    order = launch("load.inp pop_next\nload.uop push_prev").execute()
    assert (order.sequence, order.clocks[0]) == ((1, 0), (0, 1, 0))


def test_a_stop_shows_the_heads() -> None:
    order = launch("load.inp pop_next\nstore.out pop_prev\nload.uop push_next\nload.inp").execute()
    assert (order.sequence, dict(order.heads), order.tokens) == ((2, 1), {Module.LOAD: 0}, Tokens())


def test_outstanding_tokens_are_those_of_the_worst_timing() -> None:
    """The third push knows that the first token was taken."""
    source = "load.inp push_next\nload.uop pop_prev push_prev\nload.inp push_next\nload.inp pop_next push_next"
    assert launch(source).execute().outstanding["l2g"].count == 2


def test_outstanding_tokens_are_reached_when_the_taker_moves_last() -> None:
    """Random programs, in which the taker of a queue executes only what the others wait for."""
    for seed in range(40):
        stream = faulty_stream(seed)
        config = compare.toolkit_config(stream.config)
        order = TokenFlow(ISA(config).decode_fields(stream.words), compare.as_tokens(stream.tokens)).execute()
        for queue, (_, taker) in ENDS.items():
            assert order.outstanding[queue].count == most_held(stream, queue, taker.name.lower()), (seed, queue)


def most_held(stream: Stream, queue: str, taker: str) -> int:
    """Most tokens in a queue after one was given, if its taker moves last."""
    insns = [layout.decode(stream.config, word) for word in layout.from_words(stream.words)]
    waiting = {module: [i for i, insn in enumerate(insns) if module_of(insn) == module] for module in MODULES}
    tokens = dict(zip(QUEUES, stream.tokens, strict=True))
    most = 0
    while True:
        ready = [
            module
            for module, own in waiting.items()
            if own and all(tokens[name] for name in queues_of(insns[own[0]], POPS))
        ]
        if not ready:
            return most
        module = next((module for module in ready if module != taker), taker)
        insn = insns[waiting[module].pop(0)]
        for name in queues_of(insn, POPS):
            tokens[name] -= 1
        for name in queues_of(insn, PUSHES):
            tokens[name] += 1
            if name == queue:
                most = max(most, tokens[name])


def test_limits_bring_to_a_stop_what_has_no_room() -> None:
    ahead = launch("load.inp pop_next\nload.inp\nload.inp\nload.uop push_prev")
    assert not ahead.execute(Limits(insns=3)).heads
    assert ahead.execute(Limits(insns=2)).heads == {Module.LOAD: 0, Module.COMPUTE: 3}
    many = launch("\n".join(["load.inp push_next"] * 3 + ["store.out push_prev", "load.uop pop_next"]))
    assert not many.execute(Limits(tokens=3)).heads
    assert many.execute(Limits(tokens=2)).heads == {Module.LOAD: 2}


def test_ways_of_tokens() -> None:
    load, compute, store = Module.LOAD, Module.COMPUTE, Module.STORE
    pairs = {(load, compute): ("l2g",), (compute, load): ("g2l",), (compute, store): ("g2s",)}
    pairs |= {(store, compute): ("s2g",), (load, store): ("l2g", "g2s"), (store, load): ("s2g", "g2l")}
    assert {pair: way(*pair) for pair in itertools.permutations((load, compute, store), 2)} == pairs


@pytest.mark.parametrize(("trips", "step"), [*itertools.product([1, 2, 3, 7, 16, 1000], [0, 1, 5])])
def test_spread_is_the_union_of_all_trips(trips: int, step: int) -> None:
    for bits in (0b1, 0b1011, 0b100000):
        slowly = 0
        for trip in range(trips):
            slowly |= bits << trip * step
        assert spread(bits, trips, step) == slowly
        assert units_of(slowly).tolist() == [k for k in range(slowly.bit_length()) if slowly >> k & 1]


def test_elements_are_those_of_the_model() -> None:
    """Random nests with random micro-ops: every element, and not one more."""
    for seed in range(40):
        program = compare.random_program(seed)
        config = compare.toolkit_config(program.config)
        model = Machine(program.config, program.dram.copy())
        model.bases = program.bases
        toucher = Toucher(config)
        images = [(number * 4096, page.tobytes()) for number, page in program.dram.pages.items()]
        dram = Dram(images, rest_is_zero=True)
        fields = fields_of(ISA(config).decode_fields(program.words))
        for index, (insn, word) in enumerate(zip(fields, layout.from_words(program.words), strict=True)):
            decoded = layout.decode(program.config, word)
            address = model.address(decoded, 0) if insn.opcode == layout.LOAD else 0
            touch = toucher.touch(insn, dram, address)
            if insn.opcode in (layout.GEMM, layout.ALU) and insn.steps:
                nest = model.nest(index, decoded)
                assert touch.elements[MemoryType.OUT].tolist() == np.unique(nest.dst).tolist()
                if insn.opcode == layout.GEMM and not insn.reset:
                    assert touch.elements[MemoryType.INP].tolist() == np.unique(nest.src).tolist()
                    assert touch.elements[MemoryType.WGT].tolist() == np.unique(nest.wgt).tolist()
                    walk = nest.dst
                    near = [d for d in (1, 2) if len(walk) > d and (walk[d:] == walk[:-d]).any()]
                    assert touch.near == min(near, default=None)
            model.execute(index, decoded)


def test_a_nest_of_billions_of_steps_takes_no_time() -> None:
    source = "gemm uop_end=64 iter_out=16383 iter_in=16383\nfinish"
    (insn, _) = fields_of(ISA(TINY).decode_fields(ISA(TINY).encode_program(assemble(source, TINY)[0])))
    assert insn.steps > 1 << 33
    touch = Toucher(TINY).touch(insn, Dram([], rest_is_zero=True), 0)
    assert {memory: units.tolist() for memory, units in touch.elements.items()} == {
        MemoryType.OUT: [0],
        MemoryType.INP: [0],
        MemoryType.WGT: [0],
    }


def test_micro_ops_come_with_rows_strides_and_pads() -> None:
    words = ISA(TINY).encode_uops([Uop(dst=k) for k in range(1, 9)])
    dram = Dram([(0x100, words.tobytes()[:24]), (0x118, words.tobytes()[24:])], rest_is_zero=False)
    source = "load.uop sram_base=3 y_size=2 x_size=2 x_stride=5 x_pad_0=1 y_pad_1=1\nalu.add uop_bgn=2 uop_end=13"
    load, use = fields_of(ISA(TINY).decode_fields(ISA(TINY).encode_program(assemble(source, TINY)[0])))
    uops = MicroOps(TINY)
    uops.load(load, dram, 0x104)
    assert uops.column("dst", use).tolist() == [0, 0, 2, 3, 0, 7, 8, 0, 0, 0, 0]
    assert uops.known(use)
    uops.load(load, dram, 0x108)
    assert not uops.known(use)


def test_known_and_unknown_memory() -> None:
    dram = Dram([(20, b"\x05\x06"), (10, b"\x01\x02\x03")], rest_is_zero=False)
    dram.change([Rows(address=11, count=2, nbytes=1, pitch=9)])
    data, known = dram.read(9, 14)
    assert data.tolist() == [0, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 5, 6, 0]
    assert np.flatnonzero(known).tolist() == [1, 3, 12]
    assert Dram([], rest_is_zero=True).read(1 << 40, 3)[1].all()


def random_rows(rng: random.Random) -> Rows:
    pitch = rng.choice([0, 1, 3, 8, 20])
    return Rows(address=rng.randrange(200), count=rng.randint(1, 6), nbytes=rng.randint(1, 9), pitch=pitch)


def bytes_of(rows: Rows) -> set[int]:
    return {rows.address + y * rows.pitch + byte for y in range(rows.count) for byte in range(rows.nbytes)}


def test_cells_meet_where_bytes_do() -> None:
    rng = random.Random(0)
    for _ in range(300):
        reads, writes = ([random_rows(rng) for _ in range(rng.randint(0, 4))] for _ in range(2))
        cells = Cells(reads, writes)
        for read, write in itertools.product(reads, writes):
            common = np.intersect1d(cells.of(read), cells.of(write))
            shared = bytes_of(read) & bytes_of(write)
            assert bool(len(common)) == bool(shared)
            assert {int(cells.cuts[cell]) for cell in common} <= shared


def test_the_latest_of_a_unit_decides() -> None:
    history = History(4, writer=Module.LOAD, readers=[Module.COMPUTE])
    history.record(Module.LOAD, np.array([0, 1]), 1)
    history.record(Module.LOAD, np.array([1, 2]), 2)
    one, two = np.array([0]), np.array([0, 1])
    assert list(history.conflicts(Module.COMPUTE, one, (1, 0, 0))) == []
    ((module, number, unit),) = history.conflicts(Module.COMPUTE, two, (1, 0, 0))
    assert (module, number, unit) == (Module.LOAD, 2, 1)
    assert list(history.conflicts(Module.LOAD, two, (0, 0, 0))) == []
    history.record(Module.COMPUTE, one, 7)
    assert [conflict.number for conflict in history.conflicts(Module.LOAD, two, (2, 6, 0))] == [7]
