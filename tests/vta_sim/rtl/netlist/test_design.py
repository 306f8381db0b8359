"""Compiling: equal designs give equal code, and what was compiled is found again."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path

import pytest
from amaranth.hdl import Elaboratable, Signal

from tests.vta_sim.rtl.netlist.random_design import random_design
from tests.vta_sim.rtl.netlist.test_simulator import Counter
from vta_sim.rtl.netlist import cached_design, design
from vta_sim.rtl.netlist.assemble import Assembler
from vta_sim.rtl.netlist.flatten import Flattener


class Maker:
    """Makes the design of a key, and counts how often it was asked."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> tuple[Elaboratable, Sequence[Signal]]:
        self.made += 1
        counter = Counter()
        return counter, [counter.step, counter.total, counter.full]


def text_of(seed: int) -> str:
    drawn = random_design(seed)
    ports = [*drawn.inputs.values(), *drawn.outputs.values()]
    return Assembler(Flattener(design._netlist(drawn.module, ports), {}, {}).logic()).assemble().text


@pytest.mark.parametrize("seed", range(5))
def test_equal_designs_give_equal_code(seed: int) -> None:
    assert text_of(seed) == text_of(seed)


def test_a_design_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Maker()
    first = cached_design("counter", make, cache=tmp_path / "code").simulator()
    monkeypatch.setattr(design, "compile_ir", None)
    second = cached_design("counter", make, cache=tmp_path / "code").simulator()
    assert make.made == 1
    for counter in (first, second):
        counter.poke("step", 5)
        counter.run(3)
        assert (counter.peek("total"), counter.peek("inner.sum"), counter.memory("inner.log")[0]) == (22, 22, 7)


def test_code_for_the_reset_is_made_when_it_is_needed(tmp_path: Path) -> None:
    make = Maker()
    cached_design("counter", make, cache=tmp_path)
    counter = cached_design("counter", make, cache=tmp_path).simulator()
    counter.poke("step", 5)
    counter.run(3)
    assert make.made == 1
    counter.poke("rst", 1)
    counter.run(1)
    assert (counter.peek("total"), make.made) == (7, 2)


def test_another_key_is_another_design(tmp_path: Path) -> None:
    make = Maker()
    cached_design("counter", make, cache=tmp_path)
    cached_design("another", make, cache=tmp_path)
    cached_design("counter", make, cache=tmp_path, observe=["inner.following"])
    assert make.made == 3
    assert len(list(tmp_path.iterdir())) == 3


def test_damaged_files_are_made_again(tmp_path: Path) -> None:
    make = Maker()
    cached_design("counter", make, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for damaged in (b"", whole[:-1], whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]):
        file.write_bytes(damaged)
        cached_design("counter", make, cache=tmp_path)
        assert file.read_bytes() == whole
    assert make.made == 4


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    counter = cached_design("counter", Maker(), cache=blocked / "code").simulator()
    assert counter.peek("total") == 7


def test_the_directory_belongs_to_its_owner(tmp_path: Path) -> None:
    cached_design("counter", Maker(), cache=tmp_path / "new")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
