"""The layers of one quantised network on two processors: the accelerator, and this machine's.

Both execute the same definitions. Cycles of the accelerator are those of the cycle engine, counted as `vta.profile`
counts them: exactly, in windows that do not overlap. Milliseconds of the CPU are measured, each layer in its place in
a run of the network (`vta.timing`). Both must give the same bytes.

**Arithmetic intensity** is MACs per byte that has to move at least: each tensor that the definition reads or writes
(activations, weights, factors and biases), once, as it lies in the accelerator's memory, padding of tiles included.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from compiler.driver import Item, Target, lower_graph
from compiler.graph.rewrite import first_free
from compiler.llvm.steps import scheduled as schedule_cpu
from compiler.llvm.target import Target as Processor
from compiler.tensor.ir import Proc
from compiler.tensor.printer import format_proc
from compiler.tensor.schedule import Schedule
from compiler.vta.footprint import steps_of
from compiler.vta.schedule import schedule as schedule_vta
from compiler.vta.tiling import TilingProblem
from runtime.session import HostLoader, Session
from vta.api import CompiledProgram, from_stored, port_of, to_stored
from vta.engine_names import Engine
from vta.engines import host_loader, is_accelerated, open_device
from vta.errors import ApiError, CompilerFault
from vta.profile import NO_LAYER, launches_of, windows
from vta.timing import Array, Call, Steps, Time, alone, example_inputs, interleaved, nothing
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.program import Host, Program
from vta_sim.timing import MemoryTiming
from vta_sim.trace import Trace

Progress = Callable[[str, int, int | None], None]

ONLY_VTA: Final = "only for VTA: 4-bit numbers, two to a byte"
ONLY_CPU: Final = "only for the CPU: another layout"
TOTAL: Final = "total"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A layer that both processors execute, or all together.

    nbytes: what has to move at least, see the top. clock: MHz. peak: MACs that the array does in a cycle. cpu: None for
    instructions that belong to no layer.
    """

    name: str
    op: str
    macs: int
    nbytes: int
    cycles: int
    clock: float
    peak: int
    cpu: Time | None

    @property
    def intensity(self) -> float:
        """MACs per byte."""
        return self.macs / self.nbytes if self.nbytes else 0.0

    @property
    def vta_ms(self) -> float:
        """Milliseconds of the accelerator at its clock."""
        return self.cycles / (self.clock * 1e3)

    @property
    def utilisation(self) -> float:
        """MACs over those that the array could do in the cycles."""
        return self.macs / (self.cycles * self.peak) if self.cycles else 0.0

    @property
    def gmacs(self) -> float:
        """10^9 MACs a second on the CPU, in the best run."""
        return self.macs / (self.cpu.best * 1e6) if self.cpu is not None and self.cpu.best else 0.0

    @property
    def verdict(self) -> Verdict | None:
        """Who takes less time; None where one of them has none."""
        return None if self.cpu is None else Verdict.of(self.vta_ms, self.cpu.best)

    def as_dict(self) -> dict[str, Any]:
        """Every figure by name, for JSON."""
        return {
            "name": self.name,
            "op": self.op,
            "macs": self.macs,
            "bytes": self.nbytes,
            "macs_per_byte": self.intensity,
            "vta": {"cycles": self.cycles, "ms": self.vta_ms, "utilisation": self.utilisation},
            "cpu": None if self.cpu is None else {**self.cpu.as_dict(), "gmacs_per_second": self.gmacs},
            **({} if self.verdict is None else self.verdict.as_dict()),
        }


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """winner: ``VTA`` or ``CPU``; `factor`: its time goes into the other's so often, 1 or more."""

    winner: str
    factor: float

    @staticmethod
    def of(vta_ms: float, cpu_ms: float) -> Verdict | None:
        """None where one of the times is zero, which is too short to say."""
        if min(vta_ms, cpu_ms) <= 0:
            return None
        wins = vta_ms <= cpu_ms
        return Verdict(winner="VTA" if wins else "CPU", factor=cpu_ms / vta_ms if wins else vta_ms / cpu_ms)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return vars(self)


