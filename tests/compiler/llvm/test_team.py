"""Several threads: the same answers as one, refusals, and what becomes of the threads."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler.driver import Target as Place
from compiler.driver import compile_graph
from compiler.errors import CompileError
from compiler.llvm import team as team_module
from compiler.llvm.jit import compile_proc
from compiler.llvm.parallel import share_loops
from compiler.llvm.schedule import schedule
from compiler.llvm.team import Team, processors
from compiler.tensor.interp import run
from compiler.tensor.ir import Buffer, Const, DType, For, LoopKind, Proc, Store, Var, nest
from compiler.tensor.schedule import Schedule
from tests.compiler.graph.build import floats
from tests.compiler.llvm.guarded import guarded
from tests.compiler.llvm.test_blocked import SMALL, network, random_arrays, random_proc
from tests.compiler.tensor.random_procs import random_array
from tests.compiler.tensor.random_procs import random_proc as any_proc
from tests.differential import random_network, stored_inputs
from vta.engines import Engine, open_session
from vta_hw.spec.config import VTAConfig

ROOT = Path(__file__).resolve().parents[3]
MOST = processors()
several = pytest.mark.skipif(MOST < 2, reason="needs two processors")


@pytest.mark.parametrize("threads", [0, -1, MOST + 1, True, 1.0, "2"])
def test_there_is_a_processor_for_each_thread(threads: Any) -> None:
    with pytest.raises(CompileError) as error:
        Team(threads)
    rule = f"Threads must be 1 to {MOST}, the processors that this process may use, not {threads!r}"
    assert str(error.value) == rule


@several
@pytest.mark.parametrize("seed", range(30))
def test_scheduled_ops_on_two_threads(seed: int) -> None:
    proc = random_proc(seed)
    s = schedule(proc, SMALL)
    share_loops(s)
    arrays = random_arrays(proc, seed)
    expected = [array.copy() for array in arrays]
    run(proc, expected)
    compiled = [guarded(array) for array in arrays]
    compile_proc(s.proc, threads=2)(*(each.array for each in compiled))
    assert compiled[-1].array.tobytes() == expected[-1].tobytes()
    assert all(each.is_intact for each in compiled)


@several
@pytest.mark.parametrize("seed", range(30))
def test_random_procedures_on_two_threads(seed: int) -> None:
    rng = np.random.default_rng(seed)
    proc = any_proc(rng)
    s = Schedule(proc)
    share_loops(s)
    arrays = [random_array(rng, buffer) for buffer in proc.params]
    alone, together = ([guarded(array) for array in arrays] for _ in range(2))
    for guards, threads in ((alone, 1), (together, 2)):
        compile_proc(s.proc, threads=threads)(*(guard.array for guard in guards))
    for one, two in zip(alone, together, strict=True):
        assert two.is_intact
        assert one.array.tobytes() == two.array.tobytes()


@several
@pytest.mark.parametrize("seed", range(4))
def test_networks_do_not_depend_on_the_number_of_threads(seed: int) -> None:
    """Float and quantised ones: the same bits, run after run."""
    graph = network(seed)
    (value,) = graph.inputs
    float_inputs = {value.name: floats(*value.type.shape, seed=seed)}
    case = random_network(seed)
    quantised = compile_graph(case.graph, case.config, target=Place.CPU)
    for program, inputs in (
        (compile_graph(graph, VTAConfig(), target=Place.CPU), float_inputs),
        (quantised, stored_inputs(quantised, case.inputs)),
    ):
        with open_session(program, Engine.LLVM) as one, open_session(program, Engine.LLVM, threads=2) as two:
            expected = {name: array.tobytes() for name, array in one.run(inputs).items()}
            for _ in range(20):
                assert {name: array.tobytes() for name, array in two.run(inputs).items()} == expected


def adding(rounds: int, width: int = 64) -> Proc:
    """Procedures whose every step needs what the other thread did in the one before: x is turned round and grows."""
    x = Buffer.of("x", DType.INT32, (rounds + 1, width))
    body = tuple(
        For(Var(f"i{n}"), Const(width), (Store(x, (Const(n + 1), Var(f"i{n}")), _turned(x, n, width) + 1),),
            LoopKind.PARALLEL)
        for n in range(rounds)
    )  # fmt: skip
    return Proc("adding", (x,), body)


def _turned(x: Buffer, n: int, width: int) -> Any:
    return x[Const(n), Const(width - 1) - Var(f"i{n}")]


@several
def test_threads_wait_for_each_other() -> None:
    rounds, width = 40, 64
    function = compile_proc(adding(rounds), threads=2)
    for _ in range(100):
        x = np.zeros((rounds + 1, width), np.int32)
        x[0] = np.arange(width)
        function(x)
        assert (x[rounds] == np.arange(width) + rounds).all()


@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=several)])
def test_callers_from_several_threads(threads: int) -> None:
    """Those of a team of one run side by side, those of a larger one in turn."""
    rounds, width = 10, 1 << 16
    function = compile_proc(adding(rounds, width), threads=threads)

    def work(n: int) -> bool:
        x = np.full((rounds + 1, width), n, np.int32)
        function(x)
        return bool((x[rounds] == n + rounds).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(100)))


def members() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("team")]


def settle(count: int) -> None:
    """Wait until there are no more than so many, if they end."""
    deadline = time.monotonic() + 10
    while len(members()) > count and time.monotonic() < deadline:
        time.sleep(0.01)


@several
def test_threads_begin_with_the_first_run_and_end_with_the_last_reference() -> None:
    gc.collect()
    settle(0)
    before = len(members())
    function = compile_proc(adding(1), threads=2)
    assert len(members()) == before
    for _ in range(3):
        function(np.zeros((2, 64), np.int32))
        assert len(members()) == before + 2
    del function
    gc.collect()
    settle(before)
    assert len(members()) == before


@several
@pytest.mark.parametrize("what", ["memory", "threads"])
def test_what_cannot_be_begun_says_why(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of leaving its caller waiting; the team goes on afterwards."""

    def refuse(*arguments: object) -> None:
        raise MemoryError if what == "memory" else RuntimeError("can't start new thread")

    function, x = compile_proc(adding(1), threads=2), np.zeros((2, 64), np.int32)
    with monkeypatch.context() as patched:
        target = (team_module._Scratch, "of") if what == "memory" else (team_module, "_follower")
        patched.setattr(*target, refuse)
        with pytest.raises(MemoryError if what == "memory" else RuntimeError):
            function(x)
    function(x)
    assert (x[1] == 1).all()


