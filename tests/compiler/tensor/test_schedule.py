"""What each primitive on loops makes of a small procedure, and what it refuses, word by word."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from compiler.tensor.ir import (
    Alloc,
    Buffer,
    Const,
    DType,
    Expr,
    For,
    If,
    Load,
    LoopKind,
    Mapped,
    Proc,
    Scope,
    Select,
    Store,
    Var,
    both,
    cast,
    le,
    lt,
    minimum,
    nest,
)
from compiler.tensor.printer import format_proc
from compiler.tensor.schedule import Schedule, ScheduleError, Step
from compiler.tensor.verify import verify
from tests.compiler.tensor.fuzz_schedule import answer, ill_formed, wrong

X = Buffer.of("x", DType.INT32, (8, 8))
Y = Buffer.of("y", DType.INT32, (8, 8))
V = Buffer.of("v", DType.INT8, (16,))
T = Buffer.of("t", DType.INT32, (8, 8), Scope.LOCAL)
I1, J, K = Var("i"), Var("j"), Var("k")
I2, J2 = Var("i2"), Var("j2")
LOOPS = [("i", 4), ("j", 3)]


def make(*body: For | Alloc | If | Store | Mapped) -> Schedule:
    proc = Proc("p", (X, Y, V), body)
    verify(proc)
    return Schedule(proc)


def body_text(schedule: Schedule) -> str:
    """The procedure without its first line and one level of indentation."""
    return "\n".join(line[2:] for line in format_proc(schedule.proc).splitlines()[1:])


def applied(schedule: Schedule, call: Callable[[Schedule], None]) -> str:
    """The body after a legal call, which must not change the answer."""
    expected = answer(schedule.proc, 0)
    assert expected is not None
    call(schedule)
    assert ill_formed(schedule.proc) is None
    assert wrong(schedule.proc, expected) is None
    return body_text(schedule)


def refused(schedule: Schedule, call: Callable[[Schedule], None]) -> str:
    """The sentence after ``primitive in p: `` of an illegal call, which must not change the schedule."""
    before = schedule.proc
    with pytest.raises(ScheduleError) as caught:
        call(schedule)
    assert schedule.proc is before
    assert schedule.trace == []
    primitive, _, sentence = str(caught.value).partition(" in p: ")
    assert hasattr(Schedule, primitive)
    return sentence


def copy(i: Expr = I1, j: Expr = J, loops: list[tuple[str, int | Expr]] | None = None) -> For:
    return nest(loops or [("i", 4), ("j", 3)], Store(Y, (i, j), X[i, j]))


# -- split


def test_split_in_whole_chunks() -> None:
    text = applied(make(copy()), lambda s: s.split("i", 2, "a", "b"))
    assert text == ("for a in 2:\n  for b in 2:\n    for j in 3:\n      y[a * 2 + b, j] = x[a * 2 + b, j]")


def test_split_leaves_a_shorter_last_chunk() -> None:
    text = applied(make(copy()), lambda s: s.split("i", 3, "a", "b"))
    assert text.splitlines()[:2] == ["for a in 2:", "  for b in min(3, a * -3 + 4):"]


def test_split_keeps_the_kind_outside() -> None:
    s = make(copy())
    s.set_kind("i", LoopKind.PARALLEL)
    s.split("i", 2, "a", "b")
    assert body_text(s).splitlines()[:2] == ["for a in 2 parallel:", "  for b in 2:"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("k", 2, "a", "b"), "loop must be one of i, j, not 'k'"),
        (("i", 0, "a", "b"), "factor must be at least 1, not 0"),
        (("i", 2, "j", "b"), "new loop name must not be in use, 'j' is"),
        (("i", 2, "a", "a"), "new loop name must not be in use, 'a' is"),
    ],
)
def test_split_refuses(arguments: tuple[str, int, str, str], sentence: str) -> None:
    assert refused(make(copy()), lambda s: s.split(*arguments)) == sentence


def test_split_refuses_a_ragged_loop() -> None:
    ragged = make(copy(loops=[("i", 4), ("j", minimum(Const(3), 4 - I1))]))
    sentence = refused(ragged, lambda s: s.split("j", 2, "a", "b"))
    assert sentence == "extent of loop 'j' must be constant, not min(3, 4 - i)"


# -- reorder


def test_reorder() -> None:
    s = make(copy(loops=[("i", 2), ("j", 3), ("k", 2)]))
    assert applied(s, lambda s: s.reorder("k", "i", "j")).splitlines()[:3] == [
        "for k in 2:",
        "  for i in 2:",
        "    for j in 3:",
    ]


def test_reorder_of_a_reduction() -> None:
    total = Store(Y, (I1, Const(0)), Y[I1, 0] + X[I1, J])
    assert applied(make(nest(LOOPS, total)), lambda s: s.reorder("j", "i")).startswith("for j in 3:")


def test_reorder_within_a_tile_whose_place_is_chosen_outside() -> None:
    s = make(copy(i=I1 * 4 + J, j=K, loops=[("i", 2), ("k", 3), ("j", 4)]))
    assert applied(s, lambda s: s.reorder("i", "j", "k")).startswith("for i in 2:\n  for j in 4:")


def shifted(offset: int) -> For:
    """``y[i, j] = y[i - offset, j + 1] + 1`` where that exists."""
    source = Y[I1 - offset, J + 1] + 1
    return nest(LOOPS, If(le(offset, I1), (Store(Y, (I1, J), source),)))


@pytest.mark.parametrize(
    ("loop", "names", "sentence"),
    [
        (copy(), (), "loops must be named once each, not ()"),
        (copy(), ("i", "i"), "loops must be named once each, not ('i', 'i')"),
        (copy(), ("k",), "loop must be one of i, j, not 'k'"),
        (shifted(1), ("j", "i"), "loops 'i' and 'j' must not both carry a dependence, they do on y"),
        (
            nest(LOOPS, Store(Y, (I1 + J, Const(0)), X[I1, J])),
            ("j", "i"),
            "loops 'i' and 'j' must not both carry a dependence, they do on y",
        ),
        (
            nest([("i", 4), ("j", minimum(I1 + 1, 3))], Store(Y, (I1, J), X[I1, J])),
            ("j", "i"),
            "extent of loop 'j' must not use a loop that moves inside it",
        ),
        (
            nest([("i", 4), ("k", 2)], copy(i=I2, loops=[("i2", 4), ("j", 3)])),
            ("i", "j"),
            "loops must form a perfect nest; j do not directly follow i",
        ),
    ],
)
def test_reorder_refuses(loop: For, names: tuple[str, ...], sentence: str) -> None:
    assert refused(make(loop), lambda s: s.reorder(*names)) == sentence


def test_reorder_refuses_loops_with_statements_between() -> None:
    loop = For(
        I1, Const(4), (Store(Y, (I1, Const(0)), Const(1, DType.INT32)), nest([("j", 3)], Store(Y, (I1, J), X[I1, J])))
    )
    sentence = "loops must form a perfect nest; j do not directly follow i"
    assert refused(make(loop), lambda s: s.reorder("j", "i")) == sentence


def test_reorder_refuses_float_sums() -> None:
    f = Buffer.of("f", DType.FLOAT32, (4,))
    total = Store(f, (Const(0),), f[(0,)] + cast(DType.FLOAT32, X[I1, J]))
    s = Schedule(Proc("p", (f, X), (nest(LOOPS, total),)))
    sentence = "loops 'i' and 'j' must not both carry a dependence, they do on f"
    assert refused(s, lambda s: s.reorder("j", "i")) == sentence


def test_reorder_keeps_the_promise_of_a_parallel_loop() -> None:
    """Sums may be reordered, but the iterations of j are independent only while i stands still."""
    total = Store(Y, (I1 + J, Const(0)), Y[I1 + J, 0] + X[I1, J])
    s = make(For(I1, Const(4), (For(J, Const(3), (total,), LoopKind.PARALLEL),)))
    sentence = "iterations of parallel loop 'j' must be independent, they share y"
    assert refused(s, lambda s: s.reorder("j", "i")) == sentence


# -- fuse


def test_fuse() -> None:
    text = applied(make(copy()), lambda s: s.fuse("i", "j", "f"))
    assert text == "for f in 12:\n  y[f // 3, f % 3] = x[f // 3, f % 3]"


@pytest.mark.parametrize(
    ("loop", "arguments", "sentence"),
    [
        (copy(), ("j", "i", "f"), "loops must form a perfect nest; i do not directly follow j"),
        (copy(), ("i", "i", "f"), "loop 'i' must be directly inside 'i'"),
        (copy(), ("i", "j", "i"), "new loop name must not be in use, 'i' is"),
        (
            copy(loops=[("i", 4), ("j", minimum(I1 + 1, 3))]),
            ("i", "j", "f"),
            "extents of loops 'i' and 'j' must be constants of at least 1",
        ),
        (
            copy(loops=[("i", -2), ("j", -3)]),
            ("i", "j", "f"),
            "extents of loops 'i' and 'j' must be constants of at least 1",
        ),
    ],
)
def test_fuse_refuses(loop: For, arguments: tuple[str, str, str], sentence: str) -> None:
    assert refused(make(loop), lambda s: s.fuse(*arguments)) == sentence


# -- merge


def produce_consume(read: tuple[Expr, ...], extent: int = 4) -> Alloc:
    """``t = x`` row by row, then ``y = t[read]``."""
    first = nest(LOOPS, Store(T, (I1, J), X[I1, J]))
    second = nest([("i2", extent), ("j2", 3)], Store(Y, (I2, J2), Load(T, read)))
    return Alloc(T, (first, second))


def test_merge() -> None:
    text = applied(make(produce_consume((I2, J2))), lambda s: s.merge("i", "i2"))
    assert text == (
        "alloc t: int32[8, 8] local:\n"
        "  for i in 4:\n"
        "    for j in 3:\n"
        "      t[i, j] = x[i, j]\n"
        "    for j2 in 3:\n"
        "      y[i, j2] = t[i, j2]"
    )


def three() -> tuple[For, ...]:
    """``y[v] = x[v]`` three times over, in loops v = i, i2 and i3."""
    return tuple(nest([(v, 4)], Store(Y, (Var(v), Const(0)), X[Var(v), Const(0)])) for v in ("i", "i2", "i3"))


def test_merge_of_several() -> None:
    text = applied(make(*three()), lambda s: s.merge("i", "i2", "i3"))
    assert text == "for i in 4:\n" + "\n".join(["  y[i, 0] = x[i, 0]"] * 3)
    assert refused(make(*three()), lambda s: s.merge("i", "i3", "i2")) == "loop 'i3' must directly follow 'i'"
    assert refused(make(*three()), lambda s: s.merge("i", "i3")) == "loop 'i3' must directly follow 'i'"


@pytest.mark.parametrize(
    ("stmt", "pair", "sentence"),
    [
        (produce_consume((3 - I2, J2)), ("i", "i2"), "iterations of 'i' and 'i2' must touch t apart from each other"),
        (produce_consume((I2, J2), extent=3), ("i", "i2"), "loops 'i' and 'i2' must have one extent and kind"),
        (produce_consume((I2, J2)), ("i2", "i"), "loop 'i' must directly follow 'i2'"),
        (produce_consume((I2, J2)), ("i", "i"), "loop 'i' must directly follow 'i'"),
        (produce_consume((I2, J2)), ("j", "j2"), "loop 'j2' must directly follow 'j'"),
        (produce_consume((I2, J2)), ("i", "k"), "loop must be one of i, j, i2, j2, not 'k'"),
    ],
)
def test_merge_refuses(stmt: Alloc, pair: tuple[str, str], sentence: str) -> None:
    assert refused(make(stmt), lambda s: s.merge(*pair)) == sentence


@pytest.mark.parametrize("offset", [1, -1])
def test_merge_refuses_a_consumer_that_is_ahead_or_behind(offset: int) -> None:
    inside = both(le(0, I2 + offset), lt(I2 + offset, 4))
    first = nest(LOOPS, Store(T, (I1, J), X[I1, J]))
    second = nest([("i2", 4), ("j2", 3)], If(inside, (Store(Y, (I2, J2), T[I2 + offset, J2]),)))
    sentence = "iterations of 'i' and 'i2' must touch t apart from each other"
    assert refused(make(Alloc(T, (first, second))), lambda s: s.merge("i", "i2")) == sentence


# -- set_kind


@pytest.mark.parametrize("kind", list(LoopKind))
def test_set_kind(kind: LoopKind) -> None:
    s = make(copy())
    assert applied(s, lambda s: s.set_kind("j", kind)).splitlines()[1].removeprefix("  for j in 3") in (
        ":",
        f" {kind.value}:",
    )


@pytest.mark.parametrize("kind", [LoopKind.VECTORIZED, LoopKind.PARALLEL, LoopKind.VTHREAD])
def test_set_kind_refuses_a_reduction(kind: LoopKind) -> None:
    s = make(nest(LOOPS, Store(Y, (I1, Const(0)), Y[I1, 0] + X[I1, J])))
    sentence = f"iterations of {kind.value} loop 'j' must be independent, they share y"
    assert refused(s, lambda s: s.set_kind("j", kind)) == sentence
    s.set_kind("i", kind)


def test_set_kind_refuses_neighbours() -> None:
    s = make(nest([("i", 4)], Store(Y, (I1, Const(0)), Y[I1 + 1, 0])))
    sentence = "iterations of vectorized loop 'i' must be independent, they share y"
    assert refused(s, lambda s: s.set_kind("i", LoopKind.VECTORIZED)) == sentence


def test_set_kind_refuses_to_unroll_a_ragged_loop() -> None:
    s = make(copy(loops=[("i", 4), ("j", minimum(I1 + 1, 3))]))
    sentence = "extent of unrolled loop 'j' must be constant"
    assert refused(s, lambda s: s.set_kind("j", LoopKind.UNROLLED)) == sentence


# -- cut


def test_cut() -> None:
    def call(s: Schedule) -> None:
        s.split("i", 3, "io", "ii")
        s.cut("io", 1, ".rest")
        s.drop_unit_loops()

    assert applied(make(nest(LOOPS, Store(Y, (I1, J), X[I1, J]))), call) == (
        "for ii in 3:\n"
        "  for j in 3:\n"
        "    y[ii, j] = x[ii, j]\n"
        "for j.rest in 3:\n"
        "  y[3, j.rest] = x[3, j.rest]"
    )


def test_cut_gives_each_half_buffers_of_its_own() -> None:
    body = Alloc(T, (Store(T, (I1, Const(0)), X[I1, 0]), Store(Y, (I1, Const(0)), T[I1, 0])))
    assert applied(make(nest([("i", 4)], body)), lambda s: s.cut("i", 3, "'")) == (
        "for i in 3:\n"
        "  alloc t: int32[8, 8] local:\n"
        "    t[i, 0] = x[i, 0]\n"
        "    y[i, 0] = t[i, 0]\n"
        "for i' in 1:\n"
        "  alloc t': int32[8, 8] local:\n"
        "    t'[i' + 3, 0] = x[i' + 3, 0]\n"
        "    y[i' + 3, 0] = t'[i' + 3, 0]"
    )


def test_conditions_go_that_a_cut_decides() -> None:
    inside = Select(both(le(1, I1), lt(J, 2)), X[I1, J], Const(9, DType.INT32))
    body = nest(LOOPS, Store(Y, (I1, J), inside), If(le(2, I1), (Store(Y, (I1, J), Const(5, DType.INT32)),)))
    assert applied(make(body), lambda s: s.cut("i", 1, "'")) == (
        "for i in 1:\n"
        "  for j in 3:\n"
        "    y[i, j] = 9i32\n"
        "for i' in 3:\n"
        "  for j' in 3:\n"
        "    y[i' + 1, j'] = x[i' + 1, j'] if j' < 2 else 9i32\n"
        "    if 2 <= i' + 1:\n"
        "      y[i' + 1, j'] = 5i32"
    )


@pytest.mark.parametrize(
    ("loop", "first", "new", "sentence"),
    [
        ("i", 0, "'", "loop 'i' must be cut in 1..3, not at 0"),
        ("i", 4, "'", "loop 'i' must be cut in 1..3, not at 4"),
        ("i", 2, "", "new loop name must not be in use, 'i' is"),
        ("k", 2, "'", "loop must be one of i, j, not 'k'"),
    ],
)
def test_cut_refuses(loop: str, first: int, new: str, sentence: str) -> None:
    assert refused(make(copy()), lambda s: s.cut(loop, first, new)) == sentence


def test_cut_refuses_a_loop_of_varying_extent() -> None:
    loop = For(I1, Const(4), (For(J, I1, (Store(Y, (I1, J), X[I1, J]),)),))
    assert refused(make(loop), lambda s: s.cut("j", 1, "'")) == "extent of loop 'j' must be constant, not i"


# -- prefetch

W = Buffer.of("w", DType.INT32, (4, 3, 32))
L = Var("l")


def product(width: int = 32) -> For:
    """Of what all of j need the same."""
    value = X[J, K] * Load(W, (I1, K, L)) + Load(Y, (I1, J))
    return nest([("i", 4), ("j", 2), ("k", 3), ("l", width)], Store(Y, (I1, J), value))


def make_product(body: For) -> Schedule:
    proc = Proc("p", (X, Y, W), (body,))
    verify(proc)
    return Schedule(proc)


def test_prefetch() -> None:
    """Six lines of 16 elements in two turns, and two lines in two."""
    text = applied(make_product(product()), lambda s: s.prefetch("w", "i", "j", 16))
    assert text == (
        "for i in 4:\n"
        "  for j in 2:\n"
        "    for w.ahead in 3 unrolled:\n"
        "      prefetch w[min(i + 1, 3), min(j * 3 + w.ahead, 5) // 2 % 3, min(j * 3 + w.ahead, 5) % 2 * 16]\n"
        "    for k in 3:\n"
        "      for l in 32:\n"
        "        y[i, j] = x[j, k] * w[i, k, l] + y[i, j]"
    )
    text = applied(make_product(product()), lambda s: s.prefetch("w", "i", "k", 16))
    assert "prefetch w[min(i + 1, 3), k, min(j + w.ahead, 1) % 2 * 16]" in text
    text = applied(make_product(product(17)), lambda s: s.prefetch("w", "i", "k", 32))
    assert "prefetch w[min(i + 1, 3), k, 0]" in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("w", "j", "i", 16), "loop 'i' must be inside loop 'j'"),
        (("w", "i", "i", 16), "loop 'i' must be inside loop 'i'"),
        (("w", "i", "m", 16), "loop must be one of i, j, k, l, not 'm'"),
        (("w", "i", "k", 0), "line must be at least 1 element, not 0"),
        (("v", "i", "k", 16), "buffer 'v' must be read at one place in loop 'k'"),
        (("x", "i", "k", 16), "what is read of 'x' must change with loop 'i'"),
    ],
)
def test_prefetch_refuses(arguments: tuple[str, str, str, int], sentence: str) -> None:
    assert refused(make_product(product()), lambda s: s.prefetch(*arguments)) == sentence


def test_prefetch_refuses_varying_extents_and_names_in_use() -> None:
    ragged = For(I1, Const(4), (For(J, I1, (Store(Y, (I1, J), X[I1, 0]),)),))
    sentence = "loops that read 'x' must have constant extents of at least 1"
    assert refused(make(ragged), lambda s: s.prefetch("x", "i", "j", 1)) == sentence
    s = make_product(product())
    s.prefetch("w", "i", "k", 16)
    with pytest.raises(ScheduleError, match=r"new loop name must not be in use, 'w\.ahead' is$"):
        s.prefetch("w", "i", "k", 16)


def test_prefetches_follow_the_loops_around_them() -> None:
    def call(s: Schedule) -> None:
        s.prefetch("w", "i", "k", 16)
        s.split("k", 2, "ko", "ki")
        s.cut("i", 1, "'")

    text = applied(make_product(product()), call)
    assert "prefetch w[min(i + 1, 3), ki + ko * 2, min(j + w.ahead, 1) % 2 * 16]" in text
    assert "prefetch w[min(i' + 1 + 1, 3), ki' + ko' * 2, min(j' + w.ahead', 1) % 2 * 16]" in text


# -- split_fill


def filled(value: int | float = 5, dtype: DType = DType.INT32, index: tuple[Expr, ...] = (I1, J)) -> For:
    return nest(LOOPS, Store(Buffer.of("y", dtype, (8, 8)), index, Const(value, dtype)))


def test_split_fill() -> None:
    assert applied(make(filled()), lambda s: s.split_fill("i", ".v")) == (
        "for i in 4:\n"
        "  for j in 3:\n"
        "    y[i, j] = 0i32\n"
        "for i.v in 4:\n"
        "  for j.v in 3:\n"
        "    y[i.v, j.v] = y[i.v, j.v] + 5i32"
    )


@pytest.mark.parametrize(
    ("loop", "new", "sentence"),
    [
        (copy(), ".v", "nest at 'i' must fill a buffer with a constant integer"),
        (
            nest(LOOPS, If(lt(I1, J), (Store(Y, (I1, J), Const(5, DType.INT32)),))),
            ".v",
            "nest at 'i' must fill a buffer with a constant integer",
        ),
        (filled(index=(I1, Const(0))), ".v", "nest must write each element of y once"),
        (filled(index=(I1 + J, Const(0))), ".v", "nest must write each element of y once"),
        (filled(), "", "new loop name must not be in use, 'i' is"),
    ],
)
def test_split_fill_refuses(loop: For, new: str, sentence: str) -> None:
    assert refused(make(loop), lambda s: s.split_fill("i", new)) == sentence


@pytest.mark.parametrize("dtype", [DType.BOOL, DType.FLOAT32])
def test_split_fill_refuses_what_has_no_exact_sum(dtype: DType) -> None:
    y = Buffer.of("y", dtype, (8, 8))
    s = Schedule(Proc("p", (y,), (filled(1, dtype),)))
    assert refused(s, lambda s: s.split_fill("i", ".v")) == "nest at 'i' must fill a buffer with a constant integer"


# -- drop_unit_loops, map, replay


def test_drop_unit_loops() -> None:
    s = make(copy(i=I1 + K, loops=[("k", 1), ("i", 4), ("j", 1)]))
    assert applied(s, lambda s: s.drop_unit_loops()) == "for i in 4:\n  y[i, 0] = x[i, 0]"


def test_map_proves_and_replay_repeats() -> None:
    dst, src = (Buffer.of(n, DType.INT32, (8,)) for n in ("dst", "src"))
    move = Proc("move", (), (nest([("n", 8)], Store(dst, (Var("n"),), src[(Var("n"),)])),))
    s = make(copy(loops=[("i", 4), ("j", 8)]))
    s.map("i", move)
    assert s.trace == [Step("mark", ("i", "move"))]
    assert body_text(s).splitlines()[0] == "mapped move:"
    assert Schedule.replay(Proc("p", (X, Y, V), (copy(loops=[("i", 4), ("j", 8)]),)), s.trace).proc == s.proc
    assert refused(make(copy()), lambda s: s.map("i", move)) == "loop 'i' must compute what move does"
    assert refused(make(copy()), lambda s: s.map("k", move)) == "loop must be one of i, j, not 'k'"


def test_replay_of_a_whole_schedule() -> None:
    s = make(produce_consume((I2, J2)))
    start = s.proc
    s.merge("i", "i2")
    s.narrow("t", "i")
    s.stage("x", "i", Scope.LOCAL, "row")
    s.split("j2", 2, "jo", "ji")
    s.set_kind("ji", LoopKind.VECTORIZED)
    again = Schedule.replay(start, s.trace)
    assert (again.proc, again.trace) == (s.proc, s.trace)
    other = s.copy()
    other.set_scope("t", Scope.ACC)
    assert len(other.trace) == len(s.trace) + 1
    assert s.proc != other.proc
