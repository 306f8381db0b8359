"""Layers on both processors: exact cycles, definitions and schedules, and answers that must not differ."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compiler.tensor.printer import format_proc
from runtime.session import Session
from vta.api import CompiledProgram, compile_model, load
from vta.compare import ONLY_VTA, Comparison, Pair, Row, Verdict
from vta.demo.data import load_digits, model_bytes
from vta.engines import Engine, host_loader, open_device
from vta.errors import ApiError, CompilerFault
from vta.profile import profile
from vta.timing import Time
from vta_hw.spec.config import VTAConfig
from vta_sim.timing import MemoryTiming

DIGITS = load_digits()
IMAGES = DIGITS.inputs(DIGITS.train[:16])
LAYERS = ("stem", "residual_1", "residual_2", "maxpool", "down", "reducemean", "dense")
SLOW = MemoryTiming(latency=20)
CLOCK = 50.0


@pytest.fixture(scope="module")
def pair() -> Pair:
    return Pair(compile_model(model_bytes(), calibration=IMAGES))


@pytest.fixture(scope="module")
def comparison(pair: Pair) -> Comparison:
    return pair.compare(clock=CLOCK, repeat=2, samples={"image": IMAGES}, timing=SLOW)


def test_cycles_are_those_of_the_profile(pair: Pair, comparison: Comparison) -> None:
    program = pair.compiled.program
    device = open_device(Engine.CYCLE, program.config, timing=SLOW, trace=True)
    session = Session(device, program, host_loader(Engine.CYCLE))
    session.run({"image": np.zeros((1, 1, 8, 8), np.float32)})
    profiled = profile(program, session.statistics.traces, SLOW)
    assert [(row.name, row.cycles) for row in comparison.layers] == [(row.name, row.cycles) for row in profiled.rows]
    assert comparison.total.cycles == sum(trace.cycles for trace in session.statistics.traces)
    assert comparison.total.vta_ms == comparison.total.cycles / (CLOCK * 1e3)


def test_each_layer_is_a_row_with_its_macs_and_its_time_on_the_cpu(comparison: Comparison) -> None:
    rows = comparison.layers
    assert tuple(row.name for row in rows) == (*LAYERS, "(no layer)")
    assert [row.cpu is None for row in rows] == [False] * len(LAYERS) + [True]
    assert {row.name: row.macs for row in rows}["residual_1"] == 32 * 32 * 9 * 64
    assert comparison.total.macs == sum(row.macs for row in rows) == 1_272_448
    assert sum(row.cpu.best for row in rows if row.cpu is not None) > 0
    assert comparison.total.cpu == Time.total(row.cpu for row in rows if row.cpu is not None)
    assert comparison.cpu.best >= comparison.total.cpu.best


def test_bytes_are_those_of_each_tensor_once(comparison: Comparison) -> None:
    row = {row.name: row for row in comparison.layers}["residual_1"]
    activations, weights, channels = 32 * 64, 32 * 32 * 9, 32 * 4
    assert row.nbytes == 2 * activations + weights + 2 * channels
    assert row.intensity == row.macs / row.nbytes


def test_steps_of_the_host_say_in_which_network_they_are(comparison: Comparison) -> None:
    hosts = {row.name: row for row in comparison.hosts}
    assert list(hosts) == ["stem.1", "stem.unfold", "dense.1", "softmax"]
    assert [row.cpu is None for row in hosts.values()] == [False, True, False, False]
    assert all(row.vta is not None for row in hosts.values())
    assert hosts["stem.unfold"].reason == "moves single elements between tiles"
    assert comparison.vta_ms == comparison.total.vta_ms + comparison.host.best


def test_figures_of_a_row() -> None:
    time = Time(best=0.5, median=0.6)
    row = Row(name="a", op="b", macs=64_000, nbytes=1_000, cycles=1_000, clock=10, peak=256, cpu=time)
    assert (row.intensity, row.vta_ms, row.utilisation, row.gmacs) == (64.0, 0.1, 0.25, 0.128)
    assert row.verdict == Verdict(winner="VTA", factor=5.0)
    assert replace(row, clock=1).verdict == Verdict(winner="CPU", factor=2.0)
    assert replace(row, cpu=Time(best=0.0, median=0.0)).verdict is None
    assert replace(row, cpu=None).verdict is None


def test_schedules_show_where_both_start_and_what_each_made_of_it(pair: Pair) -> None:
    found = pair.schedules("residual_1")
    assert found.vta is not None
    assert found.cpu is not None
    assert (found.name, found.op) == ("residual_1", "qconv2d")
    assert "mapped gemm:" in found.vta.text
    assert "vectorized" in found.cpu.text
    assert "mark(dot.oh.i, gemm)" in found.vta.primitives
    assert "set_kind(dot.c, vectorized)" in found.cpu.primitives
    described = found.as_dict()
    assert described["vta"]["definition"] == format_proc(found.vta.definition) != found.vta.text
    assert described["cpu"]["definition"] == format_proc(found.cpu.definition)


def test_what_the_host_executes_has_one_schedule(pair: Pair) -> None:
    assert pair.layers == ("stem.1", "stem.unfold", *LAYERS, "dense.1", "softmax")
    for name in ("stem.unfold", "softmax"):
        found = pair.schedules(name)
        assert found.vta is None
        assert found.cpu is not None


def test_a_layer_that_is_none(pair: Pair) -> None:
    with pytest.raises(ApiError) as error:
        pair.schedules("stern")
    names = ", ".join(map(repr, pair.layers))
    assert str(error.value) == f"Layer must be one of {names}, not 'stern'"


@pytest.mark.parametrize("clock", [0.0, -1.0, float("inf"), float("nan")])
def test_a_clock_that_is_none(pair: Pair, clock: float) -> None:
    with pytest.raises(ApiError) as error:
        pair.compare(clock=clock)
    assert str(error.value) == f"Clock must be a positive number of MHz, not {clock}"


def test_a_difference_is_never_hidden(pair: Pair) -> None:
    """Weights of the accelerator's program alone are changed."""
    program = pair.compiled.program
    segments = tuple(replace(each, data=bytes(len(each.data))) for each in program.segments)
    wrong = Pair(CompiledProgram(replace(program, segments=segments), graph=pair.compiled.graph))
    with pytest.raises(CompilerFault, match=r"VTA and CPU must give the same bytes, and \d+ of 40 of output 'prob"):
        wrong.compare(clock=CLOCK, repeat=1, samples={"image": IMAGES})


def test_conversions_of_4_bit_numbers_are_steps_of_vta_alone() -> None:
    config = VTAConfig(log_inp_width=2, log_wgt_width=2, log_inp_buff_size=14, log_wgt_buff_size=17)
    pair = Pair(compile_model(model_bytes(), config=config, calibration=IMAGES))
    result = pair.compare(clock=CLOCK, repeat=1)
    conversions = [row for row in result.hosts if row.reason == ONLY_VTA]
    assert conversions
    assert all(row.cpu is None and row.vta is not None for row in conversions)


def test_only_what_was_compiled_here_for_the_accelerator(pair: Pair, tmp_path: Path) -> None:
    pair.compiled.save(tmp_path / "p.vta")
    with pytest.raises(ApiError) as error:
        Pair(load(tmp_path / "p.vta"))
    assert str(error.value) == "Program to compare must be compiled here, not loaded from a file, which has no graph"
    with pytest.raises(ApiError) as error:
        Pair(compile_model(model_bytes(), target="cpu"))
    assert str(error.value) == "Model to compare must have a layer on the accelerator, not host steps alone"
