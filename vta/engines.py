"""What can run a program, and the session that does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from runtime.device import Device
from runtime.errors import SessionError
from runtime.session import HostFunction, Session
from vta.batching import Array
from vta.engine_names import ON_ACCELERATOR, TIMED, Engine
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.program import Launch, Program
from vta_sim.timing import MemoryTiming
from vta_sim.waves import Waves

if TYPE_CHECKING:
    from compiler.tensor.ir import Proc


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


def open_session(program: Program, engine: Engine, timeout: float | None = None) -> Session:
    """A session of `program` on a new device. `engine` suits the program and is not REFERENCE."""
    if engine in ON_ACCELERATOR:
        return Session(open_device(engine, program.config), program, host_loader(engine), timeout=timeout)
    from runtime.devices.host import HostDevice

    return Session(HostDevice(program.config), program, host_loader(engine), timeout=timeout)


def viewer(proc: Proc) -> Callable[[Sequence[Array]], list[Array]]:
    """A function of a step's buffers: each in the shape of its parameter, and bytes, of 4-bit scalars, in its type.

    It raises SessionError where they do not fit, because the program may be a stranger's.
    """
    parameters = [(buffer.name, buffer.type.numpy, buffer.static_shape) for buffer in proc.params]
    sizes = [math.prod(shape) for *_, shape in parameters]

    def viewed(arrays: Sequence[Array]) -> list[Array]:
        if len(arrays) != len(parameters):
            raise SessionError(f"Host step {proc.name!r} must have {len(parameters)} buffers, not {len(arrays)}")
        for array, size, (name, _, shape) in zip(arrays, sizes, parameters, strict=True):
            if array.size != size:
                raise SessionError(
                    f"Parameter {name!r} of host step {proc.name!r} must have the shape of its buffer, "
                    f"{list(array.shape)}, not {list(shape)}"
                )
        return [
            array.view(dtype if array.dtype == np.uint8 else array.dtype).reshape(shape)
            for array, (_, dtype, shape) in zip(arrays, parameters, strict=True)
        ]

    return viewed


def host_loader(engine: Engine) -> Callable[[Mapping[str, Any]], HostFunction]:
    """The loader of serialised host steps that an engine uses: interpreter or machine code.

    The arrays of a call are the program's buffers; each parameter of the step views one in a shape of its own.
    """
    from compiler.tensor import serial

    if engine is Engine.INTERP:
        from compiler.tensor import interp

        def interpret(source: Mapping[str, Any]) -> HostFunction:
            proc = serial.from_json(dict(source))
            viewed = viewer(proc)
            return lambda *arrays: partial(interp.run, proc, viewed(arrays))

        return interpret

    from compiler.llvm import jit
    from compiler.llvm.registers import Registers
    from compiler.llvm.schedule import schedule
    from compiler.llvm.target import Target

    registers = Registers.of(Target.host())

    def compiled(source: Mapping[str, Any]) -> HostFunction:
        function = jit.compile_proc(schedule(serial.from_json(dict(source)), registers).proc)
        viewed = viewer(function.proc)
        return lambda *arrays: function.bound(*viewed(arrays))

    return compiled
