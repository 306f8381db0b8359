"""Small compiled programs made by hand: a host step, and a launch between two host steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from compiler.tensor.ir import Buffer as Array
from compiler.tensor.ir import Const, DType, Expr, Proc, Store, Var, cast, nest
from compiler.tensor.serial import to_json
from tests.vta.streams import code
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA, Uop
from vta_hw.spec.program import Buffer, Host, Launch, Layer, Program, Role

BATCH, CHANNELS = 2, 16
SHAPE = (BATCH, CHANNELS, 1, 1)


def elementwise(name: str, source: DType, target: DType, f: Callable[[Expr], Expr], shape: tuple[int, ...]) -> Proc:
    """``y[...] = f(x[...])`` on arrays of `shape`."""
    x, y = Array.of("x", source, shape), Array.of("y", target, shape)
    index = tuple(Var(f"i{axis}") for axis in range(len(shape)))
    loops = [(var.name, extent) for var, extent in zip(index, shape, strict=True)]
    return Proc(name, (x, y), (nest(loops, Store(y, index, f(x[index]))),))


def buffer(name: str, role: Role, address: int, dtype: str = "int8", shape: tuple[int, ...] = SHAPE) -> Buffer:
    nbytes = {"int8": 1, "float32": 4}[dtype]
    for extent in shape:
        nbytes *= extent
    return Buffer(name=name, role=role, dtype=dtype, shape=shape, address=address, nbytes=nbytes)


def plus_three(shape: tuple[int, ...]) -> dict[str, Any]:
    """Serialised ``y = x + 3`` on int8 arrays."""
    return to_json(elementwise("plus", DType.INT8, DType.INT8, lambda x: x + Const(3, DType.INT8), shape))


def cpu_program(config: VTAConfig | None = None) -> Program:
    """int8 [N,16,1,1] -> the same plus 3, as one host step compiled for batches of 2."""
    return Program(
        config=config or VTAConfig(),
        insns=b"",
        arena_bytes=0x1000,
        buffers=(buffer("x", Role.INPUT, 0), buffer("y", Role.OUTPUT, 64)),
        steps=(Host(name="plus", proc=plus_three(SHAPE), buffers=("x", "y")),),
    )


def vta_program(config: VTAConfig | None = None) -> Program:
    """float32 [N,16,1,1] -> int8: the host truncates, the accelerator adds 3, the host adds 4."""
    machine = config or VTAConfig()
    source = f"""
    load.uop dram_base={0x1000 // 4} y_size=1 x_size=1 x_stride=1
    load.acc_8bit dram_base=8 y_size=1 x_size={BATCH} x_stride={BATCH}
    alu.add uop_end=1 iter_out=1 iter_in={BATCH} dst_factor_in=1 src_factor_in=1 use_imm imm=3 push_next
    store.out dram_base=10 y_size=1 x_size={BATCH} x_stride={BATCH} pop_prev push_prev
    load.uop pop_next
    finish
    """
    first = elementwise("truncate", DType.FLOAT32, DType.INT8, lambda x: cast(DType.INT8, x), SHAPE)
    last = elementwise("plus", DType.INT8, DType.INT8, lambda x: x + Const(4, DType.INT8), SHAPE)
    return Program(
        config=machine,
        insns=code(machine, source),
        insn_address=0x2000,
        uops=ISA(machine).encode_uops([Uop()]).tobytes(),
        uop_address=0x1000,
        arena_bytes=0x3000,
        buffers=(
            buffer("x", Role.INPUT, 0, "float32"),
            buffer("q", Role.WORKSPACE, 128),
            buffer("r", Role.WORKSPACE, 160),
            buffer("y", Role.OUTPUT, 192),
        ),
        steps=(
            Host(name="truncate", proc=to_json(first), buffers=("x", "q")),
            Launch(insn_begin=0, insn_count=6),
            Host(name="plus", proc=to_json(last), buffers=("r", "y")),
        ),
        layers=(Layer(name="add", insn_begin=0, insn_end=4, macs=0),),
    )
