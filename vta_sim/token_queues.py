"""The four token queues as the modules see them: which flag of whose instructions pops or pushes which (VTA spec 5.2).

A flag that is in neither table has no queue, and means nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from vta_hw.spec.isa import Insn, Module, module_of

POPS: Final[Mapping[tuple[Module, str], str]] = MappingProxyType(
    {
        (Module.LOAD, "pop_next"): "g2l",
        (Module.COMPUTE, "pop_prev"): "l2g",
        (Module.COMPUTE, "pop_next"): "s2g",
        (Module.STORE, "pop_prev"): "g2s",
    }
)
"""The queue that a flag of a module's instruction takes a token from."""

PUSHES: Final[Mapping[tuple[Module, str], str]] = MappingProxyType(
    {
        (Module.LOAD, "push_next"): "l2g",
        (Module.COMPUTE, "push_prev"): "g2l",
        (Module.COMPUTE, "push_next"): "g2s",
        (Module.STORE, "push_prev"): "s2g",
    }
)
"""The queue that a flag of a module's instruction gives a token to."""

ENDS: Final[Mapping[str, tuple[Module, Module]]] = MappingProxyType(
    {
        "l2g": (Module.LOAD, Module.COMPUTE),
        "g2l": (Module.COMPUTE, Module.LOAD),
        "g2s": (Module.COMPUTE, Module.STORE),
        "s2g": (Module.STORE, Module.COMPUTE),
    }
)
"""Who gives and who takes the tokens of a queue."""


def popped(insn: Insn) -> tuple[str, ...]:
    """Names of the queues from which an instruction takes a token."""
    module = module_of(insn)
    return tuple(queue for (owner, flag), queue in POPS.items() if owner is module and getattr(insn, flag))
