"""The LLVM IR of one procedure, to look at."""

from __future__ import annotations

from dataclasses import dataclass

from compiler.llvm.codegen import define
from compiler.llvm.emitter import Globals
from compiler.llvm.target import Target
from compiler.tensor.ir import Proc

SYMBOL = "tensor_procedure"


@dataclass(frozen=True, kw_only=True)
class One:
    """A module of one function, `SYMBOL`, and the bytes of each of its scratch pointers."""

    text: str
    scratch: tuple[int, ...]


def generate(proc: Proc, target: Target | None = None) -> One:
    """target: whose own instructions may be used; without one, only what LLVM makes of its own."""
    module = Globals()
    function = define(proc, SYMBOL, module, target=target or Target.any())
    return One(text="\n".join([function.text, *module.lines]) + "\n", scratch=function.scratch)
