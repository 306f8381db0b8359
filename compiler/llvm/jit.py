"""Procedures as functions of numpy arrays, compiled for this machine."""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import binding as llvm

from compiler.llvm.cache import ObjectCache
from compiler.llvm.codegen import ALIGNMENT, SYMBOL, Module, generate
from compiler.llvm.target import Target, emit_object
from compiler.tensor.arguments import Signature, Span, check_overlap
from compiler.tensor.ir import Proc
from compiler.tensor.verify import verify

Array = np.ndarray[Any, Any]


class _Scratch(threading.local):
    """Memory that every call of a thread may use: new pages for each would take longer than most calls."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def addresses(self, sizes: Sequence[int]) -> list[int]:
        """Where buffers of these sizes, in bytes, are until the next call."""
        padded = [-(-nbytes // ALIGNMENT) * ALIGNMENT for nbytes in sizes]
        if sum(padded) + ALIGNMENT > self._memory.size:
            self._memory = np.empty(sum(padded) + ALIGNMENT, np.uint8)
        at = -(-int(self._memory.ctypes.data) // ALIGNMENT) * ALIGNMENT
        return list(itertools.accumulate(padded[:-1], initial=at)) if padded else []


_scratch = _Scratch()


class CompiledProc:
    """A procedure in machine code. Calls may come from several threads at once; the interpreter lock is released."""

    def __init__(self, proc: Proc, module: Module, code: bytes) -> None:
        self.proc = proc
        self._scratch = module.scratch
        self._signature = Signature.of(proc)
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), Target.host().machine())
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        pointers = [ctypes.c_void_p] * (len(proc.params) + len(module.scratch))
        self._function = ctypes.CFUNCTYPE(None, *pointers)(self._engine.get_function_address(SYMBOL))

    def __call__(self, *arrays: Array) -> None:
        """Run on `arrays`, one per parameter in order, in place.

        Raises ArgumentError if an array does not fit its parameter, or if a stored one shares memory with another.
        """
        self.bound(*arrays)()

    def bound(self, *arrays: Array) -> Callable[[], None]:
        """The same as a call without arguments, to be made any number of times; what can be wrong is found here."""
        self._signature.check(arrays)
        addresses = [int(array.__array_interface__["data"][0]) for array in arrays]  # a third of the time of `ctypes`
        self._check_overlap(addresses, arrays)

        def call() -> None:
            _ = arrays  # which must live as long as this
            self._function(*addresses, *_scratch.addresses(self._scratch))

        return call

    def _check_overlap(self, addresses: list[int], arrays: tuple[Array, ...]) -> None:
        check_overlap(
            self.proc.name,
            (
                Span(start=start, end=start + array.nbytes, name=parameter.name, is_written=parameter.is_written)
                for start, array, parameter in zip(addresses, arrays, self._signature.parameters, strict=True)
            ),
        )


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
