"""The RTL itself, compiled to machine code: the launches of the functional simulator, with time and every register."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import numpy as np
from amaranth.hdl import Cat, Elaboratable, MemoryData, Module, Signal
from numpy.typing import NDArray

import vta_hw.rtl
import vta_hw.spec
import vta_sim.rtl
from vta_hw.rtl.registers import register_map
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.instructions import MemoryType
from vta_hw.spec.instructions import Module as Unit
from vta_hw.spec.program import Tokens
from vta_hw.spec.registers import FAULTS, TOKEN_QUEUES, Control, Status
from vta_sim.errors import CycleLimit, SimulationError
from vta_sim.functional.engine import Bases
from vta_sim.launch_parameters import INSN_ALIGNMENT, NO_INSN, parameters
from vta_sim.memory import Memory
from vta_sim.report import MachineReport
from vta_sim.rtl import edge
from vta_sim.rtl.axi_memory import Errors
from vta_sim.rtl.compiled_registers import Registers
from vta_sim.rtl.contents import contents, fill_with_pattern
from vta_sim.rtl.driver import RESET_PATIENCE
from vta_sim.rtl.machine import Machine
from vta_sim.rtl.netlist import cached_design, compile_design
from vta_sim.rtl.recorder import sampled_bits
from vta_sim.timing import MemoryTiming
from vta_sim.trace import COUNTERS
from vta_sim.trace_build import SAMPLED, trace_of_samples
from vta_sim.waves import Waves, WavesError

if TYPE_CHECKING:
    from vta_sim.rtl.netlist.waveform import Waveform

MAX_CYCLES: Final = 1_000_000_000
"""Cycles after which a launch is given up unless the caller says otherwise."""

_NO_BASES: Final = Bases()
_NO_TOKENS: Final = Tokens()
_DEFAULT_TIMING: Final = MemoryTiming()
_CHANGES: Final = 1 << 16
"""Changes of the events that are noted before Python collects them."""
_WAITS: Final = {
    edge.LOAD_WAITS: ("load_wait_token",),
    edge.COMPUTE_WAITS: ("compute_wait_load", "compute_wait_store"),
    edge.STORE_WAITS: ("store_wait_token",),
}
_SINCE: Final = {
    Unit.LOAD: edge.LOAD_SINCE,
    Unit.COMPUTE: edge.COMPUTE_SINCE,
    Unit.STORE: edge.STORE_SINCE,
}


class _Probed(Elaboratable):
    """A machine, and what is to be known of it in every cycle as one signal: `SAMPLED`, counts, starts.

    `wanted`: something happens at the storage port, or the events are not those of the cycle before.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.events = Signal(len(SAMPLED) + 2)
        self.wanted = Signal()
        self.ports = [*(getattr(machine, name) for name in machine.signature.members), self.events, self.wanted]

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.machine = machine = self._machine
        registers = machine.top.registers
        counts = registers.running & ~registers.soft_reset
        before = Signal.like(self.events)
        m.d.comb += [
            self.events.eq(Cat(sampled_bits(machine.top), counts, registers.start)),
            self.wanted.eq(machine.storage_read_enable | machine.storage_write_enable | (self.events != before)),
        ]
        m.d.sync += before.eq(self.events)
        return m