@dataclass(frozen=True, kw_only=True)
class HostRow:
    """A step that is on no accelerator. reason: why.

    vta, cpu: its time in the network with the accelerator, and in the one without; None where that network has no such
    step.
    """

    name: str
    op: str
    reason: str
    vta: Time | None
    cpu: Time | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        times = {"vta": self.vta, "cpu": self.cpu}
        return {"name": self.name, "op": self.op, "reason": self.reason, **_described(times)}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """layers: what the accelerator executes, in program order, with those instructions that belong to none. total: all
    of them. hosts: the rest of both networks. batch: images in the run."""

    config: VTAConfig
    batch: int
    layers: tuple[Row, ...]
    total: Row
    hosts: tuple[HostRow, ...]

    @property
    def host(self) -> Time:
        """What this processor does beside the accelerator."""
        return Time.total(row.vta for row in self.hosts if row.vta is not None)

    @property
    def rest(self) -> Time:
        """What the CPU does in its network beside the accelerator's layers."""
        return Time.total(row.cpu for row in self.hosts if row.cpu is not None)

    @property
    def vta_ms(self) -> float:
        """The network with the accelerator: its launches, and the host's steps on this processor."""
        return self.total.vta_ms + self.host.best

    @property
    def cpu(self) -> Time:
        """The network on the CPU alone."""
        layers = [row.cpu for row in self.layers if row.cpu is not None]
        return Time.total([*layers, self.rest])

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        verdict = Verdict.of(self.vta_ms, self.cpu.best)
        return {
            "config": self.config.name,
            "batch": self.batch,
            "clock_mhz": self.total.clock,
            "layers": [row.as_dict() for row in self.layers],
            "total": self.total.as_dict(),
            "hosts": [row.as_dict() for row in self.hosts],
            "network": {
                "vta": {"ms": self.vta_ms},
                "cpu": self.cpu.as_dict(),
                **({} if verdict is None else verdict.as_dict()),
            },
        }


@dataclass(frozen=True, kw_only=True)
class Scheduled:
    """How a processor executes a definition: one schedule for each nest that is scheduled by itself."""

    definition: Proc
    schedules: tuple[Schedule, ...]

    @property
    def text(self) -> str:
        """The scheduled procedures, one below the other, in the tensor IR's notation."""
        return "".join(format_proc(schedule.proc) for schedule in self.schedules)

    @property
    def primitives(self) -> tuple[str, ...]:
        """What made them of the definition, in order."""
        return tuple(str(step) for schedule in self.schedules for step in schedule.trace)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"definition": format_proc(self.definition), "text": self.text, "primitives": self.primitives}


@dataclass(frozen=True, kw_only=True)
class Schedules:
    """How each processor executes one layer; None for one that does not.

    The definitions are of the same function. They may differ in how its operands lie in memory.
    """

    name: str
    op: str
    vta: Scheduled | None
    cpu: Scheduled | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"name": self.name, "op": self.op, **_described({"vta": self.vta, "cpu": self.cpu})}


