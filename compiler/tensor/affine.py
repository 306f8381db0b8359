"""Affine forms of index expressions, and bounds over loop ranges.

An expression is kept as ``constant + sum(coefficient * atom)``. An atom is a loop variable or a term that is not affine
(``min``, ``max``, ``//``, ``%``), which stays opaque. Sums distribute into ``min`` and ``max``, so that the size of a
tile at the edge of a tensor, ``min(T, N - T*o)``, keeps a form that cancels against the tile's origin.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

from compiler.tensor.ir import Binary, BinaryOp, Const, Expr, Var, binary, constant, fold
from compiler.tensor.traverse import walk_expr


@dataclass(frozen=True, slots=True)
class Affine:
    """``const + sum(coefficient * atom)``; no coefficient is zero."""

    const: int
    terms: Mapping[Expr, int]

    def __add__(self, other: Affine) -> Affine:
        if not other.terms:
            return Affine(self.const + other.const, self.terms)
        terms = dict(self.terms)
        for atom, coefficient in other.terms.items():
            terms[atom] = terms.get(atom, 0) + coefficient
        return Affine(self.const + other.const, {a: c for a, c in terms.items() if c})

    def __sub__(self, other: Affine) -> Affine:
        return self + other.scale(-1)

    def scale(self, factor: int) -> Affine:
        return Affine(self.const * factor, {a: c * factor for a, c in self.terms.items() if factor})

    def coefficient(self, name: str) -> int:
        return self.terms.get(Var(name), 0)

    def without(self, names: Collection[str]) -> Affine:
        return Affine(self.const, {a: c for a, c in self.terms.items() if not _is_named(a, names)})

    def only(self, names: Collection[str]) -> Affine:
        return Affine(0, {a: c for a, c in self.terms.items() if _is_named(a, names)})

    @property
    def is_linear(self) -> bool:
        """Whether every atom is a loop variable."""
        return all(isinstance(atom, Var) for atom in self.terms)

    @property
    def expr(self) -> Expr:
        extrema = [a for a, c in self.terms.items() if isinstance(a, Binary) and _is_extremum(a) and c == 1]
        if self.const and len(extrema) == 1:  # min(a, b) + 1 reads better, and is kept, as min(a + 1, b + 1)
            (extremum,) = extrema
            shifted = [(affine(operand) + Affine(self.const, {})).expr for operand in (extremum.a, extremum.b)]
            rest = Affine(0, {a: c for a, c in self.terms.items() if a != extremum})
            return binary(BinaryOp.ADD, rest.expr, binary(extremum.op, *shifted))
        result: Expr | None = None
        terms = list(self.terms.items())
        if len(terms) > 1:
            terms.sort(key=lambda item: repr(item[0]))
        for atom, coefficient in terms:
            term = binary(BinaryOp.MUL, atom, Const(coefficient)) if coefficient != 1 else atom
            result = term if result is None else binary(BinaryOp.ADD, result, term)
        if result is None:
            return Const(self.const)
        return binary(BinaryOp.ADD, result, Const(self.const))


def _is_named(atom: Expr, names: Collection[str]) -> bool:
    return isinstance(atom, Var) and atom.name in names


def _is_extremum(atom: Binary) -> bool:
    return atom.op in (BinaryOp.MIN, BinaryOp.MAX)


def affine(expr: Expr) -> Affine:
    """The affine form of an `INT64` expression."""
    match expr:
        case Var():
            return Affine(0, {expr: 1})
        case Const():
            return Affine(constant(expr), {})
        case Binary(op, a, b):
            return _combined(op, affine(a), affine(b))
        case _:
            return Affine(0, {expr: 1})


def _combined(op: BinaryOp, a: Affine, b: Affine) -> Affine:
    match op:
        case BinaryOp.ADD:
            return a + b
        case BinaryOp.SUB:
            return a - b
        case BinaryOp.MUL if not a.terms:
            return b.scale(a.const)
        case BinaryOp.MUL if not b.terms:
            return a.scale(b.const)
        case BinaryOp.MIN | BinaryOp.MAX:
            return _extremum(op, a, b)
        case _:
            folded = binary(op, a.expr, b.expr)
            return Affine(constant(folded), {}) if isinstance(folded, Const) else Affine(0, {folded: 1})


def _extremum(op: BinaryOp, a: Affine, b: Affine) -> Affine:
    difference = a - b
    if not difference.terms:
        first_is_less = difference.const <= 0
        return a if first_is_less == (op is BinaryOp.MIN) else b
    # The part both have in common stays outside, so that it can cancel against other terms.
    common = {atom: c for atom, c in a.terms.items() if b.terms.get(atom) == c}
    shared = Affine(b.const, common)
    rest = binary(op, (a - shared).expr, (b - shared).expr)
    return shared + Affine(0, {rest: 1})


def simplify(expr: Expr) -> Expr:
    return affine(expr).expr


@dataclass(frozen=True, slots=True)
class Range:
    """A loop variable and its extent; the extent may use variables of outer loops."""

    name: str
    extent: Expr


def _highest(form: Affine, loops: Sequence[Range], sign: int) -> list[Affine]:
    """Upper bounds of `form` (``sign`` 1), of which the least counts, with `loops` (innermost last) eliminated.

    With ``sign`` -1 they are lower bounds, of which the greatest counts.
    """
    forms = _expand(form, sign)
    names = _names(forms)
    for loop in reversed(loops):
        if loop.name not in names:
            continue
        replaced: list[Affine] = []
        for one in forms:
            coefficient = one.coefficient(loop.name)
            if not coefficient:
                replaced.append(one)
                continue
            rest = one.without([loop.name])
            if coefficient * sign > 0:
                last = affine(loop.extent) - Affine(1, {})
                replaced.extend(_expand(rest + last.scale(coefficient), sign))
            else:
                replaced.append(rest)
        forms = replaced
        names = _names(forms)
    return forms


def _names(forms: Iterable[Affine]) -> set[str]:
    """The variables that are terms of their own."""
    return {atom.name for form in forms for atom in form.terms if isinstance(atom, Var)}


def _expand(form: Affine, sign: int) -> list[Affine]:
    """Split ``min`` (for upper bounds) and ``max`` (for lower bounds) atoms into their alternatives."""
    for atom, coefficient in form.terms.items():
        if not (isinstance(atom, Binary) and _is_extremum(atom)):
            continue
        favourable = BinaryOp.MIN if coefficient * sign > 0 else BinaryOp.MAX
        if atom.op is favourable:
            rest = Affine(form.const, {a: c for a, c in form.terms.items() if a != atom})
            return [
                alternative
                for operand in (atom.a, atom.b)
                for alternative in _expand(rest + affine(operand).scale(coefficient), sign)
            ]
    return [form]


def symbolic_bounds(expr: Expr, loops: Sequence[Range]) -> tuple[Expr, Expr]:
    """Lowest and highest value of `expr` over `loops` (outermost first), as expressions in the remaining variables.

    The bounds are reached when `expr` is affine in the loops and every loop runs at least once.
    """
    form = affine(expr)
    return _combine(BinaryOp.MAX, _highest(form, loops, -1)), _combine(BinaryOp.MIN, _highest(form, loops, 1))


def _combine(op: BinaryOp, forms: Iterable[Affine]) -> Expr:
    return reduce(lambda a, b: _extremum(op, a, b), forms).expr


def symbolic_box(
    expr: Expr, outer: Sequence[Range], loops: Sequence[Range], limit: Expr | None = None
) -> tuple[Expr, Expr]:
    """Origin and size, in the variables of `outer`, of the interval that `expr` covers over `loops` (outermost first).

    With a `limit` the interval is cut to ``0 <= expr < limit``; its size may then be zero or negative.
    """
    form = affine(expr)
    if variables(expr) & {loop.name for loop in loops}:
        lows, highs = _highest(form, loops, -1), _highest(form, loops, 1)
    else:  # one value, which taking its extrema apart would hide
        lows, highs = [form], [form]
    if limit is not None:
        lows, highs = [*lows, Affine(0, {})], [*highs, affine(limit) - Affine(1, {})]
    lows, highs = _tightest(lows, outer, -1), _tightest(highs, outer, 1)
    sizes = [high - low + Affine(1, {}) for high in highs for low in lows]
    return _combine(BinaryOp.MAX, lows), _combine(BinaryOp.MIN, _tightest(sizes, outer, 1))


def _tightest(forms: list[Affine], outer: Sequence[Range], sign: int) -> list[Affine]:
    """Drop alternatives that another one implies everywhere in `outer`."""
    kept: list[Affine] = []
    for form in forms:
        if any(bounds((form - other).scale(sign), outer)[0] >= 0 for other in kept):
            continue
        kept = [other for other in kept if bounds((other - form).scale(sign), outer)[0] < 0]
        kept.append(form)
    return kept


def bounds(index: Expr | Affine, loops: Sequence[Range]) -> tuple[int, int]:
    """Integers between which `index` lies over `loops` (outermost first, with all of its variables among them)."""
    form = index if isinstance(index, Affine) else affine(index)
    low = max(_least(one, loops) for one in _highest(form, loops, -1))
    high = min(_greatest(one, loops) for one in _highest(form, loops, 1))
    return low, high


def _greatest(form: Affine, loops: Sequence[Range]) -> int:
    return form.const + sum(_atom_bounds(a, loops)[c > 0] * c for a, c in form.terms.items())


def _least(form: Affine, loops: Sequence[Range]) -> int:
    return form.const + sum(_atom_bounds(a, loops)[c < 0] * c for a, c in form.terms.items())


def _atom_bounds(atom: Expr, loops: Sequence[Range]) -> tuple[int, int]:
    """Bounds of a term that elimination left behind. Raises ValueError if there are none."""
    match atom:
        case Binary(BinaryOp.MIN, a, b):
            (a0, a1), (b0, b1) = bounds(a, loops), bounds(b, loops)
            return min(a0, b0), min(a1, b1)
        case Binary(BinaryOp.MAX, a, b):
            (a0, a1), (b0, b1) = bounds(a, loops), bounds(b, loops)
            return max(a0, b0), max(a1, b1)
        case Binary(BinaryOp.MUL, a, b):
            corners = [x * y for x in bounds(a, loops) for y in bounds(b, loops)]
            return min(corners), max(corners)
        case Binary(BinaryOp.FLOORDIV, a, Const() as b) if constant(b) > 0:
            low, high = bounds(a, loops)
            return low // constant(b), high // constant(b)
        case Binary(BinaryOp.MOD, a, Const() as b) if constant(b) > 0:
            low, high = bounds(a, loops)
            divisor = constant(b)
            return (low % divisor, high % divisor) if low // divisor == high // divisor else (0, divisor - 1)
        case _:
            raise ValueError(f"Index term must be bounded by loops, not {atom!r}")


def variables(expr: Expr) -> set[str]:
    return {node.name for node in walk_expr(expr) if isinstance(node, Var)}


def evaluate(expr: Expr, values: Mapping[str, int]) -> int:
    """The value of an index expression where its variables are known."""
    match expr:
        case Const():
            return constant(expr)
        case Var():
            return values[expr.name]
        case Binary():
            return fold(expr.op, evaluate(expr.a, values), evaluate(expr.b, values))
        case _:
            raise TypeError(f"Index expression must be made of constants, variables and operations, not {expr!r}")
