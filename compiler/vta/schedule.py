"""The schedule of an op on the VTA: one recipe for every op, driven by the accesses of its definition and a tiling.

1. Cut every nest into tiles of the output, reductions into chunks, and tiles into pieces; 2. run all nests tile by
tile, and what follows a matrix product piece by piece; 3. load what is read into the scratchpads, at the loops that the
tiling says; 4. keep temporaries in the accumulator for one tile; 5. give what is loaded or computed again and again
several places in turn, so that units can work ahead of each other; 6. map every nest that is left on an instruction.
"""

from __future__ import annotations

from dataclasses import dataclass

from compiler.errors import LoweringError
from compiler.tensor.analysis import accesses, innermost, loops_of
from compiler.tensor.ir import Const, DType, For, If, Proc, Scope, Stmt, constant
from compiler.tensor.schedule import Schedule
from compiler.tensor.traverse import stmt_body, walk
from compiler.tensor.unify import unify
from compiler.vta.footprint import axes_of, is_gemm, is_transfer, nests_of, temporaries_of
from compiler.vta.instructions import InstructionSet, instruction_set
from compiler.vta.tiling import PIECE, TILED, Tiling
from vta_hw.spec.config import VTAConfig

_TILE = ("n", "c", "i")


@dataclass(frozen=True)
class _Nest:
    """Loops of one nest that become separate instructions: by axis (or `PIECE`), and taps of a guarded nest.

    An axis that is not cut has no loop here.
    """

    loops: dict[str, str]
    taps: list[str]

    def around(self, level: str, order: tuple[str, ...]) -> str:
        """The loop of that axis, or where it has none the next one outside of it; `order` is outermost first."""
        return next(self.loops[axis] for axis in reversed(order[: order.index(level) + 1]) if axis in self.loops)


def schedule(proc: Proc, config: VTAConfig, tiling: Tiling) -> Schedule:
    """Schedule the op `proc` (one of `compiler.tensor.define`) for the machine.

    Raises LoweringError naming op and statement if a nest has no instruction.
    """
    instructions = instruction_set(config)
    s = Schedule(proc)
    for nest in nests_of(s.proc):
        found = innermost(nest)
        if found is not None and isinstance(found[2].value, Const) and found[2].value.value != 0:
            s.split_fill(nest.var.name, ".value")
    originals = nests_of(s.proc)
    products = [is_gemm(nest, config) for nest in originals]
    nests = [_cut(s, nest, tiling) for nest in originals]
    _merge(s, nests, ("no", *tiling.order))
    tile_loop = nests[0].around(tiling.order[-1], tiling.loops())
    # What follows the last matrix product does so for each piece: the first is stored before the last is computed.
    after = nests[len(products) - products[::-1].index(True) :] if any(products) else []
    _merge(s, after, (PIECE,))
    for cut, original in zip(nests, originals, strict=True):
        # All share the tiles' loops, which keep the names of the first nest, and `after` one over pieces.
        pieces = {axis: loop for axis, loop in (after[0] if cut in after else cut).loops.items() if axis == PIECE}
        shared = {axis: loop for axis, loop in nests[0].loops.items() if axis != PIECE}
        _stage_reads(s, instructions, _Nest({**cut.loops, **shared, **pieces}, []), original, tiling)
    for position, buffer in enumerate(temporaries_of(proc)):
        s.narrow(buffer, after[0].loops.get(PIECE, tile_loop) if after and position else tile_loop)
        s.set_scope(buffer, Scope.ACC)
        s.rotate(buffer, tiling.copies)
    spread = {name for cut in nests for name in (*cut.loops.values(), *cut.taps)}
    s.drop_unit_loops()
    _map_all(s, instructions, spread)
    return s


