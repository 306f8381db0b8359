"""Serialised steps as native code: shared procedures, and what is kept on disk."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler.llvm import steps as steps_module
from compiler.llvm.cache import ObjectCache
from compiler.llvm.jit import Description, NativeRun
from compiler.llvm.registers import Registers
from compiler.llvm.schedule import schedule_of_any
from compiler.llvm.steps import SerialStep, native_steps, scheduled
from compiler.llvm.target import TARGETS, Target
from compiler.llvm.team import Team
from compiler.tensor import define_blocked, define_host, interp
from compiler.tensor.arguments import ArgumentError
from compiler.tensor.ir import (
    Alloc,
    Binary,
    BinaryOp,
    Buffer,
    Compare,
    CompareOp,
    Const,
    DType,
    Expr,
    For,
    LoopKind,
    Proc,
    Scope,
    Select,
    Store,
    Var,
    lt,
    nest,
)
from compiler.tensor.serial import SerialError, from_json, to_json
from compiler.tensor.tiles import Tiled, Weighted, Window
from compiler.tensor.traverse import walk

Array = np.ndarray[Any, Any]
HOST = Target.host()
COUNT = 100


def clip(name: str, low: float, high: float) -> dict[str, Any]:
    return to_json(define_host.clip(name, COUNT, low, high))


def step(name: str, proc: dict[str, Any], *buffers: int) -> SerialStep:
    return SerialStep(name=name, proc=proc, buffers=buffers)


STEPS = (step("a", clip("a", -1, 9), 0, 1), step("b", clip("b", -1, 9), 1, 2), step("c", clip("c", 0, 5), 2, 0))
"""0 to 1 to 2, and back to 0."""


def answer(made: tuple[Description, bytes]) -> Array:
    x = np.linspace(-9, 9, COUNT, dtype=np.float32)
    arrays = [x.copy(), np.zeros_like(x), np.zeros_like(x)]
    run = NativeRun(*made, Team())
    run.bound([[arrays[n] for n in each.buffers] for each in STEPS])({})
    np.testing.assert_array_equal(arrays[1], np.clip(x, -1, 9))
    np.testing.assert_array_equal(arrays[2], arrays[1])
    return arrays[0]


def test_steps_run_in_order() -> None:
    expected = np.clip(np.linspace(-9, 9, COUNT, dtype=np.float32), 0, 5)
    np.testing.assert_array_equal(answer(native_steps(STEPS, HOST)), expected)


def test_arrays_may_take_the_place_of_others() -> None:
    x, y, z = (np.full(COUNT, n, np.float32) for n in (7, 0, 0))
    call = NativeRun(*native_steps(STEPS[:2], HOST), Team()).bound([[x, y], [y, z]])
    other = np.zeros_like(x)
    call({2: other})
    assert (other == 7).all()
    assert not z.any()
    call({})
    assert (z == 7).all()


def test_what_differs_by_name_alone_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def spy(value: Any) -> Any:
        read.append(value["name"])
        return from_json(value)

    monkeypatch.setattr(steps_module, "from_json", spy)
    description, _ = native_steps(STEPS, HOST)
    assert read == ["a", "c"]
    assert [signature.name for signature, _ in description.calls] == ["a", "b", "c"]


def test_steps_are_checked_before_anything_is_made_of_them() -> None:
    broken = clip("a", 0, 1)
    broken["body"][0][2] = COUNT + 1
    with pytest.raises(SerialError, match="must be proven to lie in"):
        native_steps([step("a", broken, 0, 1)], HOST)
    with pytest.raises(ArgumentError) as error:
        native_steps([STEPS[0], step("b", clip("b", -1, 9), 1)], HOST)
    assert str(error.value) == "Arguments of b must be 2 arrays, not 1"


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("must not be called")

    for name in ("from_json", "schedule_of_any", "generate_run", "emit_object"):
        monkeypatch.setattr(steps_module, name, never)


def test_object_code_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ObjectCache(directory=tmp_path)
    first = native_steps(STEPS, HOST, cache=cache)
    assert len(list(tmp_path.iterdir())) == 1
    forbid(monkeypatch)
    again = native_steps(STEPS, HOST, cache=cache)
    assert again == first
    np.testing.assert_array_equal(answer(again), answer(first))


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "no object"])
def test_damaged_object_code_is_made_again(tmp_path: Path, damage: str) -> None:
    cache = ObjectCache(directory=tmp_path)
    first = native_steps(STEPS, HOST, cache=cache)
    (file,) = tmp_path.iterdir()
    data = file.read_bytes()
    file.write_bytes(
        {
            "cut": data[:-1],
            "changed": data[:200] + bytes([data[200] ^ 1]) + data[201:],
            "empty": b"",
            "no object": b"x" * len(data),
        }[damage]
    )
    assert native_steps(STEPS, HOST, cache=cache) == first
    assert file.read_bytes() == data


@pytest.mark.parametrize(
    ("steps", "target"),
    [
        (STEPS, TARGETS["x86-64-v3"]),
        (STEPS[:2], HOST),
        ((*STEPS[:2], step("c", clip("c", 0, 6), 2, 0)), HOST),
        ((*STEPS[:2], step("c", clip("c", 0, 5), 1, 0)), HOST),
        ((*STEPS[:2], step("d", clip("c", 0, 5), 2, 0)), HOST),
    ],
)
def test_other_steps_and_other_machines_have_other_code(
    tmp_path: Path, steps: tuple[SerialStep, ...], target: Target
) -> None:
    cache = ObjectCache(directory=tmp_path)
    native_steps(STEPS, HOST, cache=cache)
    native_steps(steps, target, cache=cache)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_changed_compiler_makes_code_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is loaded: sources that change on disk meanwhile are those of later processes."""
    cache = ObjectCache(directory=tmp_path / "cache")
    monkeypatch.setattr(steps_module.resources, "files", None)
    for count, text in enumerate(("old", "old", "new")):
        monkeypatch.setattr(steps_module, "_SOURCES", text)
        native_steps(STEPS, HOST, cache=cache)
        assert len(list(cache.directory.iterdir())) == 1 + (text == "new"), count


