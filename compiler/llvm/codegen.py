"""Tensor IR to the text of an LLVM function, the same for every target but for the instructions of `dot`.

It takes pointers: the parameters of the procedure in order, then one scratch pointer for each allocated buffer too
large for the stack. It is meant for procedures that passed `compiler.tensor.verify`: it checks nothing. LLVM may turn
its loops into memset and memcpy; nothing else outside the module is called.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from compiler.errors import LoweringError
from compiler.llvm import operators
from compiler.llvm.dot import NEIGHBOURS, DotProduct, add_products, dot_product
from compiler.llvm.emitter import Emitter, Globals, Value, literal, llvm_type, memory_dtype
from compiler.llvm.expressions import Context, Expressions, Lanes, Place, lane_numbers
from compiler.llvm.lanes import allocated, lane_count
from compiler.llvm.target import Target
from compiler.llvm.transpose import Transposition, exchanged, interleaved, transposition
from compiler.tensor.arguments import written
from compiler.tensor.interval import interval, loop_interval
from compiler.tensor.ir import (
    Alloc,
    BinaryOp,
    Body,
    Buffer,
    CompareOp,
    Const,
    DType,
    For,
    If,
    LoopKind,
    Mapped,
    Prefetch,
    Proc,
    Stmt,
    Store,
    constant,
)
from compiler.tensor.traverse import walk

STACK_BUFFER_BYTES = 64 * 1024
STACK_BYTES = 256 * 1024  # of all buffers together: a thread may have half a megabyte
MAX_UNROLLED = 64
MAX_COPIES = 4096
TURNS = 16
"""How often each thread takes iterations of a parallel loop."""
ALIGNMENT = 64
"""Bytes. Scratch pointers are passed with it; the parameters' own need only suit their element."""


@dataclass(frozen=True, kw_only=True)
class Function:
    """The definition of an LLVM function, the bytes of each scratch pointer, and those that it has on the stack."""

    text: str
    scratch: tuple[int, ...]
    stack: int


def define(
    proc: Proc,
    symbol: str,
    module: Globals,
    linkage: str = "",
    *,
    target: Target,
    share: bool = False,
    stack_buffer: int = STACK_BUFFER_BYTES,
) -> Function:
    """The function `symbol` of a module, for a verified procedure.

    Raises LoweringError for what is no statement or expression of the IR.

    target: a processor whose own instructions may be used, where LLVM would not find them. share: the body is one
    parallel loop, of whose iterations a call takes some until all threads together have done them. Two parameters more,
    behind the scratch pointers, are the address of the next iteration, int64, which threads take from, and the number
    of threads, int64. stack_buffer: bytes of the largest buffer that may lie on the stack.
    """
    codegen = _Codegen(module, target, stack_buffer)
    for n, buffer in enumerate(proc.params):
        shape = tuple(literal(DType.INT64, extent) for extent in buffer.static_shape)
        codegen.expressions.places[buffer.name] = Place(pointer=f"%arg{n}", shape=shape)
    if share:
        codegen.share(Context(variables={}, ranges={}), proc.body)
    else:
        codegen.body(Context(variables={}, ranges={}), proc.body)
    stored = written(proc)
    params = [_parameter(n, buffer, buffer.name in stored) for n, buffer in enumerate(proc.params)]
    for n, nbytes in enumerate(codegen.scratch):
        params.append(f"ptr noalias nonnull align {ALIGNMENT} dereferenceable({nbytes}) %scratch{n}")
    if share:
        params += ["ptr %next", "i64 %threads"]
    e = codegen.emitter
    attributes = "noinline nounwind" if linkage else "nounwind"  # one function of all would be slow to compile
    lines = [
        f"define {f'{linkage} ' if linkage else ''}void @{symbol}({', '.join(params)}) {attributes} {{",
        "start:",
        *e.entry,
        *e.lines,
        "  ret void",
        "}",
    ]
    return Function(text="\n".join(lines), scratch=tuple(codegen.scratch), stack=codegen.stack)


