"""The schedule of an op on a CPU: the same definition as everywhere, cut for caches and vector units.

The sums of some blocks of channels of neighbouring pixels are computed together and stay in registers from the first
product to the result; padding is resolved into a copy of the input. The channels of a block are a vector; of bytes each
lane sums the products of four channels (`dot`).

Integers in tiles of other shapes run row by row of the output, so that temporaries stay in cache; padding is resolved
into a local copy of the rows that one output row reads. What changes the layout exchanges squares in registers
(`schedule_moves`).
"""

from __future__ import annotations

import math

from compiler.llvm.dot import NEIGHBOURS
from compiler.llvm.registers import Registers, best_tile
from compiler.llvm.schedule_moves import exchange
from compiler.llvm.schedule_winograd import is_winograd, sum_points
from compiler.tensor.affine import variables
from compiler.tensor.analysis import accesses, innermost, loops_of, padded_read, stores
from compiler.tensor.interval import interval, loop_interval
from compiler.tensor.ir import Alloc, Body, For, LoopKind, Proc, Scope, Select, Var, constant
from compiler.tensor.schedule import Schedule, ScheduleError
from compiler.tensor.tiles import AXES
from compiler.tensor.traverse import stmt_exprs, walk, walk_expr

_REGISTERS = Registers()
_ROWS = ("no", "co", "oh")
CACHE_LINE = 64
_LEAST_FETCHED = 1024
"""Bytes of the weights of a block of channels for which it pays to ask ahead."""


def schedule_of_any(proc: Proc, registers: Registers) -> Schedule:
    """The schedule of a verified procedure that may be a stranger's.

    It may look like a definition that `schedule` knows, and be none: it is left in the order that it has.
    """
    try:
        return schedule(proc, registers)
    except (ScheduleError, LookupError, TypeError, ValueError):
        return Schedule(proc)


