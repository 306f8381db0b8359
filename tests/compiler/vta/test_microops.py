"""The micro-op buffer: what stays in it, what is evicted, and that DRAM always holds what a launch loads again."""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray

from compiler.vta.microops import MicroOps, Residence, place_kernels
from compiler.vta.tokens import Work
from vta_hw.spec.isa import Gemm, Load, MemoryType, Module


def kernel(*values: int) -> NDArray[np.uint32]:
    return np.array(values, np.uint32)


def test_a_kernel_is_loaded_once() -> None:
    uops = MicroOps(8)
    assert uops.place(kernel(1, 2)) == Residence(begin=0, load_from=0)
    assert uops.place(kernel(1, 2)) == Residence(begin=0, load_from=None)
    assert uops.place(kernel(3)) == Residence(begin=2, load_from=2)
    assert uops.area.tolist() == [1, 2, 3]


def test_a_new_launch_loads_again_from_the_same_place() -> None:
    uops = MicroOps(8)
    uops.place(kernel(9))
    uops.place(kernel(1, 2))
    uops.forget()
    assert uops.place(kernel(1, 2)) == Residence(begin=0, load_from=1)
    assert uops.area.tolist() == [9, 1, 2]


def test_the_oldest_kernels_make_room() -> None:
    uops = MicroOps(4)
    for value in (1, 2, 3, 4):
        uops.place(kernel(value))
    assert uops.place(kernel(5, 6)) == Residence(begin=0, load_from=4)
    assert uops.place(kernel(3)) == Residence(begin=2, load_from=None)
    assert uops.place(kernel(4)) == Residence(begin=3, load_from=None)
    assert uops.place(kernel(1)) == Residence(begin=2, load_from=0)
    assert uops.place(kernel(4)) == Residence(begin=3, load_from=None)


def test_a_kernel_does_not_wrap_around_the_end() -> None:
    uops = MicroOps(5)
    uops.place(kernel(1, 2, 3))
    assert uops.place(kernel(4, 5, 6)) == Residence(begin=0, load_from=3)
    assert uops.place(kernel(1, 2, 3)) == Residence(begin=0, load_from=0)


def test_a_kernel_may_fill_the_buffer() -> None:
    uops = MicroOps(3)
    assert uops.place(kernel(1, 2, 3)) == Residence(begin=0, load_from=0)
    assert uops.place(kernel(4)) == Residence(begin=0, load_from=3)
    assert uops.place(kernel(1, 2, 3)) == Residence(begin=0, load_from=0)


def test_kernels_that_fit_are_placed_at_once() -> None:
    uops = MicroOps(6)
    uops.place(kernel(9, 9))
    assert uops.place_all([kernel(1, 2), kernel(3)]) == [Residence(2, 2), Residence(4, 4)]
    assert uops.place_all([kernel(4, 5, 6), kernel(3)]) == [Residence(0, 5), Residence(3, 4)]
    assert uops.place_all([kernel(1, 2, 3, 4), kernel(5, 6, 7)]) is None
    assert uops.place_all([]) == []


def test_what_is_next_to_each_other_is_loaded_by_one_instruction() -> None:
    uops = MicroOps(8)
    works = [
        Work(Gemm(iter_out=1, iter_in=1), Module.COMPUTE, kernel=one)
        for one in (kernel(1, 2), kernel(3), kernel(1, 2), kernel(4))
    ]
    load, *placed = place_kernels(works, uops, 100)
    assert load.insn == Load(memory_type=MemoryType.UOP, dram_base=100, y_size=1, x_size=4, x_stride=4)
    places = [(insn.uop_bgn, insn.uop_end) for work in placed if isinstance(insn := work.insn, Gemm)]
    assert places == [(0, 2), (2, 3), (0, 2), (3, 4)]
    # In a buffer that is too small for all, each is loaded before its instruction.
    names = [type(work.insn).__name__ for work in place_kernels(works, MicroOps(3), 0)]
    assert names == ["Load", "Gemm", "Load", "Gemm", "Gemm", "Load", "Gemm"]


def test_the_area_of_no_kernels_is_empty() -> None:
    assert MicroOps(4).area.dtype == np.uint32
    assert MicroOps(4).area.shape == (0,)


def test_random_kernels_are_always_where_they_are_said_to_be() -> None:
    for seed in range(40):
        r = random.Random(seed)
        depth = r.choice([2, 3, 8, 16])
        uops, loaded = MicroOps(depth), np.zeros(depth, np.uint32)
        kernels = [kernel(*(r.randrange(100) for _ in range(r.randint(1, depth)))) for _ in range(12)]
        valid = np.zeros(depth, bool)
        for _ in range(200):
            if r.random() < 0.02:
                uops.forget()
                valid[:] = False
            wanted = r.choice(kernels)
            residence = uops.place(wanted)
            place = slice(residence.begin, residence.begin + len(wanted))
            assert residence.begin + len(wanted) <= depth
            if residence.load_from is not None:
                loaded[place] = uops.area[residence.load_from : residence.load_from + len(wanted)]
                valid[place] = True
            assert valid[place].all()
            assert loaded[place].tolist() == wanted.tolist()
        assert len(uops.area) == sum(len(one) for one in {k.tobytes(): k for k in kernels}.values()), seed


def test_kernels_placed_together_are_all_there() -> None:
    """Whatever was in the buffer before: one of them that was must not make room for another."""
    r = random.Random(5)
    uops, held = MicroOps(8), [0] * 8
    for _ in range(500):
        together = [kernel(*[value] * (1 + value % 3)) for value in r.sample(range(1, 12), r.randint(1, 4))]
        residences = uops.place_all(together)
        assert (residences is None) == (sum(map(len, together)) > 8)
        for one, residence in zip(together, residences or (), strict=False):
            if residence.load_from is not None:
                held[residence.begin : residence.begin + len(one)] = uops.area[residence.load_from :][: len(one)]
        for one, residence in zip(together, residences or (), strict=False):
            assert held[residence.begin : residence.begin + len(one)] == one.tolist()
        if r.random() < 0.3:
            lone = kernel(*[r.randint(20, 30)] * 2)
            residence = uops.place(lone)
            held[residence.begin : residence.begin + 2] = lone
