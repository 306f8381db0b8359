"""Kernels of every op, between inaccessible pages, give the interpreter's bits: some shapes that the fuzzer tries."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from compiler.llvm.module import Call, generate_run
from compiler.llvm.steps import scheduled
from compiler.llvm.target import Target
from compiler.llvm.team import processors
from tests.compiler.llvm import fuzz_kernels
from tests.compiler.llvm.isolated import outcomes
from tests.compiler.llvm.random_kernels import OPS, check, differences, random_case

SEEDS = (3, 4)
FOUND = (("matrices", 52),)  # by the fuzzer: columns that are none, read from behind the matrix on AVX2
HOST = Target.host()
pytestmark = pytest.mark.skipif("windows" in HOST.triple, reason="it has no mprotect")


def test_kernels_of_every_op_are_the_interpreters() -> None:
    cases = [*FOUND, *((op, seed) for op in OPS for seed in SEEDS)]
    assert [(each.item, each.problem) for each in outcomes(check, cases) if each.problem] == []


def test_cases_have_scratch_memory_and_every_machine() -> None:
    """Memory that threads share, alone and together, and fewer registers than the host's."""
    found = set()
    for op, seed in itertools.product(("conv", "matmul"), range(8)):
        case = random_case(op, seed)
        procs = [scheduled(kernel.proc, case.target).proc for kernel in case.kernels]
        calls = [Call(proc=n, buffers=tuple(range(len(proc.params)))) for n, proc in enumerate(procs)]
        found |= {(case.threads, generate_run(procs, calls, case.target).shared > 0), case.target.cpu}
    assert found >= {(threads, True) for threads in range(1, min(2, processors()) + 1)}
    assert found >= {HOST.cpu, *(["x86-64-v3"] if HOST.has("avx2") and HOST.has("fma") else [])}


def test_differences() -> None:
    left, right = np.array([0.0, np.nan, 1, 2], np.float32), np.array([-0.0, -np.nan, 1, 3], np.float32)
    assert differences(left, right).tolist() == [True, False, False, True]
    assert differences(np.array([True, False]), np.array([True, True])).tolist() == [False, True]


def test_the_fuzzer_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["fuzz_kernels", "--count", "2", "--seed", "9", "--op", "copy"]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as exit_:
        fuzz_kernels.main()
    assert exit_.value.code == 0
    first, second, last = capsys.readouterr().out.replace("\r", "").splitlines()
    assert first == "2 shapes of each of 1 ops, seeds 9 to 10"
    assert second.startswith("copy: 2 from seed 9 in ") and second.endswith(" s, 0 wrong")
    assert last == "0 wrong"
