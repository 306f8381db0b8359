"""What integers are known to be within, from the ops that clip to those that keep it."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.driver import Target, compile_graph
from compiler.graph.evaluate import evaluate
from compiler.graph.limits import limits
from compiler.graph.ops.move import Concat, Pad, Slice
from compiler.graph.ops.qconv import QConv2d
from compiler.graph.ops.qelementwise import QAdd
from compiler.graph.ops.qpool import QMaxPool2d
from compiler.tensor.ir import DType
from tests.compiler.graph.build import Builder, int8s
from vta.api import from_stored, port_of
from vta.engines import Engine, open_session
from vta_hw.spec.config import VTAConfig


def test_ops_that_clip_say_so_and_others_keep_it() -> None:
    b = Builder()
    x = b.input(1, 4, 6, 6, dtype=DType.INT8)
    relu = b(QAdd(m0=1, lo=0, hi=90), x)
    signed = b(QAdd(m0=1, lo=-7, hi=-2), x)
    pooled = b(QMaxPool2d(kernel=(2, 2), stride=(2, 2)), relu)
    part = b(Slice(starts=(0, 1, 0, 0), steps=(1, 1, 1, 1), shape=(1, 2, 6, 6)), relu)
    joined = b(Concat(axis=1), relu, signed)
    unknown = b(Concat(axis=1), relu, x)
    bordered = b(Pad(before=(0, 0, 1, 1), after=(0, 0, 1, 1), value=-9.0), relu)
    known = limits(b.graph(pooled, part, joined, unknown, bordered))
    assert {name: known.get(name) for name in (x, relu, signed, pooled, part, joined, unknown, bordered)} == {
        x: None,
        relu: (0, 90),
        signed: (-7, 0),  # what fills up tiles is 0
        pooled: (0, 90),
        part: (0, 90),
        joined: (-7, 90),
        unknown: None,
        bordered: (-9, 90),
    }


@pytest.mark.parametrize("lo", [0, -20])
def test_a_convolution_raises_what_may_be_negative(lo: int) -> None:
    b = Builder()
    x = b.input(1, 20, 5, 5, dtype=DType.INT8)
    clipped = b(QAdd(m0=1, lo=lo, hi=100), x)
    w = b.constant(int8s(18, 20, 3, 3))
    m, bias = b.constant(np.ones(18, np.int32)), b.constant(np.zeros(18, np.int32))
    graph = b.graph(b(QConv2d(padding=(1, 1, 1, 1), shift=9, lo=-128, hi=127), clipped, w, m, bias))
    program = compile_graph(graph, VTAConfig(), target=Target.CPU)
    step = program.steps[-1]
    names = [parameter[0] for parameter in step.proc["params"]]
    assert ("S" in names) is (lo < 0)
    given = {x: int8s(1, 20, 5, 5, seed=1)}
    (expected,) = evaluate(graph, given).values()
    for engine in (Engine.INTERP, Engine.LLVM):
        (result,) = open_session(program, engine).run(given).values()
        assert np.array_equal(from_stored(port_of(program.outputs[0]), result), expected)
