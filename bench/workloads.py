"""Compiled layers as any engine can run them: what is in memory before each launch, and where its instructions are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from bench.session import convolution, inputs_of
from compiler.driver import compile_graph
from runtime.device import PAGE_BYTES, Bases, LaunchReport
from runtime.devices.functional import FunctionalDevice
from runtime.session import Session
from vta.engines import Engine, host_loader
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.program import Program, Tokens
from vta_sim.functional import engine
from vta_sim.memory import Memory

Pages = Mapping[int, NDArray[np.uint8]]
"""Contents of memory by address, a multiple of `PAGE_BYTES`; each uint8 [PAGE_BYTES]."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """A launch; written: the pages of memory that the host writes before."""

    written: Pages
    insn_address: int
    insn_count: int
    bases: Bases = field(default_factory=Bases)
    tokens: Tokens = field(default_factory=Tokens)

    @property
    def simulator_bases(self) -> engine.Bases:
        return engine.Bases(**asdict(self.bases))


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The launches of a program, in order; memory: all there is after the last, by the functional simulator."""

    name: str
    config: VTAConfig
    starts: Sequence[Start]
    memory: Pages

    @property
    def memory_bytes(self) -> int:
        """The end of what the launches touch."""
        return max(self.memory) + PAGE_BYTES


class _Recorder(FunctionalDevice):
    """A device that notes each launch. left: what memory held after the last."""

    def __init__(self, config: VTAConfig) -> None:
        super().__init__(config)
        self.starts: list[Start] = []
        self.left: Pages = {}

    def launch(
        self,
        insn_address: int,
        insn_count: int,
        *,
        bases: Bases | None = None,
        tokens: Tokens | None = None,
        allow_leftover_tokens: bool = False,
    ) -> None:
        written = {
            address: page
            for address, page in pages_of(self._memory).items()
            if address not in self.left or not np.array_equal(self.left[address], page)
        }
        start = Start(written=written, insn_address=insn_address, insn_count=insn_count, bases=bases or Bases())
        self.starts.append(start)
        super().launch(
            insn_address, insn_count, bases=bases, tokens=tokens, allow_leftover_tokens=allow_leftover_tokens
        )

    def wait(self, timeout: float | None = None) -> LaunchReport:
        report = super().wait(timeout)
        self.left = pages_of(self._memory)
        return report


def pages_of(memory: Memory) -> dict[int, NDArray[np.uint8]]:
    """All that a memory holds."""
    return {address: memory.read(address, PAGE_BYTES) for address in memory.page_addresses().tolist()}


def record(name: str, program: Program, inputs: Mapping[str, NDArray[np.generic]]) -> Workload:
    """One run of a compiled program. inputs: by name, as the program's buffers store them."""
    device = _Recorder(program.config)
    with Session(device, program, host_loader(Engine.FUNCTIONAL)) as session:
        session.run(inputs)
        return Workload(name=name, config=program.config, starts=device.starts, memory=device.left)


def layer(name: str, inputs: int, outputs: int, size: int, *, kernel: int = 3) -> Workload:
    """A convolution with as many channels on as many rows and columns."""
    program = compile_graph(convolution(inputs, outputs, size, kernel=kernel), VTAConfig())
    return record(name, program, inputs_of(program))
