"""Loops that threads share, and the sections of a procedure between which they wait."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.llvm.codegen import STACK_BUFFER_BYTES
from compiler.llvm.module import Call, generate_run
from compiler.llvm.parallel import ENOUGH, share_loops
from compiler.llvm.schedule import schedule
from compiler.llvm.sections import sections
from compiler.llvm.target import TARGETS, Target
from compiler.tensor.interp import run
from compiler.tensor.ir import Alloc, Buffer, Const, DType, For, LoopKind, Proc, Scope, Store, Var, nest
from compiler.tensor.printer import format_proc
from compiler.tensor.schedule import Schedule
from tests.compiler.llvm.test_blocked import SMALL, random_arrays, random_proc
from tests.compiler.tensor.random_procs import random_array
from tests.compiler.tensor.random_procs import random_proc as any_proc

I32 = DType.INT32
A, J, K = Var("i"), Var("j"), Var("k")


def shared(proc: Proc) -> Proc:
    s = Schedule(proc)
    share_loops(s)
    return s.proc


def parallel(proc: Proc) -> list[tuple[str, int]]:
    """Name and extent of what is shared, section by section; of what is not, nothing."""
    found = []
    for section in sections(proc).parts:
        stmt = section.proc.body[0]
        if section.is_parallel:
            assert isinstance(stmt, For)
            assert isinstance(stmt.extent, Const)
            found.append((stmt.var.name, int(stmt.extent.value)))
        else:
            found.append(("", 0))
    return found


def copy(*extents: int) -> Proc:
    x, y = Buffer.of("x", I32, extents), Buffer.of("y", I32, extents)
    names = [f"i{n}" for n in range(len(extents))]
    index = tuple(Var(name) for name in names)
    return Proc("copy", (x, y), (nest(list(zip(names, extents, strict=True)), Store(y, index, x[index])),))


@pytest.mark.parametrize(
    ("extents", "expected"),
    [
        ((ENOUGH, 4, 8), [("i0", ENOUGH)]),
        ((2, ENOUGH, 8), [("i0+i1", 2 * ENOUGH)]),
        ((1, 4, 8, 8), [("i0+i1+i2", 32)]),  # the innermost stays a vector
        ((5, 7, ENOUGH), [("i0+i1", 35)]),
        ((50,), [("i0", 50)]),
        ((0, 3, 4), [("", 0)]),
    ],
)
def test_outer_loops_are_shared_until_there_are_enough_iterations(
    extents: tuple[int, ...], expected: list[tuple[str, int]]
) -> None:
    assert parallel(shared(copy(*extents))) == expected


def test_a_sum_is_not_shared() -> None:
    x, y = Buffer.of("x", I32, (9, 80)), Buffer.of("y", I32, (80,))
    add = Store(y, (J,), y[J,] + x[A, J])
    assert parallel(shared(Proc("rows", (x, y), (nest([("i", 9), ("j", 80)], add),)))) == [("", 0)]
    columns = shared(Proc("columns", (x, y), (nest([("j", 80), ("i", 9)], add),)))
    assert parallel(columns) == [("j", 80)]


def test_sections_and_the_buffers_between_them() -> None:
    x, y = Buffer.of("x", I32, (8,)), Buffer.of("y", I32, (8,))
    between = Buffer.of("between", I32, (8,), Scope.LOCAL)
    first = nest([("i", 8)], Store(between, (A,), x[A,] + 1))
    alone = Store(between, (Const(0),), Const(7, I32))
    last = nest([("j", 8)], Store(y, (J,), between[J,] * 2))
    whole = sections(shared(Proc("p", (x, y), (Alloc(between, (first, alone, alone, last)),))))
    assert whole.shared == (between,)
    assert [(part.is_parallel, [b.name for b in part.proc.params]) for part in whole.parts] == [
        (True, ["x", "between"]),
        (False, ["between"]),
        (True, ["y", "between"]),
    ]
    assert whole.parts[1].proc.body == (alone, alone)


def test_what_nothing_is_shared_of_is_one_section() -> None:
    x = Buffer.of("x", I32, (8,))
    local = Buffer.of("local", I32, (1,), Scope.LOCAL)
    proc = Proc("p", (x,), (Alloc(local, (Store(local, (Const(0),), x[0,]), Store(x, (Const(1),), local[0,]))),))
    assert sections(proc).shared == ()
    assert [part.proc for part in sections(proc).parts] == [proc]


@pytest.mark.parametrize("seed", range(40))
def test_sharing_changes_no_answer(seed: int) -> None:
    proc = random_proc(seed)
    s = schedule(proc, SMALL)
    share_loops(s)
    arrays = random_arrays(proc, seed)
    expected = [array.copy() for array in arrays]
    run(proc, expected)
    run(s.proc, arrays)
    assert arrays[-1].tobytes() == expected[-1].tobytes()
    assert Schedule.replay(proc, s.trace).proc == s.proc


@pytest.mark.parametrize("seed", range(30))
def test_sections_one_after_the_other_are_the_procedure(seed: int) -> None:
    rng = np.random.default_rng(seed)
    proc = any_proc(rng)
    made = shared(proc)
    arrays = {buffer.name: random_array(rng, buffer) for buffer in proc.params}
    expected = [array.copy() for array in arrays.values()]
    run(proc, expected)
    whole = sections(made)
    arrays |= {b.name: np.zeros(b.static_shape, b.type.numpy) for b in whole.shared}
    for part in whole.parts:
        run(part.proc, [arrays[buffer.name] for buffer in part.proc.params])
    for buffer, right in zip(proc.params, expected, strict=True):
        same = np.array_equal(arrays[buffer.name], right, equal_nan=right.dtype == np.float32)
        assert same, f"{buffer.name} in\n{format_proc(made)}"


def scratch_user(name: str, elements: int, *, kind: LoopKind = LoopKind.SERIAL) -> Proc:
    """x to y by way of a buffer in each of two iterations, or around them."""
    x, y = Buffer.of("x", I32, (2, elements)), Buffer.of("y", I32, (2, elements))
    local = Buffer.of("local", I32, (elements,), Scope.LOCAL)
    there = nest([("j", elements)], Store(local, (J,), x[A, J]))
    back = nest([("k", elements)], Store(y, (A, K), local[K,]))
    return Proc(name, (x, y), (For(A, Const(2), (Alloc(local, (there, back)),), kind),))


def test_scratch_memory_is_that_of_the_largest_procedure() -> None:
    large, larger = STACK_BUFFER_BYTES // 4 + 1, STACK_BUFFER_BYTES
    rounded = -(-large * 4 // 64) * 64

    def made(*procs: Proc) -> tuple[int, int]:
        calls = [Call(proc=n, buffers=(0, 1)) for n in range(len(procs))] * 2
        module = generate_run(procs, calls, Target.host())
        return module.shared, module.private

    assert made(scratch_user("a", large)) == (rounded, 0)
    assert made(scratch_user("a", large), scratch_user("b", larger)) == (larger * 4, 0)
    together = made(scratch_user("a", larger), scratch_user("b", large, kind=LoopKind.PARALLEL))
    assert together == (larger * 4, rounded)


def test_a_buffer_between_sections_is_shared_however_small() -> None:
    x, y = Buffer.of("x", I32, (8,)), Buffer.of("y", I32, (8,))
    between = Buffer.of("between", I32, (8,), Scope.LOCAL)
    body = nest([("i", 8)], Store(between, (A,), x[A,])), nest([("j", 8)], Store(y, (J,), between[J,]))
    module = generate_run(
        [shared(Proc("p", (x, y), (Alloc(between, body),)))], [Call(proc=0, buffers=(0, 1))], Target.host()
    )
    assert (module.shared, module.private) == (64, 0)
    assert "alloca" not in module.text


@pytest.mark.parametrize(
    ("target", "wait"), [("x86-64-v3", "llvm.x86.sse2.pause"), ("aarch64", "llvm.aarch64.hint"), ("armv7", "usleep")]
)
def test_waiting_is_said_in_the_words_of_the_target(target: str, wait: str) -> None:
    text = generate_run([copy(64)], [Call(proc=0, buffers=(0, 1))], TARGETS[target]).text
    assert wait in text
    assert ("sse2.pause" in text) == (target == "x86-64-v3")