def _cut(s: Schedule, nest: For, tiling: Tiling) -> _Nest:
    """Split the tiled axes of one nest and order its loops: tiles, reduction chunks, pieces, within a piece."""
    axes = {axis: name for name, axis in axes_of(nest).items()}
    extents = {site.loop.var.name: constant(site.loop.extent) for site in loops_of((nest,))}
    inner, chunks = dict(axes), {"no": axes["no"]}

    def cut(name: str, size: int) -> tuple[str | None, str]:
        """The loop over parts of `name`, unless there is only one, and the loop within one."""
        if size >= extents[name]:
            return None, name
        parts, inside = f"{name}.o", f"{name}.i"
        s.split(name, size, parts, inside)
        extents[parts] = -(-extents[name] // size)
        return parts, inside

    for axis in TILED:
        if axis not in axes:
            continue
        name, size = axes[axis], tiling.sizes[axis]
        piece = tiling.piece if axis == "co" else size
        outer, inner[axis] = cut(name, piece)
        if piece < size and outer is not None:  # tiles consist of whole pieces
            outer, chunks[PIECE] = cut(outer, size // piece)
        if outer is not None:
            chunks[axis] = outer
    loops = {axis: chunks[axis] for axis in tiling.loops() if axis in chunks}
    taps = [inner[axis] for axis in ("ky", "kx") if axis in inner]
    guarded = any(isinstance(stmt, If) for stmt in walk((nest,)))
    # Once the taps are known, each condition of the guard restrains one loop only.
    spread, within_taps = (taps, []) if guarded else ([], taps)
    within = [inner[axis] for axis in ("co", "oh", "ow", "s", "ci", "t") if axis in inner]
    within += [inner[axis] for axis in inner if axis not in ("no", *TILED, *_TILE)]
    tile = [inner[axis] for axis in _TILE if axis in inner]
    s.reorder(*loops.values(), *spread, *within, *within_taps, *tile)
    return _Nest(loops, spread)


def _merge(s: Schedule, nests: list[_Nest], axes: tuple[str, ...]) -> None:
    """Run the nests, which follow each other, in one loop over each of the axes that are cut."""
    for axis in axes:
        if others := [other.loops[axis] for other in nests[1:] if axis in other.loops]:
            s.merge(nests[0].loops[axis], *others)


def _stage_reads(s: Schedule, instructions: InstructionSet, cut: _Nest, original: For, tiling: Tiling) -> None:
    """Give every DRAM operand of a computing nest a place in the scratchpad that its instruction reads.

    Nests that read the same operand are in the loop where it is loaded, once for all of them.
    """
    dram = {a.buffer.name: a.buffer for a in accesses((original,)) if a.buffer.scope is Scope.DRAM and not a.write}
    gemm = unify(instructions.gemm.meaning, original, unplaced=True)
    if is_transfer(original, temporaries_of(s.proc)):
        return
    for name, buffer in dram.items():
        scope, dtype = Scope.ACC, DType.INT32
        if gemm is not None:
            scope = Scope.INP if gemm.operands["inp"].buffer.name == name else Scope.WGT
            dtype = buffer.type
        stage = tiling.stages[name]
        staged = f"{name}.{scope.value}"
        if staged in temporaries_of(s.proc):
            continue
        level = None if stage.level is None else cut.around(stage.level, tiling.loops())
        s.stage(name, level, scope, staged, None if dtype is buffer.type else dtype)
        s.rotate(staged, stage.copies)


def _map_all(s: Schedule, instructions: InstructionSet, spread: set[str]) -> None:
    """Map each nest below the loops of `spread`, which become separate instructions."""
    for root in _roots(s.proc.body, spread):
        for instruction in instructions.all:
            if unify(instruction.meaning, root) is not None:
                s.map(root.var.name, instruction.meaning)
                break
        else:
            raise _no_instruction(s.proc, root)


def _no_instruction(proc: Proc, root: For) -> LoweringError:
    found = innermost(root)
    if found is None:
        return LoweringError(f"Layer {proc.name!r} must be made of perfect nests, the one at {root.var.name!r} is not")
    store = found[2]
    reads = [f"{a.buffer.type.value} {a.buffer.name}" for a in accesses((store,)) if not a.write]
    return LoweringError(
        f"Layer {proc.name!r} must be made of instructions of the VTA, which has none to compute "
        f"{store.buffer.type.value} {store.buffer.name} from {' and '.join(reads) or 'a constant'}"
    )


def _roots(body: tuple[Stmt, ...], spread: set[str]) -> list[For]:
    roots: list[For] = []
    for stmt in body:
        if isinstance(stmt, For) and stmt.var.name not in spread:
            roots.append(stmt)
        else:
            roots.extend(_roots(stmt_body(stmt), spread))
    return roots
