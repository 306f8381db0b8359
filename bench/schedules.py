"""How long layers take to compile, and how their instructions and DRAM bytes compare with TVM's tuned schedules.

The ten shapes are the convolutions of ResNet-18 that TVM offloads. TVM's figures are those of its VTA back end with the
schedules of TopHub for the default configuration, counted in the instruction streams it emits.

    python -m bench.schedules [--json] [--repeat 5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass

from compiler.tensor.define import Requantize, conv2d
from compiler.tensor.ir import Proc
from compiler.tensor.tiles import Tiled, Weighted, Window
from compiler.vta.lower import LaunchBuilder
from compiler.vta.microops import MicroOps
from compiler.vta.schedule import schedule
from compiler.vta.tiling import TilingProblem
from vta_hw.spec import isa
from vta_hw.spec.config import VTAConfig

_PAGE = 4096


@dataclass(frozen=True)
class Shape:
    """A convolution, and what TVM's stream for it has."""

    size: int
    inputs: int
    outputs: int
    kernel: int
    stride: int
    tvm_instructions: int
    tvm_bytes: int

    @property
    def name(self) -> str:
        return f"{self.size}x{self.size} {self.inputs}->{self.outputs} {self.kernel}x{self.kernel} /{self.stride}"


SHAPES = (
    Shape(56, 64, 64, 3, 1, 300, 948448),
    Shape(56, 64, 128, 3, 2, 180, 820984),
    Shape(56, 64, 128, 1, 2, 180, 501392),
    Shape(28, 128, 128, 3, 1, 276, 827184),
    Shape(28, 128, 256, 3, 2, 148, 749008),
    Shape(28, 128, 256, 1, 2, 148, 297616),
    Shape(14, 256, 256, 3, 1, 244, 843216),
    Shape(14, 256, 512, 3, 2, 127, 1309912),
    Shape(14, 256, 512, 1, 2, 127, 244880),
    Shape(7, 512, 512, 3, 1, 223, 2439384),
)


def definition(shape: Shape, config: VTAConfig, *, multiplier: bool) -> Proc:
    """The layer with bias, shift and clip, as TVM's; with `multiplier` also a factor per channel."""
    out, pad = shape.size // shape.stride, shape.kernel // 2
    x = Tiled(
        batches=1, blocks=shape.inputs // config.block_in, height=shape.size, width=shape.size, n=1, c=config.block_in
    )
    y = Tiled(batches=1, blocks=shape.outputs // config.block_out, height=out, width=out, n=1, c=config.block_out)
    window = Window(kernel=(shape.kernel,) * 2, stride=(shape.stride,) * 2, padding=(pad,) * 4)
    requantize = Requantize(shift=8, low=0, high=127, multiplier=multiplier)
    return conv2d(shape.name, Weighted(x=x, window=window), y, requantize)


def compile_layer(proc: Proc, config: VTAConfig) -> list[isa.Insn]:
    """The instructions of one launch of the layer."""
    scheduled = schedule(proc, config, TilingProblem(proc, config).best())
    addresses, at = {}, 0
    for buffer in proc.params:
        addresses[buffer.name] = at
        nbytes = buffer.type.numpy.itemsize
        for extent in buffer.static_shape:
            nbytes *= extent
        at += -(-nbytes // _PAGE) * _PAGE
    launch = LaunchBuilder(config, MicroOps(config.uop_depth), at)
    launch.layer(scheduled.proc, addresses)
    return launch.finish()


def dram_bytes(insns: list[isa.Insn], config: VTAConfig) -> int:
    """Bytes that loads and stores move, padding not counted."""
    transfers = (insn for insn in insns if isinstance(insn, isa.Load | isa.Store))
    return sum(t.x_size * t.y_size * config.dram_elem_bytes(isa.MemoryType(t.memory_type)) for t in transfers)


def measure(shape: Shape, config: VTAConfig, *, multiplier: bool, repeat: int) -> dict[str, object]:
    proc = definition(shape, config, multiplier=multiplier)
    insns = compile_layer(proc, config)
    seconds = []
    for _ in range(repeat):
        begin = time.process_time()
        compile_layer(proc, config)
        seconds.append(time.process_time() - begin)
    moved = dram_bytes(insns, config)
    return {
        "layer": shape.name,
        "multiplier": multiplier,
        "instructions": len(insns),
        "instructions_vs_tvm": round(len(insns) / shape.tvm_instructions, 3),
        "dram_bytes": moved,
        "dram_bytes_vs_tvm": round(moved / shape.tvm_bytes, 3),
        "compile_seconds": round(statistics.median(seconds), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--repeat", type=int, default=5, help="timed compilations of each layer (CPU time, median)")
    options = parser.parse_args()
    config = VTAConfig()
    rows = [
        measure(shape, config, multiplier=multiplier, repeat=options.repeat)
        for multiplier in (False, True)
        for shape in SHAPES
    ]
    if options.json:
        print(json.dumps({"config": config.name, "layers": rows}, indent=2))
        return
    print(f"{'layer':24} {'factors':8} {'insns':>6} {'/TVM':>6} {'DRAM bytes':>11} {'/TVM':>6} {'compile s':>9}")
    for row in rows:
        factors = "channel" if row["multiplier"] else "shift"
        print(
            f"{row['layer']:24} {factors:8} {row['instructions']:6} {row['instructions_vs_tvm']:6} "
            f"{row['dram_bytes']:11} {row['dram_bytes_vs_tvm']:6} {row['compile_seconds']:9}"
        )


if __name__ == "__main__":
    main()
