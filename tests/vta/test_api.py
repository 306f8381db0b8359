"""Programs from Python: engines, batches, layouts, refusals."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import vta
from compiler.errors import CompileError
from compiler.graph.layout import Layout, pack
from compiler.llvm.team import processors
from compiler.tensor.arguments import ArgumentError
from compiler.tensor.serial import SerialError
from runtime.errors import SessionError
from tests.compiler.frontend.models import floats, model, single
from tests.vta.programs import SHAPE, cpu_program, plus_three, vta_program
from tests.vta.streams import raw_program
from vta.api import CompiledProgram
from vta.demo.data import model_bytes
from vta.engines import Engine
from vta_hw.spec.config import preset
from vta_hw.spec.program import Host, ProgramError

EVERY_ENGINE = "'functional', 'cycle', 'rtl', 'amaranth', 'llvm', 'interp', 'reference'"


def images(count: int, dtype: str) -> np.ndarray[Any, Any]:
    return np.random.default_rng(count).integers(-100, 100, (count, *SHAPE[1:])).astype(dtype)


@pytest.mark.parametrize("engine", ["llvm", "interp", Engine.LLVM, None])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_cpu_program_takes_any_number_of_images(engine: Engine | str | None, count: int) -> None:
    x = images(count, "int8")
    y = CompiledProgram(cpu_program()).run(x, engine)
    assert isinstance(y, np.ndarray)
    assert y.dtype == np.int8
    np.testing.assert_array_equal(y, x + np.int8(3))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_vta_program_runs_launches_and_host_steps(count: int) -> None:
    program = CompiledProgram(vta_program())
    x = images(count, "float32")
    y = program.run({"x": x})
    assert isinstance(y, dict)
    np.testing.assert_array_equal(y["y"], x.astype(np.int8) + np.int8(7))
    runs = -(-count // 2)
    assert program.statistics.counters["alu_counter"] == 2 * runs
    assert program.statistics.layers[0].counters["insn_count"] == 4 * runs


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.float64])
def test_a_float_model_without_calibration_stays_as_it_is_on_the_cpu(dtype: type[np.number[Any]]) -> None:
    program = vta.compile(single("Neg", (1, 4), dtype=dtype), target="cpu", batch=2)
    x = np.arange(12, dtype=dtype).reshape(3, 4)
    answers = program.run(x)
    assert answers.dtype == dtype
    np.testing.assert_array_equal(answers, -x)
    np.testing.assert_array_equal(program.run(x, "reference"), -x)


def test_progress_counts_images() -> None:
    seen: list[tuple[int, int]] = []
    CompiledProgram(cpu_program()).run(images(5, "int8"), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_tiled_buffers_look_logical() -> None:
    """Stored as 2x8 tiles of a logical [2,16,1,1]: what the program sees is packed, what the caller sees is not."""
    layout = {"logical": list(SHAPE), "n": 2, "c": 8}
    stored = Layout(2, 8).physical(SHAPE)
    whole = cpu_program()
    buffers = tuple(replace(buffer, shape=stored, layout=layout) for buffer in whole.buffers)
    steps = (Host(name="plus", proc=plus_three(stored), buffers=("x", "y")),)
    program = CompiledProgram(replace(whole, buffers=buffers, steps=steps))
    x = images(3, "int8")
    np.testing.assert_array_equal(program.run(x), x + np.int8(3))
    assert pack(x[:2], Layout(2, 8)).shape == stored


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    program = CompiledProgram(vta_program())
    program.save(tmp_path / "p.vta")
    loaded = vta.load(tmp_path / "p.vta")
    assert loaded.program == program.program
    assert loaded.engines == (Engine.FUNCTIONAL, Engine.CYCLE, Engine.RTL, Engine.AMARANTH)
    x = images(2, "float32")
    np.testing.assert_array_equal(loaded.run(x), program.run(x))


@pytest.mark.parametrize(
    ("engine", "sentence"),
    [
        ("fpga", f"Engine must be one of {EVERY_ENGINE}, not 'fpga'"),
        ("functional", "Engine of this program must be one of 'llvm', 'interp', not 'functional'"),
        ("reference", "Engine of this program must be one of 'llvm', 'interp', not 'reference'"),
    ],
)
def test_engines_that_cannot_run_it(engine: str, sentence: str) -> None:
    with pytest.raises(vta.ApiError) as caught:
        CompiledProgram(cpu_program()).run(images(1, "int8"), engine)
    assert str(caught.value) == sentence


@pytest.mark.skipif(processors() < 2, reason="needs two processors")
def test_any_number_of_threads_gives_one_answer() -> None:
    program = CompiledProgram(cpu_program())
    x = images(4, "int8")
    np.testing.assert_array_equal(program.run(x, threads=2), program.run(x))


@pytest.mark.parametrize("engine", ["interp", "reference"])
def test_engines_of_one_thread(engine: str) -> None:
    program = vta.compile(single("Neg", (1, 4)), target="cpu")
    with pytest.raises(vta.ApiError) as caught:
        program.run(floats(1, 4), engine, threads=2)
    assert str(caught.value) == f"Threads must be 1 on engine {engine!r}, not 2"


def test_statistics_before_a_run() -> None:
    with pytest.raises(vta.ApiError, match=r"^Statistics must be asked for after a run on a device, not before$"):
        _ = CompiledProgram(cpu_program()).statistics


def test_one_array_for_one_input() -> None:
    program = CompiledProgram(cpu_program())
    assert program.named(images(1, "int8")).keys() == {"x"}


def test_raw_programs_are_not_run_here(tmp_path: Path) -> None:
    raw_program().save(tmp_path / "raw.vta")
    with pytest.raises(vta.ApiError, match=r"^Program must be a compiled one, not raw instructions; run those with "):
        vta.load(tmp_path / "raw.vta")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=r"none\.vta: program file cannot be read"):
        vta.load(tmp_path / "none.vta")


@pytest.mark.parametrize(
    "layout", [{}, {"logical": [2, 16, 1, 1], "n": 1, "c": 16}, {"logical": [2, 16], "n": 2, "c": 8}, {"n": 2, "c": 8}]
)
def test_layouts_that_do_not_give_the_shape(layout: dict[str, Any]) -> None:
    whole = cpu_program()
    broken = (replace(whole.buffers[0], layout=layout), whole.buffers[1])
    with pytest.raises(vta.ApiError, match=r"^Buffer 'x' must have a layout of tiles that gives its shape, not "):
        CompiledProgram(replace(whole, buffers=broken))


def test_scalars_and_shapes_that_disagree_are_taken_as_compiled() -> None:
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "z"], ["p"]),
        onnx.helper.make_node("ReduceMax", ["p"], ["y"], keepdims=0),
    ]
    program = vta.compile(model(nodes, {"x": (2, 3), "z": (3, 5)}, ["p", "y"]), target="cpu")
    x, z = floats(2, 3), floats(3, 5, seed=1)
    assert not program.by_image
    found = program.run({"x": x, "z": z})
    np.testing.assert_allclose(found["p"], x @ z, rtol=1e-5)
    assert found["y"].shape == ()
    assert found["y"] == found["p"].max()
    with pytest.raises(vta.ApiError) as refused:
        program.run({"x": x[:1], "z": z})
    assert str(refused.value) == (
        "Input 'x' must be float32 [2, 3], as compiled for a model that does not work image by image, not "
        "float32 [1, 3]"
    )


@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("target", ["cpu", "vta"])
def test_each_image_may_have_several_rows_of_a_result(target: str, batch: int | None) -> None:
    """As the boxes that a detector finds."""
    w = floats(24, 16, 1, 1) / 4
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["c"]),
        onnx.helper.make_node("Transpose", ["c"], ["t"], perm=[0, 2, 3, 1]),
        onnx.helper.make_node("Reshape", ["t", "shape"], ["y"]),
    ]
    network = model(nodes, {"x": ("N", 16, 4, 4)}, ["y"], {"w": w, "shape": np.array([-1, 4])})
    x = floats(3, 16, 4, 4, seed=1)
    program = vta.compile(network, target=target, batch=batch, calibration=x if target == "vta" else None)
    exact = np.einsum("oi,nihw->nhwo", w[:, :, 0, 0], x).reshape(-1, 4)
    found = program.run(x)
    assert found.shape == exact.shape == (3 * 16 * 6, 4)
    assert np.abs(found - exact).max() < (0.1 if target == "vta" else 1e-4)


@pytest.mark.parametrize("nodes", ["Transpose", "Softmax"])
def test_a_model_that_mixes_images_takes_as_many_as_it_says(nodes: str) -> None:
    attributes: dict[str, Any] = {"perm": [1, 0, 2, 3]} if nodes == "Transpose" else {"axis": 0}
    program = vta.compile(single(nodes, (2, 3, 4, 5), **attributes), target="cpu")
    x = floats(2, 3, 4, 5)
    assert program.run(x).shape == ((3, 2, 4, 5) if nodes == "Transpose" else x.shape)
    for count in (1, 4):
        with pytest.raises(vta.ApiError, match=r"^Input 'x' must be float32 \[2, 3, 4, 5\], as compiled for a model "):
            program.run(floats(count, 3, 4, 5))


OPEN = {
    "triangle": [onnx.helper.make_node("Trilu", ["x"], ["y"])],
    "size": [
        onnx.helper.make_node("Shape", ["x"], ["s"], end=1),
        onnx.helper.make_node("Cast", ["s"], ["f"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Div", ["x", "f"], ["y"]),
    ],
    "last": [onnx.helper.make_node("Slice", ["x", "minus", "end", "zero"], ["y"])],
    "exchanged": [onnx.helper.make_node("Transpose", ["x"], ["y"])],
    "flat": [onnx.helper.make_node("Flatten", ["x"], ["y"], axis=0)],
}


@pytest.mark.parametrize("name", OPEN)
def test_an_open_batch_may_be_part_of_what_is_computed(name: str) -> None:
    """Then a program is for the batch that it was compiled for alone."""
    constants = {"minus": np.array([-1]), "end": np.array([1 << 31]), "zero": np.array([0])}
    used = {value for node in OPEN[name] for value in node.input}
    network = model(OPEN[name], {"x": ("N", 4)}, ["y"], {key: constants[key] for key in constants.keys() & used})
    x = floats(3, 4)
    with pytest.raises(vta.ApiError, match=r"^Input 'x' must be float32 \[1, 4\], as compiled for a model "):
        vta.compile(network, target="cpu").run(x)
    (exact,) = onnx.reference.ReferenceEvaluator(network).run(None, {"x": x})
    np.testing.assert_allclose(vta.compile(network, target="cpu", batch=3).run(x), exact, rtol=1e-6)
    w = onnx.helper.make_node("MatMul", ["x", "w"], ["a"])
    behind = [onnx.NodeProto.FromString(node.SerializeToString()) for node in OPEN[name]]
    for node in behind:
        node.input[:] = ["a" if value == "x" else value for value in node.input]
    parameters = {"w": floats(4, 4), **{key: constants[key] for key in constants.keys() & used}}
    linear = model([w, *behind], {"x": ("N", 4)}, ["y"], parameters)
    program = vta.compile(linear, calibration=floats(8, 4, seed=1))
    with pytest.raises(vta.ApiError, match=r"^Input 'x' must be float32 \[1, 4\], as compiled for a model "):
        program.run(x)
    with pytest.raises(vta.ApiError, match=r"^Batch must be 1 for a model that does not work image by image, not 3$"):
        vta.compile(linear, calibration=x, batch=3)


def test_noise_of_a_model_that_mixes_images_is_measured_image_by_image() -> None:
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w"], ["a"]),
        onnx.helper.make_node("Transpose", ["a"], ["b"]),
        onnx.helper.make_node("MatMul", ["b", "v"], ["y"]),
    ]
    network = model(nodes, {"x": ("N", 4)}, ["y"], {"w": floats(4, 4), "v": floats(1, 3)})
    losses = vta.layer_noise(network, calibration=floats(8, 4, seed=1))
    assert len(losses) == 2
    assert all(loss.total > 30 for loss in losses)


def test_a_slice_of_what_was_one_image_is_no_slice_of_images() -> None:
    nodes = [
        onnx.helper.make_node("Squeeze", ["x", "zero"], ["s"]),
        onnx.helper.make_node("Slice", ["s", "zero", "one", "zero"], ["t"]),
        onnx.helper.make_node("Unsqueeze", ["t", "zero"], ["y"]),
    ]
    constants = {"zero": np.array([0]), "one": np.array([1])}
    network = model(nodes, {"x": (1, 8, 5, 5)}, ["y"], constants)
    with pytest.raises(CompileError, match=r"^Node 't' \(slice\) must work image by image for 2 of them instead of 1$"):
        vta.compile(network, target="cpu", batch=2)
    x = floats(1, 8, 5, 5)
    np.testing.assert_array_equal(vta.compile(network, target="cpu").run(x), x[:, :1])


def test_a_scalar_input_cannot_be_calibrated() -> None:
    network = model([onnx.helper.make_node("Mul", ["x", "z"], ["y"])], {"x": (1, 4, 2, 2), "z": ()}, ["y"])
    with pytest.raises(vta.ApiError) as refused:
        vta.compile(network, calibration={"x": floats(2, 4, 2, 2), "z": np.array(2, np.float32)})
    assert str(refused.value) == "Calibration 'z' must have a first dimension, and is a scalar of the model"


def test_a_quantised_network_on_the_cpu_refuses_what_becomes_no_integer() -> None:
    x = floats(2, 16, 4, 4)
    program = vta.compile(single("Conv", (1, 16, 4, 4), [floats(8, 16, 1, 1)]), calibration=x, target="cpu")
    x[1, 2, 3, 0] = np.nan
    with pytest.raises(vta.ApiError, match=r"^Input 'x' must be finite to become integers, not nan at \[1, 2, 3, 0\]$"):
        program.run(x)


def test_a_model_that_cannot_have_another_batch_says_so() -> None:
    network = single("Unsqueeze", (16, 4, 4), [np.array([0])])
    assert vta.compile(network, target="cpu").run(floats(16, 4, 4)).shape == (1, 16, 4, 4)
    with pytest.raises(CompileError, match=r"^The model must work image by image along the first dimension, 16, "):
        vta.compile(network, target="cpu", batch=2)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_numbers_that_become_no_integers_are_refused(number: float) -> None:
    program = CompiledProgram(vta_program())
    x = images(3, "float32")
    x[2, 5, 0, 0] = number
    with pytest.raises(vta.ApiError) as refused:
        program.run(x)
    assert str(refused.value) == f"Input 'x' must be finite to become integers, not {number} at [2, 5, 0, 0]"


def test_calibration_with_nothing_in_it_is_refused() -> None:
    zeros = np.zeros((2, 16, 4, 4), np.float32)
    network = single("Conv", (1, 16, 4, 4), [floats(8, 16, 1, 1)])
    with pytest.raises(vta.ApiError) as refused:
        vta.compile(network, calibration=zeros)
    assert str(refused.value) == "Calibration 'x' must have other numbers than 0, from which ranges are learned"


@pytest.mark.parametrize("isa", ["tvm", "extended"])
def test_a_model_in_float16_is_quantised(isa: str) -> None:
    """With its own type where it reads and gives, and no rounding to it between."""
    w = (floats(24, 16, 3, 3) / 10).astype(np.float16)
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        onnx.helper.make_node("Relu", ["c"], ["r"]),
        onnx.helper.make_node("Conv", ["r", "v"], ["y"]),
    ]
    constants = {"w": w, "v": (floats(8, 24, 1, 1, seed=1) / 5).astype(np.float16)}
    network = model(nodes, {"x": ("N", 16, 6, 6)}, ["y"], constants, dtype=np.float16)
    x = floats(2, 16, 6, 6, seed=2)
    program = vta.compile(network, calibration=x, config=replace(preset("sim"), isa=isa))
    half = x.astype(np.float16)
    answers = [program.run(half, engine) for engine in ("functional", "cycle", "llvm", "reference")]
    assert answers[0].dtype == np.float16
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer, answers[0])
    exact = vta.compile(network, target="cpu").run(half)
    assert np.abs(answers[0] - exact).max() < 0.05 * np.abs(exact).max()
    assert program.program.attributes["hosts"].keys() == {"c", "x", "y", "y.1"}


def test_names_of_the_package() -> None:
    assert set(vta.__all__) == {"ApiError", "CompiledProgram", "Engine", "compile", "layer_noise", "load"}
    assert all(getattr(vta, name) is not None for name in vta.__all__)
    with pytest.raises(AttributeError, match=r"^module 'vta' has no attribute 'compil'$"):
        _ = vta.compil


@pytest.mark.parametrize("engine", ["llvm", "interp"])
@pytest.mark.parametrize(
    ("step", "sentence"),
    [
        (
            Host(name="plus", proc=plus_three(SHAPE), buffers=("x",)),
            "Arguments of plus must be 2 arrays, not 1",
        ),
        (
            Host(name="plus", proc=plus_three((2, 15)), buffers=("x", "y")),
            "Parameter 'x' of host step 'plus' must have the shape of its buffer, [2, 16, 1, 1], not [2, 15]",
        ),
    ],
)
def test_host_steps_that_do_not_fit_their_buffers(engine: str, step: Host, sentence: str) -> None:
    program = CompiledProgram(replace(cpu_program(), steps=(step,)))
    with pytest.raises((SessionError, ArgumentError)) as caught:
        program.run(images(2, "int8"), engine)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("engine", ["llvm", "interp"])
def test_a_host_step_that_writes_its_input_is_refused(engine: str) -> None:
    step = Host(name="plus", proc=plus_three(SHAPE), buffers=("y", "x"))
    with pytest.raises(CompileError, match=r"must be writeable"):
        CompiledProgram(replace(cpu_program(), steps=(step,))).run(images(2, "int8"), engine)


@pytest.mark.parametrize("engine", ["llvm", "interp"])
def test_a_host_step_that_is_no_procedure_is_refused(engine: str) -> None:
    step = Host(name="plus", proc={"body": [1, 2]}, buffers=("x", "y"))
    with pytest.raises(SerialError):
        CompiledProgram(replace(cpu_program(), steps=(step,))).run(images(2, "int8"), engine)


def test_one_program_may_be_run_by_several_threads() -> None:
    """They wait for each other, for all work in the same memory."""
    program = vta.compile(model_bytes(), target="cpu")
    images = [np.random.default_rng(seed).random((1, 1, 8, 8), np.float32) for seed in range(32)]
    expected = [program.run(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        for answer, right in zip(pool.map(program.run, images * 4), expected * 4, strict=True):
            assert np.array_equal(answer, right)
