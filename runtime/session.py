"""Runs one compiled program on one device: the same code for every simulator and board."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from runtime.aligned import aligned_empty
from runtime.device import Bases, Device, LaunchReport
from runtime.errors import SessionError
from vta_hw.spec.program import DTYPE_BITS, Buffer, Host, Launch, Layer, Program, Role, Step
from vta_sim.errors import Deadlock
from vta_sim.trace import Trace

Arrays = Mapping[str, NDArray[np.generic]]
"""By name of a buffer."""
HostCall = Callable[[Arrays], None]
"""A call that may be made any number of times; the arrays take the places of those of their names it was made with."""
HostFunction = Callable[[Arrays], HostCall]
"""From the arrays that steps use to a call that works on them in place."""
HostLoader = Callable[[Sequence[Host]], HostFunction]
"""From steps of the host that follow each other to the function that runs them in order."""


@dataclass(frozen=True, kw_only=True)
class LayerStatistics:
    """What the device counted in the instructions of one layer; `counters` is empty if it cannot tell them apart."""

    name: str
    macs: int
    counters: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class RunStatistics:
    """One run of a program: totals of its launches, and the share of each layer, in program order.

    traces: one of each launch in the order of the steps, if the device gives traces.
    """

    counters: Mapping[str, int]
    layers: tuple[LayerStatistics, ...]
    traces: tuple[Trace, ...] = ()

    @staticmethod
    def total(runs: Sequence[RunStatistics]) -> RunStatistics:
        """Sum of one or more runs of the same program; the layers' MACs add up too, and traces follow each other."""
        layers = [
            LayerStatistics(
                name=parts[0].name,
                macs=sum(part.macs for part in parts),
                counters=added(part.counters for part in parts),
            )
            for parts in zip(*(run.layers for run in runs), strict=True)
        ]
        return RunStatistics(
            counters=added(run.counters for run in runs),
            layers=tuple(layers),
            traces=tuple(trace for run in runs for trace in run.traces),
        )


