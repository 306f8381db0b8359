"""Tensors stored in tiles, and loop nests over them: what the definitions of all ops on images are made of.

A tensor is ``[N/n, C/(s*c), H, W, s, n, c]``: the innermost ``n x c`` is one scratchpad element of the accelerator, or
with one row a vector of a CPU, and `s` elements follow each other where the stored channel block is wider than the
element (BLOCK_IN differs from BLOCK_OUT).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from compiler.tensor.ir import (
    Alloc,
    BinaryOp,
    Buffer,
    Const,
    DType,
    Expr,
    For,
    Scope,
    Select,
    Stmt,
    Store,
    Var,
    binary,
    both,
    cast,
    le,
    lt,
    nest,
)

Pair = tuple[int, int]
Padding = tuple[int, int, int, int]
"""top, left, bottom, right"""

MAX_LEFT = 16
"""Largest shift to the left that all published VTAs agree on (VTA spec 3.5)."""

AXES = ("no", "co", "oh", "ow", "s", "n", "c")


@dataclass(frozen=True, kw_only=True)
class Tiled:
    """Shape of a tensor stored in tiles: `batches` x `blocks` x `height` x `width` x `subs` tiles of `n` x `c`.

    limits: what its integers are known to be within.
    """

    batches: int
    blocks: int
    height: int
    width: int
    subs: int = 1
    n: int
    c: int
    dtype: DType = DType.INT8
    limits: Pair | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.batches, self.blocks, self.height, self.width, self.subs, self.n, self.c)

    def in_a_row(self) -> Tiled:
        """All pixels of an image as one row."""
        return replace(self, height=1, width=self.height * self.width)

    def buffer(self, name: str, dtype: DType | None = None) -> Buffer:
        return Buffer.of(name, dtype or self.dtype, self.shape, limits=self.limits if dtype is None else None)


@dataclass(frozen=True, kw_only=True)
class Window:
    """Sliding window, in elements; the window at output row oh reads rows ``oh*stride - top + k*dilation``."""

    kernel: Pair
    stride: Pair = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    dilation: Pair = (1, 1)

    def row(self, oh: Expr, ky: Expr) -> Expr:
        return oh * self.stride[0] + ky * self.dilation[0] - self.padding[0]

    def column(self, ow: Expr, kx: Expr) -> Expr:
        return ow * self.stride[1] + kx * self.dilation[1] - self.padding[1]

    def inside(self, x: Tiled, oh: Expr, ow: Expr, ky: Expr, kx: Expr) -> list[Expr]:
        """The conditions, of those that padding makes necessary, for the tap to lie in `x`."""
        top, left, bottom, right = self.padding
        row, column = self.row(oh, ky), self.column(ow, kx)
        conditions: list[Expr] = []
        if top or bottom:
            conditions += [le(0, row), lt(row, x.height)]
        if left or right:
            conditions += [le(0, column), lt(column, x.width)]
        return conditions


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """What weights multiply: an input, its window, and the weights' type.

    blockwise: a block of outputs reads the block of inputs at its own place alone, as a depthwise convolution does.
    channelwise: a channel does, so that it has one weight for each tap.
    dot: if not 0, weights of so many neighbouring channels lie side by side, of which a processor sums the products.
    """

    x: Tiled
    window: Window = Window(kernel=(1, 1))
    weight: DType = DType.INT8
    blockwise: bool = False
    channelwise: bool = False
    dot: int = 0


Index = dict[str, Expr]


def over(name: str, y: Tiled, statement: Callable[[Index], Stmt], reduce: list[tuple[str, int]] | None = None) -> For:
    """One loop nest over the tiles of `y`, the loops of `reduce` just outside the tile's own two."""
    outer = list(zip(AXES[:5], y.shape[:5], strict=True))
    loops = [*outer, *(reduce or []), ("n", y.n), ("c", y.c)]
    if reduce and reduce[-1][0] == "i":  # the dot product of a tile is its innermost loop
        loops = [*outer, *reduce[:-1], ("n", y.n), ("c", y.c), reduce[-1]]
    index: Index = {axis: Var(f"{name}.{axis}") for axis, _ in loops}
    return nest([(f"{name}.{axis}", extent) for axis, extent in loops], statement(index))


def at(index: Index) -> tuple[Expr, ...]:
    return tuple(index[axis] for axis in AXES)


def update(name: str, a: Buffer, y: Tiled, value: Callable[[Expr, Index], Expr]) -> For:
    """``a = value(a)`` for every element."""
    return over(name, y, lambda i: Store(a, at(i), value(a[at(i)], i)))


def channel(i: Index) -> tuple[Expr, ...]:
    """Where a parameter [blocks, subs, n, c] has its number for a channel."""
    return i["co"], i["s"], i["n"], i["c"]


