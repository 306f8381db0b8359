"""The layers of one quantised network on two processors: the accelerator, and this machine's.

Both execute the same definitions. Cycles of the accelerator are those of the cycle engine, counted as `vta.profile`
counts them: exactly, in windows that do not overlap. Milliseconds of the CPU are measured, each layer in its place in
a run of the network (`vta.timing`). Both must give the same bytes.

**Arithmetic intensity** is MACs per byte that has to move at least: each tensor that the definition reads or writes
(activations, weights, factors and biases), once, as it lies in the accelerator's memory, padding of tiles included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from compiler.driver import Compilation, Item, Target, lower_graph
from compiler.graph.rewrite import first_free
from compiler.llvm.schedule import schedule as schedule_cpu
from compiler.tensor.printer import format_proc
from compiler.tensor.schedule import Schedule
from compiler.vta.footprint import steps_of
from compiler.vta.schedule import schedule as schedule_vta
from compiler.vta.tiling import TilingProblem
from runtime.session import Session
from vta.api import CompiledProgram, to_stored
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
    """A step that the host executes beside the accelerator. reason: why it is not on the accelerator.

    shared: whether the network on the CPU has it too, as the same code.
    """

    name: str
    op: str
    reason: str
    cpu: Time
    shared: bool

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "cpu": self.cpu.as_dict()}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """layers: in program order, with those instructions that belong to none. total: all of them. hosts: the rest of the
    network. batch: images in the run."""

    config: VTAConfig
    batch: int
    layers: tuple[Row, ...]
    total: Row
    hosts: tuple[HostRow, ...]

    @property
    def host(self) -> Time:
        """What the host does beside the accelerator."""
        return Time.total(row.cpu for row in self.hosts)

    @property
    def vta_ms(self) -> float:
        """The network with the accelerator: its launches, and the host's steps on this processor."""
        return self.total.vta_ms + self.host.best

    @property
    def cpu(self) -> Time:
        """The network on the CPU alone."""
        layers = [row.cpu for row in self.layers if row.cpu is not None]
        return Time.total([*layers, *(row.cpu for row in self.hosts if row.shared)])

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
class Schedules:
    """How each processor executes one layer: the definition of both, and what the primitives of each made of it.

    vta: one schedule for each nest that is scheduled by itself; empty for what the host executes.
    """

    name: str
    op: str
    definition: str
    vta: tuple[Schedule, ...]
    cpu: Schedule

    def as_dict(self) -> dict[str, Any]:
        """Texts in the tensor IR's notation, and primitives, for JSON."""

        def described(schedules: tuple[Schedule, ...]) -> dict[str, Any]:
            return {"text": text_of(schedules), "primitives": [str(step) for s in schedules for step in s.trace]}

        return {
            "name": self.name,
            "op": self.op,
            "definition": self.definition,
            "vta": described(self.vta) if self.vta else None,
            "cpu": described((self.cpu,)),
        }


