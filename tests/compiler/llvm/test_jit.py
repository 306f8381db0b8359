"""Compiled procedures as functions: arguments, threads, and the cache of object code."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler.errors import LoweringError
from compiler.llvm.cache import ObjectCache
from compiler.llvm.jit import compile_proc
from compiler.llvm.target import Target, emit_assembly
from compiler.tensor.arguments import ArgumentError
from compiler.tensor.ir import Buffer, Const, DType, Expr, For, LoopKind, Proc, Stmt, Store, Var, nest
from compiler.tensor.verify import VerifyError
from tests.compiler.llvm.one import generate

X, Y = Buffer.of("x", DType.INT32, (40,)), Buffer.of("y", DType.INT32, (40,))
N = Var("i")


def add(amount: int) -> Proc:
    body = For(N, Const(40), (Store(Y, (N,), X[N,] + amount),), LoopKind.VECTORIZED)
    return Proc("add", (X, Y), (body,))


def zeros() -> np.ndarray[Any, Any]:
    return np.zeros(40, np.int32)


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ([zeros()], "Arguments of add must be 2 arrays, not 1"),
        (
            [zeros(), np.zeros(40, np.int64)],
            "Argument y of add must be int32 of shape (40,), not int64 of shape (40,)",
        ),
        (
            [np.zeros(80, np.int32)[::2], zeros()],
            "Argument x of add must be C-contiguous and aligned, not of strides (8,)",
        ),
        (
            [zeros(), np.zeros(161, np.int8)[1:].view(np.int32)],
            "Argument y of add must be C-contiguous and aligned, not of strides (4,)",
        ),
    ],
)
def test_arguments_are_checked(arrays: list[np.ndarray[Any, Any]], sentence: str) -> None:
    with pytest.raises(ArgumentError) as error:
        compile_proc(add(1))(*arrays)
    assert str(error.value) == sentence


def test_stored_arguments_must_not_share_memory() -> None:
    function, memory = compile_proc(add(1)), np.zeros(60, np.int32)
    with pytest.raises(ArgumentError) as error:
        function(memory[:40], memory[20:])
    assert str(error.value) == "Arguments x and y of add must not share memory"
    with pytest.raises(ArgumentError, match="must not share memory"):
        function(memory[20:], memory[:40])


def test_memory_shared_beyond_a_neighbour_is_noticed() -> None:
    """The long argument reaches over the short one into the stored one."""
    long, short = Buffer.of("long", DType.INT8, (100,)), Buffer.of("short", DType.INT8, (4,))
    out = Buffer.of("out", DType.INT8, (10,))
    function = compile_proc(Proc("p", (long, short, out), (Store(out, (Const(0),), long[0,] + short[0,]),)))
    memory = np.zeros(110, np.int8)
    function(memory[:100], memory[10:14], memory[100:])
    with pytest.raises(ArgumentError) as error:
        function(memory[:100], memory[10:14], memory[99:109])
    assert str(error.value) == "Arguments long and out of p must not share memory"


def test_arguments_that_are_only_read_may_share_memory() -> None:
    z = Buffer.of("z", DType.INT32, (40,))
    proc = Proc("sum", (X, Y, z), (nest([("i", 40)], Store(z, (N,), X[N,] + Y[N,])),))
    data, result = np.arange(40, dtype=np.int32), zeros()
    compile_proc(proc)(data, data, result)
    assert np.array_equal(result, data * 2)


def test_a_procedure_that_breaks_a_rule_is_not_compiled() -> None:
    with pytest.raises(VerifyError, match="Index 0 of y must be proven to lie in 0 <= i < 40, not i \\+ 1"):
        compile_proc(Proc("p", (Y,), (nest([("i", 40)], Store(Y, (N + 1,), Const(0, DType.INT32))),)))


class Strange(Stmt, Expr):
    """Neither a statement nor an expression of the IR."""

    @property
    def dtype(self) -> DType:
        return DType.INT32


def test_what_is_not_of_the_ir_is_refused() -> None:
    with pytest.raises(LoweringError, match="Statement must be one of the IR's, not"):
        generate(Proc("p", (), (Strange(),)))
    with pytest.raises(LoweringError, match="Expression must be one of the IR's, not"):
        generate(Proc("p", (Y,), (Store(Y, (Const(0),), Strange()),)))


def test_calls_from_threads() -> None:
    functions = [compile_proc(add(n)) for n in range(3)]

    def work(n: int) -> bool:
        data, result = np.full(40, n, np.int32), zeros()
        functions[n % 3](data, result)
        return bool((result == n + n % 3).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(300)))


def test_compilation_from_threads() -> None:
    with ThreadPoolExecutor(4) as pool:
        for n, function in enumerate(pool.map(compile_proc, map(add, range(8)))):
            result = zeros()
            function(zeros(), result)
            assert (result == n).all()


def test_the_interpreter_lock_is_released() -> None:
    """Another thread runs Python while a call lasts: the call ends when that thread says so."""
    flag = Buffer.of("flag", DType.INT32, (1,))
    rounds = Buffer.of("rounds", DType.INT32, (1,))
    # Reads a flag outside the loop's knowledge often enough to last, whatever the machine.
    spin = nest([("i", 1 << 12), ("j", 1 << 12)], Store(rounds, (Const(0),), rounds[0,] * 3 + flag[0,]))
    function = compile_proc(Proc("spin", (flag, rounds), (spin,)))
    ticks: list[bool] = []
    done, started = threading.Event(), threading.Event()

    def tick() -> None:
        started.set()
        while not done.is_set():
            ticks.append(True)

    thread = threading.Thread(target=tick)
    thread.start()
    started.wait()
    before = len(ticks)
    function(np.ones(1, np.int32), np.ones(1, np.int32))
    after = len(ticks)
    done.set()
    thread.join()
    assert after > before


def test_a_cache_that_cannot_be_written_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    ObjectCache(directory=tmp_path / "file" / "cache").store("key", b"code")
    cache = ObjectCache(directory=tmp_path)
    (tmp_path / "key.o").mkdir()
    cache.store("key", b"code")
    assert cache.load("key") is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "key.o"]


def test_a_cache_is_no_larger_than_its_limit(tmp_path: Path) -> None:
    cache = ObjectCache(directory=tmp_path, limit=1100)
    for n in range(5):
        cache.store(f"{n}", bytes(300))
        os.utime(tmp_path / f"{n}.o", (n, n))
    assert [cache.load(f"{n}") is not None for n in range(5)] == [False, False, True, True, True]
    cache.store("huge", bytes(5000))
    assert [path.name for path in tmp_path.iterdir()] == ["huge.o"]


def test_assembly_can_be_looked_at() -> None:
    assert "tensor_procedure:" in emit_assembly(generate(add(1)).text, Target.host())
