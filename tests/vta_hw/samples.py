"""Small programs to read, write and damage."""

from __future__ import annotations

from vta_hw.spec.config import PRESETS, VTAConfig
from vta_hw.spec.isa import ISA, Alu, AluOp, Finish, Gemm, Load, MemoryType, Store, Uop
from vta_hw.spec.program import Buffer, Host, Launch, Layer, Program, Role, Segment, Tokens


def compiled_program() -> Program:
    """A program with every kind of part; it describes itself and is not meant to compute anything useful."""
    config = PRESETS["tiny"]
    isa = ISA(config)
    insns = isa.encode_program(
        [
            Load(memory_type=MemoryType.UOP, dram_base=32, y_size=1, x_size=2, x_stride=2),
            Load(memory_type=MemoryType.INP, dram_base=64, y_size=1, x_size=2, x_stride=2, push_next=True),
            Gemm(pop_prev=True, uop_end=2, iter_out=1, iter_in=1),
            Alu(uop_end=2, iter_out=1, iter_in=1, alu_opcode=AluOp.SHR, use_imm=True, imm=4, push_next=True),
            Store(memory_type=MemoryType.OUT, dram_base=128, y_size=1, x_size=2, x_stride=2, pop_prev=True),
            Finish(),
        ]
    )
    uops = isa.encode_uops([Uop(), Uop(dst=1, src=1)])
    return Program(
        config=config,
        insns=insns.tobytes(),
        insn_address=0,
        uops=uops.tobytes(),
        uop_address=128,
        arena_bytes=4096,
        buffers=(
            Buffer(
                name="input",
                role=Role.INPUT,
                dtype="int8",
                shape=(1, 2, 1, 4),
                layout={"logical": [1, 8], "tile": [1, 4], "scale": 0.125},
                address=256,
                nbytes=8,
            ),
            Buffer(name="weight", role=Role.CONSTANT, dtype="int4", shape=(3, 3), address=264, nbytes=5),
            Buffer(name="scratch 1", role=Role.WORKSPACE, dtype="int32", shape=(4,), address=512, nbytes=16),
            Buffer(name="scratch 2", role=Role.WORKSPACE, dtype="float32", shape=(2,), address=520, nbytes=8),
            Buffer(name="output", role=Role.OUTPUT, dtype="int16", shape=(), address=1024, nbytes=2),
        ),
        steps=(
            Host(name="quantize", proc={"args": ["x"], "body": {"loop": [1, None, True]}}, buffers=("input",)),
            Launch(insn_begin=0, insn_count=6),
            Host(name="softmax", proc={}, buffers=("scratch 1", "output")),
        ),
        layers=(
            Layer(name="conv", insn_begin=1, insn_end=5, macs=64, attributes={"kernel": [1, 1]}),
            Layer(name="head", insn_begin=5, insn_end=6),
        ),
        segments=(Segment(address=264, data=b"abcde"), Segment(address=512, data=bytes(16))),
        tokens_before=Tokens(s2g=1),
        attributes={"model": "sample", "ratio": -0.5},
    )


def raw_program() -> Program:
    """A third-party program: instructions and DRAM contents at physical addresses."""
    config = VTAConfig()
    insns = ISA(config).encode_program([Load(memory_type=MemoryType.UOP, pop_next=True), Finish()])
    segments = [Segment(address=4096, data=bytes(range(256))), Segment(address=1 << 31, data=b"xyz")]
    address = (1 << 31) + 4096
    return Program.raw(config=config, insns=insns, segments=segments, tokens=Tokens(s2g=1), insn_address=address)
