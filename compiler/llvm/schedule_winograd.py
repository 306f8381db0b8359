"""The schedule of convolutions by minimal filtering on a CPU.

The input of a strip is transformed first. Then, for a few blocks of channels at a time, the products of every point are
summed in registers, and their sums are transformed to results. Several strips follow each other from input to result,
so that what is transformed stays in cache, and threads share them. A few are not worth that: threads share the blocks
of channels, those of the input first and then those of the result.
"""

from __future__ import annotations

from compiler.llvm.registers import Registers, best_tile
from compiler.tensor.analysis import loops_of
from compiler.tensor.define_winograd import NESTS
from compiler.tensor.ir import For, LoopKind, Proc, constant
from compiler.tensor.schedule import Schedule

_FEW_STRIPS = 4


def is_winograd(nests: list[For]) -> bool:
    """Whether these are the nests of `compiler.tensor.define_winograd`."""
    return tuple(nest.var.name.partition(".")[0] for nest in nests) == NESTS


def sum_points(s: Schedule, registers: Registers, line: int) -> None:
    """Schedule all but vectors. line: float32 in a cache line."""
    extents = _extents(s.proc)
    tile = best_tile(extents["dot.co"], extents["dot.tile"], extents["dot.c"], registers)
    _, _, *products, output = NESTS
    for nest in (*products, output):
        s.split(f"{nest}.co", tile.blocks, f"{nest}.co.tile", f"{nest}.co.sum")
    for nest in products:
        s.split(f"{nest}.tile", tile.pixels, f"{nest}.tile.tile", f"{nest}.tile.sum")
        outside = [f"{nest}.{axis}" for axis in ("no", "strip", "co.tile", "point", "tile.tile")]
        reduced = [f"{nest}.ci", f"{nest}.i"] if nest == "dot" else []
        s.reorder(*outside, *reduced, *(f"{nest}.{axis}" for axis in ("tile.sum", "co.sum", "c")))
    s.reorder(*(f"output.{axis}" for axis in ("no", "strip", "co.tile", "co.sum", "row", "column", "c")))

    def merge(nests: tuple[str, ...], *axes: str) -> None:
        for axis in axes:
            s.merge(*(f"{nest}.{axis}" for nest in nests))

    together = extents["dot.no"] * extents["dot.strip"] >= _FEW_STRIPS
    if together:
        merge(NESTS, "no", "strip")
    merge(NESTS[:2], *([] if together else ["no", "strip"]), "ci")
    merge(NESTS[2:], *([] if together else ["no", "strip"]), "co.tile")
    merge(tuple(products), "point", "tile.tile")
    if together:
        s.narrow("V", "pad.strip")
    s.narrow("P", "pad.ci")
    s.narrow("M", "zero.co.tile")
    s.narrow("A", "zero.tile.tile")
    whole, last = divmod(extents["dot.tile"], tile.pixels)
    rest = [""]
    if whole and last:
        rest.append(".rest")
        s.cut("zero.tile.tile", whole, rest[-1])
    s.drop_unit_loops()
    left = _extents(s.proc)
    for nest in products:
        for axis in ("tile.sum", "co.sum"):
            for name in {f"{nest}.{axis}{end}" for end in rest} & left.keys():
                s.set_kind(name, LoopKind.UNROLLED)
    for name in ("input.across", "input.down", "output.across", "output.down"):
        s.set_kind(name, LoopKind.UNROLLED)
    if "dot.ci" in left:
        s.prefetch("W", "zero.point", "dot.ci", line)


def _extents(proc: Proc) -> dict[str, int]:
    """Of the loops whose extents are constant."""
    found = {}
    for site in loops_of(proc.body):
        try:
            found[site.loop.var.name] = constant(site.loop.extent)
        except TypeError:
            continue
    return found
