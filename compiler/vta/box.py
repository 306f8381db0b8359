"""One mapped nest at its emission: affine forms become integers, because the loops around it have values."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from compiler.errors import LoweringError
from compiler.tensor.affine import Affine, affine, evaluate
from compiler.tensor.ir import Buffer, Compare, CompareOp, Const, Expr, Var, constant
from compiler.tensor.printer import format_expr
from compiler.tensor.unify import Match, Operand
from compiler.vta.regions import Axis, CopyAxis

_UNBOUNDED = 1 << 40


def elements_shape(buffer: Buffer) -> tuple[Expr, ...]:
    """The dimensions that count elements of the scratchpad: all but the two of the tile."""
    return buffer.shape[:-2]


def _inequalities(conditions: Iterable[Expr]) -> Iterator[Compare]:
    """Comparisons by LT and LE that hold together just when the conditions do."""
    for condition in conditions:
        match condition:
            case Compare(CompareOp.EQ, a, b):
                yield from (Compare(CompareOp.LE, a, b), Compare(CompareOp.LE, b, a))
            case Compare():
                yield condition
            case _:
                raise LoweringError(f"Condition {format_expr(condition)} must be a comparison to be an instruction's")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Form:
    """An affine form: what the loops of the nest contribute to it, and terms that are known at each emission."""

    const: int
    loops: tuple[tuple[str, int], ...]
    around: tuple[tuple[Expr, int], ...]

    @classmethod
    def of(cls, form: Affine, loops: Collection[str]) -> _Form:
        own: list[tuple[str, int]] = []
        around: list[tuple[Expr, int]] = []
        for atom, coefficient in form.terms.items():
            if isinstance(atom, Var) and atom.name in loops:
                own.append((atom.name, coefficient))
            else:
                around.append((atom, coefficient))
        return cls(const=form.const, loops=tuple(own), around=tuple(around))

    def known(self, env: Mapping[str, int]) -> int:
        """The form where all loops of the nest are at zero."""
        total = self.const
        for atom, coefficient in self.around:
            total += coefficient * evaluate(atom, env)
        return total


class _Condition:
    """A comparison that restrains one loop of the nest, or none."""

    def __init__(self, comparison: Compare, loops: Collection[str]) -> None:
        self._slack = _Form.of(affine(comparison.b) - affine(comparison.a), loops)  # must be >= 0, or > 0
        self._least = 1 if comparison.op is CompareOp.LT else 0
        if len(self._slack.loops) > 1:
            raise LoweringError(f"Condition {format_expr(comparison)} must restrain one loop of an instruction")

    def limits(self, env: Mapping[str, int]) -> tuple[str | None, int, int]:
        """The loop, and the range of values for which the comparison holds.

        Without a loop the range is empty if it is false.
        """
        slack = self._slack.known(env)
        if not self._slack.loops:
            return None, 0, 1 if slack >= self._least else 0
        ((name, coefficient),) = self._slack.loops
        if coefficient > 0:
            return name, -((slack - self._least) // coefficient), _UNBOUNDED
        return name, -_UNBOUNDED, (slack - self._least) // -coefficient + 1


class _Operand:
    """Where the tiles of an operand lie within its buffer, whose shape may depend on loops around the nest."""

    def __init__(self, operand: Operand, loops: Collection[str]) -> None:
        shape = elements_shape(operand.buffer)
        rank = len(operand.tile)  # what comes behind counts the elements of an operand that consists of several
        self._inner = shape[rank:]
        pairs = list(zip(reversed(operand.tile), reversed(shape[:rank]), strict=True))
        self._dimensions = [(_Form.of(form, loops), extent) for form, extent in pairs]
        self._flat: _Form | None = None
        if all(isinstance(extent, Const) for extent in shape):  # the usual case: one form for all dimensions
            flat, pitch = Affine(0, {}), math.prod(map(constant, self._inner))
            for form, extent in pairs:
                flat, pitch = flat + form.scale(pitch), pitch * constant(extent)
            self._flat = _Form.of(flat, loops)

    def place(self, env: Mapping[str, int]) -> tuple[int, Mapping[str, int]]:
        """Element at iteration zero of every loop, and elements per iteration of those that choose any."""
        if self._flat is not None:
            return self._flat.known(env), dict(self._flat.loops)
        pitch = math.prod(evaluate(extent, env) for extent in self._inner)
        base = 0
        strides: dict[str, int] = {}
        for form, extent in self._dimensions:
            base += form.known(env) * pitch
            for name, coefficient in form.loops:
                strides[name] = strides.get(name, 0) + coefficient * pitch
            pitch *= evaluate(extent, env)
        return base, strides


class Nest:
    """A matched nest, taken apart once for all of its emissions."""

    def __init__(self, match: Match) -> None:
        self.match = match
        self.loops = {loop.var.name: loop.extent for loop in match.loops}
        self.guards = [_Condition(guard, self.loops) for guard in _inequalities(match.guards)]
        self.inside = [_Condition(condition, self.loops) for condition in _inequalities(match.inside)]
        self.operands = {name: _Operand(operand, self.loops) for name, operand in match.operands.items()}


class Box:
    """A matched nest with the loops around it known: ranges of its own loops, and place and strides of its operands."""

    def __init__(self, nest: Nest, env: Mapping[str, int]) -> None:
        self.match, self.env = nest.match, env
        self._nest = nest
        self.loops = list(nest.loops)
        self.first = dict.fromkeys(self.loops, 0)
        self.extent = {name: evaluate(extent, env) for name, extent in nest.loops.items()}
        self.empty = any(extent <= 0 for extent in self.extent.values())
        self._places: dict[str, tuple[int, Mapping[str, int]]] = {}
        self.outside = False  # a copy whose elements are all padding
        for guard in nest.guards:
            self._restrain(*guard.limits(env))
        self.inside = {name: (self.first[name], self.first[name] + self.extent[name]) for name in self.loops}
        for condition in nest.inside:
            name, low, high = condition.limits(env)
            if name is not None:
                self.inside[name] = (max(self.inside[name][0], low), min(self.inside[name][1], high))
            elif low >= high:
                self.outside = True

    def _restrain(self, name: str | None, low: int, high: int) -> None:
        if name is None:
            self.empty = self.empty or low >= high
            return
        end = min(self.first[name] + self.extent[name], high)
        self.first[name] = max(self.first[name], low)
        self.extent[name] = end - self.first[name]
        self.empty = self.empty or self.extent[name] <= 0

    def _place(self, name: str) -> tuple[int, Mapping[str, int]]:
        """Element of an operand's buffer at iteration zero of every loop, and elements per iteration."""
        if name not in self._places:
            self._places[name] = self._nest.operands[name].place(self.env)
        return self._places[name]

    def base(self, name: str) -> int:
        """First element of an operand, within its buffer."""
        base, strides = self._place(name)
        return base + sum(stride * self.first[loop] for loop, stride in strides.items())

    def axes(self, names: Sequence[str]) -> list[Axis]:
        """The loops with the strides of the named operands."""
        strides = [self._place(name)[1] for name in names]
        return [Axis(self.extent[loop], tuple([one.get(loop, 0) for one in strides])) for loop in self.loops]

    def copy_axes(self, sram: str, dram: str) -> list[CopyAxis]:
        """The loops of a copy between the operands `sram` and `dram`, with its padding."""
        to, source = self._place(sram)[1], self._place(dram)[1]
        axes = [CopyAxis(0, 0, 0, before=1)] if self.outside else []
        for loop in self.loops:
            low, high = self.inside[loop]
            before = min(max(low - self.first[loop], 0), self.extent[loop])
            size = max(min(high, self.first[loop] + self.extent[loop]) - max(low, self.first[loop]), 0)
            after = self.extent[loop] - before - size
            axes.append(CopyAxis(size, to.get(loop, 0), source.get(loop, 0), before, after))
        return axes
