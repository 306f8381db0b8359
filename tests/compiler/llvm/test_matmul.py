"""Products of matrices: the definition, its schedule and machine code give the same bits, near those of numpy."""

from __future__ import annotations

import random

import numpy as np
import pytest

from compiler.graph.ops.conv import pack_columns
from compiler.llvm.jit import compile_proc
from compiler.llvm.registers import Registers
from compiler.llvm.schedule import schedule
from compiler.tensor import interp
from compiler.tensor.define_blocked import FEW_ROWS, Matrices, matmul
from compiler.tensor.ir import For, LoopKind
from compiler.tensor.traverse import walk
from tests.compiler.llvm.guarded import guarded

SMALL = Registers(count=9, lanes=4)


def random_matrices(r: random.Random) -> Matrices:
    rows, inner, columns = (
        r.choice((1, 3, 7, 8, 11, 20)),
        r.choice((1, 5, 16, 21, 32)),
        r.choice((1, 4, 16, 19, 32, 50)),
    )
    if r.random() < 0.5:
        packed = r.random() < 0.5
        transposed = not packed and r.random() < 0.5
        bias = r.random() < 0.5
        return Matrices(rows=rows, inner=inner, columns=columns, packed=packed, transposed=transposed, bias=bias)
    batch = tuple(r.randint(1, 3) for _ in range(r.randint(1, 2)))
    a, b = (tuple(r.choice((1, extent)) for extent in batch[r.choice((0, 0, len(batch))) :]) for _ in range(2))
    shape = np.broadcast_shapes(a, b)
    return Matrices(rows=rows, inner=inner, columns=columns, batch=shape, a=a, b=b)


@pytest.mark.parametrize("seed", range(40))
def test_products(seed: int) -> None:
    r, rng = random.Random(seed), np.random.default_rng(seed)
    m = random_matrices(r)
    x = rng.standard_normal((*m.a, m.rows, m.inner)).astype(np.float32)
    b = rng.standard_normal((*m.b, m.inner, m.columns)).astype(np.float32)
    c = rng.standard_normal(m.columns).astype(np.float32)
    right = pack_columns(b, m) if m.packed else np.ascontiguousarray(b.swapaxes(-1, -2)) if m.transposed else b
    proc = matmul("product", m)
    given = [x, right, *([c] if m.bias else []), np.zeros((*m.batch, m.rows, m.columns), np.float32)]
    given = [array.reshape(buffer.static_shape) for array, buffer in zip(given, proc.params, strict=True)]
    expected = [array.copy() for array in given]
    interp.run(proc, expected)
    exact = x.astype(np.float64) @ b.astype(np.float64) + (c if m.bias else 0)
    np.testing.assert_allclose(expected[-1].reshape(exact.shape), exact, atol=1e-4)
    for registers in (Registers(), SMALL):
        scheduled = schedule(proc, registers).proc
        interpreted = [array.copy() for array in given]
        interp.run(scheduled, interpreted)
        assert np.array_equal(interpreted[-1], expected[-1])
        guards = [guarded(array) for array in given]
        compile_proc(scheduled)(*(guard.array for guard in guards))
        assert all(guard.is_intact for guard in guards)
        assert np.array_equal(guards[-1].array, expected[-1])


def test_sums_of_many_rows_are_unrolled_around_vectors() -> None:
    m = Matrices(rows=FEW_ROWS * 4, inner=64, columns=64)
    loops = [stmt for stmt in walk(schedule(matmul("product", m)).proc.body) if isinstance(stmt, For)]
    kinds = {loop.var.name: loop.kind for loop in loops}
    assert kinds["dot.c"] is LoopKind.VECTORIZED
    assert kinds["dot.ow.sum"] is kinds["dot.co.sum"] is LoopKind.UNROLLED
    assert {name.split(".")[0] for name in kinds} >= {"rows", "columns"}  # both are rearranged


def test_few_rows_are_read_where_they_are() -> None:
    loops = [
        stmt for stmt in walk(matmul("product", Matrices(rows=1, inner=64, columns=64)).body) if isinstance(stmt, For)
    ]
    assert not {loop.var.name.split(".")[0] for loop in loops} & {"rows", "columns"}
