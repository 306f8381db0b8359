"""LLVM code gives what the interpreter gives, bit for bit, and writes nowhere else, for random procedures."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.llvm.jit import compile_proc
from compiler.tensor.interp import run
from compiler.tensor.ir import Proc
from compiler.tensor.printer import format_proc
from tests.compiler.llvm.guarded import guarded
from tests.compiler.tensor.random_procs import random_array, random_proc


def check(proc: Proc, rng: np.random.Generator) -> None:
    arrays = [random_array(rng, buffer) for buffer in proc.params]
    expected = [array.copy() for array in arrays]
    run(proc, expected)
    guards = [guarded(array) for array in arrays]
    compile_proc(proc)(*(guard.array for guard in guards))
    for buffer, guard, right in zip(proc.params, guards, expected, strict=True):
        assert guard.is_intact, f"outside of {buffer.name} in\n{format_proc(proc)}"
        # A NaN carries no information: which one an operation gives is the processor's choice.
        same = np.array_equal(guard.array, right, equal_nan=right.dtype == np.float32)
        assert same, f"{buffer.name} in\n{format_proc(proc)}"


@pytest.mark.parametrize("seed", range(60))
def test_random_procedures(seed: int) -> None:
    rng = np.random.default_rng(seed)
    check(random_proc(rng), rng)
