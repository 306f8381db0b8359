"""Products of bytes that processors sum in one instruction: the same sums whatever the processor has for them."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest

from compiler.llvm.dot import dot_product
from compiler.llvm.jit import compile_proc
from compiler.llvm.registers import Registers
from compiler.llvm.schedule import schedule
from compiler.llvm.target import Target, emit_assembly
from compiler.tensor import define, interp
from compiler.tensor.interp import InterpError
from compiler.tensor.ir import Buffer, Const, DType, For, LoopKind, Proc, Store, Var, cast
from compiler.tensor.tiles import Tiled, Weighted, Window
from compiler.tensor.traverse import walk
from tests.compiler.llvm.guarded import guarded
from tests.compiler.llvm.one import generate

X86 = "x86_64-unknown-linux-gnu"
PROCESSORS = {
    "VNNI of 512 bits": ("x86-64-v4", "+avx512f,+avx512bw,+avx512vl,+avx512vnni,+avx2"),
    "VNNI of 256 bits": ("x86-64-v3", "+avx2,+avxvnni"),
    "AVX2": ("x86-64-v3", "+avx2"),
    "nothing": ("x86-64", ""),
}
HAS = {"VNNI of 512 bits": "avx512vnni", "VNNI of 256 bits": "avxvnni", "AVX2": "avx2", "nothing": "sse2"}


def processor(name: str) -> Target:
    cpu, features = PROCESSORS[name]
    return Target(triple=X86, cpu=cpu, features=features)


def convolution(limits: tuple[int, int] | None, seed: int = 0) -> Proc:
    r = random.Random(seed)
    height, width, kernel = r.randint(1, 4), r.randint(1, 9), r.choice((1, 1, 2, 3))
    pad = r.randint(0, kernel - 1) if kernel > 1 else 0
    window = Window(kernel=(kernel, kernel), padding=(pad,) * 4, stride=(r.randint(1, 2),) * 2)
    rows, columns = ((n + 2 * pad - kernel) // window.stride[0] + 1 for n in (height, width))
    if min(rows, columns) < 1:
        return convolution(limits, seed + 1000)
    channels = r.choice((4, 16, 16))
    x = Tiled(
        batches=r.randint(1, 2), blocks=r.randint(1, 3), height=height, width=width, n=1, c=channels, limits=limits
    )
    y = replace(x, blocks=r.randint(1, 5), height=rows, width=columns, c=16, limits=None)
    source = Weighted(x=x, window=window, dot=4)
    return define.conv2d("conv", source, y, define.Requantize(shift=9, low=-128, high=127, multiplier=r.random() < 0.5))


def arrays(proc: Proc, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    extremes = rng.random() < 0.3  # where sums of 16 bits would saturate
    out = []
    for buffer in proc.params:
        low, high = buffer.limits or buffer.type.limits
        small = buffer.type.bits <= 8
        shape = buffer.static_shape
        if small and extremes:
            values = rng.choice([low, high], shape)
        else:
            values = rng.integers(low if small else -500, high + 1 if small else 500, shape)
        out.append(values.astype(buffer.type.numpy))
    names = [buffer.name for buffer in proc.params]
    if "S" in names:  # which is what the weights say
        w = out[names.index("W")].astype(np.int32)
        out[names.index("S")] = 128 * w.sum(axis=(2, 3, 4, 5, 7), dtype=np.int32).reshape(out[names.index("S")].shape)
    return out


def run(proc: Proc, target: Target, given: list[np.ndarray]) -> np.ndarray:
    guards = [guarded(array) for array in given]
    compile_proc(proc, target=target)(*(guard.array for guard in guards))
    assert all(guard.is_intact for guard in guards)
    return guards[-1].array


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("limits", [None, (0, 127), (-5, 99), (0, 90)])
def test_every_processor_gives_the_sums_of_the_definition(name: str, limits: tuple[int, int] | None) -> None:
    if not Target.host().has(HAS[name]):
        pytest.skip(f"this processor has no {HAS[name]}")
    for seed in range(6):
        proc = convolution(limits, seed)
        given = arrays(proc, seed)
        expected = [array.copy() for array in given]
        interp.run(proc, expected)
        registers = Registers(count=16, lanes=8) if seed % 2 else Registers()
        scheduled = schedule(proc, registers).proc
        interpreted = [array.copy() for array in given]
        interp.run(scheduled, interpreted)
        assert np.array_equal(interpreted[-1], expected[-1])
        assert np.array_equal(run(scheduled, processor(name), given), expected[-1])


@pytest.mark.parametrize(
    ("target", "limits", "wanted", "unwanted"),
    [
        (processor("VNNI of 512 bits"), None, "vpdpbusd", "vpmaddubsw"),
        (processor("VNNI of 512 bits"), (0, 127), "vpdpbusd", "vpmaddubsw"),
        (processor("VNNI of 256 bits"), (0, 127), "vpdpbusd", "vpmaddubsw"),
        (processor("AVX2"), (0, 127), "vpmaddubsw", "vpdpbusd"),
        (processor("AVX2"), None, "vpmaddwd", "vpmaddubsw"),
    ],
)
def test_the_instruction_is_the_one_that_the_bytes_allow(
    target: Target, limits: tuple[int, int] | None, wanted: str, unwanted: str
) -> None:
    module = generate(schedule(convolution(limits, 4)).proc, target)
    assembly = emit_assembly(module.text, target)
    assert wanted in assembly and unwanted not in assembly


def found(proc: Proc) -> list[For]:
    return [stmt for stmt in walk(proc.body) if isinstance(stmt, For) and dot_product(stmt) is not None]


def test_only_vectors_of_sums_around_neighbouring_bytes_are_found() -> None:
    loops = found(schedule(convolution((0, 127), 4)).proc)
    assert loops
    outer = loops[0]
    (inner,) = outer.body
    assert isinstance(inner, For)
    (store,) = inner.body
    for changed in (
        replace(outer, kind=LoopKind.SERIAL),
        replace(outer, body=(replace(inner, kind=LoopKind.SERIAL),)),
        replace(outer, body=(store,)),
        replace(outer, body=(replace(inner, extent=inner.extent + 1),)),
        replace(outer, body=(replace(inner, body=(replace(store, value=store.value.b),)),)),  # a product, no sum
    ):
        assert dot_product(changed) is None


def test_a_promise_that_is_broken_is_found_by_the_interpreter() -> None:
    proc = convolution((0, 100), 4)
    given = arrays(proc, 0)
    given[0].flat[0] = 101
    with pytest.raises(InterpError, match=r"^Buffer X must hold 0\.\.100, as it says, not \d+\.\.101$"):
        interp.run(proc, given)


def test_seeds_reach_every_kind() -> None:
    """Raised inputs and others, blocks of 4 and of 16, borders and none, sums of several blocks."""
    procs = [convolution(None, seed) for seed in range(6)]
    kinds = {
        (proc.params[0].static_shape[-1], proc.params[1].static_shape[3] > 1, proc.params[1].static_shape[2] > 1)
        for proc in procs
    }
    assert {c for c, *_ in kinds} == {4, 16}
    assert all({kind[k] for kind in kinds} == {False, True} for k in (1, 2))
    assert all("S" in {buffer.name for buffer in proc.params} for proc in procs)
    assert len(list(itertools.chain(*(found(schedule(proc).proc) for proc in procs)))) >= 6


def test_a_line_of_weights_is_asked_for_once() -> None:
    """9 blocks of 16 lanes of 4 bytes are 9 lines for each of 4 steps, all of which one loop of blocks asks for."""
    x = Tiled(batches=1, blocks=80, height=1, width=1, n=1, c=16, limits=(0, 127))
    y = replace(x, blocks=63, limits=None)
    requantize = define.Requantize(shift=8, low=0, high=127, multiplier=False)
    proc = define.conv2d("dense", Weighted(x=x, dot=4), y, requantize)
    loops = [stmt for stmt in walk(schedule(proc).proc.body) if isinstance(stmt, For)]
    (ahead,) = (loop for loop in loops if loop.var.name == "W.ahead")
    assert ahead.extent == Const(9 * 4)


def test_lanes_that_no_processor_has_are_no_vector() -> None:
    (loop, *_) = found(schedule(convolution((0, 127), 4)).proc)
    assert dot_product(replace(loop, extent=Const(1024))) is None


def test_signed_bytes_are_multiplied_as_signed_ones() -> None:
    """I8MM has products of bytes without sign with signed ones alone."""
    x = Buffer.of("x", DType.INT8, (4,))
    w, a = Buffer.of("w", DType.INT8, (16, 4)), Buffer.of("a", DType.INT32, (16,))
    c, i = Var("c"), Var("i")
    sums = Store(a, (c,), a[c,] + cast(DType.INT32, x[i,]) * cast(DType.INT32, w[c, i]))
    nest = For(c, Const(16), (For(i, Const(4), (sums,), LoopKind.UNROLLED),), LoopKind.VECTORIZED)
    proc = Proc("dot", (x, w, a), (nest,))
    for features, instruction in (("+dotprod", "neon.sdot"), ("+dotprod,+i8mm", "neon.sdot"), ("+i8mm", "")):
        text = generate(proc, Target(triple="aarch64-linux-gnu", cpu="generic", features=f"+neon,{features}")).text
        assert "neon.usdot" not in text
        assert instruction in text
