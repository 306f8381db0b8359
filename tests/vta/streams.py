"""A small raw stream whose answer is known, for the tests of `exec`, `disasm` and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.asm import assemble
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA
from vta_hw.spec.program import Program, Segment

UOPS, INPUTS, WEIGHTS, OUTPUTS = 0x1000, 0x2000, 0x3000, 0x4000
TILES = 3

# out[t] = low bytes of inp[t] @ wgt.T + 1 for three tiles; the addresses are the ones above, in elements.
SOURCE = f"""
load.uop dram_base={UOPS // 4} y_size=1 x_size=1 x_stride=1
load.inp dram_base={INPUTS // 16} y_size=1 x_size={TILES} x_stride={TILES}
load.wgt dram_base={WEIGHTS // 256} y_size=1 x_size=1 x_stride=1 push_next
gemm uop_end=1 iter_out=1 iter_in={TILES} dst_factor_in=1 reset
gemm uop_end=1 iter_out=1 iter_in={TILES} dst_factor_in=1 src_factor_in=1 pop_prev
alu.add uop_end=1 iter_out=1 iter_in={TILES} dst_factor_in=1 src_factor_in=1 use_imm imm=1 push_next
store.out dram_base={OUTPUTS // 16} y_size=1 x_size={TILES} x_stride={TILES} pop_prev push_prev
load.uop pop_next
finish
"""


def code(config: VTAConfig, source: str = SOURCE) -> bytes:
    """The instructions of an assembler text."""
    return ISA(config).encode_program(assemble(source, config)[0]).tobytes()


def tensors() -> tuple[NDArray[np.int8], NDArray[np.int8], NDArray[np.int8]]:
    """inputs int8 [3,16], weights int8 [16,16], and the outputs int8 [3,16] that the stream must give."""
    rng = np.random.default_rng(7)
    inputs = rng.integers(-128, 128, (TILES, 16), dtype=np.int8)
    weights = rng.integers(-128, 128, (16, 16), dtype=np.int8)
    outputs = (inputs.astype(np.int32) @ weights.astype(np.int32).T + 1).astype(np.int8)
    return inputs, weights, outputs


def raw_program(source: str = SOURCE, config: VTAConfig | None = None) -> Program:
    """The stream with its memory."""
    machine = config or VTAConfig()
    inputs, weights, _ = tensors()
    segments = (
        Segment(address=UOPS, data=bytes(4)),
        Segment(address=INPUTS, data=inputs.tobytes()),
        Segment(address=WEIGHTS, data=weights.tobytes()),
    )
    return Program.raw(config=machine, insns=code(machine, source), segments=segments, insn_address=0x8000)


def large_config() -> VTAConfig:
    """A configuration that the functional simulator runs and no FPGA tool can build."""
    return VTAConfig(
        isa="extended",
        log_batch=5,
        log_block_in=2,
        log_block_out=5,
        log_inp_buff_size=13,
        log_wgt_buff_size=12,
        log_acc_buff_size=16,
    )


def write_parts(folder: Path) -> list[str]:
    """Files of the stream in `folder`, and the arguments of ``vta exec`` that name them and dump `out.bin`."""
    inputs, weights, _ = tensors()
    (folder / "insns.bin").write_bytes(code(VTAConfig()))
    (folder / "uops.bin").write_bytes(bytes(4))
    (folder / "inp.bin").write_bytes(inputs.tobytes())
    (folder / "wgt.bin").write_bytes(weights.tobytes())
    return [
        "--insns",
        "insns.bin",
        "--segment",
        f"{UOPS}=uops.bin",
        "--segment",
        f"{INPUTS:#x}=inp.bin",
        "--segment",
        f"{WEIGHTS:#x}=wgt.bin",
        "--dump",
        f"{OUTPUTS:#x}:{TILES * 16}=out.bin",
    ]
