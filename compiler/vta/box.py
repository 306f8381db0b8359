"""One mapped nest at its emission: affine forms become integers, because the loops around it have values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from compiler.errors import LoweringError
from compiler.tensor.affine import Affine, affine, evaluate
from compiler.tensor.ir import Buffer, Compare, CompareOp, Expr, Var
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


class Box:
    """A matched nest with the loops around it known: ranges of its own loops, and place and strides of its operands."""

    def __init__(self, match: Match, env: Mapping[str, int]) -> None:
        self.match, self.env = match, env
        self.loops = [loop.var.name for loop in match.loops]
        self.first = dict.fromkeys(self.loops, 0)
        self.extent = {loop.var.name: evaluate(loop.extent, env) for loop in match.loops}
        self.empty = any(extent <= 0 for extent in self.extent.values())
        self._places: dict[str, tuple[int, dict[str, int]]] = {}
        self.outside = False  # a copy whose elements are all padding
        for guard in _inequalities(match.guards):
            self._restrain(guard)
        self.inside = {name: (self.first[name], self.first[name] + self.extent[name]) for name in self.loops}
        for condition in _inequalities(match.inside):
            name, low, high = self._limits(condition)
            if name is not None:
                self.inside[name] = (max(self.inside[name][0], low), min(self.inside[name][1], high))
            elif low >= high:
                self.outside = True

    def _limits(self, condition: Compare) -> tuple[str | None, int, int]:
        """The one loop that a comparison restrains, and the range of values for which it holds.

        Without such a loop the range is empty if the comparison is false.
        """
        slack = self._known(affine(condition.b) - affine(condition.a))  # must be >= 0, or > 0
        least = 1 if condition.op is CompareOp.LT else 0
        if not slack.terms:
            return None, 0, 1 if slack.const >= least else 0
        if len(slack.terms) > 1:
            raise LoweringError(f"Condition {format_expr(condition)} must restrain one loop of an instruction")
        ((atom, coefficient),) = slack.terms.items()
        assert isinstance(atom, Var), "all but loops is known"
        if coefficient > 0:
            return atom.name, -((slack.const - least) // coefficient), _UNBOUNDED
        return atom.name, -(_UNBOUNDED), (slack.const - least) // -coefficient + 1

    def _restrain(self, guard: Compare) -> None:
        name, low, high = self._limits(guard)
        if name is None:
            self.empty = self.empty or low >= high
            return
        end = min(self.first[name] + self.extent[name], high)
        self.first[name] = max(self.first[name], low)
        self.extent[name] = end - self.first[name]
        self.empty = self.empty or self.extent[name] <= 0

    def _known(self, form: Affine) -> Affine:
        """`form` with the loops around the nest replaced by their values."""
        const = form.const
        terms: dict[Expr, int] = {}
        for atom, coefficient in form.terms.items():
            if isinstance(atom, Var) and atom.name in self.extent:
                terms[atom] = coefficient
            else:
                const += coefficient * evaluate(atom, self.env)
        return Affine(const, terms)

    def _place(self, name: str) -> tuple[int, dict[str, int]]:
        """Element of an operand's buffer at iteration zero of every loop, and elements per iteration."""
        if name not in self._places:
            self._places[name] = self._flat(self.match.operands[name])
        return self._places[name]

    def _flat(self, operand: Operand) -> tuple[int, dict[str, int]]:
        shape = elements_shape(operand.buffer)
        rank = len(operand.tile)  # what comes behind counts the elements of an operand that consists of several
        base, strides = 0, dict.fromkeys(self.loops, 0)
        pitch = math.prod(evaluate(extent, self.env) for extent in shape[rank:])
        for form, extent in zip(reversed(operand.tile), reversed(shape[:rank]), strict=True):
            base += form.const * pitch
            for atom, coefficient in form.terms.items():
                if isinstance(atom, Var) and atom.name in strides:
                    strides[atom.name] += coefficient * pitch
                else:
                    base += coefficient * pitch * evaluate(atom, self.env)
            pitch *= evaluate(extent, self.env)
        return base, strides

    def base(self, name: str) -> int:
        """First element of an operand, within its buffer."""
        base, strides = self._place(name)
        return base + sum(strides[loop] * self.first[loop] for loop in self.loops)

    def axes(self, names: Sequence[str]) -> list[Axis]:
        """The loops with the strides of the named operands."""
        strides = [self._place(name)[1] for name in names]
        return [Axis(self.extent[loop], tuple(one[loop] for one in strides)) for loop in self.loops]

    def copy_axes(self, sram: str, dram: str) -> list[CopyAxis]:
        """The loops of a copy between the operands `sram` and `dram`, with its padding."""
        to, source = self._place(sram)[1], self._place(dram)[1]
        axes = [CopyAxis(0, 0, 0, before=1)] if self.outside else []
        for loop in self.loops:
            low, high = self.inside[loop]
            before = min(max(low - self.first[loop], 0), self.extent[loop])
            size = max(min(high, self.first[loop] + self.extent[loop]) - max(low, self.first[loop]), 0)
            after = self.extent[loop] - before - size
            axes.append(CopyAxis(size, to[loop], source[loop], before, after))
        return axes