def test_the_description_is_text(tmp_path: Path) -> None:
    cache = ObjectCache(directory=tmp_path)
    native_steps(STEPS, HOST, cache=cache)
    (file,) = tmp_path.iterdir()
    kept = cache.load(file.stem)
    assert kept is not None
    text = json.loads(kept.partition(b"\n")[0])
    assert text["calls"] == [[0, [0, 1]], [1, [1, 2]], [2, [2, 0]]]
    assert text["signatures"][2] == ["c", [["X0", "float32", [COUNT], False], ["Y", "float32", [COUNT], True]]]


def test_definitions_are_scheduled_for_the_registers_of_the_target() -> None:
    x = Tiled(batches=1, blocks=2, height=8, width=28, n=1, c=16, dtype=DType.FLOAT32)
    source = Weighted(x=x, window=Window(kernel=(1, 1)), weight=DType.FLOAT32)
    proc = define_blocked.conv2d("conv", source, x, define_blocked.Bounds())
    for name in ("x86-64-v4", "x86-64-v3", "aarch64"):
        registers = Registers.of(TARGETS[name])
        allocated = [stmt.buffer for stmt in walk(scheduled(proc, TARGETS[name]).proc.body) if isinstance(stmt, Alloc)]
        sums = max(math.prod(buffer.static_shape) for buffer in allocated)
        assert registers.count // 2 <= sums / registers.lanes < registers.count


AXES = [(f"a{n}", 2) for n in range(7)]
INDEX = tuple(Var(name) for name, _ in AXES)


