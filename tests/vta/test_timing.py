"""How work is timed: rounds in turns, steps one by one on the values of a run, inputs that are always the same."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from vta.api import compile_model, to_stored
from vta.batching import Port
from vta.demo.data import load_digits, model_bytes
from vta.engines import Engine, host_loader, open_session
from vta.errors import ApiError
from vta.timing import Steps, Time, example_inputs, interleaved, nothing


def ticking(*nanoseconds: int) -> Callable[[], int]:
    """A clock by which each call that is timed takes the next of these times."""
    times = itertools.accumulate(itertools.chain.from_iterable((0, each) for each in nanoseconds))
    return lambda: next(times)


def test_calls_take_turns_and_the_first_round_does_not_count() -> None:
    made: list[str] = []
    rounds: list[tuple[int, int]] = []
    first, second = interleaved(
        [lambda: made.append("a"), lambda: made.append("b")],
        3,
        lambda done, total: rounds.append((done, total)),
        ticking(*(1, 1), *(4_000_000, 50), *(9_000_000, 70), *(2_000_000, 60)),
    )
    assert made == ["a", "b"] * 4
    assert rounds == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert first == Time(best=2.0, median=4.0)
    assert second == Time(best=50e-6, median=60e-6)


@pytest.mark.parametrize("repeat", [0, -1])
def test_there_is_a_run_to_time(repeat: int) -> None:
    with pytest.raises(ApiError) as error:
        interleaved([lambda: None], repeat)
    assert str(error.value) == f"Runs to time must be at least 1, not {repeat}"


def test_times_add_up_and_what_a_call_takes_is_taken_off() -> None:
    total = Time.total([Time(best=1.0, median=3.0), Time(best=2.0, median=2.5)])
    assert total == Time(best=3.0, median=5.5)
    assert total.less(Time(best=1.0, median=6.0)) == Time(best=2.0, median=0.0)
    assert Time.total([]) == Time(best=0.0, median=0.0)


def test_steps_one_by_one_give_the_answer_of_a_session() -> None:
    digits = load_digits()
    images = digits.inputs(digits.test[:1])
    compiled = compile_model(model_bytes(), target="cpu", calibration=digits.inputs(digits.train[:16]))
    stored = {port.name: to_stored(port, images) for port in compiled.inputs}
    steps = Steps(compiled.program, stored, host_loader(Engine.LLVM))
    assert len(steps.calls) == len(compiled.program.steps) > 5
    expected = open_session(compiled.program, Engine.LLVM).run(stored)
    for _ in range(2):  # again on what the first run has left
        found = steps.run()
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("engine", [Engine.LLVM, Engine.INTERP])
def test_a_step_that_does_nothing_can_be_called(engine: Engine) -> None:
    assert nothing(host_loader(engine))() is None


def test_example_inputs_are_the_samples_that_fit_or_always_the_same() -> None:
    ports = (
        Port(name="image", shape=(2, 1, 4), dtype="float32"),
        Port(name="bytes", shape=(64,), dtype="int8"),
        Port(name="ids", shape=(2, 30), dtype="int64"),
    )
    samples = {"image": np.arange(12).reshape(3, 1, 4), "ids": np.zeros((2, 31), np.int64)}
    found, again = example_inputs(ports, samples), example_inputs(ports, samples)
    assert [(array.shape, array.dtype.name) for array in found.values()] == [(p.shape, p.dtype) for p in ports]
    assert all(np.array_equal(found[name], again[name]) for name in found)
    assert np.array_equal(found["image"], samples["image"][:2])
    assert found["bytes"].min() < -64
    assert found["bytes"].max() > 64
    assert set(found["ids"].ravel().tolist()) == {0, 1}
