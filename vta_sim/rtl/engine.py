"""The RTL itself on Amaranth's simulator: the launches of the functional simulator, with time and every signal."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from amaranth.sim import Simulator, SimulatorContext
from numpy.typing import NDArray

from vta_hw.rtl.axi import MAX_BURST_BEATS
from vta_hw.rtl.registers import register_map
from vta_hw.rtl.top import Top, check_buildable
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.instructions import MemoryType
from vta_hw.spec.program import Tokens
from vta_sim.errors import CycleLimit, SimulationError
from vta_sim.functional.engine import Bases
from vta_sim.launch_parameters import INSN_ALIGNMENT, parameters
from vta_sim.memory import Memory
from vta_sim.report import MachineReport
from vta_sim.rtl.axi_memory import AxiMemory, Errors
from vta_sim.rtl.contents import contents, fill_with_pattern
from vta_sim.rtl.driver import CLOCK_PERIOD, Driver, Outcome
from vta_sim.rtl.memory_port import MemoryPort
from vta_sim.rtl.recorder import Recorder
from vta_sim.rtl.register_port import RegisterPort
from vta_sim.rtl.waiting import WaitWatch
from vta_sim.timing import MemoryTiming

MAX_CYCLES: Final = 10_000_000
"""Cycles after which a launch is given up unless the caller says otherwise: hours of simulation."""

_NO_BASES: Final = Bases()
_NO_TOKENS: Final = Tokens()
_DEFAULT_TIMING: Final = MemoryTiming()

Job = Callable[[SimulatorContext], Awaitable[Any]]


@contextmanager
def _integers_of_any_length() -> Iterator[None]:
    """Amaranth writes masks as decimal numbers, which for wide tiles have more digits than Python wants to read."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(limit)


