"""Procedures as functions of numpy arrays, compiled for this machine."""

from __future__ import annotations

import ctypes
import hashlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import binding as llvm

from compiler.llvm.cache import ObjectCache
from compiler.llvm.codegen import ALIGNMENT, SYMBOL, Module, generate
from compiler.llvm.target import Target, emit_object
from compiler.tensor.arguments import ArgumentError, check_arguments, written
from compiler.tensor.ir import Proc
from compiler.tensor.verify import verify

Array = np.ndarray[Any, Any]


class CompiledProc:
    """A procedure in machine code. Calls may come from several threads at once; the interpreter lock is released."""

    def __init__(self, proc: Proc, module: Module, code: bytes) -> None:
        self.proc = proc
        self._scratch = module.scratch
        self._written = written(proc)
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), Target.host().machine())
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        pointers = [ctypes.c_void_p] * (len(proc.params) + len(module.scratch))
        self._function = ctypes.CFUNCTYPE(None, *pointers)(self._engine.get_function_address(SYMBOL))

    def __call__(self, *arrays: Array) -> None:
        """Run on `arrays`, one per parameter in order, in place.

        Raises ArgumentError if an array does not fit its parameter, or if a stored one shares memory with another.
        """
        check_arguments(self.proc, arrays)
        self._check_overlap(arrays)
        scratch = [np.empty(nbytes + ALIGNMENT, np.uint8) for nbytes in self._scratch]
        aligned = [-(-array.ctypes.data // ALIGNMENT) * ALIGNMENT for array in scratch]
        self._function(*(array.ctypes.data for array in arrays), *aligned)

    def _check_overlap(self, arrays: tuple[Array, ...]) -> None:
        spans = sorted(
            (array.ctypes.data, array.ctypes.data + array.nbytes, buffer.name)
            for array, buffer in zip(arrays, self.proc.params, strict=True)
            if array.nbytes
        )
        for (_, end, first), (start, _, second) in pairwise(spans):
            if start < end and (first in self._written or second in self._written):
                raise ArgumentError(f"Arguments {first} and {second} of {self.proc.name} must not share memory")


def compile_proc(proc: Proc, *, cache_dir: Path | None = None) -> CompiledProc:
    """Verify `proc` and compile it for this machine; object code is kept in `cache_dir`, if given.

    Raises VerifyError for a procedure that breaks a rule of the IR.
    """
    verify(proc)
    module, target = generate(proc), Target.host()
    if cache_dir is None:
        return CompiledProc(proc, module, emit_object(module.text, target))
    cache, key = ObjectCache(directory=cache_dir), object_key(module, target)
    code = cache.load(key)
    if code is None:
        code = emit_object(module.text, target)
        cache.store(key, code)
    return CompiledProc(proc, module, code)


def object_key(module: Module, target: Target) -> str:
    """Name of the object code in a cache: differs when the code might."""
    return hashlib.sha256(f"{target.digest_text}\n{module.text}".encode()).hexdigest()
