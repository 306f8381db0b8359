"""What is refused, by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import pytest
from amaranth.asserts import AnyConst, AnySeq, Initial
from amaranth.hdl import (
    Assert,
    Assume,
    ClockDomain,
    Cover,
    Instance,
    IOBufferInstance,
    IOPort,
    Module,
    Print,
    Signal,
    Value,
)

from vta_sim.rtl.netlist import Unsupported, compile_design

_HERE: Final = r"at \S+test_unsupported\.py:\d+"

Build = Callable[[Module, Signal, Signal], Sequence[Signal]]
"""Writes what computes the second signal from the first; returns further ports."""


def second_domain(m: Module, a: Signal, o: Signal) -> Sequence[Signal]:
    m.domains.other = ClockDomain("other")
    m.d.sync += o.eq(a)
    m.d.other += Signal(name="q").eq(a)
    return []


def falling_edge(m: Module, a: Signal, o: Signal) -> Sequence[Signal]:
    m.domains.sync = sync = ClockDomain("sync", clk_edge="neg")
    m.d.sync += o.eq(a)
    return [sync.clk, sync.rst]


def asynchronous_reset(m: Module, a: Signal, o: Signal) -> Sequence[Signal]:
    m.domains.sync = sync = ClockDomain("sync", async_reset=True)
    m.d.sync += o.eq(a)
    return [sync.clk, sync.rst]


def gated_clock(m: Module, a: Signal, o: Signal) -> Sequence[Signal]:
    m.domains.sync = sync = ClockDomain("sync")
    m.d.comb += sync.clk.eq(a.any())
    m.d.sync += o.eq(a)
    return [sync.rst]


def instance(m: Module, a: Signal, o: Signal) -> Sequence[Signal]:
    m.submodules.other = Instance("other", i_a=a, o_o=o)
    return []


def io_buffer(m: Module, a: Signal, o: Signal) -> Sequence[Signal]:
    m.submodules.buffer = IOBufferInstance(IOPort(8, name="pin"), i=o)
    return []


def combinational_loop(m: Module, a: Signal, o: Signal) -> Sequence[Signal]:
    m.d.comb += o.eq(o + a)
    return []


def statement(kind: Callable[[Value], object], domain: str) -> Build:
    def build(m: Module, a: Signal, o: Signal) -> Sequence[Signal]:
        m.d[domain] += [kind(a), o.eq(a)]
        return []

    return build


def expression(make: Callable[[Signal], Value]) -> Build:
    def build(m: Module, a: Signal, o: Signal) -> Sequence[Signal]:
        m.d.comb += o.eq(make(a))
        return []

    return build


REFUSED: Final[Mapping[str, tuple[Build, str]]] = {
    "several clock domains": (second_domain, r"Design must have one clock, not 2"),
    "falling edge": (falling_edge, rf"Clocks must be used with their rising edge, not the falling one as {_HERE}"),
    "asynchronous reset": (asynchronous_reset, rf"Resets must be synchronous, not asynchronous as {_HERE}"),
    "clock that is made": (gated_clock, r"The clock must be an input of the design, not be made by it"),
    "instance": (instance, rf"Design must not contain Instance, but has one {_HERE}"),
    "buffer": (io_buffer, rf"Design must not contain IOBuffer, but has one {_HERE}"),
    **{
        f"{kind.__name__}, {domain}": (
            statement(kind, domain),
            rf"Design must not contain {'Print' if kind is Print else 'Assert, Assume or Cover'}, but has one {_HERE}",
        )
        for kind in (Print, Assert, Assume, Cover)
        for domain in ("comb", "sync")
    },
    "signed division": (
        expression(lambda a: a.as_signed() // 3),
        rf"Design must not divide signed numbers, but does so {_HERE}",
    ),
    "signed remainder": (
        expression(lambda a: a % a.as_signed()),
        rf"Design must not divide signed numbers, but does so {_HERE}",
    ),
    "Initial": (expression(lambda a: Initial()), rf"Design must not contain Initial, but has one {_HERE}"),
    "AnyConst": (
        expression(lambda a: AnyConst(8)),
        rf"Design must not contain AnyConst or AnySeq, but has one {_HERE}",
    ),
    "AnySeq": (expression(lambda a: AnySeq(8)), rf"Design must not contain AnyConst or AnySeq, but has one {_HERE}"),
    "combinational loop": (
        combinational_loop,
        r"Design must not have combinational loops: Combinational cycle detected, path:\n(  \S+\.py:\d+: .+\n)+",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_by_name(name: str) -> None:
    build, sentence = REFUSED[name]
    m, a, o = Module(), Signal(8, name="a"), Signal(8, name="o")
    further = build(m, a, o)
    with pytest.raises(Unsupported) as refused:
        compile_design(m, ports=[a, o, *further])
    assert re.fullmatch(sentence, str(refused.value)), str(refused.value)