def schedule(proc: Proc, registers: Registers = _REGISTERS) -> Schedule:
    """Schedule `proc`, of `compiler.tensor.define`, `define_blocked` or `define_winograd`; any other stays as it is."""
    s = Schedule(proc)
    nests = _nests(proc.body)
    if is_winograd(nests):
        _cut_where_padding_ends(s, "pad.column", ".columns", ".right")
        sum_points(s, registers, CACHE_LINE // proc.params[-1].type.numpy.itemsize)
        _vectorize(s)
        return s
    if not nests or not all(_is_tiled(nest) for nest in nests):
        exchange(s)
        if s.trace:
            s.drop_unit_loops()
        return s
    if proc.params[-1].type.is_float or all(_sums_vectors(nest) for nest in nests):
        _sums_in_registers(s, nests, registers)
        return s
    for nest in nests:
        _dot_product_inside(s, nest)
    for axis in _ROWS:
        s.merge(*(_loop(nest, axis) for nest in nests))
    row = _loop(nests[0], _ROWS[-1])
    for nest in nests:
        for buffer in sorted(_padded(nest)):
            s.stage(buffer, row, Scope.LOCAL, f"{buffer}.rows")
    for stmt in walk(proc.body):
        if isinstance(stmt, Alloc):
            s.narrow(stmt.buffer.name, row)
    s.drop_unit_loops()
    _vectorize(s)
    return s


def _sums_vectors(nest: For) -> bool:
    """Whether sums are of whole vectors of channels, or of bytes that a processor sums in one instruction."""
    bytes_ = _summed_bytes(nest)
    return _extent(nest, AXES[-1]) > 1 and (bytes_ is None or constant(bytes_.extent) == NEIGHBOURS)


def _summed_bytes(nest: For) -> For | None:
    """The loop over neighbouring channels whose products each lane sums, of integers."""
    found = innermost(nest)
    assert found is not None
    *_, last = found[0]
    return last if last.var.name != _loop(nest, AXES[-1]) and not found[2].buffer.type.is_float else None


def _prepares(nest: For, nests: list[For]) -> bool:
    """Whether other nests read what it stores elsewhere than at the place of their own result."""
    found = innermost(nest)
    assert found is not None
    name = found[2].buffer.name
    reads = [access for other in nests for access in accesses((other,)) if access.buffer.name == name]
    return any(not access.write and not all(isinstance(i, Var) for i in access.index) for access in reads)


def _sums_in_registers(s: Schedule, nests: list[For], registers: Registers) -> None:
    nests = [nest for nest in nests if not _prepares(nest, nests)]
    blocks, pixels, channels = (_extent(nests[0], axis) for axis in ("co", "ow", "c"))
    tile = best_tile(blocks, pixels, channels, registers)
    inside: list[str] = []
    outside: list[list[str]] = []
    sums: list[list[str]] = []
    for nest in nests:
        no, co, oh, ow, *innermost_axes = (_loop(nest, axis) for axis in AXES)
        s.split(co, tile.blocks, f"{co}.tile", f"{co}.sum")
        s.split(ow, tile.pixels, f"{ow}.tile", f"{ow}.sum")
        outside.append([no, f"{co}.tile", oh, f"{ow}.tile"])
        within = [f"{ow}.sum", f"{co}.sum"]  # the number of a pixel is used up before the next is read
        reduced = [loop.var.name for loop in _loops(nest) if loop.var.name not in (no, co, oh, ow, *innermost_axes)]
        if (bytes_ := _summed_bytes(nest)) is not None:
            reduced.remove(bytes_.var.name)
            innermost_axes.append(bytes_.var.name)
            inside.append(bytes_.var.name)
        s.reorder(*outside[-1], *reduced, *within, *innermost_axes)
        inside += within
        sums.append(reduced)
    for loops in zip(*outside, strict=True):
        s.merge(*loops)
    chunk = outside[0][-1]
    stored = {store.buffer.name for nest in nests for store in stores((nest,))}
    for stmt in walk(s.proc.body):
        if isinstance(stmt, Alloc) and stmt.buffer.name in stored:
            s.narrow(stmt.buffer.name, chunk)
    for buffer in sorted({buffer for nest in nests for buffer in _padded(nest)}):
        s.stage(buffer, None, Scope.LOCAL, f"{buffer}.padded")
        _cut_where_padding_ends(s, f"{buffer}.padded.{AXES.index('oh')}", ".rows", ".below")
        _cut_where_padding_ends(s, f"{buffer}.padded.{AXES.index('ow')}", ".columns", ".right")
    rest = ""
    if pixels % tile.pixels and pixels > tile.pixels:
        rest = ".rest"
        s.cut(chunk, pixels // tile.pixels, rest)
    s.drop_unit_loops()
    left = {site.loop.var.name for site in loops_of(s.proc.body)}
    for loop in inside:
        for name in {loop, loop + rest} & left:
            s.set_kind(name, LoopKind.UNROLLED)
    _vectorize(s)
    for reduced in sums:
        _fetch_ahead(s, outside[0], [name for name in reduced if name in left])


def _fetch_ahead(s: Schedule, outside: list[str], reduced: list[str]) -> None:
    """Let the weights of the next blocks of channels come while those of these are multiplied.

    They are asked for in the last but one loop of the sum, so that few of their lines are under way at once.
    """
    _, blocks, *pixels = outside
    sites = {site.loop.var.name: site for site in loops_of(s.proc.body)}
    if blocks not in sites or not reduced:
        return
    at = reduced[-2:][0]
    for buffer in {access.buffer.name for access in accesses((sites[at].loop,)) if not access.write}:
        reads = [access.index for access in accesses((sites[at].loop,)) if access.buffer.name == buffer]
        used = [variables(expr) for expr in reads[0]]
        within = set().union(*used)
        if blocks not in used[0] or within & set(pixels) or not within & set(reduced):
            continue
        (weights,) = (each for each in s.proc.params if each.name == buffer)
        itemsize = weights.type.numpy.itemsize
        if math.prod(weights.static_shape[1:]) * itemsize >= _LEAST_FETCHED:
            s.prefetch(buffer, blocks, at, CACHE_LINE // itemsize)


def _cut_where_padding_ends(s: Schedule, loop: str, inside: str, behind: str) -> None:
    """Give what lies beside the image loops of its own, whose names end so: the others then ask for nothing."""
    for site in [each for each in loops_of(s.proc.body) if each.loop.var.name.startswith(loop)]:
        name, count = site.loop.var.name, constant(site.loop.extent)
        (store,) = stores(site.loop.body)
        if not isinstance(store.value, Select):
            continue
        ranges = {each.loop.var.name: loop_interval(each.loop.extent, {}) for each in loops_of(s.proc.body)}
        image = [n for n in range(count) if interval(store.value.cond, {**ranges, name: (n, n)}) != (0, 0)]
        if image[-1] + 1 < count:
            s.cut(name, image[-1] + 1, behind)
        if image[0]:
            s.cut(name, image[0], inside)


def _nests(body: Body) -> list[For]:
    while len(body) == 1 and isinstance(body[0], Alloc):
        body = body[0].body
    return [stmt for stmt in body if isinstance(stmt, For)]


def _is_tiled(nest: For) -> bool:
    found = innermost(nest)
    return found is not None and {_axis(loop) for loop in found[0]} >= set(AXES)


def _loops(nest: For) -> list[For]:
    found = innermost(nest)
    assert found is not None
    return found[0]


def _loop(nest: For, axis: str) -> str:
    """The loop over an axis of the result."""
    (name,) = (loop.var.name for loop in _loops(nest) if _axis(loop) == axis)
    return name


def _axis(loop: For) -> str:
    """Which axis of a tile a loop of `tiles.over` runs along, or which it sums over."""
    return loop.var.name.rsplit(".", 1)[-1]


def _extent(nest: For, axis: str) -> int:
    name = _loop(nest, axis)
    (extent,) = (loop.extent for loop in _loops(nest) if loop.var.name == name)
    return constant(extent)


def _padded(nest: For) -> set[str]:
    """Buffers that the nest reads with padding."""
    reads = (padded_read(e) for stmt in walk((nest,)) for expr in stmt_exprs(stmt) for e in walk_expr(expr))
    return {read.load.buffer.name for read in reads if read is not None}


def _dot_product_inside(s: Schedule, nest: For) -> None:
    """Run the reduction of each output element in one go, so that its sum stays in a register."""
    found = innermost(nest)
    assert found is not None
    output = [_loop(nest, axis) for axis in AXES]
    reduced = [loop.var.name for loop in found[0] if loop.var.name not in output]
    if reduced and not found[1]:
        s.reorder(*output, *reduced)


def _vectorize(s: Schedule) -> None:
    """Make the innermost loop of every elementwise nest a vector; reductions are left to the optimiser."""
    for site in list(loops_of(s.proc.body)):
        inside = [stmt for stmt in walk(site.loop.body) if isinstance(stmt, For)]
        if site.loop.kind is LoopKind.UNROLLED or any(loop.kind is not LoopKind.UNROLLED for loop in inside):
            continue
        try:
            s.set_kind(site.loop.var.name, LoopKind.VECTORIZED)
        except ScheduleError:
            continue  # a dot product: its iterations share the accumulator
