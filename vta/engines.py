"""What can run a program, and the session that does."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from runtime.device import Device
from runtime.errors import SessionError
from runtime.session import Arrays, HostCall, HostFunction, HostLoader, Session
from vta.batching import Array
from vta.engine_names import ON_ACCELERATOR, TIMED, Engine
from vta.errors import ApiError
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.program import Host, Launch, Program
from vta_sim.timing import MemoryTiming
from vta_sim.waves import Waves

if TYPE_CHECKING:
    from compiler.tensor.arguments import Signature

__all__ = ["ON_ACCELERATOR", "TIMED", "Engine", "host_loader", "is_accelerated", "open_device", "open_session"]

_STEPS: Final = {Engine.CYCLE: 1_000_000, Engine.RTL: 100_000, Engine.AMARANTH: 100}
"""Cycles that take a fraction of a second."""


def is_accelerated(program: Program) -> bool:
    """Whether any step runs on the accelerator."""
    return any(isinstance(step, Launch) for step in program.steps)


def open_device(
    engine: Engine,
    config: VTAConfig,
    *,
    timing: MemoryTiming | None = None,
    waves: Waves | None = None,
    trace: bool = False,
    progress: Callable[[int], None] = lambda cycles: None,
) -> Device:
    """A new device for one of `ON_ACCELERATOR`, to be closed.

    The other arguments are for those of `TIMED`: timing of the memory, whether launches are traced, and what is called
    now and then with the cycles of a launch so far. waves: the waveform to write, by AMARANTH, which
    writes all of it, and by RTL.
    """
    if engine is Engine.FUNCTIONAL:
        from runtime.devices.functional import FunctionalDevice

        return FunctionalDevice(config)
    from runtime.devices.timed import TimedDevice, TimedSimulator

    memory = timing or MemoryTiming()
    simulator: TimedSimulator
    match engine:
        case Engine.CYCLE:
            from vta_sim.cycle.engine import CycleSimulator

            simulator = CycleSimulator(config, timing=memory, trace=trace)
        case Engine.RTL:
            from vta_sim.rtl.compiled import CompiledSimulator

            simulator = CompiledSimulator(config, timing=memory, trace=trace, cache=_code_cache(), waves=waves)
        case Engine.AMARANTH:
            from vta_sim.rtl.engine import AmaranthSimulator

            file = None if waves is None else waves.path
            simulator = AmaranthSimulator(config, timing=memory, vcd=file, trace=trace)
        case _:
            raise ValueError(f"Engine must be one of {', '.join(e.name for e in ON_ACCELERATOR)}, not {engine.name}")
    return TimedDevice(simulator, step=_STEPS[engine], progress=progress)


def _code_cache() -> Path | None:
    """Where machine code of the RTL is kept between runs, which takes seconds to make; None without a home."""
    try:
        return Path.home() / ".cache" / "vta-toolkit"
    except RuntimeError:
        return None


def open_session(program: Program, engine: Engine, timeout: float | None = None, *, threads: int = 1) -> Session:
    """A session of `program` on a new device. `engine` suits the program and is not REFERENCE.

    threads: that run the steps of the host, as `host_loader` says.
    """
    host = host_loader(engine, threads=threads, cache=_code_cache())
    if engine in ON_ACCELERATOR:
        return Session(open_device(engine, program.config), program, host, timeout=timeout)
    from runtime.devices.host import HostDevice

    return Session(HostDevice(program.config), program, host, timeout=timeout)


def _viewer(signature: Signature) -> Callable[[Sequence[Array]], list[Array]]:
    """A function of a step's buffers: each in the shape of its parameter, and bytes, of 4-bit scalars, in its type.

    It raises SessionError where they do not fit, because the program may be a stranger's.
    """
    sizes = [math.prod(parameter.shape) for parameter in signature.parameters]

    def viewed(arrays: Sequence[Array]) -> list[Array]:
        for array, size, parameter in zip(arrays, sizes, signature.parameters, strict=True):
            if array.size != size:
                raise SessionError(
                    f"Parameter {parameter.name!r} of host step {signature.name!r} must have the shape of its buffer, "
                    f"{list(array.shape)}, not {list(parameter.shape)}"
                )
        return [
            array.view(parameter.dtype if array.dtype == np.uint8 else array.dtype).reshape(parameter.shape)
            for array, parameter in zip(arrays, signature.parameters, strict=True)
        ]

    return viewed


def host_loader(engine: Engine, *, threads: int = 1, cache: Path | None = None) -> HostLoader:
    """The loader of serialised host steps that an engine uses: interpreter or machine code.

    The arrays of a call are the program's buffers; each parameter of a step views one in a shape of its own. threads:
    that run the steps together. cache: directory for machine code, which must be writable by its owner alone.

    Raises CompileError unless there is a processor for each thread, ApiError unless the interpreter has one alone.
    """
    if engine is not Engine.INTERP:
        return _compiled(threads, cache)
    check_one_thread(engine, threads)
    return _interpreted


def check_one_thread(engine: Engine, threads: int) -> None:
    """Raises ApiError for several threads."""
    if threads != 1:
        raise ApiError(f"Threads must be 1 on engine {engine.value!r}, not {threads!r}")


def _interpreted(steps: Sequence[Host]) -> HostFunction:
    from compiler.tensor import interp, serial
    from compiler.tensor.arguments import Signature

    procs = [serial.from_json(dict(step.proc)) for step in steps]
    signatures = [Signature.of(proc) for proc in procs]
    for signature, step in zip(signatures, steps, strict=True):
        signature.check_count(len(step.buffers))
    viewers = [_viewer(signature) for signature in signatures]

    def bind(arrays: Arrays) -> HostCall:
        def call(moved: Arrays) -> None:
            now = {**arrays, **moved}
            for proc, step, viewed in zip(procs, steps, viewers, strict=True):
                interp.run(proc, viewed([now[name] for name in step.buffers]))

        return call

    return bind


def _compiled(threads: int, cache: Path | None) -> HostLoader:
    from compiler.llvm.cache import ObjectCache
    from compiler.llvm.jit import NativeRun
    from compiler.llvm.steps import SerialStep, native_steps
    from compiler.llvm.target import Target
    from compiler.llvm.team import Team

    team, kept = Team(threads), None if cache is None else ObjectCache(directory=cache)

    def load(steps: Sequence[Host]) -> HostFunction:
        names = dict.fromkeys(name for step in steps for name in step.buffers)
        number = {name: n for n, name in enumerate(names)}
        serial_steps = [
            SerialStep(name=step.name, proc=step.proc, buffers=tuple(number[name] for name in step.buffers))
            for step in steps
        ]
        description, code = native_steps(serial_steps, Target.host(), cache=kept)
        run = NativeRun(description, code, team)
        viewers = [_viewer(signature) for signature, _ in description.calls]

        def bind(arrays: Arrays) -> HostCall:
            given = zip(viewers, steps, strict=True)
            call = run.bound([viewed([arrays[name] for name in step.buffers]) for viewed, step in given])
            return lambda moved: call({number[name]: array for name, array in moved.items()})

        return bind

    return load