def per_channel(buffer: Buffer, i: Index) -> Expr:
    return buffer[channel(i)]


@dataclass(frozen=True)
class Loaded:
    """A number of a step that is no immediate but in a parameter: where, for an element of a tile."""

    buffer: Buffer
    position: Callable[[Index], tuple[Expr, ...]]


Number = int | Loaded


def step(name: str, a: Buffer, y: Tiled, op: BinaryOp, number: Number) -> list[For]:
    """``a = a op number``, nothing where that is `a`; a product with a power of two is a shift, which machines have
    that multiply not."""
    if isinstance(number, Loaded):
        return [update(name, a, y, lambda v, i: binary(op, v, number.buffer[number.position(i)]))]
    if number == {BinaryOp.MUL: 1, BinaryOp.ADD: 0}.get(op):
        return []
    by, amount = op, number
    if op is BinaryOp.MUL and is_power_of_two(number):
        by, amount = BinaryOp.SHL, number.bit_length() - 1
    return [update(name, a, y, lambda v, _: binary(by, v, Const(amount, a.type)))]


def is_power_of_two(number: int) -> bool:
    """Of at least 2, by which an instruction shifts."""
    return 2 <= number <= 1 << MAX_LEFT and number & (number - 1) == 0


def numbers(values: Sequence[int], y: Tiled, *, wide: bool) -> tuple[list[Number], list[Buffer]]:
    """The numbers as immediates, or else as tiles of the parameter P int32 [numbers, n, c], and that parameter."""
    if not wide:
        return list(values), []
    p = Buffer.of("P", DType.INT32, (len(values), y.n, y.c))

    def tile(position: int) -> Loaded:
        return Loaded(p, lambda i: (Const(position), i["n"], i["c"]))

    return [tile(position) for position in range(len(values))], [p]


def allocate(buffers: list[Buffer], body: list[For]) -> tuple[Stmt, ...]:
    inner: tuple[Stmt, ...] = tuple(body)
    for buffer in reversed(buffers):
        inner = (Alloc(buffer, inner),)
    return inner


def fill(name: str, a: Buffer, y: Tiled, value: float) -> For:
    """``a = value``, everywhere."""
    return over(name, y, lambda i: Store(a, at(i), Const(value, a.type)))


def copy(name: str, to: Buffer, source: Buffer, y: Tiled) -> For:
    """``to = source``, in the type of `to`."""
    return over(name, y, lambda i: Store(to, at(i), cast(to.type, source[at(i)])))


def local(name: str, y: Tiled) -> Buffer:
    """An int32 temporary like `y`."""
    return Buffer.of(name, DType.INT32, y.shape, Scope.LOCAL)


