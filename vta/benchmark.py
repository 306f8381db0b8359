"""How fast networks are on this processor, beside onnxruntime where it is installed.

Both run the same inputs in turns, in one process, and their answers are compared (`vta.timing` says what is measured).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.graph.ir import Graph
from compiler.graph.passes.partition import is_quantised
from vta.api import CompiledProgram, compile_model, from_stored, named_samples, to_stored
from vta.engines import Engine, open_session
from vta.timing import Array, Time, example_inputs, interleaved
from vta_hw.spec.config import VTAConfig

if TYPE_CHECKING:
    from compiler.graph.quantize.values import QuantizeOptions

Progress = Callable[[str, int, int | None], None]
Run = Callable[[], Mapping[str, Array]]


@dataclass(frozen=True, kw_only=True)
class Other:
    """onnxruntime with the model as it is in the file.

    numbers: those of the file, which are not always ours. difference: the largest of an answer from ours, relative to
    the largest answer of its output.
    """

    time: Time
    numbers: str
    difference: float


@dataclass(frozen=True, kw_only=True)
class Result:
    """A network in some numbers (``float32``, ``int8``). other: None if onnxruntime is not installed, or cannot run the
    network."""

    network: str
    numbers: str
    batch: int
    ours: Time
    other: Other | None

    @property
    def ratio(self) -> float | None:
        """onnxruntime's best time over ours: above 1 we are faster."""
        return None if self.other is None or not self.ours.best else self.other.time.best / self.ours.best

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        other = None if self.other is None else self.other.time.as_dict()
        return {
            "network": self.network,
            "numbers": self.numbers,
            "batch": self.batch,
            "ours": self.ours.as_dict(),
            "onnxruntime": other,
            "onnxruntime_numbers": None if self.other is None else self.other.numbers,
            "ratio": self.ratio,
            "difference": None if self.other is None else self.other.difference,
        }


def benchmark(
    network: str,
    model: Path | bytes,
    *,
    config: VTAConfig,
    calibration: Array | Mapping[str, Array] | None = None,
    options: QuantizeOptions | None = None,
    repeat: int = 10,
    threads: int = 1,
    progress: Progress = lambda what, done, total: None,
) -> tuple[Result, ...]:
    """Time a model in its own numbers, and in integers if there is a `calibration` and it is not in integers already.

    model: path or contents of an ONNX file. network: what it is called. repeat: runs, after one to warm up. threads: of
    both; times are those of a clock on the wall for several, and processor time for one. progress: called with (what is
    done, how much of it, of how much in all).

    Raises ApiError and CompileError as `compile_model` does, and for a number of runs or threads that is none.
    """

    def compiled(samples: Array | Mapping[str, Array] | None, batch: int | None) -> CompiledProgram:
        progress(f"Compiling {network}", 0, None)
        return compile_model(model, config=config, target="cpu", calibration=samples, options=options, batch=batch)

    own = compiled(None, None)
    forms = [own]
    if calibration is not None and not is_quantised(_graph(own)):
        forms.append(compiled(calibration, own.batch if own.by_image else None))
    samples = named_samples(own.inputs, calibration)
    given = _numbers(own)
    return tuple(_timed(network, model, form, given, samples, repeat, threads, progress) for form in forms)


def _timed(
    network: str,
    model: Path | bytes,
    compiled: CompiledProgram,
    given: str,
    samples: Mapping[str, Array],
    repeat: int,
    threads: int,
    progress: Progress,
) -> Result:
    progress(f"Loading {network}", 0, None)
    inputs = example_inputs(compiled.inputs, samples)
    session = open_session(compiled.program, Engine.LLVM, threads=threads)
    stored = {port.name: to_stored(port, inputs[port.name]) for port in compiled.inputs}
    numbers = _numbers(compiled)
    other = _onnxruntime(model, inputs, [port.name for port in compiled.outputs], threads)
    times = interleaved(
        [lambda: session.run(stored), *([] if other is None else [other])],
        repeat,
        lambda done, total: progress(f"Timing {network} in {numbers}", done, total),
        time.thread_time_ns if threads == 1 else time.perf_counter_ns,
        rotate=True,
    )
    theirs = None
    if other is not None:
        outputs = session.run(stored)
        found = {port.name: from_stored(port, outputs[port.name]) for port in compiled.outputs}
        theirs = Other(time=times[1], numbers=given, difference=_difference(found, other()))
    return Result(network=network, numbers=numbers, batch=compiled.batch, ours=times[0], other=theirs)


def onnxruntime_version() -> str | None:
    """None if it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    return str(onnxruntime.__version__)


def _onnxruntime(model: Path | bytes, inputs: Mapping[str, Array], outputs: list[str], threads: int) -> Run | None:
    """A run of the model; None if it is not installed, or cannot run it."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        source = model if isinstance(model, bytes) else str(model)
        session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        session.run(outputs, dict(inputs))
    except Exception:  # noqa: BLE001  its exceptions have no class in common
        return None
    return lambda: dict(zip(outputs, session.run(outputs, dict(inputs)), strict=True))


def _graph(compiled: CompiledProgram) -> Graph:
    assert compiled.graph is not None
    return compiled.graph


def _numbers(compiled: CompiledProgram) -> str:
    """Such as ``float32``, or ``int8`` where the layers are quantised."""
    graph = _graph(compiled)
    if is_quantised(graph):
        return f"int{compiled.program.config.inp_bits}"
    dtypes = {graph.types[name].dtype for name in (*(value.name for value in graph.inputs), *graph.producers)}
    return " ".join(sorted(dtype.value for dtype in dtypes if dtype.is_float)) or "integers"


def _difference(found: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    """Largest of an element, relative to the largest finite one of its output; infinite where only one is finite."""
    worst = 0.0
    for name, array in expected.items():
        one, other = found[name].astype(np.float64), array.astype(np.float64)
        equal = (one == other) | (np.isnan(one) & np.isnan(other))
        largest = np.abs(other[np.isfinite(other)]).max(initial=0.0)
        with np.errstate(invalid="ignore"):
            differences = np.where(equal, 0.0, np.nan_to_num(np.abs(one - other), nan=np.inf, posinf=np.inf))
        worst = max(worst, float(differences.max(initial=0.0)) / (float(largest) or 1.0))
    return worst
