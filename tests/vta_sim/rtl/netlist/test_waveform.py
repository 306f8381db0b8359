"""Waveforms of compiled designs, read back."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import pytest
from vcd.reader import TokenKind, tokenize

from tests.vta_sim.rtl.netlist.test_simulator import Counter
from vta_sim.rtl.netlist import Simulator, compile_design
from vta_sim.rtl.netlist.waveform import Waveform, fitting


def counting() -> Simulator:
    counter = compile_design(Counter(), observe=["inner.following"]).simulator()
    counter.poke("step", 5)
    return counter


def written(simulator: Simulator, windows: list[tuple[int, int]], *patterns: str) -> str:
    """The file of so many cycles each, behind others that are left out."""
    file = io.StringIO()
    waveform = Waveform(simulator, file, fitting(simulator, patterns))
    for skipped, cycles in windows:
        simulator.run(skipped)
        waveform.run(cycles)
    waveform.close()
    return file.getvalue()


def changes(text: str) -> Iterator[tuple[int, str, int]]:
    """(time, name, value) of each change."""
    names, time = {}, 0
    for token in tokenize(io.BytesIO(text.encode())):
        if token.kind is TokenKind.VAR:
            names[token.var.id_code] = token.var.reference
        elif token.kind is TokenKind.CHANGE_TIME:
            time = token.time_change
        elif token.kind is TokenKind.CHANGE_VECTOR:
            yield time, names[token.vector_change.id_code], int(token.vector_change.value)
        elif token.kind is TokenKind.CHANGE_SCALAR:
            yield time, names[token.scalar_change.id_code], int(token.scalar_change.value)


def test_a_wave_has_the_values_before_each_edge() -> None:
    found = list(changes(written(counting(), [(0, 4)], "total", "inner.following")))
    totals = {time: value for time, name, value in found if name == "total"}
    assert totals == {0: 7, 2: 12, 4: 17, 6: 22}
    assert {time: value for time, name, value in found if name == "following"} == {0: 12, 2: 17, 4: 22, 6: 27}
    assert [(time, value) for time, name, value in found if name == "clk"][1:] == [
        (time, time % 2) for time in range(1, 8)
    ]


def test_windows_have_their_time() -> None:
    found = list(changes(written(counting(), [(10, 1), (5, 2)], "total")))
    assert [(time, value) for time, name, value in found if name == "total" and time] == [
        (20, 57), (32, 87), (34, 92)
    ]  # fmt: skip


def test_signals_lie_in_the_scopes_of_their_names() -> None:
    text = written(counting(), [(0, 1)], "*")
    assert re.search(r"\$scope module inner \$end\s+\$var wire 8 \S+ sum \$end", text)
    assert "rst" in text


def test_a_pattern_that_fits_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Pattern must fit a port, a register or .*, and 'outer\.\*' does not"):
        fitting(counting(), ["total", "outer.*"])
