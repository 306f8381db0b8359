"""How fast blocks of the accelerator run in an ECP5-85F of speed grade 6, placed and routed by nextpnr.

Reports are kept in a folder, as those of bench/area.py. Without `--all` or `--block` only what takes a few minutes is
measured.

    python -m bench.frequency [--all] [--block array] [--reports build/area] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from amaranth.lib import wiring

from fpga.timing import place_and_route
from fpga.tools import NEXTPNR_ECP5, YOSYS, ToolMissing
from vta_hw.rtl.alu import Alu
from vta_hw.rtl.gemm import GemmArray
from vta_hw.rtl.pipeline import ComputePipeline
from vta_hw.rtl.top import Top
from vta_hw.spec.config import preset

_ULX3S: Final = preset("ulx3s")

BLOCKS: Final[Mapping[str, Callable[[], wiring.Component]]] = {
    "array": lambda: GemmArray(_ULX3S),
    "alu": lambda: Alu(_ULX3S),
    "pipeline": lambda: ComputePipeline(_ULX3S),
    "whole": lambda: Top(_ULX3S),
}
"""Blocks of the preset `ulx3s`, whose array is of 8 by 8 products."""

_SMALL: Final = ("array",)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="measure every block")
    parser.add_argument("--block", action="append", choices=BLOCKS, help="measure this block (may be repeated)")
    parser.add_argument("--reports", type=Path, default=Path("build/area"), help="folder of kept reports")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    try:
        versions = {tool.name: tool.version for tool in (YOSYS, NEXTPNR_ECP5)}
    except ToolMissing as error:
        sys.exit(str(error))
    print(f"{versions}, reports in {options.reports}", file=sys.stderr)
    if not options.json:
        print(f"{'block':16} {'MHz':>6} {'LUTs':>7}", flush=True)
    rows: list[dict[str, Any]] = []
    for name in options.block or (BLOCKS if options.all else _SMALL):
        begin = time.perf_counter()
        timing = place_and_route(BLOCKS[name](), cache=options.reports)
        print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
        rows.append({"block": name, "mhz": round(timing.mhz, 1), "luts": timing.luts})
        if not options.json:
            print(f"{name:16} {timing.mhz:6.1f} {timing.luts:7,}", flush=True)
    if options.json:
        print(json.dumps({"tools": versions, "blocks": rows}, indent=2))


if __name__ == "__main__":
    main()
