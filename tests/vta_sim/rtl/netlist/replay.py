"""What test benches do to designs in Amaranth's simulator, done again to the compiled designs.

A plugin of pytest: with `-p tests.vta_sim.rtl.netlist.replay` every simulation of a test is noted, inputs and outputs
at each clock edge, and after the test its inputs are given to the compiled design, whose outputs must be the same in
every cycle. Inputs are all signals that nothing drives; outputs all others that belong to the test or to a component,
at any depth, rather than to one elaboration. At the end the components of `vta_hw.rtl` that were in no design are
listed, and with `--replay-all` there must be none.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections import deque
from collections.abc import Generator, Iterator
from typing import Any, Final, NamedTuple

import pytest
from amaranth.hdl import Cat, Elaboratable, Fragment, MemoryData, MemoryInstance, Module, Signal, Value
from amaranth.sim import Simulator, SimulatorContext
from amaranth.sim.pysim import PySimEngine

import vta_hw.rtl
from vta_sim.rtl.netlist import Simulator as Compiled
from vta_sim.rtl.netlist import compile_design

_CLOCKS: Final = ("clk", "rst")


class Edge(NamedTuple):
    """A clock edge, or in a design without a clock a moment: packed inputs and outputs just before."""

    inputs: int
    outputs: int
    ticks: bool


class Row(NamedTuple):
    """A test bench sets a row of a memory."""

    memory: MemoryData
    row: int
    value: int


class Reset(NamedTuple):
    """The simulation begins anew."""


class Fixed(NamedTuple):
    """A test bench sets a register, which is not done again: nothing is compared until the next reset."""


Event = Edge | Row | Reset | Fixed


def _fragments(fragment: Fragment) -> Iterator[Fragment]:
    yield fragment
    for inner, _, _ in fragment.subfragments:
        yield from _fragments(inner)


def _signals(fragment: Fragment) -> tuple[dict[int, Signal], dict[int, Signal]]:
    """Signals that a design drives, and all it has; by identity, in order."""
    driven: dict[int, Signal] = {}
    used: dict[int, Signal] = {}
    for part in _fragments(fragment):
        for statements in part.statements.values():
            for statement in statements:
                driven |= {id(signal): signal for signal in statement._lhs_signals()}
                used |= {id(signal): signal for signal in statement._rhs_signals()}
        if isinstance(part, MemoryInstance):
            for port in part._read_ports:
                driven |= {id(signal): signal for signal in port._data._lhs_signals()}
            for value in (*(p._addr for p in part._read_ports), *_written(part)):
                used |= {id(signal): signal for signal in Value.cast(value)._rhs_signals()}
    return driven, driven | used


def _written(memory: MemoryInstance) -> Iterator[Value]:
    for port in memory._write_ports:
        yield from (port._addr, port._data, port._en)
    yield from (port._en for port in memory._read_ports)


class Recording:
    """One simulator: what was done to it and not yet again.

    components: classes of what its design consists of.
    """

    def __init__(self, design: Elaboratable) -> None:
        first, second = Fragment.get(design, None), Fragment.get(design, None)
        self._driven, used = _signals(first)
        driven, all_used = _signals(second)
        self._inputs = [signal for key, signal in used.items() if key not in self._driven and key in all_used]
        self._outputs = [signal for key, signal in self._driven.items() if key in driven]
        self._fragment = second
        self.inputs, self.outputs = Cat(*self._inputs), Cat(*self._outputs)
        self.components = {type(origin) for part in _fragments(first) for origin in part.origins or ()}
        self.events: deque[Event] = deque()
        self._memories = {id(data): name for data, name in _memories(second, "design")}
        self._compiled: Compiled | None = None
        self._comparing = True
        self.edges = 0

    async def process(self, ctx: SimulatorContext) -> None:
        """Note every clock edge."""
        async for _, _, inputs, outputs in ctx.tick().sample(self.inputs, self.outputs):
            self.events.append(Edge(inputs, outputs, ticks=True))

    def note_set(self, value: Value, number: int) -> None:
        if isinstance(value, MemoryData._Row):
            self.events.append(Row(value._memory, value._index, number))
        elif any(id(signal) in self._driven for signal in value._lhs_signals()):
            self.events.append(Fixed())

    def replay(self) -> None:
        """Do the events again, and forget them; AssertionError for an output that is not what it was."""
        if self._compiled is None:
            self._compiled = self._compile()
        try:
            while self.events:
                self._repeat(self._compiled, self.events.popleft())
        except AssertionError:
            # What follows would differ too, until the next reset.
            self.events.clear()
            self._comparing = False
            raise

    def _repeat(self, compiled: Compiled, event: Event) -> None:
        match event:
            case Reset():
                compiled.reset()
                self._comparing = True
            case Fixed():
                self._comparing = False
            case Row(memory, row, value):
                rows = compiled.memory(self._memories[id(memory)])
                rows[row] = value & ((1 << len(Value.cast(memory[row]))) - 1)
            case Edge():
                self._do(compiled, event)

    def _do(self, compiled: Compiled, edge: Edge) -> None:
        if not self._comparing:
            return
        if self._inputs:
            compiled.poke("inputs", edge.inputs)
        if self._outputs:
            shown = compiled.peek("outputs")
            assert shown == edge.outputs, self._difference(edge.outputs, shown)
        if edge.ticks:
            compiled.run(1)
        self.edges += 1

    def _difference(self, wanted: int, shown: int) -> str:
        for signal in self._outputs:
            mask = (1 << len(signal)) - 1
            if (wanted ^ shown) & mask:
                return f"{signal.name} must be {wanted & mask:#x} in cycle {self.edges}, not {shown & mask:#x}"
            wanted, shown = wanted >> len(signal), shown >> len(signal)
        raise AssertionError("outputs must differ")

    def _compile(self) -> Compiled:
        m = Module()
        m.submodules.design = self._fragment
        inputs, outputs = Signal(len(self.inputs), name="inputs"), Signal(len(self.outputs), name="outputs")
        m.d.comb += [self.inputs.eq(inputs), outputs.eq(self.outputs)]
        return compile_design(m, ports=[inputs, outputs]).simulator()


def _memories(fragment: Fragment, path: str) -> Iterator[tuple[MemoryData, str]]:
    """Memories of a design with their names in it."""
    for number, (part, name, _) in enumerate(fragment.subfragments):
        inner = f"{path}.{f'U${number}' if name is None else name}"
        if isinstance(part, MemoryInstance):
            yield part._data, inner
        yield from _memories(part, inner)


class _Engine(PySimEngine):
    """Amaranth's engine, which tells a recording what test benches set."""

    recording: Recording | None = None
    has_clock = False

    def set_value(self, expr: Value, value: int) -> None:
        recording = self.recording
        if recording is not None:
            if not self.has_clock:
                self.note_moment()
            recording.note_set(Value.cast(expr), value)
        super().set_value(expr, value)

    def note_moment(self) -> None:
        assert self.recording is not None
        inputs, outputs = (self.get_value(value) for value in (self.recording.inputs, self.recording.outputs))
        self.recording.events.append(Edge(inputs, outputs, ticks=False))

    def reset(self) -> None:
        super().reset()
        if self.recording is not None:
            self.recording.events.append(Reset())


