"""Speed and memory of the functional simulator on two convolution layers of ResNet-18, default configuration.

Each layer is one launch with a plain schedule written out below: LOADs with padding, GEMM, requantisation on the ALU,
STORE. Time is that of the whole launch, the instructions already being in memory. Beside it runs a naive compiled
loop over the same data, which is also what the results are compared with.

    python bench/functional.py [--json] [--repeat N]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA, Alu, AluOp, Finish, Gemm, Insn, Load, MemoryType, Store, Uop
from vta_sim.functional.engine import FunctionalSimulator

CONFIG = VTAConfig()
BLOCK = 16
KERNEL = 3
SHIFT = 10
INP_AT, WGT_AT, OUT_AT, UOP_AT, INSN_AT = (base << 24 for base in range(1, 6))


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A 3x3 convolution with stride 1 and padding 1; channels count blocks of 16, `size` is height and width."""

    name: str
    inputs: int
    outputs: int
    size: int

    @property
    def macs(self) -> int:
        """Multiplications of the layer without those by padding left out."""
        return self.inputs * self.outputs * BLOCK * BLOCK * KERNEL * KERNEL * self.size * self.size


def _requantise(tiles: int) -> list[Insn]:
    """Shift and clip `tiles` accumulators in place with micro-op 0, the last instruction handing them to store."""
    loop: dict[str, Any] = {
        "uop_end": 1,
        "iter_out": 1,
        "iter_in": tiles,
        "dst_factor_in": 1,
        "src_factor_in": 1,
        "use_imm": True,
    }
    return [
        Alu(alu_opcode=AluOp.SHR, imm=SHIFT, **loop),
        Alu(alu_opcode=AluOp.MAX, imm=-128, **loop),
        Alu(alu_opcode=AluOp.MIN, imm=127, push_next=True, **loop),
    ]


def _clear(tiles: int, **flags: bool) -> Gemm:
    return Gemm(reset=True, uop_end=1, iter_out=1, iter_in=tiles, dst_factor_in=1, **flags)


def _load_inputs(layer: Layer, channels: range, first_row: int, rows: int) -> list[Load]:
    """Load padded rows first_row-1..first_row+rows of some channels, one after the other."""
    top = 1 if first_row == 0 else 0
    bottom = 1 if first_row + rows == layer.size else 0
    pitch = (rows + 2) * (layer.size + 2)
    return [
        Load(
            memory_type=MemoryType.INP,
            sram_base=number * pitch,
            dram_base=INP_AT // BLOCK + (channel * layer.size + first_row - 1 + top) * layer.size,
            y_size=rows + 2 - top - bottom,
            x_size=layer.size,
            x_stride=layer.size,
            y_pad_0=top,
            y_pad_1=bottom,
            x_pad_0=1,
            x_pad_1=1,
        )
        for number, channel in enumerate(channels)
    ]


def _with(insns: list[Load], first: dict[str, bool], last: dict[str, bool]) -> list[Insn]:
    """Return the loads with flags added to the first and to the last (there are at least two)."""
    changed: list[Insn] = list(insns)
    changed[0] = Load(**{**_values(insns[0]), **first})
    changed[-1] = Load(**{**_values(insns[-1]), **last})
    return changed


def _values(insn: Load) -> dict[str, Any]:
    return {name: getattr(insn, name) for name in insn.__dataclass_fields__}


