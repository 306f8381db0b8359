"""Replays recorded instruction streams byte for byte.

`tests/vta_sim/data` holds synthetic streams made by the model in `spec_model`. Where real streams of other compilers
lie in `../shared/streams` beside the repository, they are replayed too.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.vta_sim.spec_model import compare, pipeline
from tests.vta_sim.spec_model.dram import PAGE
from tests.vta_sim.spec_model.layout import ModelConfig
from tests.vta_sim.spec_model.machine import Machine
from tests.vta_sim.spec_model.stream import Stream
from vta_hw.spec.config import VTAConfig
from vta_sim.functional.engine import FunctionalSimulator

REPO = Path(__file__).parents[2]
SYNTHETIC = sorted((REPO / "tests" / "vta_sim" / "data").glob("*.npz"))
RECORDED = sorted((REPO.parent / "shared" / "streams").glob("*/*.npz"))

ALL = [pytest.param(path, id=path.stem) for path in SYNTHETIC]
ALL += [pytest.param(path, id=f"{path.parent.name}-{path.stem}") for path in RECORDED]
if not RECORDED:
    ALL.append(pytest.param(None, id="recorded", marks=pytest.mark.skip(reason="no ../shared/streams here")))

needs_cli = pytest.mark.skipif(importlib.util.find_spec("vta.cli.execute") is None, reason="vta exec is not there")


def expect(stream: Stream, number: int, page: NDArray[np.uint8]) -> None:
    """Page `number` of the file is as the recorder saw it after the launch."""
    wrong = np.flatnonzero(page != stream.after[number])
    address = int(stream.page_addr[number])
    assert len(wrong) == 0, f"page {address:#x}: {len(wrong)} bytes differ, first {address + int(wrong[0]):#x}"


def test_there_are_synthetic_streams() -> None:
    assert len(SYNTHETIC) == 8


@pytest.mark.parametrize("path", ALL)
def test_model(path: Path) -> None:
    stream = Stream.load(path)
    machine = Machine(ModelConfig.from_tvm(stream.vta_config), stream.memory())
    left = pipeline.run(machine, stream.insns, tokens=stream.tokens_before)
    for number, address in enumerate(stream.page_addr.tolist()):
        expect(stream, number, machine.dram.read(address, PAGE))
    assert set(machine.dram.pages) == {address // PAGE for address in stream.page_addr.tolist()}
    assert left.tokens == (stream.tokens_after or (0, 0, 0, 0))
    for kind in ("inp_load", "wgt_load", "acc_load", "uop_load", "out_store"):
        if f"{kind}_bytes" in stream.counts:
            assert getattr(left.statistics, f"{kind}_nbytes") == stream.counts[f"{kind}_bytes"]


@pytest.mark.parametrize("path", ALL)
def test_functional_simulator(path: Path) -> None:
    stream = Stream.load(path)
    memory = compare.toolkit_memory(stream.memory())
    simulator = FunctionalSimulator(VTAConfig.from_json(stream.vta_config), memory=memory)
    compare.write_words(memory, stream.free_address(), stream.insns)
    report = simulator.launch(
        stream.free_address(),
        len(stream.insns),
        tokens=compare.as_tokens(stream.tokens_before),
        allow_leftover_tokens=True,
    )
    for number, address in enumerate(stream.page_addr.tolist()):
        expect(stream, number, memory.read(address, PAGE))
    assert report.tokens_left == compare.as_tokens(stream.tokens_after or (0, 0, 0, 0))
    assert report.counters.insn_count == len(stream.insns)


@pytest.mark.parametrize("path", [p for p in ALL if p.id in ("int16_block32x4", "unit_gemm-001", "recorded")])
def test_scratchpads_and_statistics(path: Path) -> None:
    """Everything the two executions leave behind, not DRAM alone."""
    stream = Stream.load(path)
    machine = Machine(ModelConfig.from_tvm(stream.vta_config), stream.memory())
    left = pipeline.run(machine, stream.insns, tokens=stream.tokens_before)
    simulator = FunctionalSimulator(
        VTAConfig.from_json(stream.vta_config), memory=compare.toolkit_memory(stream.memory())
    )
    compare.write_words(simulator.memory, stream.free_address(), stream.insns)
    report = simulator.launch(stream.free_address(), len(stream.insns), tokens=compare.as_tokens(stream.tokens_before))
    assert list(compare.differences(machine, left, simulator, report)) == []


def exec_arguments(
    stream: Stream, folder: Path, engine: str = "functional"
) -> tuple[list[str], dict[Path, tuple[int, int]]]:
    """Files and arguments for `vta exec`; the dumped files, with the pages that each holds."""
    (folder / "insns.bin").write_bytes(np.ascontiguousarray(stream.insns, "<u8").tobytes())
    (folder / "vta_config.json").write_text(json.dumps(stream.vta_config))
    arguments = ["exec", "--engine", engine, "--insns", str(folder / "insns.bin"), "--count"]
    arguments += [str(len(stream.insns)), "--config", str(folder / "vta_config.json"), "--json"]
    arguments += ["--tokens", ",".join(map(str, stream.tokens_before))]
    dumps = {}
    for first, end in stream.segments():
        address = int(stream.page_addr[first])
        source, dump = folder / f"{address:x}.in", folder / f"{address:x}.out"
        source.write_bytes(stream.before[first:end].tobytes())
        arguments += ["--segment", f"{address:#x}={source}"]
        arguments += ["--dump", f"{address:#x}:{(end - first) * PAGE}={dump}"]
        dumps[dump] = (first, end)
    return arguments, dumps


def expect_dumps(stream: Stream, dumps: dict[Path, tuple[int, int]]) -> None:
    for dump, (first, end) in dumps.items():
        pages = np.frombuffer(dump.read_bytes(), np.uint8).reshape(-1, PAGE)
        assert len(pages) == end - first
        for number, page in enumerate(pages, first):
            expect(stream, number, page)


def run_exec(
    stream: Stream, folder: Path, capsys: pytest.CaptureFixture[str], engine: str, *options: str
) -> dict[str, Any]:
    """The figures of `vta exec`, after the checks that every engine must pass.

    The command runs in this process: starting an interpreter for every stream would take most of a minute.
    """
    from vta.cli import main

    arguments, dumps = exec_arguments(stream, folder, engine)
    with pytest.raises(SystemExit) as leave:
        main([*arguments, *options])
    printed = capsys.readouterr()
    assert leave.value.code == 0, printed.err
    expect_dumps(stream, dumps)
    figures: dict[str, Any] = json.loads(printed.out)
    assert figures["instructions"] == len(stream.insns)
    assert figures["tokens_left"] == dict(zip(pipeline.QUEUES, stream.tokens_after or (0, 0, 0, 0), strict=True))
    pages = dict(zip(stream.page_addr.tolist(), stream.after, strict=True))
    for output in figures["outputs"]:
        first, end = output["address"], output["address"] + output["nbytes"]
        low = first - first % PAGE
        data = b"".join(pages[page].tobytes() for page in range(low, end, PAGE))[first - low : end - low]
        assert output["sha256"] == hashlib.sha256(data).hexdigest()
    return figures


@needs_cli
@pytest.mark.parametrize("engine", ["functional", "cycle"])
@pytest.mark.parametrize("path", ALL)
def test_vta_exec(path: Path, engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = run_exec(Stream.load(path), tmp_path, capsys, engine)
    if engine == "functional":
        assert figures["counters"]["insn_count"] == figures["instructions"]
        assert "cycles" not in figures
    else:
        counted = (figures["counters"][f"insn_{unit}"] for unit in ("load", "compute", "store"))
        assert sum(counted) == figures["instructions"]
        assert figures["cycles"] == figures["counters"]["cycle_count"] > figures["instructions"]


@needs_cli
@pytest.mark.parametrize("path", [p for p in ALL if p.id in ("tokens_left", "onera_matrix_maxpool-000")])
def test_vta_exec_gives_the_counters_of_the_rtl(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    memory = ("--latency", "17", "--read-bytes", "4", "--shared-bus", "--stalls", "9")
    of_rtl, of_cycle = (run_exec(Stream.load(path), tmp_path, capsys, engine, *memory) for engine in ("rtl", "cycle"))
    assert {**of_rtl, "engine": "cycle"} == of_cycle


@needs_cli
def test_vta_exec_as_a_program(tmp_path: Path) -> None:
    stream = Stream.load(REPO / "tests" / "vta_sim" / "data" / "default_short.npz")
    arguments, dumps = exec_arguments(stream, tmp_path)
    command = [sys.executable, "-m", "vta", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPO, check=False)
    assert done.returncode == 0, done.stderr
    expect_dumps(stream, dumps)
    assert json.loads(done.stdout)["instructions"] == len(stream.insns)
