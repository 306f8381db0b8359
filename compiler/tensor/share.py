"""Values that an expression uses more than once, computed once.

Functions build their expressions out of Python objects that occur in several places; written out as a tree, nested
functions grow exponentially. What occurs twice becomes a scalar of its own here, found by value numbering (Cocke and
Schwartz, "Programming Languages and Their Compilers", 1970).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import fields

from compiler.tensor.ir import Alloc, Body, Buffer, Const, Expr, Load, Scope, Store, Var
from compiler.tensor.traverse import children, map_expr

_AT = (Const(0),)


def computed_once(store: Store, prefix: str = "t") -> Body:
    """The store, behind stores of what its value uses more than once to local scalars `prefix`0, `prefix`1 and so on.

    All parts of the value are evaluated, also those that a select would not choose: none may be out of range.
    """
    numbering = _Numbering(store.value)
    shared = numbering.shared()
    scalars = {n: Buffer.of(f"{prefix}{k}", numbering.exprs[n].dtype, (1,), Scope.LOCAL) for k, n in enumerate(shared)}

    def rewritten(n: int) -> Expr:
        def scalar(expr: Expr) -> Expr | None:
            number = numbering.of.get(id(expr))
            return Load(scalars[number], _AT) if number in scalars and number != n else None

        return map_expr(numbering.exprs[n], scalar)

    body: Body = (Store(store.buffer, store.index, rewritten(numbering.of[id(store.value)])),)
    for n in reversed(shared):
        body = (Alloc(scalars[n], (Store(scalars[n], _AT, rewritten(n)), *body)),)
    return body


class _Numbering:
    """Numbers for the values in an expression, equal for equal ones, operands before what is made of them."""

    def __init__(self, root: Expr) -> None:
        self.of: dict[int, int] = {}  # by id
        self.exprs: list[Expr] = []
        self._uses: Counter[int] = Counter()
        self._known: dict[Hashable, int] = {}
        self._number(root)

    def shared(self) -> list[int]:
        """The numbers of computed values with several uses, in order."""
        known = (Var, Const, Load)
        return [n for n, expr in enumerate(self.exprs) if self._uses[n] > 1 and not isinstance(expr, known)]

    def _number(self, expr: Expr) -> int:
        if id(expr) not in self.of:
            # The place of an element is left to the loops.
            operands = [] if isinstance(expr, Load) else [self._number(child) for child in children(expr)]
            key = type(expr), _own(expr), tuple(operands)
            if key not in self._known:
                self._known[key] = len(self.exprs)
                self.exprs.append(expr)
                self._uses.update(operands)
            self.of[id(expr)] = self._known[key]
        return self.of[id(expr)]


def _own(expr: Expr) -> Hashable:
    """What a node is besides its operands."""
    match expr:
        case Load():
            return expr
        case Const():
            return repr(expr.value), expr.type  # 0.0 and -0.0 are equal, but not the same
        case _:
            values = [getattr(expr, field.name) for field in fields(expr)]  # type: ignore[arg-type]  # every Expr is a dataclass, which its base cannot say
            return tuple(value for value in values if not isinstance(value, Expr))