class Pair:
    """One network, compiled for both.

    compiled: what `compile_model` gives for the accelerator. Raises ApiError unless it has its graph, and a layer on
    the accelerator, and CompileError as `compile_graph` does for the CPU.
    """

    def __init__(self, compiled: CompiledProgram) -> None:
        if compiled.graph is None:
            raise ApiError("Program to compare must be compiled here, not loaded from a file, which has no graph")
        if not is_accelerated(compiled.program):
            raise ApiError("Model to compare must have a layer on the accelerator, not host steps alone")
        self.compiled = compiled
        config = compiled.program.config
        cpu = lower_graph(compiled.graph, config, target=Target.CPU)
        self._program = cpu.program()
        self._items = _named(lower_graph(compiled.graph, config, target=Target.VTA).items, ())
        of_vta = {_value(item) for item in self._items.values() if not item.converts}
        self._cpu_items = cpu.items
        # Each has steps of its own, for the two lay out images differently.
        self._place = {_value(item): place for place, item in enumerate(cpu.items)}
        self._only_cpu = _named([item for item in cpu.items if _value(item) not in of_vta], self._items)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of all layers and steps of the host: VTA's in their order, then those that only the CPU has."""
        return (*self._items, *self._only_cpu)

    def schedules(self, name: str) -> Schedules:
        """Of one of `layers`. Raises ApiError for another name."""
        if name not in self.layers:
            raise ApiError(f"Layer must be one of {', '.join(map(repr, self.layers))}, not {name!r}")
        item, config = self._items.get(name) or self._only_cpu[name], self.compiled.program.config
        vta = None
        if item.accelerated:
            made = [schedule_vta(part, config, TilingProblem(part, config).best()) for part in steps_of(item.proc)]
            vta = Scheduled(definition=item.proc, schedules=tuple(made))
        place = self._place_of(item)
        here = self._cpu_items[place] if place is not None else None if item.accelerated else item
        cpu = None
        if here is not None:
            cpu = Scheduled(definition=here.proc, schedules=(schedule_cpu(here.proc, Processor.host()),))
        return Schedules(name=name, op=item.node.op.kind, vta=vta, cpu=cpu)

    def _place_of(self, item: Item) -> int | None:
        """Which step of the CPU's program computes the same; None if there is none."""
        return None if item.converts else self._place.get(_value(item))

    def compare(
        self,
        *,
        clock: float,
        timing: MemoryTiming | None = None,
        repeat: int = 10,
        samples: Mapping[str, Array] | None = None,
        progress: Progress = lambda what, done, total: None,
    ) -> Comparison:
        """Run both, and time each layer.

        clock: MHz, positive. timing: of the accelerator's memory. repeat: runs on the CPU, after one to warm up.
        samples: inputs by name, [N, ...] each, the first of which are run; random ones by default. progress: called
        with (what is done, how much of it, of how much in all).

        Raises ApiError for a clock or a number of runs that is none, CompilerFault if an output differs in any byte,
        and what the cycle engine raises.
        """
        if not 0 < clock < float("inf"):
            raise ApiError(f"Clock must be a positive number of MHz, not {clock}")
        inputs = example_inputs(self.compiled.inputs, samples or {})
        progress("Running on VTA", 0, None)
        expected, traces = self._run_vta(_stored(self.compiled.program, inputs), timing, progress)
        progress("Loading the steps for the CPU", 0, None)
        load = host_loader(Engine.LLVM)
        steps = Steps(self._program, _stored(self._program, inputs), load)
        _check_equal(_logical(self.compiled.program, expected), _logical(self._program, steps.run()))
        others = self._other_steps(load)
        *times, overhead = interleaved(
            [*steps.calls, *others.values(), nothing(load)],
            repeat,
            lambda done, total: progress("Timing the steps on the CPU", done, total),
        )
        own = [time.less(overhead) for time in times]
        of_others = dict(zip(others, own[len(steps.calls) :], strict=True))
        return self._comparison(clock, traces, own[: len(steps.calls)], of_others)

    def _run_vta(
        self, stored: Mapping[str, Array], timing: MemoryTiming | None, progress: Progress
    ) -> tuple[dict[str, Array], tuple[Trace, ...]]:
        """(outputs as they are stored, traces of the launches)."""
        program = self.compiled.program

        def counted(cycles: int) -> None:
            progress(f"Running on VTA, {cycles:,} cycles of the launch so far", 0, None)

        with closing(open_device(Engine.CYCLE, program.config, timing=timing, trace=True, progress=counted)) as device:
            session = Session(device, program, host_loader(Engine.CYCLE))
            outputs = session.run(stored)
            return outputs, session.statistics.traces

    def _other_steps(self, load: HostLoader) -> dict[str, Call]:
        """A call of each step beside the accelerator that the CPU's program has not, or in another form, by name."""
        program = self.compiled.program
        buffers = {buffer.name: buffer for buffer in program.buffers}
        steps = [step for step in program.steps if isinstance(step, Host)]
        hosts = [(name, item) for name, item in self._items.items() if not item.accelerated]
        return {
            name: alone(step, buffers, load)
            for (name, item), step in zip(hosts, steps, strict=True)
            if (place := self._place_of(item)) is None or self._cpu_items[place].proc != item.proc
        }

    def _comparison(
        self, clock: float, traces: tuple[Trace, ...], times: Sequence[Time], others: Mapping[str, Time]
    ) -> Comparison:
        config = self.compiled.program.config
        layers = self._rows(clock, traces, times)

        def on_cpu(item: Item) -> Time | None:
            place = self._place_of(item)
            return None if place is None else times[place]

        hosts = [
            HostRow(
                name=name,
                op=item.node.op.kind,
                reason=ONLY_VTA if item.converts else _reason(item),
                vta=others.get(name) or on_cpu(item),
                cpu=on_cpu(item),
            )
            for name, item in self._items.items()
            if not item.accelerated
        ]
        hosts += [
            HostRow(name=name, op=item.node.op.kind, reason=_reason(item), vta=None, cpu=on_cpu(item))
            for name, item in self._only_cpu.items()
        ]
        total = Row(
            name=TOTAL,
            op="",
            macs=sum(row.macs for row in layers),
            nbytes=sum(row.nbytes for row in layers),
            cycles=sum(row.cycles for row in layers),
            clock=clock,
            peak=_peak(config),
            cpu=Time.total(row.cpu for row in layers if row.cpu is not None),
        )
        return Comparison(
            config=config, batch=self.compiled.batch, layers=tuple(layers), total=total, hosts=tuple(hosts)
        )

    def _rows(self, clock: float, traces: tuple[Trace, ...], times: Sequence[Time]) -> list[Row]:
        """What the accelerator executes, in order."""
        program = self.compiled.program
        peak = _peak(program.config)
        buffers = {buffer.name: buffer for buffer in program.buffers}
        names = [name for name, item in self._items.items() if item.accelerated]
        by_begin = {layer.insn_begin: name for layer, name in zip(program.layers, names, strict=True)}
        rows = []
        launches = launches_of(program, traces)
        for part in (part for launch, trace in launches for part in windows(program, launch, trace)):
            cycles = part.end - part.begin
            if part.name == NO_LAYER and part.insn_begin not in by_begin:
                row = Row(name=NO_LAYER, op="", macs=0, nbytes=0, cycles=cycles, clock=clock, peak=peak, cpu=None)
            else:
                name = by_begin[part.insn_begin]
                item = self._items[name]
                place = self._place_of(item)
                row = Row(
                    name=name,
                    op=item.node.op.kind,
                    macs=item.macs,
                    nbytes=sum(buffers[each].nbytes for each in set(item.buffers)),
                    cycles=cycles,
                    clock=clock,
                    peak=peak,
                    cpu=None if place is None else times[place],
                )
            rows.append(row)
        return rows


