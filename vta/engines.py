"""What can run a program, and the session that does."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from runtime.errors import SessionError
from runtime.session import HostFunction, Session
from vta.batching import Array
from vta.errors import ApiError
from vta_hw.spec.program import Launch, Program

if TYPE_CHECKING:
    from compiler.tensor.ir import Proc


class Engine(enum.Enum):
    """FUNCTIONAL: the VTA program, on the functional simulator, with its host steps on the CPU. AMARANTH: the same on
    the simulated RTL, which takes about a second for some hundred cycles. LLVM: the CPU program, as machine code.
    INTERP: the CPU program, by the tensor IR's interpreter, which is slow and obvious. REFERENCE: the quantised graph,
    op by op in numpy; needs the graph, so a program that was compiled here and not loaded from a file.
    """

    FUNCTIONAL = "functional"
    AMARANTH = "amaranth"
    LLVM = "llvm"
    INTERP = "interp"
    REFERENCE = "reference"

    @staticmethod
    def of(name: Engine | str) -> Engine:
        """Raises ApiError for a name that is none."""
        try:
            return Engine(name)
        except ValueError:
            known = ", ".join(repr(engine.value) for engine in Engine)
            raise ApiError(f"Engine must be one of {known}, not {name!r}") from None


ON_ACCELERATOR: Final = (Engine.FUNCTIONAL, Engine.AMARANTH)
"""The engines that execute instructions of the accelerator."""


def is_accelerated(program: Program) -> bool:
    """Whether any step runs on the accelerator."""
    return any(isinstance(step, Launch) for step in program.steps)


def open_session(program: Program, engine: Engine, timeout: float | None = None) -> Session:
    """A session of `program` on a new device. `engine` suits the program and is not REFERENCE."""
    if engine is Engine.FUNCTIONAL:
        from runtime.devices.functional import FunctionalDevice

        return Session(FunctionalDevice(program.config), program, host_loader(engine), timeout=timeout)
    if engine is Engine.AMARANTH:
        from runtime.devices.amaranth import AmaranthDevice

        return Session(AmaranthDevice(program.config), program, host_loader(engine), timeout=timeout)
    from runtime.devices.host import HostDevice

    return Session(HostDevice(program.config), program, host_loader(engine), timeout=timeout)


def viewed(proc: Proc, arrays: Sequence[Array]) -> list[Array]:
    """Each array in the shape of its parameter, and bytes (a buffer of 4-bit scalars) in its type.

    Raises SessionError where they do not fit, because the program may be a stranger's.
    """
    if len(arrays) != len(proc.params):
        raise SessionError(f"Host step {proc.name!r} must have {len(proc.params)} buffers, not {len(arrays)}")
    for array, parameter in zip(arrays, proc.params, strict=True):
        if array.size != math.prod(parameter.static_shape):
            raise SessionError(
                f"Parameter {parameter.name!r} of host step {proc.name!r} must have the shape of its buffer, "
                f"{list(array.shape)}, not {list(parameter.static_shape)}"
            )
    return [
        array.view(parameter.type.numpy if array.dtype == np.uint8 else array.dtype).reshape(parameter.static_shape)
        for array, parameter in zip(arrays, proc.params, strict=True)
    ]


def host_loader(engine: Engine) -> Callable[[Mapping[str, Any]], HostFunction]:
    """The loader of serialised host steps that an engine uses: interpreter or machine code.

    The arrays of a call are the program's buffers; each parameter of the step views one in a shape of its own.
    """
    from compiler.tensor import serial

    if engine is Engine.INTERP:
        from compiler.tensor import interp

        def interpret(source: Mapping[str, Any]) -> HostFunction:
            proc = serial.from_json(dict(source))
            return lambda *arrays: interp.run(proc, viewed(proc, arrays))

        return interpret

    from compiler.llvm import jit

    def compiled(source: Mapping[str, Any]) -> HostFunction:
        function = jit.compile_proc(serial.from_json(dict(source)))
        return lambda *arrays: function(*viewed(function.proc, arrays))

    return compiled
