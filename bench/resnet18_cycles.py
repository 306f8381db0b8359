"""Cycles of ResNet-18, and of the convolutions of it that TVM offloads, on the default configuration of VTA.

Convolutions: the ten shapes with their counts, each as a launch of its own, with bias, shift and clip. Region: all
convolutions but the first, with bias and residual additions, in the network as a whole. Whole: everything but the last
softmax. Compulsory: inputs, weights and outputs, each moved once. Without multiplier, `region` requantises by shifts as
TVM does; an extended machine always has a factor for each channel. Memory takes 32 cycles. Published for TVM:
7,729,601 cycles of the region, with schedules tuned for hours; 15,736,441 for ResNet-34.

    python bench/resnet18_cycles.py [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.profiles import MACHINES, Profiled, layer, network
from bench.schedules import SHAPES
from examples.networks.resnet import resnet
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.program import Role

COUNTS = (4, 1, 1, 3, 1, 1, 3, 1, 1, 3)
"""How often ResNet-18 has each of the shapes."""


def convolutions(config: VTAConfig) -> dict[str, Any]:
    """The ten shapes: each, and all together by their counts."""
    rows = []
    for shape, count in zip(SHAPES, COUNTS, strict=True):
        found = layer(shape, config)
        work = found.profile.total.work
        compulsory = sum(b.nbytes for b in found.program.buffers if b.role is not Role.WORKSPACE)
        rows.append(
            {
                "layer": shape.name,
                "count": count,
                "cycles": found.cycles,
                "mac_cycles": work.macs // (config.batch * config.block_in * config.block_out),
                "dram_bytes": work.load_bytes + work.store_bytes,
                "tvm_dram_bytes": shape.tvm_bytes,
                "compulsory_bytes": compulsory,
            }
        )
    totals = {
        key: sum(row[key] * row["count"] for row in rows)
        for key in ("cycles", "mac_cycles", "dram_bytes", "tvm_dram_bytes", "compulsory_bytes")
    }
    return {
        "conv_cycles": totals["cycles"],
        "floor_cycles": totals["mac_cycles"],
        "dram_bytes": totals["dram_bytes"],
        "dram_bytes_vs_compulsory": round(totals["dram_bytes"] / totals["compulsory_bytes"], 3),
        "dram_bytes_vs_tvm": round(totals["dram_bytes"] / totals["tvm_dram_bytes"], 3),
        "layers": rows,
    }


def region(found: Profiled) -> int:
    """Cycles of the convolutions but the first, whatever is fused with them; the last is the classifier."""
    kinds = ("qconv2d", "rescaled_conv2d")
    _, *names, _ = (layer.name for layer in found.program.layers if layer.attributes["op"] in kinds)
    return sum(row.cycles for row in found.profile.rows if row.name in names)


def machine(config: VTAConfig) -> dict[str, Any]:
    """All figures of one machine."""
    result = convolutions(config)
    shifts = network(resnet(18), config, multiply=config.is_extended)
    factors = shifts if config.is_extended else network(resnet(18), config)
    deeper = network(resnet(34), config, multiply=config.is_extended)
    return {
        **result,
        "region_cycles": region(shifts),
        "whole_cycles": shifts.cycles,
        "region_cycles_with_factors": region(factors),
        "whole_cycles_with_factors": factors.cycles,
        "resnet34_region_cycles": region(deeper),
        "resnet34_whole_cycles": deeper.cycles,
        "whole_utilisation": round(shifts.profile.total.utilisation, 4),
        "compile_seconds": round(shifts.compile_seconds, 2),
        "quantize_seconds": round(shifts.quantize_seconds, 2),
        "run_seconds": round(shifts.run_seconds, 2),
        "whole": [row.as_dict() for row in shifts.profile.rows],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    results = {name: machine(config) for name, config in MACHINES.items()}
    if options.json:
        print(json.dumps(results, indent=2))
        return
    keys = [key for key, value in results["base"].items() if not isinstance(value, list)]
    print(f"{'':28}" + "".join(f"{name:>19}" for name in results))
    for key in keys:
        print(f"{key:28}" + "".join(f"{result[key]:>19,}" for result in results.values()))
    print(f"\n{'layer':26} {'count':>5} {'MAC cycles':>10}" + "".join(f"{name:>19}" for name in results))
    for position, row in enumerate(results["base"]["layers"]):
        cycles = "".join(f"{result['layers'][position]['cycles']:>19,}" for result in results.values())
        print(f"{row['layer']:26} {row['count']:5} {row['mac_cycles']:10,}{cycles}")


if __name__ == "__main__":
    main()