def product(name: str, term: Weighted, buffer_x: Buffer, buffer_w: str, a: Buffer, y: Tiled) -> tuple[Buffer, For]:
    """The weights, and ``a += the sum of their products with buffer_x``.

    Weights are [blocks_y, subs_y, blocks_x, subs_x, KH, KW, c_y, c_x], or of a `dot` [blocks_y, subs_y, blocks_x, KH,
    KW, c_x/dot, c_y, dot], with one for blocks_x if `blockwise`, and if `channelwise` [blocks_y, subs_y, KH, KW, c_y],
    of an `x` of as many channels in a tile. Axes of the sum have its name before theirs, unless it is ``dot``, which
    every op with weights has.
    """
    x, window, blockwise = term.x, term.window, term.blockwise
    kh, kw = window.kernel
    ci, t, ky, kx = (axis if name == "dot" else f"{name}_{axis}" for axis in ("ci", "t", "ky", "kx"))

    def read(i: Index, block: Expr, sub: Expr, channel: Expr) -> Expr:
        row, column = window.row(i["oh"], i[ky]), window.column(i["ow"], i[kx])
        loaded: Expr = buffer_x[i["no"], block, row, column, sub, i["n"], channel]
        if inside := window.inside(x, i["oh"], i["ow"], i[ky], i[kx]):
            loaded = Select(both(*inside), loaded, Const(0, x.dtype))
        return cast(DType.INT32, loaded)

    def add(i: Index, loaded: Expr, weight: Expr) -> Stmt:
        return Store(a, at(i), a[at(i)] + loaded * cast(DType.INT32, weight))

    blocks, taps = [] if blockwise else [(ci, x.blocks)], [(ky, kh), (kx, kw)]
    if term.channelwise:
        w = Buffer.of(buffer_w, term.weight, (y.blocks, y.subs, kh, kw, y.c))

        def multiply(i: Index) -> Stmt:
            return add(i, read(i, i["co"], i["s"], i["c"]), w[i["co"], i["s"], i[ky], i[kx], i["c"]])

        return w, over(name, y, multiply, taps)
    if term.dot:
        shape = (y.blocks, y.subs, 1 if blockwise else x.blocks, kh, kw, x.c // term.dot, y.c, term.dot)
        w = Buffer.of(buffer_w, term.weight, shape)

        def multiply_neighbours(i: Index) -> Stmt:
            block, chunk = (i["co"], Const(0)) if blockwise else (i[ci], i[ci])
            loaded = read(i, block, Const(0), i[t] * term.dot + i["i"])
            return add(i, loaded, w[i["co"], i["s"], chunk, i[ky], i[kx], i[t], i["c"], i["i"]])

        return w, over(name, y, multiply_neighbours, [*blocks, *taps, (t, x.c // term.dot), ("i", term.dot)])
    w = Buffer.of(buffer_w, term.weight, (y.blocks, y.subs, 1 if blockwise else x.blocks, x.subs, kh, kw, y.c, x.c))

    def multiply_tiles(i: Index) -> Stmt:
        block, chunk = (i["co"], Const(0)) if blockwise else (i[ci], i[ci])
        weights = w[i["co"], i["s"], chunk, i[t], i[ky], i[kx], i["c"], i["i"]]
        return add(i, read(i, block, i[t], i["i"]), weights)

    return w, over(name, y, multiply_tiles, [*blocks, (t, x.subs), *taps, ("i", x.c)])


@dataclass(frozen=True, kw_only=True)
class Raised:
    """An int8 input as uint8, 128 more and with its padding: what some processors multiply by int8 weights.

    fill: the nest that makes `buffer`. term: what weights multiply instead. correct: the nest that takes 128 times the
    sum of the weights, the parameter `sums` int32 [blocks_y, subs_y, n, c_y], from `a` again.
    """

    buffer: Buffer
    fill: For
    term: Weighted
    sums: Buffer
    correct: For


RAISE = 128


def raised(term: Weighted, buffer_x: Buffer, a: Buffer, y: Tiled) -> Raised:
    """`term`, which reads `buffer_x`, as a `Raised` one. Its sums wrap, but the corrected ones are right."""
    x, window = term.x, term.window
    top, left, bottom, right = window.padding
    step, within = (1, 1), replace(window, padding=(0, 0, 0, 0))
    height, width = x.height + top + bottom, x.width + left + right
    if window.kernel == (1, 1):  # pixels between those that are read need no copy
        step, within = window.stride, Window(kernel=(1, 1))
        height, width = y.height, y.width
    padded = replace(x, height=height, width=width, dtype=DType.UINT8, limits=None)
    u = replace(padded.buffer("U"), scope=Scope.LOCAL)

    def fill(i: Index) -> Stmt:
        row, column = i["oh"] * step[0] - top, i["ow"] * step[1] - left
        read: Expr = buffer_x[i["no"], i["co"], row, column, i["s"], i["n"], i["c"]]
        inside = [*((le(0, row), lt(row, x.height)) if top or bottom else ())]
        inside += [*((le(0, column), lt(column, x.width)) if left or right else ())]
        if inside:
            read = Select(both(*inside), read, Const(0, x.dtype))
        return Store(u, at(i), cast(DType.UINT8, read + Const(-RAISE, x.dtype)))

    sums = Buffer.of("S", DType.INT32, (y.blocks, y.subs, y.n, y.c))
    correct = update("correct", a, y, lambda v, i: binary(BinaryOp.SUB, v, per_channel(sums, i)))
    raised_term = replace(term, x=padded, window=within)
    return Raised(buffer=u, fill=over("raise", padded, fill), term=raised_term, sums=sums, correct=correct)


@dataclass(frozen=True, kw_only=True)
class Summed:
    """The sum of products of an op: the parameters behind X, the temporaries, what comes before `a` is cleared, and the
    nests that add to it."""

    parameters: tuple[Buffer, ...]
    allocated: tuple[Buffer, ...]
    before: tuple[For, ...]
    nests: tuple[For, ...]


def is_raised(source: Weighted) -> bool:
    """Whether `summed` reads the input by way of a `Raised` one."""
    return bool(source.dot) and (source.x.limits is None or source.x.limits[0] < 0)


def summed(source: Weighted, buffer_x: Buffer, a: Buffer, y: Tiled) -> Summed:
    """``a += the sum of products`` of the weights W, by way of a `Raised` input if that of a `dot` may be negative."""
    if not is_raised(source):
        w, nest_of = product("dot", source, buffer_x, "W", a, y)
        return Summed(parameters=(w,), allocated=(), before=(), nests=(nest_of,))
    up = raised(source, buffer_x, a, y)
    w, nest_of = product("dot", up.term, up.buffer, "W", a, y)
    return Summed(parameters=(w, up.sums), allocated=(up.buffer,), before=(up.fill,), nests=(nest_of, up.correct))
