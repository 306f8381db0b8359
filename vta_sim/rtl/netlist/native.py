"""LLVM IR as machine code of this processor, kept on disk."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Final

import llvmlite
import llvmlite.binding as llvm

_RUN: Final = ctypes.CFUNCTYPE(
    ctypes.c_int64,
    *(ctypes.c_void_p,) * 4,
    ctypes.c_int64,
    ctypes.c_int64,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_int64,
    ctypes.c_int64,
)
_SETTLE: Final = ctypes.CFUNCTYPE(None, *(ctypes.c_void_p,) * 4)


class Native:
    """The functions `run` and `settle` of a design as machine code."""

    def __init__(self, code: bytes) -> None:
        _initialize()
        module = llvm.parse_assembly("")
        self._engine = llvm.create_mcjit_compiler(module, _machine())
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        self.run: Callable[..., int] = _RUN(self._engine.get_function_address("run"))
        self.settle: Callable[..., None] = _SETTLE(self._engine.get_function_address("settle"))


def compile_ir(text: str, *, level: int = 2) -> bytes:
    """An object file for this processor, of LLVM IR."""
    _initialize()
    machine = _machine(level)
    module = llvm.parse_assembly(text)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=level)
    options.loop_vectorization = True
    options.slp_vectorization = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return bytes(machine.emit_object(module))


def processor() -> str:
    """What machine code depends on besides the IR."""
    _initialize()
    features = llvm.get_host_cpu_features().flatten()
    return f"{llvm.get_default_triple()} {llvm.get_host_cpu_name()} {features} {llvmlite.__version__}"


def _initialize() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


def _machine(level: int = 2) -> Any:
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=level, jit=True
    )