@several
def test_idle_threads_use_no_processor() -> None:
    function = compile_proc(adding(1), threads=2)
    function(np.zeros((2, 64), np.int32))
    begin = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - begin < 0.1
    del function


SCRIPT = """
import os, signal, sys, threading, time
import numpy as np
from compiler.llvm.jit import compile_proc
from compiler.tensor.ir import LoopKind
from tests.compiler.llvm.test_team import adding, long_running

function = compile_proc(adding(3), threads=2)
x = np.zeros((4, 64), np.int32)
function(x)
what = sys.argv[1]
if what == "interrupt":
    slow = compile_proc(long_running(), threads=2)
    y = np.zeros((2, 1), np.int32)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        begin = time.monotonic()
        slow(y)
    except KeyboardInterrupt:
        print("interrupted")
    function(x)
if what == "fork":
    if os.fork() == 0:
        function(x)
        os._exit(0 if (x[3] == 3).all() else 1)
    assert os.wait()[1] == 0
print((x[3] == 3).all())
"""


def long_running() -> Proc:
    """About a second of additions that LLVM cannot sum up."""
    y = Buffer.of("y", DType.INT32, (2, 1))
    i, zero = Var("i"), Const(0)
    spin = nest([("j", 1 << 14), ("k", 1 << 15)], Store(y, (i, zero), y[i, zero] * 3 + y[Const(1) - i, zero]))
    return Proc("long", (y,), (For(i, Const(2), (spin,)),))


@several
@pytest.mark.parametrize(("what", "printed"), [("exit", "True"), ("interrupt", "interrupted\nTrue"), ("fork", "True")])
def test_a_process_with_a_team_ends_is_interrupted_and_forks(what: str, printed: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, what], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stdout.strip()) == (0, printed), result.stderr
