"""Who waits for what when nothing goes on: the one diagnosis of all engines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.asm import disassemble
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA, Module
from vta_hw.spec.program import Tokens
from vta_sim.token_queues import popped

_NEVER: Final[Mapping[Module, int]] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Wait:
    """An instruction at the head of its queue, and the empty token queues that keep it there.

    insn: its index within the launch. since: the cycle of the launch, from 0, from which on its unit has done nothing
    but wait for these tokens; None from an engine that knows no time. layer: None where no layer is known.
    """

    insn: int
    disassembly: str
    module: Module
    queues: tuple[str, ...]
    since: int | None = None
    layer: str | None = None

    def __str__(self) -> str:
        layer = "" if self.layer is None else f" of layer {self.layer}"
        since = "" if self.since is None else f" since cycle {self.since}"
        return (
            f"instruction {self.insn} ({self.disassembly}){layer} waits{since} "
            f"for a token of {' and '.join(self.queues)}"
        )


def find_waits(
    config: VTAConfig,
    words: NDArray[np.uint64],
    heads: Mapping[Module, int],
    tokens: Tokens,
    since: Mapping[Module, int] = _NEVER,
) -> tuple[Wait, ...]:
    """What keeps each unit waiting, in program order.

    words: of the launch, uint64 [N][2]. heads: index of the first instruction that a unit has not executed, for the
    units that have one left. tokens: in the queues now. since: see `Wait`. A unit whose tokens are there does not wait.
    """
    waits = []
    isa = ISA(config)
    for module, index in sorted(heads.items(), key=lambda head: head[1]):
        low, high = (int(word) for word in words[index])
        insn = isa.decode(low | high << 64)
        queues = tuple(queue for queue in popped(insn) if not getattr(tokens, queue))
        if queues:
            text = disassemble(insn)
            waits.append(Wait(insn=index, disassembly=text, module=module, queues=queues, since=since.get(module)))
    return tuple(waits)