class Recorder:
    """Lets every simulator that is made note what happens.

    seen: classes in the designs that were replayed; edges: cycles in which outputs were compared.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.seen: set[type] = set()
        self.edges = 0
        self.recordings: list[tuple[Recording, _Engine]] = []
        make, add_clock = Simulator.__init__, Simulator.add_clock

        def recorded(simulator: Simulator, toplevel: Elaboratable) -> None:
            # Before the simulator's own elaboration, because some tests look at the last.
            recording = Recording(toplevel)
            make(simulator, toplevel, engine=_Engine)
            engine: _Engine = simulator._engine
            engine.recording = recording
            self.recordings.append((engine.recording, engine))

        def clocked(simulator: Simulator, period: float, **options: Any) -> None:
            add_clock(simulator, period, **options)
            engine: _Engine = simulator._engine
            assert engine.recording is not None
            engine.has_clock = True
            simulator.add_process(engine.recording.process)

        patch.setattr(Simulator, "__init__", recorded)
        patch.setattr(Simulator, "add_clock", clocked)

    def replay(self) -> None:
        """Do again what was done since this was last called."""
        for recording, engine in self.recordings:
            if not engine.has_clock:
                engine.note_moment()
            before = recording.edges
            recording.replay()
            if recording.edges > before:
                self.seen |= recording.components
                self.edges += recording.edges - before


def components() -> set[type]:
    """All that `vta_hw.rtl` can elaborate."""
    found: set[type] = set()
    for info in pkgutil.iter_modules(vta_hw.rtl.__path__):
        module = importlib.import_module(f"vta_hw.rtl.{info.name}")
        found |= {
            item
            for item in vars(module).values()
            if inspect.isclass(item) and issubclass(item, Elaboratable) and item.__module__ == module.__name__
        }
    return {item for item in found if "elaborate" in vars(item)}


_RECORDER: Final = pytest.StashKey[Recorder]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--replay-all", action="store_true", help="every component must have been in a design")


def pytest_configure(config: pytest.Config) -> None:
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    config.stash[_RECORDER] = Recorder(patch)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    result = yield
    item.config.stash[_RECORDER].replay()
    return result


def pytest_sessionfinish(session: pytest.Session) -> None:
    missing = components() - session.config.stash[_RECORDER].seen
    if missing and session.config.getoption("--replay-all"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    recorder = config.stash[_RECORDER]
    missing = sorted(f"{item.__module__}.{item.__qualname__}" for item in components() - recorder.seen)
    terminalreporter.write_line(f"replayed {recorder.edges} cycles")
    terminalreporter.write_line(f"in no design: {', '.join(missing) or 'no component'}")