def _described(sides: Mapping[str, Time | Scheduled | None]) -> dict[str, Any]:
    """For JSON."""
    return {name: None if side is None else side.as_dict() for name, side in sides.items()}


def _peak(config: VTAConfig) -> int:
    """MACs that the array does in a cycle."""
    return config.batch * config.block_in * config.block_out


def _value(item: Item) -> tuple[str, str]:
    """What an item computes: the value of the graph, and the op."""
    return item.node.output, item.node.op.kind


def _named(items: Sequence[Item], taken: Collection[str]) -> dict[str, Item]:
    """The items in their order, by the name of their definition: numbered where several have one, the host's last."""
    names: dict[str, int] = {}
    for place, item in sorted(enumerate(items), key=lambda pair: not pair[1].accelerated):
        names[first_free(item.proc.name, {*taken, *names})] = place
    return {name: items[place] for name, place in sorted(names.items(), key=lambda pair: pair[1])}


def _stored(program: Program, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Inputs as the program stores them."""
    return {port.name: to_stored(port, inputs[port.name]) for port in map(port_of, program.inputs)}


def _logical(program: Program, outputs: Mapping[str, Array]) -> dict[str, Array]:
    """Outputs as the caller gets them."""
    return {port.name: from_stored(port, outputs[port.name]) for port in map(port_of, program.outputs)}


def _reason(item: Item) -> str:
    return (item.node.placement.reason if item.node.placement is not None else "") or ONLY_CPU


def _check_equal(expected: Mapping[str, Array], found: Mapping[str, Array]) -> None:
    for name, array in expected.items():
        one, other = np.ascontiguousarray(array), np.ascontiguousarray(found[name])
        differing = int((one.reshape(-1).view(np.uint8) != other.reshape(-1).view(np.uint8)).sum())
        if differing:
            raise CompilerFault(
                f"VTA and CPU must give the same bytes, and {differing} of {one.nbytes} of output {name!r} differ"
            )
