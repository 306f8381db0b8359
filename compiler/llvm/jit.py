"""Procedures as functions of numpy arrays, in machine code in this process."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import binding as llvm

from compiler.llvm.module import ENTRY, Call, generate_run
from compiler.llvm.target import Target, emit_object
from compiler.llvm.team import Team, Work
from compiler.tensor.arguments import Signature, Span, check_overlap
from compiler.tensor.ir import Proc
from compiler.tensor.verify import verify

Array = np.ndarray[Any, Any]
NativeCall = Callable[[Mapping[int, Array]], None]
"""A call that may be made any number of times; the arrays, by number, take the places of those it was made with."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """What callers of a run have to know of its code.

    calls: what is called, in order, and the numbers of its buffers. shared, private: bytes of scratch memory, of all
    threads together and of each.
    """

    calls: tuple[tuple[Signature, tuple[int, ...]], ...]
    shared: int
    private: int


class NativeRun:
    """Procedures called one after the other, in machine code, by one call that releases the interpreter lock.

    Calls may come from several threads at once.
    """

    def __init__(self, description: Description, code: bytes, team: Team) -> None:
        self.description = description
        self._team = team
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), Target.host().machine())
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        arguments = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
        self._entry = ctypes.CFUNCTYPE(None, *arguments)(self._engine.get_function_address(ENTRY))

    def bound(self, arrays: Sequence[Sequence[Array]]) -> NativeCall:
        """The call that works on `arrays`, in place: for each procedure, one array for each parameter.

        Arrays of the same number begin at the same address. Raises ArgumentError if an array does not fit its
        parameter, or if one that a procedure stores to shares memory with another of its arrays.
        """
        table = np.zeros(1 + max((n for _, numbers in self.description.calls for n in numbers), default=0), np.uint64)
        for (signature, numbers), given in zip(self.description.calls, arrays, strict=True):
            signature.check(given)
            addresses = [_address(array) for array in given]
            check_overlap(signature.name, _spans(signature, addresses, given))
            for number, address in zip(numbers, addresses, strict=True):
                table[number] = address

        def call(moved: Mapping[int, Array]) -> None:
            here = table
            if moved:
                here = table.copy()
                for number, array in moved.items():
                    here[number] = _address(array)
            description = self.description
            self._team.run(
                Work(
                    entry=self._entry,
                    table=_address(here),
                    shared=description.shared,
                    private=description.private,
                    kept=(self, arrays, here, moved),
                )
            )

        return call


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])  # a third of the time of `ctypes`


def _spans(signature: Signature, addresses: Sequence[int], arrays: Sequence[Array]) -> Iterator[Span]:
    for start, array, parameter in zip(addresses, arrays, signature.parameters, strict=True):
        yield Span(start=start, end=start + array.nbytes, name=parameter.name, is_written=parameter.is_written)


class CompiledProc:
    """A procedure in machine code. Calls may come from several threads at once; the interpreter lock is released."""

    def __init__(self, run: NativeRun) -> None:
        self._run = run

    def __call__(self, *arrays: Array) -> None:
        """Run on `arrays`, one per parameter in order, in place. Raises ArgumentError as `NativeRun.bound`."""
        self._run.bound([arrays])({})


def compile_proc(proc: Proc, *, threads: int = 1, target: Target | None = None) -> CompiledProc:
    """Verify `proc` and compile it for this machine, to be run by so many threads.

    target: another machine, whose code this one can run as well.

    Raises VerifyError for a procedure that breaks a rule of the IR, CompileError for more threads than processors.
    """
    team = Team(threads)
    verify(proc)
    machine, numbers = target or Target.host(), tuple(range(len(proc.params)))
    module = generate_run([proc], [Call(proc=0, buffers=numbers)], machine)
    description = Description(calls=((Signature.of(proc), numbers),), shared=module.shared, private=module.private)
    return CompiledProc(NativeRun(description, emit_object(module.text, machine), team))