def _parameter(number: int, buffer: Buffer, is_written: bool) -> str:
    itemsize = buffer.type.numpy.itemsize
    nbytes = math.prod(buffer.static_shape) * itemsize
    extent = f" dereferenceable({nbytes})" if nbytes else ""
    return f"ptr noalias nonnull{'' if is_written else ' readonly'} align {itemsize}{extent} %arg{number}"


def _hints(loop: For) -> tuple[str, ...]:
    """To LLVM: what the schedule has said how to run is not unrolled further, for its sums would not fit registers."""
    scheduled = any(isinstance(inner, For) and inner.kind is LoopKind.VECTORIZED for inner in walk(loop.body))
    return ("unroll.disable", "vectorize.enable=false") if scheduled else ()


class _Codegen:
    """Emits statements. `scratch` collects the bytes of buffers that do not fit the stack."""

    def __init__(self, module: Globals, target: Target, stack_buffer: int) -> None:
        self.target = target
        self.stack_buffer = stack_buffer
        self.copies = 1  # of the statement at hand, by unrolled loops
        self.emitter = Emitter(module)
        self.expressions = Expressions(self.emitter)
        self.scratch: list[int] = []
        self.stack = 0
        self.reserved: dict[tuple[str, int], str] = {}  # so that copies of an unrolled body share one place

    def body(self, at: Context, body: Body) -> None:
        for stmt in body:
            self.stmt(at, stmt)

    def stmt(self, at: Context, stmt: Stmt) -> None:
        match stmt:
            case Store():
                value = self.expressions.value(at, stmt.value)
                self.expressions.store(at, stmt.buffer, stmt.index, value)
            case Prefetch():
                self.expressions.prefetch(at, stmt.buffer, stmt.index)
            case For():
                self.loop(at, stmt)
            case If():
                self.guard(at, stmt)
            case Alloc():
                self.alloc(at, stmt)
            case Mapped():
                self.body(at, stmt.body)
            case _:
                raise LoweringError(f"Statement must be one of the IR's, not {stmt!r}")

    def guard(self, at: Context, stmt: If) -> None:
        if (parts := self.expressions.apart(at, stmt.cond)) is not None:
            shared, own = parts
            self.guard(at, If(shared, (If(own, stmt.body),)))
            return
        e = self.emitter
        cond = self.expressions.steady(at, stmt.cond)
        if cond.lanes > 1:
            self.body(self.expressions.masked(at, cond), stmt.body)
            return
        then, join = e.name("then"), e.name("join")
        e.branch_if(cond, then, join)
        e.start(then)
        self.body(at, stmt.body)
        e.branch(join)
        e.start(join)

    # -- loops

    def may_unroll(self, extent: int) -> bool:
        """Whether a body may be written out so often, on top of those that it lies in."""
        return extent <= MAX_UNROLLED and self.copies * extent <= MAX_COPIES

    def loop(self, at: Context, stmt: For) -> None:
        if at.lanes is None and (dot := dot_product(stmt)) is not None:
            self.dot(at, dot)
            return
        if at.lanes is None and (square := transposition(stmt)) is not None:
            self.transposed(at, square)
            return
        if stmt.kind is LoopKind.VECTORIZED and at.lanes is None and (lanes := lane_count(stmt)) > 1:
            self.vector_loop(at, stmt, lanes)
            return
        if stmt.kind is LoopKind.UNROLLED and isinstance(stmt.extent, Const) and self.may_unroll(constant(stmt.extent)):
            outside, self.copies = self.copies, self.copies * max(1, constant(stmt.extent))
            for n in range(constant(stmt.extent)):  # a buffer that has constant indices is registers
                self.body(at.bind(stmt.var.name, literal(DType.INT64, n), (n, n)), stmt.body)
            self.copies = outside
            return
        extent = self.expressions.value(at, stmt.extent)
        self.scalar_loop(at, stmt, literal(DType.INT64, 0), extent, _hints(stmt))

    def share(self, at: Context, body: Body) -> None:
        """Take iterations of a parallel loop that follow each other, and run them, until there are none left."""
        (stmt,) = body
        assert isinstance(stmt, For)
        e, extent = self.emitter, self.expressions.value(at, stmt.extent)
        alone = e.value(DType.BOOL, 1, "icmp eq i64 %threads, 1")
        several = e.value(DType.INT64, 1, f"mul nuw nsw i64 %threads, {TURNS}")
        turns = operators.select(e, alone, literal(DType.INT64, 1), several)
        rounded = e.value(DType.INT64, 1, f"add nuw nsw {extent.typed}, {turns.text}")
        enough = e.value(DType.INT64, 1, f"sub nuw nsw {rounded.typed}, 1")
        count = e.value(DType.INT64, 1, f"udiv {enough.typed}, {turns.text}")
        take, some, done = e.name("take"), e.name("some"), e.name("done")
        e.branch(take)
        e.start(take)
        first = e.value(DType.INT64, 1, f"atomicrmw add ptr %next, {count.typed} monotonic, align 8")
        e.branch_if(operators.compare(e, CompareOp.LT, first, extent), some, done)
        e.start(some)
        stop = e.value(DType.INT64, 1, f"add nuw nsw {first.typed}, {count.text}")
        self.scalar_loop(at, stmt, first, operators.binary(e, BinaryOp.MIN, stop, extent), _hints(stmt))
        e.branch(take)
        e.start(done)

    def scalar_loop(self, at: Context, stmt: For, start: Value, stop: Value, hints: tuple[str, ...]) -> None:
        values = loop_interval(stmt.extent, at.ranges)

        def once(i: Value) -> None:
            self.body(at.bind(stmt.var.name, i, values), stmt.body)

        self.count(start, stop, 1, once, hints)

    def vector_loop(self, at: Context, stmt: For, lanes: int) -> None:
        """Whole vectors first, the remaining iterations one by one."""
        e, values = self.emitter, loop_interval(stmt.extent, at.ranges)
        extent = self.expressions.value(at, stmt.extent)
        if isinstance(stmt.extent, Const):
            whole = literal(DType.INT64, constant(stmt.extent) // lanes * lanes)
        else:
            whole = e.value(DType.INT64, 1, f"and {extent.typed}, -{lanes}")

        def once(i: Value) -> None:
            each = operators.binary(e, BinaryOp.ADD, i, Value(lane_numbers(lanes), DType.INT64, lanes))
            inner = at.bind(stmt.var.name, each, values)
            private = Lanes(var=stmt.var.name, first=i, count=lanes, private=allocated(stmt))
            self.body(replace(inner, lanes=private), stmt.body)

        end = self.count(literal(DType.INT64, 0), whole, lanes, once, ())
        if whole != extent:
            self.scalar_loop(at, stmt, end, extent, ("vectorize.enable=false", "unroll.disable"))

    def dot(self, at: Context, dot: DotProduct) -> None:
        e, zero = self.emitter, literal(DType.INT64, 0)
        first = at.bind(dot.lane, zero, (0, dot.lanes - 1)).bind(dot.byte, zero, (0, NEIGHBOURS - 1))
        vector = replace(first, lanes=Lanes(var=dot.lane, first=zero, count=dot.lanes, private=frozenset()))
        sums = self.expressions.value(vector, dot.sums)
        # Four bytes that the lanes share are read as a number, which processors repeat while they load it.
        shared = self.expressions.bytes(first, dot.shared, DType.INT32, 1)
        weights = self.expressions.bytes(first, dot.weights, DType.INT8, NEIGHBOURS * dot.lanes)
        total = add_products(e, dot, sums, shared, weights, self.target)
        self.expressions.store(vector, dot.sums.buffer, dot.sums.index, total)

    def transposed(self, at: Context, square: Transposition) -> None:
        store, width = square.store, square.width
        along = self.lanes_of(at, square.columns, width)
        rows = []
        for n in range(square.height):
            row = self.expressions.value(along.bind(square.rows, literal(DType.INT64, n), (n, n)), store.value)
            rows.append(operators.splat(self.emitter, self.expressions.stored(row), width))
        if square.height < width:
            everything = interleaved(self.emitter, rows)
            across = self.lanes_of(at, square.rows, everything.lanes)
            place = across.bind(square.columns, literal(DType.INT64, 0), (0, width - 1))
            self.expressions.store(place, store.buffer, store.index, everything)
            return
        across = self.lanes_of(at, square.rows, square.height)
        for n, column in enumerate(exchanged(self.emitter, rows, self.target)):
            place = across.bind(square.columns, literal(DType.INT64, n), (n, n))
            self.expressions.store(place, store.buffer, store.index, column)

    @staticmethod
    def lanes_of(at: Context, var: str, count: int) -> Context:
        """Where the first iterations of a loop are lanes."""
        lanes = Lanes(var=var, first=literal(DType.INT64, 0), count=count, private=frozenset())
        numbers = Value(lane_numbers(count), DType.INT64, count)
        return replace(at.bind(var, numbers, (0, count - 1)), lanes=lanes)

    def count(
        self, start: Value, stop: Value, step: int, once: Callable[[Value], None], hints: tuple[str, ...]
    ) -> Value:
        """Emit ``for (i = start; i < stop; i += step) once(i)``; gives the value of i after it."""
        e = self.emitter
        if start.is_literal and stop.is_literal:
            first, last = int(start.text), int(stop.text)
            if first >= last:
                return start
            if first + step >= last:
                once(start)
                return literal(DType.INT64, first + step)
        head, body, latch, done = (e.name(hint) for hint in ("head", "body", "latch", "done"))
        i, following = f"%{e.name('i')}", f"%{e.name('next')}"
        before = e.block
        e.branch(head)
        e.start(head)
        e.emit(f"{i} = phi i64 [ {start.text}, %{before} ], [ {following}, %{latch} ]")
        index = Value(i, DType.INT64)
        e.branch_if(e.value(DType.BOOL, 1, f"icmp slt i64 {i}, {stop.text}"), body, done)
        e.start(body)
        once(index)
        e.branch(latch)
        e.start(latch)
        e.emit(f"{following} = add nuw nsw i64 {i}, {step}")
        e.branch(head, e.loop_hint(*hints) if hints else "")
        e.start(done)
        return index

    # -- buffers

    def alloc(self, at: Context, stmt: Alloc) -> None:
        """Reserve room for the largest shape the buffer can have; its rows lie as close as its shape now allows."""
        buffer = stmt.buffer
        copies = at.lanes.count if at.lanes else 1
        extents = [max(interval(extent, at.ranges)[1], 0) for extent in buffer.shape]
        room = buffer.name, max(math.prod(extents), 1) * copies
        if room not in self.reserved:
            self.reserved[room] = self.reserve(memory_dtype(buffer.type), room[1])
        pointer = self.reserved[room]
        shape = tuple(self.expressions.value(at, extent) for extent in buffer.shape)
        self.expressions.places[buffer.name] = Place(pointer=pointer, shape=shape, copies=copies, allocated=True)
        self.body(at, stmt.body)

    def reserve(self, dtype: DType, elements: int) -> str:
        """Pointer to `elements` undefined elements that exist once in the procedure."""
        nbytes = elements * dtype.bits // 8
        if nbytes > self.stack_buffer or self.stack + nbytes > STACK_BYTES:
            self.scratch.append(nbytes)
            return f"%scratch{len(self.scratch) - 1}"
        self.stack += nbytes
        pointer = f"%{self.emitter.name('buffer')}"
        self.emitter.entry.append(f"  {pointer} = alloca [{elements} x {llvm_type(dtype)}], align {ALIGNMENT}")
        return pointer