class AmaranthSimulator:
    """One VTA as RTL, with a memory behind its AXI port.

    Scratchpads are zero at first, or filled with a pattern if `poison` is true, and keep their contents from launch to
    launch, as registers do. Launches go through the control registers. errors: byte ranges of memory that answer with
    an error (`axi_memory.SLVERR`). vcd: where to write the waveform of everything; the file is complete after `close`,
    or at the end of a ``with`` block. trace: whether reports have one. options: of `Top`.

    An exception out of the simulation, such as KeyboardInterrupt or AxiError, leaves a simulator that must be `reset`
    or closed. Not safe for use by several threads at once.
    """

    def __init__(
        self,
        config: VTAConfig,
        *,
        memory: Memory | None = None,
        timing: MemoryTiming = _DEFAULT_TIMING,
        errors: Errors | None = None,
        poison: bool = False,
        vcd: Path | None = None,
        trace: bool = False,
        **options: int,
    ) -> None:
        self.config = config
        check_buildable(config)
        self._top = Top(config, **options)
        if poison:
            for memory_type, pad in self._top.scratchpads.items():
                fill_with_pattern(memory_type, pad)
        registers = register_map(config)
        self._driver = Driver(registers, RegisterPort(self._top, registers), self._top.irq)
        self._connect(memory, timing, errors)
        port = MemoryPort(self._top, lambda: self._axi)
        self._recorder = Recorder(self._top) if trace else None
        self._watch = WaitWatch(self._top)
        self._job: Job | None = None
        self._result: Any = None
        self._broken = False
        self._launched: tuple[NDArray[np.uint64], int] | None = None
        self._writes_vcd = vcd is not None
        with ExitStack() as files:
            file = None if vcd is None else files.enter_context(vcd.open("w", encoding="ascii"))
            with _integers_of_any_length():
                self._simulator = Simulator(port)
            # A file that cannot be opened has been refused before there are coroutines, which must not go unused.
            self._simulator.add_clock(CLOCK_PERIOD)
            self._simulator.add_process(port.process)
            if self._recorder is not None:
                self._simulator.add_process(self._recorder.process)
            self._simulator.add_process(self._watch.process)
            self._simulator.add_testbench(self._serve)
            if file is not None:
                files.enter_context(self._simulator.write_vcd(file))
            self._simulator.advance()
            self._files = files.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Finish the waveform."""
        self._files.close()

    def reset(
        self,
        *,
        memory: Memory | None = None,
        timing: MemoryTiming = _DEFAULT_TIMING,
        errors: Errors | None = None,
    ) -> None:
        """Be as new, with other memory. Raises SimulationError while a waveform is being written."""
        if self._writes_vcd:
            raise SimulationError("Simulator must not be reset while it writes a waveform")
        self._connect(memory, timing, errors)
        self._job, self._broken, self._launched = None, False, None
        self._simulator.reset()
        self._simulator.advance()

    def launch(
        self,
        insn_address: int,
        insn_count: int,
        *,
        bases: Bases = _NO_BASES,
        tokens: Tokens | None = None,
        allow_leftover_tokens: bool = False,
        allow_faults: bool = False,
        max_cycles: int = MAX_CYCLES,
    ) -> MachineReport:
        """Execute `insn_count` instructions from byte `insn_address` on, with `tokens` in the queues (default none).

        Raises a `SimulationError` as the functional simulator does, unless `allow_faults`, where the report tells; for
        what the machine's registers cannot hold; and `CycleLimit` after `max_cycles`, with the machine reset.
        """
        self.start(insn_address, insn_count, bases=bases, tokens=tokens, max_cycles=max_cycles)
        while not self.advance(max_cycles):
            pass
        report = self.report()
        if not allow_faults:
            report.check(allow_leftover_tokens=allow_leftover_tokens)
        return report

    def start(
        self,
        insn_address: int,
        insn_count: int,
        *,
        bases: Bases = _NO_BASES,
        tokens: Tokens | None = None,
        max_cycles: int = MAX_CYCLES,
    ) -> None:
        """Begin a launch, which `advance` carries on. Raises SimulationError for what the machine cannot be told."""
        values = parameters(self.config, insn_address, insn_count, bases, _NO_TOKENS if tokens is None else tokens)
        words = self.memory.read(insn_address, insn_count * INSN_ALIGNMENT).view("<u8").reshape(-1, 2)
        self._launched = words, max_cycles
        self._begin(lambda ctx: self._driver.launch(ctx, values, max_cycles))

    def advance(self, cycles: int) -> bool:
        """Simulate at most `cycles` clock cycles; whether the launch is over."""
        self._broken = True
        for _ in range(2 * cycles):
            if self._job is None:
                break
            self._simulator.advance()
        self._broken = False
        return self._job is None

    def report(self) -> MachineReport:
        """The registers after a launch that is over. Raises CycleLimit if it was given up."""
        assert self._launched is not None
        words, max_cycles = self._launched
        outcome: Outcome | None = self._result
        if outcome is None:
            raise CycleLimit(f"Launch must be over within {max_cycles} cycles, and is not")
        return MachineReport(
            config=self.config,
            words=words,
            counters=outcome.counters,
            status=outcome.status,
            fault_insn=outcome.fault_insn,
            tokens_left=outcome.tokens_left,
            trace=None if self._recorder is None else self._recorder.trace(self.config, words, outcome.counters),
            waiting_since=self._watch.since,
        )

    def scratchpad(self, memory_type: MemoryType) -> NDArray[np.generic]:
        """A copy of a scratchpad, in the layout of `FunctionalSimulator.scratchpad`."""

        async def read(ctx: SimulatorContext) -> NDArray[np.generic]:
            pad = self._top.scratchpads[memory_type.scratchpad]
            return contents(self.config, memory_type, pad, lambda bank, row: int(ctx.get(bank[row])))

        self._begin(read)
        while not self.advance(1):
            pass
        array: NDArray[np.generic] = self._result
        return array

    def _connect(self, memory: Memory | None, timing: MemoryTiming, errors: Errors | None) -> None:
        self.memory = Memory() if memory is None else memory
        self._axi = AxiMemory(
            self.memory,
            bus_bytes=self.config.bus_bits // 8,
            max_beats=MAX_BURST_BEATS,
            timing=timing,
            errors=errors,
        )

    def _begin(self, job: Job) -> None:
        if self._broken:
            raise SimulationError("Simulator must be reset after a simulation that broke off, not be used again")
        if self._job is not None:
            raise SimulationError("Launch must be over before the simulator is used again, and is not")
        self._job = job

    async def _serve(self, ctx: SimulatorContext) -> None:
        """Do one job after the other; time stands still between them."""
        while True:
            if self._job is not None:
                self._result = await self._job(ctx)
                self._job = None
            await ctx.tick()
