"""What one does with a compiled design."""

from __future__ import annotations

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vta_sim.rtl.netlist import Simulator, compile_design


class Counter(wiring.Component):
    """Adds `step` in each cycle; `full` from 100 on. Each sum goes to a row of `log`."""

    def __init__(self) -> None:
        super().__init__({"step": In(4), "total": Out(8), "full": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.inner = inner = Module()
        inner.submodules.log = log = Memory(shape=8, depth=5, init=[1, 2])
        port = log.write_port()
        sum_, row = Signal(8, init=7, name="sum"), Signal(3)
        following = Signal(8)
        inner.d.comb += [following.eq(sum_ + self.step), port.addr.eq(row), port.data.eq(sum_), port.en.eq(1)]
        inner.d.sync += [sum_.eq(following), row.eq(row + 1)]
        m.d.comb += [self.total.eq(sum_), self.full.eq(sum_ >= 100)]
        return m


@pytest.fixture
def counter() -> Simulator:
    return compile_design(Counter(), observe=["inner.following"]).simulator()


def test_ports_registers_and_observed_signals_are_seen(counter: Simulator) -> None:
    counter.poke("step", 5)
    names = ("step", "total", "inner.sum", "inner.following")
    assert [counter.peek(name) for name in names] == [5, 7, 7, 12]
    assert counter.run(3) == 3
    assert [counter.peek(name) for name in names] == [5, 22, 22, 27]
    counter.poke("step", 1)
    assert counter.peek("inner.following") == 23


@pytest.mark.parametrize(("step", "edges"), [(1, 93), (10, 10), (15, 7)])
def test_run_stops_before_an_edge_in_a_cycle_in_which_the_signal_is_high(
    counter: Simulator, step: int, edges: int
) -> None:
    counter.poke("step", step)
    assert counter.run(1000, until="full") == edges
    assert counter.peek("full") == 1
    assert counter.run(1000, until="full") == 0
    assert counter.peek("total") == 7 + step * edges


def test_run_ends_after_its_cycles(counter: Simulator) -> None:
    counter.poke("step", 1)
    assert counter.run(5, until="full") == 5
    assert counter.run(0) == 0
    assert counter.peek("total") == 12


def test_rows_are_read_and_written(counter: Simulator) -> None:
    log = counter.memory("inner.log")
    assert [log[row] for row in range(len(log))] == [1, 2, 0, 0, 0]
    log[3] = 0xAB
    counter.poke("step", 1)
    counter.run(2)
    assert [log[row] for row in range(len(log))] == [7, 8, 0, 0xAB, 0]


def test_reset_is_power_on(counter: Simulator) -> None:
    log = counter.memory("inner.log")
    counter.poke("step", 3)
    log[4] = 9
    counter.run(4)
    counter.reset()
    assert [counter.peek(name) for name in ("step", "total", "inner.sum")] == [0, 7, 7]
    log = counter.memory("inner.log")
    assert [log[row] for row in range(len(log))] == [1, 2, 0, 0, 0]


def test_the_reset_of_the_domain_is_a_port(counter: Simulator) -> None:
    counter.poke("step", 3)
    counter.run(4)
    counter.poke("rst", 1)
    counter.run(1)
    assert counter.peek("total") == 7
    counter.poke("rst", 0)
    counter.run(1)
    assert counter.peek("total") == 10


def test_registers_are_set(counter: Simulator) -> None:
    counter.poke("step", 1)
    counter.poke("inner.sum", 99)
    assert [counter.peek(name) for name in ("total", "full", "inner.following")] == [99, 0, 100]
    counter.run(1)
    assert counter.peek("full") == 1


def test_simulators_of_a_design_share_nothing() -> None:
    design = compile_design(Counter())
    one, other = design.simulator(), design.simulator()
    one.poke("step", 1)
    one.run(3)
    one.memory("inner.log")[4] = 1
    assert (one.peek("total"), other.peek("total"), other.memory("inner.log")[4]) == (10, 7, 0)


def test_what_is_not_there_is_refused(counter: Simulator) -> None:
    with pytest.raises(ValueError, match="Signal to set must be an input or a register, not 'full'"):
        counter.poke("full", 1)
    with pytest.raises(ValueError, match="Value of step must fit 4 bits, not 16"):
        counter.poke("step", 16)
    with pytest.raises(ValueError, match="Value of step must fit 4 bits, not -1"):
        counter.poke("step", -1)
    with pytest.raises(ValueError, match=r"Signal must be a port, a register or observed, not 'inner\.nothing'"):
        counter.peek("inner.nothing")
    with pytest.raises(ValueError, match="must be an output or observed, of one bit, not 'total'"):
        counter.run(1, until="total")
    with pytest.raises(ValueError, match="Memory must be one of the design's, not 'log'"):
        counter.memory("log")
    with pytest.raises(IndexError, match="must be 0 to 4, not 5"):
        counter.memory("inner.log")[5]
    with pytest.raises(ValueError, match="must fit 8 bits, not 256"):
        counter.memory("inner.log")[0] = 256


def test_compilation_refuses_names_and_designs_that_it_cannot_know() -> None:
    with pytest.raises(ValueError, match=r"Observed signal must be one of the design's, not 'inner\.nothing'"):
        compile_design(Counter(), observe=["inner.nothing"])
    with pytest.raises(ValueError, match=r"Ports must be given for a design that is not a wiring\.Component"):
        compile_design(Module())
