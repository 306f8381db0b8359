"""The cycle engine: the launches of the functional simulator, with the time and the counters of the RTL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import MemoryType, Module
from vta_hw.spec.program import Tokens
from vta_hw.spec.registers import FAULTS, REGISTERS, TOKEN_QUEUES, PointerWidth, Status
from vta_sim.cycle.bad_words import BadWords
from vta_sim.cycle.dram import Dram, new_dram
from vta_sim.cycle.machine import LOG_FULL, NO_FRAMES, OVER, RUN, STORED, Program, Units
from vta_sim.cycle.records import record_type
from vta_sim.cycle.wires import set_parameters
from vta_sim.errors import CycleLimit, SimulationError
from vta_sim.functional.columns import make_queues
from vta_sim.functional.engine import Bases, FunctionalSimulator, Kernel
from vta_sim.launch_parameters import INSN_ALIGNMENT, NO_INSN, parameters
from vta_sim.memory import Memory
from vta_sim.report import MachineReport
from vta_sim.timing import MemoryTiming
from vta_sim.trace import COUNTERS, Trace
from vta_sim.trace_build import SAMPLED, trace_of_samples

MAX_CYCLES: Final = (1 << 32) - 1
"""Cycles after which a launch is given up unless the caller says otherwise: what `cycle_count` can hold."""

MAX_QUEUE_DEPTH: Final = 65536
"""Instructions of the deepest queue, as in the RTL."""

_STEP: Final = 10_000_000
"""Cycles for which compiled code keeps control, so that Python sees signals in time."""

_UNITS: Final = record_type(Units)
_LOG_ROWS: Final = 1 << 16
_NO_BASES: Final = Bases()
_NO_TOKENS: Final = Tokens()
_DEFAULT_TIMING: Final = MemoryTiming()
_SUMS: Final = (
    "gemm_uops", "alu_uops", "acc_writes", "insn_bytes", "uop_bytes", "inp_bytes", "wgt_bytes", "acc_bytes",
    "out_bytes",
)  # fmt: skip


class CycleSimulator:
    """One VTA with the timing of the RTL, and a memory.

    It computes what the functional simulator computes, and of every program without races the registers say what those
    of the RTL would: counters, status, tokens. The parameters are those of `AmaranthSimulator`. errors: byte ranges of
    memory that answer with an error. trace: whether reports tell where the cycles went. queue_depth: instructions that
    each of the three queues holds.

    An instruction takes effect at once, when it begins (STORE, GEMM, ALU) or completes (LOAD), so that a program with
    races may leave something else than on the RTL. Indices beyond a scratchpad wrap as there. Not safe for use by
    several threads at once.
    """

    def __init__(
        self,
        config: VTAConfig,
        *,
        memory: Memory | None = None,
        timing: MemoryTiming = _DEFAULT_TIMING,
        errors: Mapping[range, int] | None = None,
        poison: bool = False,
        trace: bool = False,
        queue_depth: int = 512,
    ) -> None:
        if type(queue_depth) is not int or not 2 <= queue_depth <= MAX_QUEUE_DEPTH:
            raise ValueError(f"queue_depth must be an integer from 2 to {MAX_QUEUE_DEPTH}, not {queue_depth!r}")
        self._queue_depth = queue_depth
        self._poison = poison
        self._traces = trace
        self._own_errors = dict(errors or {})
        self.config = config
        self.reset(memory=memory, timing=timing)

    def reset(
        self,
        *,
        memory: Memory | None = None,
        timing: MemoryTiming = _DEFAULT_TIMING,
        errors: Mapping[range, int] | None = None,
    ) -> None:
        """Be as new, with other memory; with the errors of the beginning unless there are others."""
        self._errors = self._own_errors if errors is None else dict(errors)
        self._values = FunctionalSimulator(self.config, memory=memory, poison=self._poison)
        self._timing = timing
        self._launch: _Launch | None = None
        new_dram(timing, self.config.bus_bits // 8)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is left to do; there is no file to finish."""

    @property
    def memory(self) -> Memory:
        """The memory that the accelerator sees."""
        return self._values.memory

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
        """See `AmaranthSimulator.launch`."""
        self.start(insn_address, insn_count, bases=bases, tokens=tokens, max_cycles=max_cycles)
        while not self.advance(_STEP):
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
        start = _NO_TOKENS if tokens is None else tokens
        parameters(self.config, insn_address, insn_count, bases, start)
        if self._launch is not None and not self._launch.is_over:
            raise SimulationError("Launch must be over before the simulator is used again, and is not")
        words = self.memory.read(insn_address, insn_count * INSN_ALIGNMENT).view("<u8").reshape(-1, 2)
        kernel = self._values.kernel(words, bases)
        units = np.zeros(1, _UNITS)
        set_parameters(
            units["parameters"][0], self.config, kernel,
            base=insn_address, count=insn_count, queue_depth=self._queue_depth,
        )  # fmt: skip
        units["wires"]["tokens"] = [getattr(start, name) for name in TOKEN_QUEUES]
        self._launch = _Launch(
            values=self._values,
            kernel=kernel,
            units=units,
            dram=new_dram(self._timing, self.config.bus_bits // 8, self._errors),
            words=words,
            bad_words=BadWords(self.memory, self._errors, self.config.bus_bits // 8) if self._errors else None,
            max_cycles=max_cycles,
            trace=self._traces,
        )

    def advance(self, cycles: int) -> bool:
        """Simulate at most `cycles` clock cycles; whether the launch is over."""
        return self._launch is None or self._launch.advance(cycles)

    def report(self) -> MachineReport:
        """The registers after a launch that is over. Raises CycleLimit if it was given up."""
        assert self._launch is not None
        return self._launch.report()

    def scratchpad(self, memory_type: MemoryType) -> NDArray[np.generic]:
        """A copy of a scratchpad, in the layout of `FunctionalSimulator.scratchpad`."""
        return self._values.scratchpad(memory_type)


class _Launch:
    """A launch under way, or over."""

    def __init__(
        self,
        values: FunctionalSimulator,
        *,
        kernel: Kernel,
        units: NDArray[np.void],
        dram: Dram,
        words: NDArray[np.uint64],
        bad_words: BadWords | None,
        max_cycles: int,
        trace: bool,
    ) -> None:
        self._config = values.config
        self._memory = values.memory
        self._units = units
        self._dram = dram
        self._kernel = kernel
        self._program = _program(self._config, words, self._kernel)
        self._max_cycles = max_cycles
        self._log = np.zeros((_LOG_ROWS if trace else 0, 2), np.int64)
        self._recorded: list[NDArray[np.int64]] = []
        self._bad_words = bad_words
        self._ended = False
        if bad_words is not None:
            bad_words.hide()

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or was given up."""
        return self._ended or self._cycle >= self._max_cycles

    @property
    def _cycle(self) -> int:
        return int(self._units["control"]["cycle"][0])

    def advance(self, cycles: int) -> bool:
        """See `CycleSimulator.advance`."""
        until = min(self._cycle + cycles, self._max_cycles)
        while not self.is_over and self._cycle < until:
            step = min(self._cycle + _STEP, until)
            kernel, table = self._kernel, self._memory.table
            ended = RUN(self._units, self._dram, kernel.machine, table, self._program, self._log, step)
            if ended == NO_FRAMES:
                self._memory.grow()
            elif ended == LOG_FULL:
                self._collect()
            elif ended == OVER:
                self._ended = True
            elif ended == STORED and self._bad_words is not None:
                self._bad_words.hide()
        if self.is_over and self._bad_words is not None:
            self._bad_words.show()
            self._bad_words = None
        return self.is_over

    def report(self) -> MachineReport:
        """See `CycleSimulator.report`."""
        if not self._ended:
            raise CycleLimit(f"Launch must be over within {self._max_cycles} cycles, and is not")
        control = self._units["control"][0]
        counters = self._counters()
        fault_insn = int(control["fault_insn"])
        status = Status(int(control["status"]))
        since = dict(zip(Module, control["waits_since"].tolist(), strict=True))
        tokens = dict(zip(TOKEN_QUEUES, self._units["wires"]["tokens"][0].tolist(), strict=True))
        return MachineReport(
            config=self._config,
            words=self._program.words,
            counters=counters,
            status=status,
            fault_insn=fault_insn if status & FAULTS and fault_insn != NO_INSN else None,
            tokens_left=Tokens(**tokens),
            waiting_since={unit: cycle for unit, cycle in since.items() if 0 <= cycle < self._cycle},
            trace=self._trace(counters) if len(self._log) else None,
        )

    def _counters(self) -> dict[str, int]:
        """Those of the register map, in its order, which saturate."""
        control = self._units["control"][0]
        events = dict(zip(SAMPLED, control["events"].tolist(), strict=True))
        found = {name: events[name] for name in COUNTERS}
        found |= {f"insn_{unit.name.lower()}": events[f"end_{unit.name.lower()}"] for unit in Module}
        found |= {name: int(control[name]) for name in _SUMS}
        found["cycle_count"] = self._cycle
        registers = REGISTERS[PointerWidth(self._config.address_bits)]
        return {each.name: min(found[each.name], (1 << each.bits) - 1) for each in registers.counters}

    def _trace(self, counters: Mapping[str, int]) -> Trace:
        self._collect()
        trace = trace_of_samples(self._config, self._program.words, self._cycle, np.concatenate(self._recorded))
        trace.verify(counters)
        return trace

    def _collect(self) -> None:
        changes = int(self._units["control"]["changes"][0])
        self._recorded.append(self._log[:changes].copy())
        self._units["control"]["changes"] = 0


def _program(config: VTAConfig, words: NDArray[np.uint64], kernel: Kernel) -> Program:
    queues = make_queues(config, words, (0, 0, 0, 0))
    return Program(
        words=words,
        module=queues.module,
        flags=queues.flags,
        members=np.argsort(queues.module, kind="stable"),
        first=np.searchsorted(np.sort(queues.module), np.arange(4)).astype(np.int64),
        places=kernel.places,
    )
