"""An access of one element too many is found: by pages that end the process, or canaries."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from compiler.llvm.jit import Description, NativeRun
from compiler.llvm.module import Call, generate_run
from compiler.llvm.target import Target, emit_object
from compiler.tensor.arguments import Signature
from compiler.tensor.ir import Alloc, Buffer, DType, Proc, Scope, Store, Var, nest
from tests.compiler.llvm.guarded import GuardedTeam, Place, guarded, paged
from tests.compiler.llvm.isolated import Say, outcomes

COUNT = 7
AT, THEN = Var("i"), Var("j")
HOST = Target.host()
pytestmark = pytest.mark.skipif("windows" in HOST.triple, reason="it has no mprotect")


def copy(shift: int) -> Proc:
    """Each element from `shift` places further on: outside of X for one of them."""
    x, y = (Buffer.of(name, DType.FLOAT32, (COUNT,)) for name in "xy")
    return Proc("copy", (x, y), (nest([("i", COUNT)], Store(y, (AT,), x[AT + shift,])),))


def scatter(shift: int) -> Proc:
    """The same of stores."""
    x, y = (Buffer.of(name, DType.INT8, (COUNT,)) for name in "xy")
    return Proc("scatter", (x, y), (nest([("i", COUNT)], Store(y, (AT + shift,), x[AT,])),))


def scratch(shift: int) -> Proc:
    """A store beside memory that is too large for the stack, and fills its lines."""
    count = 1 << 15
    x, y = (Buffer.of(name, DType.FLOAT32, (count,)) for name in "xy")
    z = Buffer.of("z", DType.FLOAT32, (count,), Scope.LOCAL)
    stores = nest([("i", count)], Store(z, (AT + shift,), x[AT,])), nest([("j", count)], Store(y, (THEN,), z[THEN,]))
    return Proc("scratch", (x, y), (Alloc(z, stores),))


PROCS = {"copy": copy, "scatter": scatter, "scratch": scratch}


def run_unverified(item: tuple[str, int, Place], say: Say) -> str:
    name, shift, place = item
    proc = PROCS[name](shift)
    module = generate_run([proc], [Call(proc=0, buffers=(0, 1))], HOST)
    calls = ((Signature.of(proc), (0, 1)),)
    description = Description(calls=calls, shared=module.shared, private=module.private)
    run = NativeRun(description, emit_object(module.text, HOST), GuardedTeam(1, place, 0))
    arrays = [np.ones(buffer.static_shape, buffer.type.numpy) for buffer in proc.params]
    guards = [paged(array, place) for array in arrays]
    say("it runs")
    run.bound([[guard.array for guard in guards]])({})
    return "" if all(guard.is_intact for guard in guards) else "beside"


def test_one_element_too_many_ends_the_process() -> None:
    """Where no page is, canaries tell of a store."""
    items = [
        (name, shift, place)
        for name, (shift, place) in itertools.product(
            PROCS, [(0, Place.END), (0, Place.START), (1, Place.END), (-1, Place.START), (1, Place.START)]
        )
    ]
    found = {each.item: each.problem for each in outcomes(run_unverified, items)}
    for name in PROCS:
        assert found[name, 0, Place.END] == found[name, 0, Place.START] == ""
        for shift, place in ((1, Place.END), (-1, Place.START)):
            assert found[name, shift, place] in ("SIGSEGV while it runs", "SIGBUS while it runs")
    assert found["copy", 1, Place.START] == ""
    assert found["scatter", 1, Place.START] == "beside"


def store_to_a_constant(item: None, say: Say) -> str:
    say("it runs")
    array = paged(np.zeros(3, np.int8), Place.END, readonly=True).array
    array.flags.writeable = True
    array[0] = 1
    return ""


def test_stores_to_what_is_read_only_end_the_process() -> None:
    (outcome,) = outcomes(store_to_a_constant, [None])
    assert outcome.problem in ("SIGSEGV while it runs", "SIGBUS while it runs")


@pytest.mark.parametrize("place", Place)
def test_pages_touch_the_array_on_one_side(place: Place) -> None:
    guard = paged(np.arange(3, dtype=np.int16), place)
    begin = guard.array.ctypes.data - guard.memory.ctypes.data
    assert begin == (guard.memory.size - 6 if place is Place.END else 0)
    assert guard.array.tolist() == [0, 1, 2]
    assert guard.is_intact
    guard.memory[begin - 1 if begin else 6] = 0
    assert not guard.is_intact


def test_canaries_are_on_both_sides() -> None:
    for at in (-1, 3):
        guard = guarded(np.zeros(3, np.uint8))
        assert guard.is_intact
        guard.memory[guard.array.ctypes.data - guard.memory.ctypes.data + at] = 0
        assert not guard.is_intact