def added(counters: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Sum by name."""
    total: Counter[str] = Counter()
    for part in counters:
        total.update(part)
    return dict(total)


class Session:
    """A program placed in a device's memory, ready to run any number of times.

    The program is position independent: its buffers, instructions and micro-ops go to one arena that the session
    allocates, and the port bases are the arena's address. Constants are written once. The session gives the arena back
    in `close`, or at the end of a ``with`` block.

    device: idle, of the program's configuration. host: loader of host steps, called once for those that follow each
    other where they work on the device's memory itself, and else for each. timeout: seconds that one launch may take,
    None waits for ever.

    Raises SessionError if program and device do not fit together.
    """

    def __init__(self, device: Device, program: Program, host: HostLoader, *, timeout: float | None = None) -> None:
        if program.is_raw:
            raise SessionError("Program must be a compiled one: a raw program has no buffers, use runtime.replay")
        check_config(device, program)
        self._device = device
        self._program = program
        self.timeout = timeout
        self._buffers = {buffer.name: buffer for buffer in program.buffers}
        self._running = threading.Lock()  # all runs work in one arena
        self._inputs = {buffer.name: stored(buffer) for buffer in program.inputs}
        self._outputs = program.outputs
        self._statistics: RunStatistics | None = None
        self._without_launches = self._summary([])
        self._arena: int | None = device.allocate(program.arena_bytes)
        self._memory = device.view(self._arena, program.arena_bytes)
        self._apart = _apart(program) if self._memory is not None else frozenset()
        try:
            self._phases = [
                step if isinstance(step, Launch) else self._host_phase(step, host)
                for step in _grouped(program.steps, together=self._memory is not None)
            ]
        except BaseException:
            device.free(self._arena)
            raise
        for address, data in self._images():
            device.write(self._arena + address, np.frombuffer(data, np.uint8))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the arena; a closed session does not run."""
        if self._arena is not None:
            self._phases.clear()
            self._memory = None
            self._device.free(self._arena)
            self._arena = None

    @property
    def statistics(self) -> RunStatistics:
        """Of the last completed run. Raises SessionError before the first."""
        if self._statistics is None:
            raise SessionError("Statistics must be asked for after a run, not before the first")
        return self._statistics

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """Output buffers by name, in their stored shapes and types.

        inputs: exactly the program's input buffers, in their stored shapes and types. Raises SessionError otherwise,
        DeviceTimeout, or what the device raises. Calls from several threads wait for each other.
        """
        with self._running:
            return self._run(inputs)

    def _run(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        arena = self._open_arena()
        held = {b.name: shaped(aligned_empty(b.nbytes), b) for b in self._outputs if b.name in self._apart}
        for name, array in self._checked(inputs).items():
            if name in self._apart:
                held[name] = array.view()
                held[name].flags.writeable = False
            else:
                self._device.write(arena + self._buffers[name].address, array)
        reports = []
        for phase in self._phases:
            if isinstance(phase, Launch):
                reports.append((phase, self._launch(arena, phase)))
            elif self._memory is not None:
                self._call(phase, self._memory, held)
            else:
                self._call_on_copies(phase, arena)
        self._statistics = self._summary(reports) if reports else self._without_launches
        return {
            buffer.name: held[buffer.name] if buffer.name in held else self._read(arena, buffer)
            for buffer in self._outputs
        }

    def _images(self) -> list[tuple[int, bytes]]:
        """(arena-relative address, bytes) of everything that is written once."""
        program = self._program
        images = [(segment.address, segment.data) for segment in program.segments]
        images += [(program.insn_address, program.insns), (program.uop_address, program.uops)]
        return [(address, data) for address, data in images if data]

    def _open_arena(self) -> int:
        if self._arena is None:
            raise SessionError("Session must be open to run, not closed")
        return self._arena

    def _checked(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        if inputs.keys() != self._inputs.keys():
            raise SessionError(f"Inputs must be named {sorted(self._inputs)}, not {sorted(inputs)}")
        for name, (dtype, shape) in self._inputs.items():
            array = inputs[name]
            if array.shape != shape or array.dtype != dtype:
                raise SessionError(
                    f"Input {name!r} must be {dtype} {list(shape)}, not {array.dtype} {list(array.shape)}"
                )
        return {name: _in_order(array) for name, array in inputs.items()}

    def _launch(self, arena: int, step: Launch) -> LaunchReport:
        address = arena + self._program.insn_address + step.insn_begin * self._program.config.insn_bytes
        self._device.launch(address, step.insn_count, bases=Bases.at(arena))
        try:
            return self._device.wait(self.timeout)
        except Deadlock as deadlock:
            raise deadlock.in_layers(self._program.layers, step.insn_begin) from None

    def _host_phase(self, steps: tuple[Host, ...], host: HostLoader) -> _HostPhase:
        names = dict.fromkeys(name for step in steps for name in step.buffers)
        return _HostPhase(function=host(steps), buffers=tuple(self._buffers[name] for name in names))

    def _call(self, phase: _HostPhase, memory: NDArray[np.uint8], held: Arrays) -> None:
        moved = {b.name: held[b.name] for b in phase.buffers if b.name in held}
        if phase.call is None:
            fixed = {b.name: _within(memory, b) for b in phase.buffers if b.name not in held}
            phase.call = phase.function({**fixed, **moved})
        phase.call(moved)

    def _call_on_copies(self, phase: _HostPhase, arena: int) -> None:
        arrays = {buffer.name: self._read(arena, buffer) for buffer in phase.buffers}
        phase.function(arrays)({})
        for buffer in phase.buffers:
            if buffer.role in (Role.OUTPUT, Role.WORKSPACE):
                self._device.write(arena + buffer.address, arrays[buffer.name])

    def _read(self, arena: int, buffer: Buffer) -> NDArray[np.generic]:
        return shaped(self._device.read(arena + buffer.address, buffer.nbytes), buffer)

    def _summary(self, reports: list[tuple[Launch, LaunchReport]]) -> RunStatistics:
        return RunStatistics(
            counters=added(report.counters for _, report in reports),
            layers=tuple(layer_statistics(layer, reports) for layer in self._program.layers),
            traces=tuple(report.trace for _, report in reports if report.trace is not None),
        )


@dataclass
class _HostPhase:
    """Host steps that run by one call, the buffers that they use, and the call on those, once it has been made."""

    function: HostFunction
    buffers: tuple[Buffer, ...]
    call: HostCall | None = None


def _grouped(steps: Sequence[Step], *, together: bool) -> Iterator[Launch | tuple[Host, ...]]:
    """Launches, and host steps: all that follow each other `together`, or each alone."""
    waiting: list[Host] = []
    for step in steps:
        if waiting and (isinstance(step, Launch) or not together):
            yield tuple(waiting)
            waiting = []
        if isinstance(step, Launch):
            yield step
        else:
            waiting.append(step)
    if waiting:
        yield tuple(waiting)


def _in_order(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """The array, or a copy of it that is C-contiguous and aligned to its elements."""
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned else np.require(array, requirements=["C", "A"])


def _within(memory: NDArray[np.uint8], buffer: Buffer) -> NDArray[np.generic]:
    return shaped(memory[buffer.address : buffer.address + buffer.nbytes], buffer)


def _apart(program: Program) -> frozenset[str]:
    """Inputs and outputs that the host alone touches: they may lie anywhere, since no buffer lies over them."""
    if any(isinstance(step, Launch) for step in program.steps):
        return frozenset()
    used = {name for step in program.steps if isinstance(step, Host) for name in step.buffers}
    return frozenset(buffer.name for buffer in (*program.inputs, *program.outputs) if buffer.name in used)


def check_config(device: Device, program: Program) -> None:
    """Raises SessionError unless the device gives the program's instructions their meaning."""
    want, have = program.config, device.config
    if want.program_digest != have.program_digest:
        raise SessionError(
            f"Device must have the program's configuration {want.name} (digest {want.program_digest}), "
            f"not {have.name} (digest {have.program_digest})"
        )


def stored(buffer: Buffer) -> tuple[np.dtype[np.generic], tuple[int, ...]]:
    """dtype and shape of the array that holds a buffer: its bytes where numpy has no such type."""
    if DTYPE_BITS[buffer.dtype] < 8:
        return np.dtype(np.uint8), (buffer.nbytes,)
    return np.dtype(buffer.dtype), buffer.shape


def shaped(data: NDArray[np.uint8], buffer: Buffer) -> NDArray[np.generic]:
    """The bytes of a buffer as the array it stores; read-only where no step may write."""
    dtype, shape = stored(buffer)
    array = data.view(dtype).reshape(shape)
    array.flags.writeable = buffer.role in (Role.OUTPUT, Role.WORKSPACE)
    return array


def layer_statistics(layer: Layer, reports: list[tuple[Launch, LaunchReport]]) -> LayerStatistics:
    """Sum of what the launches counted in the instructions of `layer`, which may lie in several of them."""
    parts = []
    for launch, report in reports:
        begin = max(layer.insn_begin, launch.insn_begin) - launch.insn_begin
        end = min(layer.insn_end, launch.insn_begin + launch.insn_count) - launch.insn_begin
        if begin < end:
            parts.append(report.counters_of(begin, end))
    return LayerStatistics(name=layer.name, macs=layer.macs, counters=added(parts))
