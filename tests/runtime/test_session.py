"""The session on a fake device: placement, host steps, statistics, refusals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.device import Bases
from runtime.devices.host import HostDevice
from runtime.errors import DeviceError, DeviceTimeout, SessionError
from runtime.session import Arrays, HostCall, HostFunction, RunStatistics, Session
from tests.runtime.fake import FakeDevice, K, W, insns, program
from vta_hw.spec.config import VTAConfig, preset
from vta_hw.spec.program import Host, Launch, Program, Role

Array = NDArray[Any]
INPUT = np.array([[10, 20, 30], [40, 50, 60]], np.int16)


def load_host(steps: Sequence[Host]) -> HostFunction:
    """The two host functions, by the name in their source."""

    def add(x: Array, k: Array, w: Array) -> None:
        w[:] = (x + k).reshape(-1)

    def double(w: Array, y: Array) -> None:
        y[:] = (2 * w.astype(np.int16)).reshape(3, 2)

    return calling({"sum": add, "double": double}, steps)


def calling(functions: Mapping[str, Callable[..., None]], steps: Sequence[Host]) -> HostFunction:
    """The steps in order, each by the function that its source names."""

    def bind(arrays: Arrays) -> HostCall:
        def call(moved: Arrays) -> None:
            now = {**arrays, **moved}
            for step in steps:
                functions[step.proc["name"]](*(now[name] for name in step.buffers))

        return call

    return bind


def device() -> FakeDevice:
    """Its launches increment the workspace buffer."""
    return FakeDevice(VTAConfig(), adds_to=(W, W + 6))


def test_outputs_follow_from_constants_host_steps_and_launches() -> None:
    with Session(device(), program(), load_host) as session:
        outputs = session.run({"x": INPUT})
    expected = 2 * (INPUT.reshape(-1) + np.arange(6) + 1)
    assert outputs.keys() == {"y"}
    assert outputs["y"].dtype == np.int16
    np.testing.assert_array_equal(outputs["y"], expected.reshape(3, 2))


def test_a_session_runs_again_and_again() -> None:
    with Session(device(), program(), load_host) as session:
        first = session.run({"x": INPUT})["y"]
        second = session.run({"x": INPUT - 1})["y"]
    np.testing.assert_array_equal(first - 2, second)


def test_launches_are_relative_to_an_arena_that_is_given_back() -> None:
    machine = device()
    session = Session(machine, program(), load_host)
    (arena,) = machine.live
    assert machine.read(arena + K, 4).tolist() == [0, 0, 1, 0]
    assert machine.read(arena + 0x1000, 96).tobytes() == insns(6)
    session.run({"x": INPUT})
    assert machine.launches == [
        (arena + 0x1000, 4, Bases.at(arena), None, False),
        (arena + 0x1000 + 4 * 16, 2, Bases.at(arena), None, False),
    ]
    session.close()
    session.close()
    assert machine.live == set()
    with pytest.raises(SessionError, match=r"^Session must be open to run, not closed$"):
        session.run({"x": INPUT})


def test_two_sessions_share_a_device() -> None:
    machine = device()
    with Session(machine, program(), load_host) as one, Session(machine, program(), load_host) as two:
        np.testing.assert_array_equal(one.run({"x": INPUT})["y"], two.run({"x": INPUT})["y"])
        assert len(machine.live) == 2


def test_statistics_are_split_by_layer_across_launches() -> None:
    with Session(device(), program(), load_host) as session:
        session.run({"x": INPUT})
        statistics = session.statistics
    assert statistics.counters == {"instructions": 6}
    assert [(layer.name, layer.macs, layer.counters) for layer in statistics.layers] == [
        ("a", 10, {"instructions": 2}),
        ("b", 20, {"instructions": 3}),
    ]
    total = RunStatistics.total([statistics, statistics])
    assert total.counters == {"instructions": 12}
    assert total.layers[1].macs == 40
    assert total.layers[1].counters == {"instructions": 6}


def test_a_device_that_cannot_tell_instructions_apart_leaves_layers_empty() -> None:
    machine = FakeDevice(VTAConfig(), attributes=False)
    with Session(machine, program(), load_host) as session:
        session.run({"x": INPUT})
        assert [layer.counters for layer in session.statistics.layers] == [{}, {}]


def test_statistics_before_a_run() -> None:
    session = Session(device(), program(), load_host)
    with pytest.raises(SessionError, match=r"^Statistics must be asked for after a run, not before the first$"):
        _ = session.statistics


def test_inputs_and_constants_are_read_only_for_host_steps() -> None:
    def writes_to_constant(x: Array, k: Array, w: Array) -> None:
        k[:] = 0

    with (
        Session(device(), program(), partial(calling, {"sum": writes_to_constant})) as session,
        pytest.raises(ValueError, match="read-only"),
    ):
        session.run({"x": INPUT})


def test_the_timeout_reaches_the_device() -> None:
    machine = FakeDevice(VTAConfig(), hangs=True)
    session = Session(machine, program(), load_host, timeout=0.5)
    with pytest.raises(DeviceTimeout, match=r"^Launch must finish within 0\.5 s, and has not$"):
        session.run({"x": INPUT})
    session.timeout = None
    assert session.run({"x": INPUT}).keys() == {"y"}


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({}, r"Inputs must be named ['x'], not []"),
        ({"x": INPUT, "z": INPUT}, r"Inputs must be named ['x'], not ['x', 'z']"),
        ({"x": INPUT.T}, "Input 'x' must be int16 [2, 3], not int16 [3, 2]"),
        ({"x": INPUT.astype(np.int32)}, "Input 'x' must be int16 [2, 3], not int32 [2, 3]"),
    ],
)
def test_wrong_inputs(inputs: dict[str, Array], sentence: str) -> None:
    with Session(device(), program(), load_host) as session:
        with pytest.raises(SessionError) as caught:
            session.run(inputs)
        assert str(caught.value) == sentence


def test_an_input_of_another_memory_order_is_copied() -> None:
    with Session(device(), program(), load_host) as session:
        straight = session.run({"x": INPUT})["y"]
        np.testing.assert_array_equal(session.run({"x": np.asfortranarray(INPUT)})["y"], straight)


def test_another_configuration_is_refused_with_both_digests() -> None:
    tiny = preset("tiny")
    with pytest.raises(SessionError) as caught:
        Session(FakeDevice(tiny), program(), load_host)
    want = VTAConfig()
    assert str(caught.value) == (
        f"Device must have the program's configuration {want.name} (digest {want.program_digest}), "
        f"not {tiny.name} (digest {tiny.program_digest})"
    )


def test_a_wider_bus_changes_nothing() -> None:
    with Session(FakeDevice(VTAConfig(log_bus_width=9), adds_to=(W, W + 6)), program(), load_host) as session:
        assert session.run({"x": INPUT}).keys() == {"y"}


def test_a_raw_program_is_refused() -> None:
    raw = Program.raw(config=VTAConfig(), insns=insns(1))
    with pytest.raises(SessionError, match=r"^Program must be a compiled one: a raw program has no buffers"):
        Session(device(), raw, load_host)


def host_only() -> Program:
    whole = program()
    return replace(whole, insns=b"", layers=(), steps=tuple(step for step in whole.steps if isinstance(step, Host)))


def test_host_steps_alone_need_no_accelerator() -> None:
    with Session(HostDevice(VTAConfig()), host_only(), load_host) as session:
        outputs = session.run({"x": INPUT})
        assert session.statistics.counters == {}
    np.testing.assert_array_equal(outputs["y"].reshape(-1), 2 * (INPUT.reshape(-1) + np.arange(6)))


class Spy:
    """A loader of host steps that keeps what it is given, and computes as `load_host` does."""

    def __init__(self) -> None:
        self.loaded: list[tuple[str, ...]] = []
        self.bound: list[dict[str, Array]] = []
        self.moved: list[dict[str, Array]] = []

    def __call__(self, steps: Sequence[Host]) -> HostFunction:
        function = load_host(steps)
        self.loaded.append(tuple(step.name for step in steps))

        def bind(arrays: Arrays) -> HostCall:
            self.bound.append(dict(arrays))
            call = function(arrays)

            def run(moved: Arrays) -> None:
                self.moved.append(dict(moved))
                call(moved)

            return run

        return bind


def test_host_steps_work_on_the_memory_itself_and_on_what_is_given_and_returned() -> None:
    spy = Spy()
    with Session(HostDevice(VTAConfig()), host_only(), spy) as session:
        first, second = (session.run({"x": INPUT})["y"] for _ in range(2))
    assert spy.loaded == [("first", "second")]  # one function of both, bound but once
    (arrays,) = spy.bound
    assert arrays.keys() == {"x", "k", "w", "y"}
    assert not arrays["k"].flags.owndata and not arrays["k"].flags.writeable
    assert [moved.keys() for moved in spy.moved] == [{"x", "y"}, {"x", "y"}]
    for moved, answer in zip(spy.moved, (first, second), strict=True):
        assert np.shares_memory(moved["y"], answer)
        assert np.shares_memory(moved["x"], INPUT)
    assert not np.shares_memory(first, second)
    np.testing.assert_array_equal(first, second)
    assert first.ctypes.data % 64 == 0


def test_steps_in_the_middle_are_bound_once() -> None:
    spy = Spy()
    whole = host_only()
    roles = {"x": Role.CONSTANT, "y": Role.WORKSPACE}
    inner = replace(whole, buffers=tuple(replace(b, role=roles.get(b.name, b.role)) for b in whole.buffers))
    with Session(HostDevice(VTAConfig()), inner, spy) as session:
        assert session.run({}) == session.run({}) == {}
    assert len(spy.bound) == 1
    assert spy.moved == [{}, {}]


def test_where_host_steps_have_copies_each_is_called_alone() -> None:
    """Buffers may lie over each other, so that what one step leaves must be in memory before the next one reads."""
    spy = Spy()
    with Session(device(), host_only(), spy) as session:
        answers = [session.run({"x": INPUT})["y"] for _ in range(2)]
    assert spy.loaded == [("first",), ("second",)]
    assert [arrays.keys() for arrays in spy.bound] == [{"x", "k", "w"}, {"w", "y"}] * 2
    np.testing.assert_array_equal(answers[0], answers[1])
    np.testing.assert_array_equal(answers[0].reshape(-1), 2 * (INPUT.reshape(-1) + np.arange(6)))


def test_host_steps_between_launches_are_called_together() -> None:
    class Shared(FakeDevice):
        def view(self, address: int, nbytes: int) -> NDArray[np.uint8]:
            return self.memory[address : address + nbytes]

    whole, spy = program(), Spy()
    first, launch, second, last = whole.steps
    steps = (first, first, launch, second, second, last)
    with Session(Shared(VTAConfig(), adds_to=(W, W + 6)), replace(whole, steps=steps), spy) as session:
        answer = session.run({"x": INPUT})["y"]
    assert spy.loaded == [("first", "first"), ("second", "second")]
    np.testing.assert_array_equal(answer.reshape(-1), 2 * (INPUT.reshape(-1) + np.arange(6) + 1))


def test_a_launch_needs_an_accelerator() -> None:
    with (
        Session(HostDevice(VTAConfig()), program(), load_host) as session,
        pytest.raises(DeviceError, match=r"^Program must have host steps only here, not a launch of 4 instructions$"),
    ):
        session.run({"x": INPUT})


def test_every_step_is_a_launch_or_a_host_function() -> None:
    assert {type(step) for step in program().steps} == {Host, Launch}