def copying(dtype: DType, loops: list[tuple[str, Any]], index: tuple[Expr, ...], value: Expr | None = None) -> Proc:
    x, y = (Buffer.of(name, dtype, (2,) * 7) for name in "xy")
    return Proc("p", (x, y), (nest(loops, Store(y, index, x[INDEX] if value is None else value)),))


def odd_procs() -> dict[str, Proc]:
    """Like definitions over tiles, and yet none."""
    f32, i8 = DType.FLOAT32, DType.INT8
    x, y = (Buffer.of(name, f32, (2,) * 7) for name in "xy")
    fill = Const(0.0, f32)
    turned = y[(Const(1) - INDEX[0], *INDEX[1:])]
    return {
        "one index": copying(f32, AXES, (INDEX[0],) * 7),
        "integers with one index": copying(i8, AXES, (INDEX[0],) * 7),
        "an open extent": copying(f32, [*AXES[:1], ("a1", INDEX[0] + 1), *AXES[2:]], INDEX),
        "nothing": copying(f32, [*AXES[:3], ("a3", 0), *AXES[4:]], INDEX),
        "what it has stored": copying(f32, AXES, INDEX, turned),
        "padding by data": copying(f32, AXES, INDEX, Select(Compare(CompareOp.LT, x[INDEX], fill), x[INDEX], fill)),
        "padding by two axes": copying(f32, AXES, INDEX, Select(lt(INDEX[2] + INDEX[3], 2), x[INDEX], fill)),
    }


@pytest.mark.parametrize("name", odd_procs())
def test_what_only_looks_like_a_definition_runs_as_it_stands(name: str) -> None:
    proc = odd_procs()[name]
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-9, 9, (2,) * 7).astype(buffer.type.numpy) for buffer in proc.params]
    expected = [array.copy() for array in arrays]
    interp.run(proc, expected)
    run = NativeRun(*native_steps([step("p", to_json(proc), 0, 1)], HOST), Team())
    run.bound([arrays])({})
    np.testing.assert_array_equal(arrays[1], expected[1])


@pytest.mark.parametrize("name", odd_procs())
def test_it_is_left_as_it_stands_for_other_targets_too(name: str) -> None:
    proc = odd_procs()[name]
    for target in ("x86-64-v3", "aarch64"):
        assert schedule_of_any(proc, Registers.of(Target.named(target))).proc == proc


@pytest.mark.parametrize("extent", [Const(2) // 1 * 2, Binary(BinaryOp.ADD, Const(2), Const(2))])
def test_buffers_whose_size_is_computed_are_not_shared(extent: Expr) -> None:
    x, y = (Buffer.of(name, DType.FLOAT32, (4,)) for name in "xy")
    t, i, j = Buffer("t", DType.FLOAT32, (extent,), Scope.LOCAL), Var("i"), Var("j")
    body = (
        For(i, Const(4), (Store(t, (i,), x[i,]),), LoopKind.PARALLEL),
        For(j, Const(4), (Store(y, (j,), t[j,]),), LoopKind.PARALLEL),
    )
    proc = Proc("p", (x, y), (Alloc(t, body),))
    arrays = [np.arange(4, dtype=np.float32), np.zeros(4, np.float32)]
    NativeRun(*native_steps([step("p", to_json(proc), 0, 1)], HOST), Team()).bound([arrays])({})
    assert np.array_equal(arrays[1], arrays[0])


@pytest.mark.parametrize("mode", [0o777, 0o720])
def test_code_that_others_may_have_written_is_not_used(tmp_path: Path, mode: int) -> None:
    cache = ObjectCache(directory=tmp_path / "cache")
    cache.store("a", b"code")
    assert cache.load("a") == b"code"
    cache.directory.chmod(mode)
    assert cache.load("a") is None
    cache.store("b", b"code")
    assert [path.stem for path in cache.directory.iterdir()] == ["a"]
    cache.directory.chmod(0o700)
    (cache.directory / "a.o").rename(cache.directory / "c.o")
    assert cache.load("c") is None  # another's code under this name
