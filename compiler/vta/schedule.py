"""The schedule of an op on the VTA: one recipe for every op, driven by the accesses of its definition and a tiling.

1. Cut every nest into tiles of the output, and reductions into chunks; 2. run all nests tile by tile; 3. load what a
tile reads into the scratchpads; 4. keep temporaries in the accumulator for one tile; 5. let neighbouring tiles run as
virtual threads, so that one loads while the other computes; 6. map every nest that is left on an instruction.
"""

from __future__ import annotations

from dataclasses import dataclass

from compiler.errors import LoweringError
from compiler.tensor.affine import variables
from compiler.tensor.analysis import accesses, find_loop, innermost
from compiler.tensor.ir import Const, DType, For, If, LoopKind, Proc, Scope, Stmt
from compiler.tensor.schedule import Schedule
from compiler.tensor.traverse import stmt_body, walk
from compiler.tensor.unify import unify
from compiler.vta.footprint import axes_of, is_transfer, nests_of, temporaries_of
from compiler.vta.instructions import InstructionSet
from compiler.vta.tiling import REDUCED, TILED, Tiling
from vta_hw.spec.config import VTAConfig


@dataclass(frozen=True)
class _Nest:
    """Loops of one nest that become separate instructions: over tiles, by axis, and over chunks of a reduction."""

    outer: dict[str, str]
    reduced: list[str]


def schedule(proc: Proc, config: VTAConfig, tiling: Tiling) -> Schedule:
    """Schedule the op `proc` (one of `compiler.tensor.define`) for the machine.

    Raises LoweringError naming op and statement if a nest has no instruction.
    """
    instructions = InstructionSet(config)
    s = Schedule(proc)
    for nest in nests_of(s.proc):
        found = innermost(nest)
        if found is not None and isinstance(found[2].value, Const) and found[2].value.value != 0:
            s.split_fill(nest.var.name, ".value")
    originals = nests_of(s.proc)
    nests = [_cut(s, nest, tiling) for nest in originals]
    for axis in nests[0].outer:
        for other in nests[1:]:
            s.merge(nests[0].outer[axis], other.outer[axis])
    tile_loops = list(nests[0].outer.values())
    if tiling.threads is not None:
        tile_loops = _split_threads(s, nests[0].outer[tiling.threads], tile_loops)
    for cut, original in zip(nests, originals, strict=True):
        _stage_reads(s, instructions, cut, original, tile_loops, tiling)
    for buffer in temporaries_of(proc):
        s.narrow(buffer, tile_loops[-1])
        s.set_scope(buffer, Scope.ACC)
    if tiling.threads is not None:
        s.set_kind(f"{nests[0].outer[tiling.threads]}.v", LoopKind.VTHREAD)
    s.drop_unit_loops()
    _map_all(s, instructions, {*tile_loops, *(name for cut in nests for name in cut.reduced)})
    return s


def _cut(s: Schedule, nest: For, tiling: Tiling) -> _Nest:
    """Split the tiled axes of one nest and order its loops: tiles, reduction chunks, within a tile."""
    axes = {axis: name for name, axis in axes_of(nest).items()}
    inner = dict(axes)
    chunks: dict[str, str] = {}
    for axis in TILED:
        if axis in axes:
            name = axes[axis]
            s.split(name, tiling.sizes[axis], f"{name}.o", f"{name}.i")
            chunks[axis], inner[axis] = f"{name}.o", f"{name}.i"
    outer = {"no": axes["no"], **{axis: chunks[axis] for axis in tiling.order}}
    reduced = [chunks[axis] for axis in REDUCED if axis in chunks]
    taps = [inner[axis] for axis in ("ky", "kx") if axis in inner]
    if any(isinstance(stmt, If) for stmt in walk((nest,))):
        reduced += taps  # once the taps are known, each condition of the guard restrains one loop only
        taps = []
    within = [inner[axis] for axis in ("co", "oh", "ow", "s", "ci", "t") if axis in inner]
    tile = [inner[axis] for axis in ("n", "c", "i") if axis in inner]
    s.reorder(*outer.values(), *reduced, *within, *taps, *tile)
    return _Nest(outer, reduced)


def _split_threads(s: Schedule, loop: str, tile_loops: list[str]) -> list[str]:
    s.split(loop, 2, f"{loop}.p", f"{loop}.v")
    at = tile_loops.index(loop)
    return [*tile_loops[:at], f"{loop}.p", f"{loop}.v", *tile_loops[at + 1 :]]


def _stage_reads(
    s: Schedule, instructions: InstructionSet, nest: _Nest, original: For, tile_loops: list[str], tiling: Tiling
) -> None:
    """Give every DRAM operand of a computing nest a place in the scratchpad that its instruction reads."""
    dram = {a.buffer.name: a.buffer for a in accesses((original,)) if a.buffer.scope is Scope.DRAM and not a.write}
    gemm = unify(instructions.gemm.meaning, original, unplaced=True)
    if is_transfer(original, temporaries_of(s.proc)):
        return
    for name, buffer in dram.items():
        scope, dtype = Scope.ACC, DType.INT32
        if gemm is not None:
            scope = Scope.INP if gemm.operands["inp"].buffer.name == name else Scope.WGT
            dtype = buffer.type
        level = _level(s, name, [*tile_loops, *nest.reduced], tiling.hoist)
        s.stage(name, level, scope, f"{name}.{scope.value}", None if dtype is buffer.type else dtype)


def _level(s: Schedule, buffer: str, loops: list[str], hoist: bool) -> str | None:
    """The loop in which to load: the innermost that chooses what is read, or simply the innermost."""
    sites = [site for name in loops if (site := find_loop(s.proc, name)) is not None]
    if not hoist:
        return sites[-1].loop.var.name
    level = None
    for site in sites:
        reads = [access for access in accesses(site.loop.body) if access.buffer.name == buffer]
        varies = any(site.loop.var.name in variables(index) for access in reads for index in access.index)
        if varies and site.loop.extent != Const(1):
            level = site.loop.var.name
    return level


def _map_all(s: Schedule, instructions: InstructionSet, spread: set[str]) -> None:
    """Map each nest below the loops of `spread`, which become separate instructions."""
    for root in _roots(s.proc.body, spread):
        for instruction in instructions.all:
            site = find_loop(s.proc, root)
            if site is not None and unify(instruction.meaning, site.loop) is not None:
                s.map(root, instruction.meaning)
                break
        else:
            raise _no_instruction(s.proc, root)


def _no_instruction(proc: Proc, root: str) -> LoweringError:
    site = find_loop(proc, root)
    found = innermost(site.loop) if site is not None else None
    if found is None:
        return LoweringError(f"Layer {proc.name!r} must be made of perfect nests, the one at {root!r} is not")
    store = found[2]
    reads = [f"{a.buffer.type.value} {a.buffer.name}" for a in accesses((store,)) if not a.write]
    return LoweringError(
        f"Layer {proc.name!r} must be made of instructions of the VTA, which has none to compute "
        f"{store.buffer.type.value} {store.buffer.name} from {' and '.join(reads) or 'a constant'}"
    )


def _roots(body: tuple[Stmt, ...], spread: set[str]) -> list[str]:
    roots: list[str] = []
    for stmt in body:
        if isinstance(stmt, For) and stmt.var.name not in spread:
            roots.append(stmt.var.name)
        else:
            roots.extend(_roots(stmt_body(stmt), spread))
    return roots
