"""Proofs that one index expression is never below another, from the extents of loops and the conditions around it.

A fact is a linear form that is zero or more. A claim is proven by showing that its negation contradicts the facts, by
Fourier-Motzkin elimination with rounding to integers. What is not linear (``min``, ``//``, ``%``, `Select`, a value
read from memory) becomes an unknown with the facts that hold for it. A proof that would take too long counts as none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from math import gcd

from compiler.tensor.interval import Interval, interval, type_interval
from compiler.tensor.ir import (
    Binary,
    BinaryOp,
    Cast,
    Compare,
    CompareOp,
    Const,
    Expr,
    Load,
    Select,
    Var,
    conjuncts,
    constant,
)
from compiler.tensor.traverse import walk_expr

# Where a proof gives up, and how much all proofs for one procedure may take (in new facts; about ten seconds).
MAX_FACTS = 400
MAX_CASES = 64
MAX_EFFORT = 1_000_000


@dataclass(frozen=True, slots=True)
class Form:
    """``const + sum(coefficient * unknown)``; unknowns are numbered, no coefficient is zero."""

    const: int
    terms: Mapping[int, int] = field(default_factory=dict)

    def __add__(self, other: Form) -> Form:
        terms = dict(self.terms)
        for unknown, coefficient in other.terms.items():
            terms[unknown] = terms.get(unknown, 0) + coefficient
        return Form(self.const + other.const, {u: c for u, c in terms.items() if c})

    def __sub__(self, other: Form) -> Form:
        return self + other.scale(-1)

    def scale(self, factor: int) -> Form:
        return Form(self.const * factor, {u: c * factor for u, c in self.terms.items() if factor})

    def plus(self, amount: int) -> Form:
        return Form(self.const + amount, self.terms)


Facts = tuple[Form, ...]
"""Forms that are zero or more."""

Cases = tuple[Facts, ...]
"""Facts of which at least one set holds."""


class Prover:
    """Turns expressions into forms. One prover serves one procedure; `constant_buffers` are never stored to in it.

    An unknown stands for one value: a loop variable, or an expression that has one value wherever it is met with the
    same loop variables. What is read from a buffer that is stored to is a new unknown each time.
    """

    def __init__(self, constant_buffers: frozenset[str]) -> None:
        self._constant_buffers = constant_buffers
        self._numbers: dict[Expr, int] = {}
        self._count = 0
        self._effort = 0
        self._facts: dict[int, Facts] = {}
        self._cases: dict[int, Cases] = {}

    # -- knowledge

    def loop_facts(self, var: Var, extent: Expr, ranges: Mapping[str, Interval]) -> Facts:
        """What holds inside a loop."""
        index = self.form(var, ranges)
        return index, self.form(extent, ranges).plus(-1) - index

    def facts(self, cond: Expr, ranges: Mapping[str, Interval]) -> Facts:
        """What follows where `cond` holds, as far as it is linear."""
        found: list[Form] = []
        for part in conjuncts(cond):
            if isinstance(part, Compare) and part.a.dtype.is_integer:
                difference = self.form(part.b, ranges) - self.form(part.a, ranges)
                found.append(difference.plus(-1) if part.op is CompareOp.LT else difference)
                if part.op is CompareOp.EQ:
                    found.append(difference.scale(-1))
        return tuple(found)

    def negated_facts(self, cond: Expr, ranges: Mapping[str, Interval]) -> Facts:
        """What follows where `cond` does not hold, as far as it is linear."""
        match cond:
            case Compare(CompareOp.LT, a, b) if a.dtype.is_integer:
                return (self.form(a, ranges) - self.form(b, ranges),)
            case Compare(CompareOp.LE, a, b) if a.dtype.is_integer:
                return ((self.form(a, ranges) - self.form(b, ranges)).plus(-1),)
            case Binary(BinaryOp.OR, a, b):
                return self.negated_facts(a, ranges) + self.negated_facts(b, ranges)
            case _:
                return ()

    def at_least(self, low: Expr, expr: Expr, known: Facts, ranges: Mapping[str, Interval]) -> bool:
        """Whether ``low <= expr`` follows from `known`."""
        if interval(low, ranges)[1] <= interval(expr, ranges)[0]:
            return True
        wrong = (self.form(low, ranges) - self.form(expr, ranges)).plus(-1)
        return self._contradicts((*known, wrong))

    # -- forms

    def form(self, expr: Expr, ranges: Mapping[str, Interval]) -> Form:
        """The linear form of an integer expression."""
        if isinstance(expr, Const):
            return Form(constant(expr))
        if not _may_wrap(expr, ranges):
            match expr:
                case Cast() if expr.a.dtype.is_integer:
                    return self.form(expr.a, ranges)
                case Binary(BinaryOp.ADD, a, b):
                    return self.form(a, ranges) + self.form(b, ranges)
                case Binary(BinaryOp.SUB, a, b):
                    return self.form(a, ranges) - self.form(b, ranges)
                case Binary(BinaryOp.MUL, a, Const() as b) | Binary(BinaryOp.MUL, Const() as b, a):
                    return self.form(a, ranges).scale(constant(b))
                case Binary(BinaryOp.MOD, a, Const() as b) if constant(b) > 0:
                    quotient = self.form(Binary(BinaryOp.FLOORDIV, a, b), ranges)
                    return self.form(a, ranges) - quotient.scale(constant(b))
        return Form(0, {self._unknown(expr, ranges): 1})

    def _unknown(self, expr: Expr, ranges: Mapping[str, Interval]) -> int:
        steady = self._is_steady(expr)
        if steady and expr in self._numbers:
            return self._numbers[expr]
        number = self._count
        self._count += 1
        if steady:
            self._numbers[expr] = number
        self._facts[number], self._cases[number] = (), ()
        one = Form(0, {number: 1})
        bounds: list[Form] = []
        low, high = interval(expr, ranges)
        if not isinstance(expr, Var):  # those of a loop variable are facts of its loop
            bounds += [one.plus(-low), Form(high) - one]
        if steady and not _may_wrap(expr, ranges):
            facts, self._cases[number] = self._definition(expr, one, ranges)
            bounds += facts
        self._facts[number] = tuple(bounds)
        return number

    def _definition(self, expr: Expr, one: Form, ranges: Mapping[str, Interval]) -> tuple[Facts, Cases]:
        """What holds for the value `one` of `expr`, and a distinction of cases that says more."""
        match expr:
            case Binary(BinaryOp.FLOORDIV, a, Const() as b) if constant(b) > 0:
                remainder = self.form(a, ranges) - one.scale(constant(b))
                return (remainder, Form(constant(b) - 1) - remainder), ()
            case Binary(BinaryOp.MIN, a, b):
                over_a, over_b = self.form(a, ranges) - one, self.form(b, ranges) - one
                return (over_a, over_b), ((over_a.scale(-1),), (over_b.scale(-1),))
            case Binary(BinaryOp.MAX, a, b):
                under_a, under_b = one - self.form(a, ranges), one - self.form(b, ranges)
                return (under_a, under_b), ((under_a.scale(-1),), (under_b.scale(-1),))
            case Select():
                is_a, is_b = one - self.form(expr.a, ranges), one - self.form(expr.b, ranges)
                return (), (
                    (is_a, is_a.scale(-1), *self.facts(expr.cond, ranges)),
                    (is_b, is_b.scale(-1), *self.negated_facts(expr.cond, ranges)),
                )
            case _:
                return (), ()

    def _is_steady(self, expr: Expr) -> bool:
        return all(not isinstance(e, Load) or e.buffer.name in self._constant_buffers for e in walk_expr(expr))

    # -- refutation

    def _contradicts(self, facts: Facts) -> bool:
        """Whether no values of the unknowns satisfy the `facts`, of which the last is the one in question."""
        relevant, unknowns = self._relevant(facts)
        if self._infeasible(relevant):
            return True
        distinctions = [cases for unknown in unknowns if (cases := self._cases[unknown])]
        if not distinctions or 2 ** len(distinctions) > MAX_CASES:
            return False
        return all(
            self._infeasible(self._relevant((*facts[:-1], *sum(chosen, ()), facts[-1]))[0])
            for chosen in product(*distinctions)
        )

    def _infeasible(self, facts: list[Form]) -> bool:
        """Whether the facts contradict each other, by eliminating one unknown after the other."""
        current = {_tightened(fact) for fact in facts}
        while True:
            if any(not terms and const < 0 for const, terms in current):
                return True
            current = {(const, terms) for const, terms in current if terms}
            if not current:
                return False
            unknown, made = _cheapest(current)
            self._effort += made
            if made > MAX_FACTS or self._effort > MAX_EFFORT:
                return False
            current = set(_eliminate(current, unknown))

    def _relevant(self, facts: Facts) -> tuple[list[Form], list[int]]:
        """The facts, and definitions of unknowns, that share unknowns with the last fact; and those unknowns."""
        chosen = [facts[-1], *(fact for fact in facts[:-1] if not fact.terms)]
        waiting = list(facts[:-1])
        seen: dict[int, None] = {}
        fresh = list(facts[-1].terms)
        while fresh:
            unknown = fresh.pop()
            if unknown in seen:
                continue
            seen[unknown] = None
            touching = [fact for fact in waiting if unknown in fact.terms]
            waiting = [fact for fact in waiting if unknown not in fact.terms]
            for fact in (*touching, *self._facts[unknown]):
                chosen.append(fact)
                fresh += [other for other in fact.terms if other not in seen]
            for fact in sum(self._cases[unknown], ()):
                fresh += [other for other in fact.terms if other not in seen]
        return chosen, list(seen)


def _may_wrap(expr: Expr, ranges: Mapping[str, Interval]) -> bool:
    """Whether a conversion or arithmetic might not give its mathematical result, as far as intervals tell."""
    low, high = type_interval(expr.dtype)
    match expr:
        case Cast():
            if not expr.a.dtype.is_integer:
                return True
            a0, a1 = interval(expr.a, ranges)
            return not (low <= a0 and a1 <= high)
        case Binary(BinaryOp.ADD | BinaryOp.SUB | BinaryOp.MUL, a, b):
            (a0, a1), (b0, b1) = interval(a, ranges), interval(b, ranges)
            if expr.op is BinaryOp.MUL:
                corners = [x * y for x in (a0, a1) for y in (b0, b1)]
                return not (low <= min(corners) and max(corners) <= high)
            if expr.op is BinaryOp.SUB:
                b0, b1 = -b1, -b0
            return not (low <= a0 + b0 and a1 + b1 <= high)
        case _:
            return False


Row = tuple[int, tuple[tuple[int, int], ...]]


def _tightened(fact: Form) -> Row:
    """With the coefficients' common divisor taken out and the constant rounded down, as integers allow."""
    divisor = gcd(*fact.terms.values()) if fact.terms else 1
    return fact.const // divisor, tuple(sorted((u, c // divisor) for u, c in fact.terms.items()))


def _cheapest(rows: set[Row]) -> tuple[int, int]:
    """The unknown whose elimination leaves fewest facts, and their number."""
    counts: dict[int, list[int]] = {}
    for _, terms in rows:
        for unknown, coefficient in terms:
            counts.setdefault(unknown, [0, 0])[coefficient > 0] += 1
    left = {unknown: len(rows) - below - above + below * above for unknown, (below, above) in counts.items()}
    best = min(left, key=lambda unknown: (left[unknown], unknown))
    return best, left[best]


def _eliminate(rows: set[Row], unknown: int) -> Iterator[Row]:
    lower: list[tuple[int, Form]] = []
    upper: list[tuple[int, Form]] = []
    for const, terms in rows:
        coefficient = dict(terms).get(unknown, 0)
        if coefficient == 0:
            yield const, terms
        else:
            side = lower if coefficient > 0 else upper
            side.append((abs(coefficient), Form(const, {u: c for u, c in terms if u != unknown})))
    for (p, low), (q, high) in product(lower, upper):
        yield _tightened(low.scale(q) + high.scale(p))