def schedule_rows(layer: Layer, rows: int) -> tuple[list[Insn], list[Uop]]:
    """All weights at once, the image in bands of `rows` rows: for layers with few channels."""
    width, taps = layer.size + 2, KERNEL * KERNEL
    uops = [Uop()]
    for out in range(layer.outputs):
        for channel in range(layer.inputs):
            for tap in range(taps):
                source = channel * (rows + 2) * width + tap // KERNEL * width + tap % KERNEL
                weight = (out * layer.inputs + channel) * taps + tap
                uops.append(Uop(dst=out * rows * layer.size, src=source, wgt=weight))
    tiles = layer.outputs * rows * layer.size
    weights = layer.outputs * layer.inputs * taps
    insns: list[Insn] = [
        Load(memory_type=MemoryType.UOP, dram_base=UOP_AT // 4, y_size=1, x_size=len(uops), x_stride=len(uops)),
        Load(memory_type=MemoryType.WGT, dram_base=WGT_AT // 256, y_size=1, x_size=weights, x_stride=weights),
    ]
    for first_row in range(0, layer.size, rows):
        loads = _load_inputs(layer, range(layer.inputs), first_row, rows)
        insns += _with(loads, {"pop_next": first_row > 0}, {"push_next": True})
        insns.append(_clear(tiles, pop_prev=True, pop_next=first_row > 0))
        loop: dict[str, Any] = {
            "iter_out": rows,
            "iter_in": layer.size,
            "dst_factor_out": layer.size,
            "dst_factor_in": 1,
        }
        nests = range(1, len(uops), taps)
        last_band = first_row + rows == layer.size
        for begin in nests:
            push = begin == nests[-1] and not last_band
            insns.append(
                Gemm(uop_bgn=begin, uop_end=begin + taps, src_factor_out=width, src_factor_in=1, push_prev=push, **loop)
            )
        insns += _requantise(tiles)
        for out in range(layer.outputs):
            insns.append(
                Store(
                    memory_type=MemoryType.OUT,
                    sram_base=out * rows * layer.size,
                    dram_base=OUT_AT // BLOCK + (out * layer.size + first_row) * layer.size,
                    y_size=rows,
                    x_size=layer.size,
                    x_stride=layer.size,
                    pop_prev=out == 0,
                    push_prev=out == layer.outputs - 1,
                )
            )
    insns.append(Finish(pop_next=True))
    return insns, uops


def schedule_channels(layer: Layer, groups: int) -> tuple[list[Insn], list[Uop]]:
    """The whole image at once, input channels in `groups`, weights of one output channel at a time in two slots."""
    width, taps, size = layer.size + 2, KERNEL * KERNEL, layer.size
    depth = layer.inputs // groups
    uops = [Uop()]
    for out in range(layer.outputs):
        for tap in range(taps):
            for x in range(size):
                source = tap // KERNEL * width + tap % KERNEL + x
                uops.append(Uop(dst=out * size * size + x, src=source, wgt=out % 2 * depth * taps + tap))
    tiles = layer.outputs * size * size
    insns: list[Insn] = [
        Load(memory_type=MemoryType.UOP, dram_base=UOP_AT // 4, y_size=1, x_size=len(uops), x_stride=len(uops)),
        _clear(tiles),
    ]
    for group in range(groups):
        channels = range(group * depth, (group + 1) * depth)
        # Before the inputs are replaced, both GEMMs that may still read them have to be over.
        if group:
            insns.append(Load(memory_type=MemoryType.INP, pop_next=True))
        insns += _with(_load_inputs(layer, channels, 0, size), {"pop_next": group > 0}, {})
        for out in range(layer.outputs):
            insns.append(
                Load(
                    memory_type=MemoryType.WGT,
                    sram_base=out % 2 * depth * taps,
                    dram_base=WGT_AT // 256 + (out * layer.inputs + group * depth) * taps,
                    y_size=1,
                    x_size=depth * taps,
                    x_stride=depth * taps,
                    pop_next=out >= 2,
                    push_next=True,
                )
            )
            begin = 1 + out * taps * size
            insns.append(
                Gemm(
                    uop_bgn=begin,
                    uop_end=begin + taps * size,
                    iter_out=depth,
                    iter_in=size,
                    dst_factor_in=size,
                    src_factor_out=width * width,
                    src_factor_in=width,
                    wgt_factor_out=taps,
                    pop_prev=True,
                    push_prev=group < groups - 1 or out < layer.outputs - 2,
                )
            )
    insns += _requantise(tiles)
    insns.append(
        Store(
            memory_type=MemoryType.OUT,
            dram_base=OUT_AT // BLOCK,
            y_size=1,
            x_size=tiles,
            x_stride=tiles,
            pop_prev=True,
            push_prev=True,
        )
    )
    insns.append(Finish(pop_next=True))
    return insns, uops


@njit(nogil=True)  # type: ignore[untyped-decorator, unused-ignore]  # numba has no stubs in some versions
def naive_conv(inp: NDArray[np.int8], wgt: NDArray[np.int8], acc: NDArray[np.int32]) -> None:
    """Convolve inp [ci][h+2][w+2][16] with wgt [co][ci][3][3][16][16] into acc [co][h][w][16]."""
    for co in range(acc.shape[0]):
        for y in range(acc.shape[1]):
            for x in range(acc.shape[2]):
                for o in range(16):
                    total = np.int32(0)
                    for ci in range(inp.shape[0]):
                        for ky in range(3):
                            for kx in range(3):
                                for i in range(16):
                                    total += np.int32(inp[ci, y + ky, x + kx, i]) * np.int32(wgt[co, ci, ky, kx, o, i])
                    acc[co, y, x, o] = total


def _seconds(action: Any, repeat: int) -> float:
    times = []
    for _ in range(repeat):
        begin = time.perf_counter()
        action()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def measure(layer: Layer, insns: list[Insn], uops: list[Uop], repeat: int) -> dict[str, Any]:
    """Run a schedule, compare its result with the naive loop's, and return both speeds."""
    rng = np.random.default_rng(1)
    inp = rng.integers(-128, 128, (layer.inputs, layer.size, layer.size, BLOCK)).astype(np.int8)
    wgt = rng.integers(-128, 128, (layer.outputs, layer.inputs, KERNEL, KERNEL, BLOCK, BLOCK)).astype(np.int8)
    isa = ISA(CONFIG)
    simulator = FunctionalSimulator(CONFIG)
    memory = simulator.memory
    for address, data in ((INP_AT, inp), (WGT_AT, wgt), (UOP_AT, isa.encode_uops(uops))):
        memory.write(address, data)
    memory.write(INSN_AT, isa.encode_program(insns))
    report = simulator.launch(INSN_AT, len(insns))
    padded = np.pad(inp, ((0, 0), (1, 1), (1, 1), (0, 0)))
    acc = np.zeros((layer.outputs, layer.size, layer.size, BLOCK), np.int32)
    naive_conv(padded, wgt, acc)
    out = memory.read(OUT_AT, acc.size).view(np.int8).reshape(acc.shape)
    if not np.array_equal(out, np.clip(acc >> SHIFT, -128, 127)):
        raise SystemExit(f"{layer.name}: the simulator's result differs from the naive loop's")
    if report.counters.gemm_counter * BLOCK * BLOCK != layer.macs:
        raise SystemExit(f"{layer.name}: the schedule executes {report.counters.gemm_counter} micro-ops")
    launch = _seconds(lambda: simulator.launch(INSN_AT, len(insns)), repeat)
    naive = _seconds(lambda: naive_conv(padded, wgt, acc), max(1, repeat // 10))
    return {
        "layer": layer.name,
        "instructions": len(insns),
        "macs": layer.macs,
        "launch_ms": launch * 1e3,
        "gmac_per_s": layer.macs / launch / 1e9,
        "naive_gmac_per_s": layer.macs / naive / 1e9,
        "arena_bytes": memory.page_count * 4096,
    }


def peak_bytes() -> int:
    """Peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure_memory(mebibytes: int) -> dict[str, Any]:
    """Fill `mebibytes` of memory with STOREs, and return how much the peak of the process grew for it."""
    before = peak_bytes()
    simulator = FunctionalSimulator(CONFIG)
    tiles = CONFIG.acc_depth
    insns: list[Insn] = [
        Store(memory_type=MemoryType.OUT, dram_base=number * tiles, y_size=1, x_size=tiles, x_stride=tiles)
        for number in range((mebibytes << 20) // (tiles * CONFIG.out_elem_bytes))
    ]
    insns.append(Finish())
    simulator.memory.write(1 << 40, ISA(CONFIG).encode_program(insns))
    simulator.launch(1 << 40, len(insns))
    touched = simulator.memory.page_count * 4096
    return {"touched_bytes": touched, "peak_growth_bytes": peak_bytes() - before}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    parser.add_argument("--repeat", type=int, default=50, help="launches the median is taken of (default 50)")
    arguments = parser.parse_args()
    begin = time.perf_counter()
    simulator = FunctionalSimulator(CONFIG)
    simulator.memory.write(0, ISA(CONFIG).encode_program([Finish()]))
    simulator.launch(0, 1)
    ready = time.perf_counter() - begin
    wide = Layer(name="64->64 3x3 on 56x56", inputs=4, outputs=4, size=56)
    deep = Layer(name="512->512 3x3 on 7x7", inputs=32, outputs=32, size=7)
    layers = [
        measure(wide, *schedule_rows(wide, 4), arguments.repeat),
        measure(deep, *schedule_channels(deep, 2), arguments.repeat),
    ]
    memory = measure_memory(256)
    ratio = memory["peak_growth_bytes"] / memory["touched_bytes"]
    result = {"first_launch_s": ready, "layers": layers, "memory": memory, "peak_rss_bytes": peak_bytes()}
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    print(f"first launch, with compilation or its cache: {ready:.2f} s")
    for row in layers:
        print(
            f"{row['layer']}: {row['gmac_per_s']:.1f} GMAC/s ({row['launch_ms']:.2f} ms, {row['instructions']} "
            f"instructions, arena {row['arena_bytes'] / 1e6:.1f} MB), naive loop {row['naive_gmac_per_s']:.2f} GMAC/s"
        )
    print(f"memory: {memory['touched_bytes'] / 1e6:.0f} MB touched, peak grew by {ratio:.2f} times that")


if __name__ == "__main__":
    main()
