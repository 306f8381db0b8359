"""`vta.compile`, `vta.load` and the program they give."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compiler.graph.layout import Layout, pack, unpack
from runtime.session import RunStatistics, Session
from vta.batching import Array, Port, batches, named_inputs, names, refuse_infinite
from vta.engine_names import ON_ACCELERATOR, ON_CPU, TIMED, Engine
from vta.engines import check_one_thread, is_accelerated, open_session
from vta.errors import ApiError
from vta.report import Cost, layer_costs, total_cost
from vta_hw.spec.config import VTAConfig, resolve
from vta_hw.spec.program import Buffer, Program

if TYPE_CHECKING:
    import onnx

    from compiler.graph.ir import Graph
    from compiler.graph.quantize.noise import LayerNoise
    from compiler.graph.quantize.report import Quantized
    from compiler.graph.quantize.values import QuantizeOptions

__all__ = ["ApiError", "CompiledProgram", "Engine", "compile_model", "layer_noise", "load"]

Progress = Callable[[int, int], None]

MAX_BATCH = 4096
_BY_IMAGE = "by_image"
"""Attribute of programs that mix images, or what their first dimension is: false."""
CALIBRATION_BATCH = 32
CALIBRATION_ELEMENTS = 1 << 19
"""Images that the float network sees at a time, and elements of them: enough to be fast, few enough for caches."""


class CompiledProgram:
    """A program, with what is needed to run it on any engine.

    program: for the accelerator or for the CPU. graph: the quantised graph it was compiled from; None after `load`,
    which leaves the engines that the program itself is made for.
    """

    def __init__(self, program: Program, *, graph: Graph | None = None) -> None:
        if program.is_raw:
            raise ApiError("Program must be a compiled one, not raw instructions; run those with `vta exec`")
        self.program = program
        self.graph = graph
        self._sessions: dict[tuple[Engine, int], Session] = {}
        self._statistics: RunStatistics | None = None
        self.inputs = tuple(port_of(buffer) for buffer in program.inputs)
        self.outputs = tuple(port_of(buffer) for buffer in program.outputs)

    @property
    def batch(self) -> int:
        """Images that the program handles at a time; 1 if it reads none, or is not for images."""
        first = self.inputs[0].shape if self.inputs else ()
        return first[0] if first else 1

    @property
    def by_image(self) -> bool:
        """Whether it runs on any number of images, each of which has rows of the results, one or more, of its own."""
        if not self.inputs or not all(port.shape[:1] == (self.batch,) for port in self.inputs):
            return False
        whole = all(port.shape and port.shape[0] % self.batch == 0 for port in self.outputs)
        return whole and self.program.attributes.get(_BY_IMAGE) is not False

    @property
    def engines(self) -> tuple[Engine, ...]:
        """The engines that can run this program; the first is the default."""
        own = ON_ACCELERATOR if is_accelerated(self.program) else ON_CPU
        if self.graph is None:
            return own
        return (*own, *(engine for engine in (*ON_CPU, Engine.REFERENCE) if engine not in own))

    @property
    def report(self) -> tuple[Cost, ...]:
        """Static costs of each accelerated layer (`vta.report`); nothing is executed."""
        return layer_costs(self.program)

    @property
    def total(self) -> Cost:
        """Static costs of all instructions together."""
        return total_cost(self.program)

    @property
    def statistics(self) -> RunStatistics:
        """What the device counted in the last `run`, all batches together. Raises ApiError before the first."""
        if self._statistics is None:
            raise ApiError("Statistics must be asked for after a run on a device, not before")
        return self._statistics

    def save(self, path: str | Path) -> None:
        """Write the `.vta` file, whole or not at all."""
        self.program.save(path)

    def named(self, array: Array) -> dict[str, Array]:
        """`array` under the name of the only input. Raises ApiError if there are several."""
        if len(self.inputs) != 1:
            raise ApiError(f"Inputs must be given by name, one of {names(self.inputs)} each, not as one array")
        return {self.inputs[0].name: array}

    def run(
        self,
        inputs: Mapping[str, Array] | Array,
        engine: Engine | str | None = None,
        *,
        timeout: float | None = None,
        threads: int = 1,
        progress: Progress | None = None,
    ) -> dict[str, Array] | Array:
        """Outputs in logical shapes: a dict by name, or the array if `inputs` is an array and there is one output.

        inputs: dict by name, or the array if there is one input. The first dimension is the batch, of any size: it is
        cut into the compiled batch, and the last piece is filled up. A model that does not work image by image takes
        the shapes that it was compiled for. engine: by default the first of `engines`.
        timeout: seconds for one launch of a device. threads: that compute together what runs on the host, at most as
        many as processors; the answer is the same for any. progress: called with (images done, images).

        Raises ApiError for names, shapes, dtypes or engines that do not fit, for numbers that are not finite and are to
        become the accelerator's integers, and what the engine raises.
        """
        chosen = self._engine(engine)
        arrays = named_inputs(self.inputs, inputs, by_image=self.by_image)
        if is_accelerated(self.program) or (self.graph is not None and _is_quantised(self.graph)):
            refuse_infinite(arrays)
        if not self.by_image:
            whole, statistics = self._run_batch(arrays, chosen, timeout, threads)
            self._statistics = RunStatistics.total(statistics) if statistics else None
            return self._returned(whole, inputs)
        count = len(next(iter(arrays.values())))
        rows = {port.name: port.shape[0] // self.batch for port in self.outputs}
        parts: list[dict[str, Array]] = []
        runs: list[RunStatistics] = []
        for begin, (batch, real) in zip(range(0, count, self.batch), batches(arrays, self.batch), strict=True):
            outputs, statistics = self._run_batch(batch, chosen, timeout, threads)
            parts.append({name: outputs[name][: real * count_of] for name, count_of in rows.items()})
            runs += statistics
            if progress is not None:
                progress(begin + real, count)
        self._statistics = RunStatistics.total(runs) if runs else None
        return self._returned({name: np.concatenate([part[name] for part in parts]) for name in rows}, inputs)

    @staticmethod
    def _returned(result: dict[str, Array], inputs: Mapping[str, Array] | Array) -> dict[str, Array] | Array:
        if not isinstance(inputs, Mapping) and len(result) == 1:
            return next(iter(result.values()))
        return result

    def _engine(self, engine: Engine | str | None) -> Engine:
        if engine is None:
            return self.engines[0]
        chosen = Engine.of(engine)
        if chosen not in self.engines:
            known = ", ".join(repr(engine.value) for engine in self.engines)
            raise ApiError(f"Engine of this program must be one of {known}, not {chosen.value!r}")
        return chosen

    def _run_batch(
        self, batch: dict[str, Array], engine: Engine, timeout: float | None, threads: int
    ) -> tuple[dict[str, Array], list[RunStatistics]]:
        if engine is Engine.REFERENCE:
            from compiler.graph.evaluate import evaluate

            check_one_thread(engine, threads)
            assert self.graph is not None
            return dict(evaluate(self.graph, batch)), []
        session = self._session(engine, timeout, threads)
        outputs = session.run({port.name: to_stored(port, batch[port.name]) for port in self.inputs})
        return {port.name: from_stored(port, outputs[port.name]) for port in self.outputs}, [session.statistics]

    def _session(self, engine: Engine, timeout: float | None, threads: int) -> Session:
        key = engine, threads
        if key not in self._sessions:
            program = self._program_for(engine)
            if engine in TIMED and self.graph is None:  # what was compiled here has been proved
                from vta.checking import refuse_races

                refuse_races(program)
            self._sessions[key] = open_session(program, engine, threads=threads)
        self._sessions[key].timeout = timeout
        return self._sessions[key]

    def _program_for(self, engine: Engine) -> Program:
        """The accelerator's program or the CPU's; the one that is missing is compiled from the graph."""
        if (engine in ON_ACCELERATOR) == is_accelerated(self.program):
            return self.program
        from compiler.driver import Target, compile_graph

        assert self.graph is not None
        return compile_graph(self.graph, self.program.config, target=Target.CPU)


def port_of(buffer: Buffer) -> Port:
    """What a buffer is to the caller. Raises ApiError unless it has a layout that is known."""
    if buffer.layout is None:
        return Port(name=buffer.name, shape=buffer.shape, dtype=buffer.dtype)
    match buffer.layout:
        case {"logical": [int(), int(), int(), int()] as logical, "n": int(n), "c": int(c)} if n > 0 and c > 0:
            shape = tuple(logical)
            if Layout(n, c).physical(shape) == buffer.shape and min(shape) > 0:
                return Port(name=buffer.name, shape=shape, dtype=buffer.dtype, tile=(n, c))
    raise ApiError(f"Buffer {buffer.name!r} must have a layout of tiles that gives its shape, not {buffer.layout!r}")


def to_stored(port: Port, array: Array) -> Array:
    """Logical array as the program's buffer stores it."""
    return array if port.tile is None else pack(array, Layout(*port.tile))