def text_of(schedules: tuple[Schedule, ...]) -> str:
    """The procedures one below the other."""
    return "".join(format_proc(schedule.proc) for schedule in schedules)


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
        self._vta = lower_graph(compiled.graph, config, target=Target.VTA)
        cpu = lower_graph(compiled.graph, config, target=Target.CPU)
        self._cpu: Program = cpu.program()
        # Either compilation has one item for each of the same nodes, in the same order; the accelerator's may have
        # conversions between them.
        self._place = {item.node.output: place for place, item in enumerate(cpu.items)}
        self._names = _names(self._vta)

    @property
    def layers(self) -> tuple[str, ...]:
        """What each layer, and each step of the host, is called, in the order of the network."""
        return tuple(self._names)

    def schedules(self, name: str) -> Schedules:
        """Of one of `layers`. Raises ApiError for another name."""
        if name not in self._names:
            raise ApiError(f"Layer must be one of {', '.join(map(repr, self._names))}, not {name!r}")
        item, config = self._names[name], self.compiled.program.config
        parts = steps_of(item.proc) if item.accelerated else []
        return Schedules(
            name=name,
            op=item.node.op.kind,
            definition=format_proc(item.proc),
            vta=tuple(schedule_vta(part, config, TilingProblem(part, config).best()) for part in parts),
            cpu=schedule_cpu(item.proc),
        )

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

        clock: MHz, positive. timing: of the accelerator's memory. repeat: runs on the CPU, after one to warm up; figures
        are of the best. samples: inputs by name, [N, ...] each, the first of which are run; random ones by default.
        progress: called with (what is done, how much of it, of how much in all).

        Raises ApiError for a clock or a number of runs that is none, CompilerFault if an output differs in any byte,
        and what the cycle engine raises.
        """
        if not 0 < clock < float("inf"):
            raise ApiError(f"Clock must be a positive number of MHz, not {clock}")
        inputs = example_inputs(self.compiled.inputs, samples or {})
        stored = {port.name: to_stored(port, inputs[port.name]) for port in self.compiled.inputs}
        progress("Running on VTA", 0, None)
        expected, traces = self._run_vta(stored, timing, progress)
        progress("Loading the steps for the CPU", 0, None)
        load = host_loader(Engine.LLVM)
        steps = Steps(self._cpu, stored, load)
        _check_equal(expected, steps.run())
        conversions = self._conversions(load)
        *times, overhead = interleaved(
            [*steps.calls, *conversions.values(), nothing(load)],
            repeat,
            lambda done, total: progress("Timing the steps on the CPU", done, total),
        )
        own = [time.less(overhead) for time in times]
        of_conversions = dict(zip(conversions, own[len(steps.calls) :], strict=True))
        return self._comparison(clock, traces, own[: len(steps.calls)], of_conversions)

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

    def _conversions(self, load: Callable[..., Any]) -> dict[str, Call]:
        """A call of each step that the CPU's program has not, by name."""
        program = self.compiled.program
        buffers = {buffer.name: buffer for buffer in program.buffers}
        steps = [step for step in program.steps if isinstance(step, Host)]
        items = [(name, item) for name, item in self._names.items() if not item.accelerated]
        pairs = zip(items, steps, strict=True)
        return {name: alone(step, buffers, load) for (name, item), step in pairs if item.converts}

    def _comparison(
        self, clock: float, traces: tuple[Trace, ...], times: Sequence[Time], conversions: Mapping[str, Time]
    ) -> Comparison:
        program = self.compiled.program
        config = program.config
        buffers = {buffer.name: buffer for buffer in program.buffers}
        peak = config.batch * config.block_in * config.block_out
        parts = [part for launch, trace in launches_of(program, traces) for part in windows(program, launch, trace)]
        accelerated = {
            layer.insn_begin: name
            for layer, name in zip(
                program.layers, (name for name, item in self._names.items() if item.accelerated), strict=True
            )
        }
        layers = []
        for part in parts:
            cycles = part.end - part.begin
            if part.name == NO_LAYER and part.insn_begin not in accelerated:
                empty = Row(name=NO_LAYER, op="", macs=0, nbytes=0, cycles=cycles, clock=clock, peak=peak, cpu=None)
                layers.append(empty)
                continue
            name = accelerated[part.insn_begin]
            item = self._names[name]
            layers.append(
                Row(
                    name=name,
                    op=item.node.op.kind,
                    macs=item.macs,
                    nbytes=sum(buffers[each].nbytes for each in set(item.buffers)),
                    cycles=cycles,
                    clock=clock,
                    peak=peak,
                    cpu=times[self._place[item.node.output]],
                )
            )
        hosts = [
            HostRow(
                name=name,
                op=item.node.op.kind,
                reason=ONLY_VTA if item.converts else _reason(item),
                cpu=conversions[name] if item.converts else times[self._place[item.node.output]],
                shared=not item.converts,
            )
            for name, item in self._names.items()
            if not item.accelerated
        ]
        total = Row(
            name=TOTAL,
            op="",
            macs=sum(row.macs for row in layers),
            nbytes=sum(row.nbytes for row in layers),
            cycles=sum(row.cycles for row in layers),
            clock=clock,
            peak=peak,
            cpu=Time.total(row.cpu for row in layers if row.cpu is not None),
        )
        return Comparison(
            config=config, batch=self.compiled.batch, layers=tuple(layers), total=total, hosts=tuple(hosts)
        )


def _names(compilation: Compilation) -> dict[str, Item]:
    """The items in their order, by the name of their definition: numbered where several have one, the host's last."""
    names: dict[str, int] = {}
    for place, item in sorted(enumerate(compilation.items), key=lambda pair: not pair[1].accelerated):
        names[first_free(item.proc.name, names.keys())] = place
    return {name: compilation.items[place] for name, place in sorted(names.items(), key=lambda pair: pair[1])}


def _reason(item: Item) -> str:
    return item.node.placement.reason if item.node.placement is not None else ""


def _check_equal(expected: Mapping[str, Array], found: Mapping[str, Array]) -> None:
    for name, array in expected.items():
        one, other = np.ascontiguousarray(array), np.ascontiguousarray(found[name])
        differing = int((one.reshape(-1).view(np.uint8) != other.reshape(-1).view(np.uint8)).sum())
        if differing:
            raise CompilerFault(
                f"VTA and CPU must give the same bytes, and do not: {differing} of {one.nbytes} of output {name!r} differ"
            )