def _source_stamp() -> str:
    """A digest of the files that a machine is made from."""
    digest = hashlib.sha256()
    for package in (vta_hw.rtl, vta_hw.spec, vta_sim.rtl):
        for file in sorted(Path(package.__path__[0]).glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _described(errors: Errors | None) -> list[tuple[int, int, int]]:
    return [(where.start, where.stop, code) for where, code in (errors or {}).items()]


class CompiledSimulator:
    """One VTA as RTL, with the memory of `vta_sim.rtl.dram`, all compiled.

    The parameters are those of `AmaranthSimulator`. cache: directory for machine code, which must be writable by its
    owner alone. observe: names of further signals for `peek` and `run_until`. waves: the waveform to write, complete
    after `close` or at the end of a ``with`` block; WavesError if a pattern fits no signal. Compiling takes some
    seconds, unless the cache has it. Not safe for use by several threads at once.
    """

    def __init__(
        self,
        config: VTAConfig,
        *,
        memory: Memory | None = None,
        timing: MemoryTiming = _DEFAULT_TIMING,
        errors: Errors | None = None,
        poison: bool = False,
        trace: bool = False,
        cache: Path | None = None,
        observe: Iterable[str] = (),
        waves: Waves | None = None,
        **options: int,
    ) -> None:
        self.config = config
        self._machine = Machine(config, errors=errors, **options)
        if poison:
            for memory_type, pad in self._machine.top.scratchpads.items():
                fill_with_pattern(memory_type, pad)
        names = tuple(observe)

        def probed() -> tuple[Elaboratable, Sequence[Signal]]:
            design = _Probed(self._machine)
            return design, design.ports

        if cache is None:
            design, ports = probed()
            compiled = compile_design(design, ports=ports, observe=names)
        else:
            key = f"{config.digest} {sorted(options.items())} {_described(errors)} {poison} {_source_stamp()}"
            compiled = cached_design(key, probed, cache=cache, observe=names)
        self._simulator = compiled.simulator()
        self._map = register_map(config)
        self._registers = Registers(self._simulator, self._map)
        self._changes = np.zeros((_CHANGES if trace else 0, 2), np.int64)
        self._context = np.zeros(edge.CONTEXT_WORDS, np.int64)
        self._launched: tuple[NDArray[np.uint64], int] | None = None
        self._waves = waves
        with ExitStack() as files:
            self._waveform: Waveform | None = None
            if waves is not None:
                from vta_sim.rtl.netlist.waveform import Waveform, fitting

                try:
                    signals = fitting(self._simulator, waves.signals)
                except ValueError as error:
                    raise WavesError(str(error)) from error
                file = files.enter_context(waves.path.open("w", encoding="ascii"))
                self._waveform = Waveform(self._simulator, file, signals)
                files.callback(self._waveform.close)
            self._files = files.pop_all()
        self.reset(memory=memory, timing=timing)

    def reset(self, *, memory: Memory | None = None, timing: MemoryTiming = _DEFAULT_TIMING) -> None:
        """Be as new, with other memory. Raises SimulationError while a waveform is being written."""
        if self._waveform is not None and self._simulator.edges:
            raise SimulationError("Simulator must not be reset while it writes a waveform")
        self.memory = Memory() if memory is None else memory
        self._simulator.reset()
        settings = timing.settings(self.config.bus_bits // 8)
        for name, value in settings._asdict().items():
            self._simulator.poke(name, value)
        self._make_context()
        self._broken = False
        self._outcome: Mapping[str, int] | None = None
        self._remaining = 0
        self._recorded: list[NDArray[np.int64]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def close(self) -> None:
        """Finish the waveform."""
        self._files.close()

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
        if self._broken:
            raise SimulationError("Simulator must be reset after a simulation that broke off, not be used again")
        if self._remaining:
            raise SimulationError("Launch must be over before the simulator is used again, and is not")
        words = self.memory.read(insn_address, insn_count * INSN_ALIGNMENT).view("<u8").reshape(-1, 2)
        self._launched = words, max_cycles
        self._recorded = []
        self._outcome = None
        self._remaining = max_cycles
        self._position = 0
        # Whoever wrote to memory since the last launch may have made its table grow.
        self._tell_table()
        self._broken = True
        self._registers.write({**values, "irq_enable": 1, "control": Control.LAUNCH})
        self._broken = False

    def advance(self, cycles: int) -> bool:
        """Simulate at most `cycles` clock cycles; whether the launch is over."""
        if not self._remaining:
            return True
        self._tell_table()
        self._broken = True
        wanted = min(cycles, self._remaining)
        done, finished = 0, False
        while done < wanted and not finished:
            asked, ticked = self._run(wanted - done)
            done += ticked
            demand = int(self._context[edge.DEMAND])
            if demand:
                self._meet(demand)
            else:
                finished = ticked < asked
        self._remaining -= done
        if finished:
            self._finish()
        elif not self._remaining:
            self._give_up()
        self._broken = False
        return not self._remaining

    def report(self) -> MachineReport:
        """The registers after a launch that is over. Raises CycleLimit if it was given up."""
        assert self._launched is not None
        words, max_cycles = self._launched
        values = self._outcome
        if values is None:
            raise CycleLimit(f"Launch must be over within {max_cycles} cycles, and is not")
        status, fault_insn = Status(values["status"]), values["fault_insn"]
        counters = {register.name: values[register.name] for register in self._map.counters}
        trace = None
        if len(self._changes):
            trace = trace_of_samples(self.config, words, counters["cycle_count"], np.concatenate(self._recorded))
            trace.verify(counters)
        since = {unit: int(self._context[place]) for unit, place in _SINCE.items()}
        return MachineReport(
            config=self.config,
            words=words,
            counters=counters,
            status=status,
            fault_insn=fault_insn if status & FAULTS and fault_insn != NO_INSN else None,
            tokens_left=Tokens(**{name: values[f"tokens_{name}"] for name in TOKEN_QUEUES}),
            trace=trace,
            waiting_since={unit: cycle for unit, cycle in since.items() if cycle >= 0},
        )

    def scratchpad(self, memory_type: MemoryType) -> NDArray[np.generic]:
        """A copy of a scratchpad, in the layout of `FunctionalSimulator.scratchpad`."""
        pad = self._machine.top.scratchpads[memory_type.scratchpad]
        path = f"machine.top.core.{memory_type.scratchpad.name.lower()}"
        rows = {id(bank): self._simulator.memory(f"{path}.bank{number}") for number, bank in enumerate(pad.banks)}

        def row_of(bank: MemoryData, row: int) -> int:
            return rows[id(bank)][row]

        return contents(self.config, memory_type, pad, row_of)

    def peek(self, name: str) -> int:
        """A register or observed signal by its hierarchical name below the machine, "top.core.load.busy"."""
        return self._simulator.peek(name)

    def poke(self, name: str, value: int) -> None:
        """Set an input or a register by its hierarchical name; see `Simulator.poke`."""
        self._simulator.poke(name, value)

    def run_until(self, signal: str, cycles: int) -> bool:
        """Carry on with a launch until an output or observed signal of one bit is 1; whether it is within `cycles`.

        Time then stands still in that cycle. A launch that is over before stands still too.
        """
        for _ in range(cycles):
            if self.peek(signal):
                return True
            if self.advance(1):
                break
        return bool(self.peek(signal))

    def _run(self, cycles: int) -> tuple[int, int]:
        """Tick at most so often until the launch is over: how often it was tried, and done."""
        simulator, waves, position = self._simulator, self._waves, self._position
        if waves is None or (waves.end is not None and position >= waves.end):
            asked = cycles
        elif position < waves.begin:
            asked = min(cycles, waves.begin - position)
        else:
            if simulator.peek("irq"):
                return 1, 0
            assert self._waveform is not None
            self._waveform.run(1)
            self._position += 1
            return 1, 1
        ticked = simulator.run(asked, until="irq")
        self._position += ticked
        return asked, ticked

    def _make_context(self) -> None:
        """Tell the function at the clock edge where everything is."""
        simulator, context = self._simulator, self._context
        context[:] = 0
        context[list(_SINCE.values())] = -1
        context[edge.BUS_BYTES] = self.config.bus_bits // 8
        for place, name in (
            (edge.READ_ENABLE, "storage_read_enable"),
            (edge.READ_ADDRESS, "storage_read_address"),
            (edge.READ_DATA, "storage_read_data"),
            (edge.WRITE_ENABLE, "storage_write_enable"),
            (edge.WRITE_ADDRESS, "storage_write_address"),
            (edge.WRITE_STROBE, "storage_write_strobe"),
            (edge.WRITE_DATA, "storage_write_data"),
            (edge.EVENTS, "events"),
        ):
            context[place] = simulator.place_of(name)[0].place.offset
        context[edge.ADDRESS_BYTES] = simulator.place_of("storage_read_address")[0].place.nbytes
        context[edge.EVENT_BYTES] = simulator.place_of("events")[0].place.nbytes
        context[edge.STATE_BYTES], context[edge.OUTPUT_BYTES] = simulator.state.size, simulator.outputs.size
        context[edge.EVENT_MASK] = (1 << len(SAMPLED)) - 1
        context[edge.COUNTS], context[edge.STARTS] = len(SAMPLED), len(SAMPLED) + 1
        for place, names in _WAITS.items():
            context[place] = sum(1 << COUNTERS.index(name) for name in names)
        context[edge.CHANGES], context[edge.ROOM] = self._changes.ctypes.data, len(self._changes)
        self._tell_table()
        simulator.on_edge(edge.EDGE.address, context.ctypes.data, when="wanted")

    def _tell_table(self) -> None:
        table = self.memory.table
        context = self._context
        context[edge.KEYS], context[edge.FRAMES] = table.keys.ctypes.data, table.frames.ctypes.data
        context[edge.SLOTS], context[edge.TABLE_STATE] = table.keys.size, table.state.ctypes.data

    def _meet(self, demand: int) -> None:
        if demand == edge.PAGES:
            self.memory.grow()
            self._tell_table()
            while not edge.WRITE_AGAIN(self.memory.table, self._context, self._simulator.outputs):
                self.memory.grow()
                self._tell_table()
        if self._context[edge.COUNT] == len(self._changes):
            self._collect()
        self._context[edge.DEMAND] = edge.NOTHING

    def _collect(self) -> None:
        self._recorded.append(self._changes[: self._context[edge.COUNT]].copy())
        self._context[edge.COUNT] = 0

    def _finish(self) -> None:
        self._collect()
        names = [register.name for register in self._map.counters]
        queues = [f"tokens_{name}" for name in TOKEN_QUEUES]
        self._outcome = self._registers.read([*names, "status", "fault_insn", *queues])
        self._registers.write({"control": 0})
        self._remaining = 0

    def _give_up(self) -> None:
        """Reset everything but registers and scratchpads."""
        self._registers.write({"control": Control.RESET})
        for _ in range(RESET_PATIENCE):
            if not self._registers.read(["control"])["control"] & Control.RESET:
                return
        raise SimulationError(f"Soft reset must be over after {RESET_PATIENCE} looks at it, and is not")