def from_stored(port: Port, array: Array) -> Array:
    """The program's buffer as a logical array."""
    return array if port.tile is None else unpack(array, port.shape)


def compile_model(
    model: str | Path | bytes | onnx.ModelProto | Graph,
    *,
    config: VTAConfig | str | Path = "sim",
    target: str = "vta",
    calibration: Array | Mapping[str, Array] | None = None,
    options: QuantizeOptions | None = None,
    batch: int | None = None,
    progress: Progress | None = None,
) -> CompiledProgram:
    """Compile a model for the accelerator (``target="vta"``) or the CPU (``target="cpu"``).

    model: path or contents of an ONNX file, an ONNX model, or a graph, float or quantised. config: a configuration, the
    name of a preset or the path of a vta_config.json; the CPU computes with its number of bits. calibration: inputs of
    a few dozen images, from which the quantiser learns the ranges that the model does not give: an array, or a dict by
    input name, float32 [N, ...]; a model that is quantised throughout, in QDQ or QOperator form, needs none, and any
    other the CPU computes without them in the model's own types. options: how the quantiser chooses the integers
    (`compiler.graph.quantize.values.QuantizeOptions`). batch: images in one run, by default the configuration's BATCH,
    and the model's own on the CPU in the model's types, whose first dimension need not be one of images then.
    progress: called with (steps done, steps).

    Raises ApiError, ConfigError or CompileError.
    """
    from compiler.driver import Target, compile_graph
    from compiler.graph.batch import rebatched, works_by_image
    from vta.checking import proved

    if target not in [member.value for member in Target]:
        raise ApiError(f"Target must be one of {', '.join(repr(t.value) for t in Target)}, not {target!r}")
    machine = config if isinstance(config, VTAConfig) else resolve(config)
    if batch is not None and (type(batch) is not int or not 1 <= batch <= MAX_BATCH):
        raise ApiError(f"Batch must be an integer from 1 to {MAX_BATCH}, not {batch!r}")
    with _without_collector():
        source, model = model, _graph(model)
        by_image = _is_for_any_batch(source, model)
        if target == Target.CPU.value and calibration is None and not (_gives_ranges(model) and _is_real(model)):
            graph = model if batch is None else rebatched(model, batch) if by_image else _graph(source, batch)
        elif not by_image and batch not in (None, 1):
            raise ApiError(f"Batch must be 1 for a model that does not work image by image, not {batch}")
        else:
            images = machine.batch if batch is None else batch
            graph = quantized_graph(model, machine, calibration, images if by_image else 1, options, by_image=by_image)
        program = compile_graph(graph, machine, target=Target(target), progress=progress)
        if not by_image or not works_by_image(graph):
            program = replace(program, attributes={**program.attributes, _BY_IMAGE: False})
        return CompiledProgram(proved(program), graph=graph)


@contextmanager
def _without_collector() -> Iterator[None]:
    """A compiler makes a great many small objects, and hardly any cycles: looking for them is an eighth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def quantized_graph(
    model: str | Path | bytes | onnx.ModelProto | Graph,
    config: VTAConfig,
    calibration: Array | Mapping[str, Array] | None,
    batch: int,
    options: QuantizeOptions | None = None,
    *,
    by_image: bool = True,
) -> Graph:
    """The graph that the back ends take: `model` for `batch` images, quantised unless it is already.

    by_image: whether several images of the calibration may be computed at a time.
    """
    from compiler.graph.batch import rebatched

    graph = _graph(model)
    if _is_quantised(graph):
        return rebatched(graph, batch)
    _, quantized, _ = _quantized(graph, config, calibration, options, by_image=by_image)
    return rebatched(quantized.graph, batch)


def layer_noise(
    model: str | Path | bytes | onnx.ModelProto | Graph,
    *,
    config: VTAConfig | str | Path = "sim",
    calibration: Array | Mapping[str, Array],
    options: QuantizeOptions | None = None,
) -> tuple[LayerNoise, ...]:
    """What each layer of a model loses by quantisation, on the calibration inputs (`LayerNoise`, in dB).

    Of an ONNX model that gives its own integers it is what is lost beside these. Arguments and errors as those of
    `compile_model`. Raises ApiError for a graph that is quantised already.
    """
    from compiler.graph.quantize.noise import signal_to_noise

    machine = config if isinstance(config, VTAConfig) else resolve(config)
    graph = _graph(model)
    if _is_quantised(graph):
        raise ApiError("Noise must be asked for of a float model, not of a quantised one")
    by_image = _is_for_any_batch(model, graph)
    prepared, quantized, samples = _quantized(graph, machine, calibration, options, by_image=by_image)
    return signal_to_noise(prepared, quantized, _parts(samples, by_image=by_image))


def _graph(model: str | Path | bytes | onnx.ModelProto | Graph, batch: int | None = None) -> Graph:
    from compiler.frontend.onnx import load_onnx
    from compiler.graph.ir import Graph

    return model if isinstance(model, Graph) else load_onnx(model, batch=batch)


def _is_for_any_batch(source: str | Path | bytes | onnx.ModelProto | Graph, imported: Graph) -> bool:
    """Whether a model that leaves its batch open does the same with each image, as far as its import can tell.

    Shapes are resolved while importing, and may be part of what is computed.
    """
    from compiler.errors import FrontendError
    from compiler.graph.batch import is_rebatched

    if source is imported:
        return True
    try:
        return is_rebatched(imported, _graph(source, 2))
    except FrontendError:  # the batch is fixed
        return True


def _is_quantised(graph: Graph) -> bool:
    from compiler.graph.passes.partition import is_quantised

    return is_quantised(graph)


def _gives_ranges(graph: Graph) -> bool:
    """Whether a model is quantised, or says itself how some of its values are."""
    from compiler.graph.ops.elementwise import FakeQuantize

    return _is_quantised(graph) or any(isinstance(node.op, FakeQuantize) for node in graph.nodes)


def _is_real(graph: Graph) -> bool:
    """Whether all that a graph reads and makes are reals, or integers that stand for such."""
    names = (*(value.name for value in graph.inputs), *graph.producers)
    return _is_quantised(graph) or all(graph.types[name].dtype.is_float for name in names)


def _quantized(
    graph: Graph,
    config: VTAConfig,
    calibration: Array | Mapping[str, Array] | None,
    options: QuantizeOptions | None,
    *,
    by_image: bool = True,
) -> tuple[Graph, Quantized, dict[str, Array]]:
    """(the float graph that was quantised, the quantised one, the calibration by input, empty if there is none)."""
    from compiler.graph.passes.pipeline import prepare
    from compiler.graph.quantize.convert import quantize

    if calibration is None and not _gives_ranges(graph):
        raise ApiError("Calibration must be given for a float model: a few dozen of its inputs")
    prepared = prepare(graph, config, options)
    if calibration is None:
        return prepared, quantize(prepared, None, config=config, options=options), {}
    ports = tuple(Port(name=v.name, shape=v.type.shape, dtype=v.type.dtype.value) for v in graph.inputs)
    samples = named_inputs(ports, _in_half(ports, calibration), subject="Calibration")
    for name, array in samples.items():
        if not array.any():
            raise ApiError(f"Calibration {name!r} must have other numbers than 0, from which ranges are learned")
    parts = _parts(samples, by_image=by_image)
    return prepared, quantize(prepared, parts, config=config, options=options), samples


def named_samples(ports: tuple[Port, ...], samples: Array | Mapping[str, Array] | None) -> dict[str, Array]:
    """Calibration inputs by name; empty if there are none."""
    if samples is None:
        return {}
    return dict(samples) if isinstance(samples, Mapping) else {ports[0].name: samples}


def _in_half(ports: tuple[Port, ...], samples: Array | Mapping[str, Array]) -> Array | Mapping[str, Array]:
    """Inputs with float32 for float16 converted: photographs are read as such."""
    if not isinstance(samples, Mapping) and len(ports) == 1:
        samples = {ports[0].name: samples}
    if not isinstance(samples, Mapping):
        return samples
    half = {port.name for port in ports if port.dtype == "float16"}
    return {
        name: array.astype(np.float16) if name in half and getattr(array, "dtype", None) == np.float32 else array
        for name, array in samples.items()
    }


def _parts(samples: dict[str, Array], *, by_image: bool) -> Iterator[dict[str, Array]]:
    """So many images at a time as are fast; one, where the model does not work image by image."""
    elements = sum(math.prod(array.shape[1:]) for array in samples.values())
    at_once = min(CALIBRATION_BATCH, max(1, CALIBRATION_ELEMENTS // max(elements, 1))) if by_image else 1
    return (part for part, _ in batches(samples, at_once, fill=False))


def load(path: str | Path) -> CompiledProgram:
    """Read a compiled program. Raises ProgramError, ApiError for raw instructions."""
    return CompiledProgram(Program.load(path))
