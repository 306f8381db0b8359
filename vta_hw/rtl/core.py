"""The accelerator without its register port: units, queues, scratchpads, memory engine, and the course of a launch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import and_
from typing import Final

from amaranth.hdl import Elaboratable, Module, Mux, ResetInserter, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from vta_hw.rtl.accumulators import SharedAccumulators
from vta_hw.rtl.axi import AXI4
from vta_hw.rtl.compute import STROBES as COMPUTE_STROBES
from vta_hw.rtl.compute import ComputeUnit
from vta_hw.rtl.fetch import Fetch
from vta_hw.rtl.instruction import STATUS_BITS, earliest
from vta_hw.rtl.load import LoadUnit
from vta_hw.rtl.memory_engine import MemoryEngine
from vta_hw.rtl.overlap import OverlappedComputeUnit
from vta_hw.rtl.registers import event_layout
from vta_hw.rtl.scratchpad import Geometry, Scratchpad
from vta_hw.rtl.store import StoreUnit
from vta_hw.rtl.tokens import TokenQueue
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.instructions import MemoryType
from vta_hw.spec.registers import TOKEN_BITS, TOKEN_QUEUES, Status

BASES: Final = ("insn", "uop", "inp", "wgt", "acc", "out")

QUIET_CYCLES: Final = 16
"""Cycles without any possible progress after which a launch is given up: more than any queue takes to show its head.

They count from when fetch has nothing more to hand out, or cannot.
"""


STROBES: Final = data.StructLayout(
    {
        "dispatch": 1,
        **{f"{what}_{unit}": 1 for what in ("begin", "end") for unit in ("load", "compute", "store")},
        **COMPUTE_STROBES.members,
    }
)
"""What happens in a cycle, for who traces a launch: fetch hands an instruction to its queue, a unit begins one or
completes one, and what `vta_hw.rtl.compute.STROBES` says."""

AnyComputeUnit = ComputeUnit | OverlappedComputeUnit
AnyScratchpad = Scratchpad | SharedAccumulators


class Core(wiring.Component):
    """Runs launches.

    A launch begins with `start` and ends with `finish`, one cycle each: when all of its instructions are complete, or
    when none of them can go on (`Status.DEADLOCK`), or when fetch met a bus error. In the two latter cases what is
    left of the instructions is dropped. FINISH by itself ends nothing; without it the launch ends with
    `Status.DEADLOCK` as well.

    With `soft_reset` no burst is made any more; when the memory port is at rest, units, queues and tokens are reset, in
    the cycle of `reset_done`. Until then there is neither `finish` nor `status`. Scratchpads keep their contents.

    status, fault_index: bits to set, and the instruction they are due to. events: see `registers.event_layout`.
    strobes: see `STROBES`; nothing in the accelerator depends on them.
    token_load, token_value, token_count: of the token queues, in the order of `TOKEN_QUEUES`.
    queue_depth: instructions that each of the three queues holds.
    """

    def __init__(self, config: VTAConfig, *, queue_depth: int = 512) -> None:
        self._config = config
        self._fetch = Fetch(config, queue_depth=queue_depth)
        self.scratchpads = _make_scratchpads(config)
        super().__init__(
            {
                "axi": Out(AXI4(config)),
                "start": In(1),
                "count": In(32),
                **{f"{name}_base": In(config.address_bits) for name in BASES},
                "finish": Out(1),
                "soft_reset": In(1),
                "reset_done": Out(1),
                "status": Out(STATUS_BITS),
                "fault_index": Out(32),
                "events": Out(event_layout(config)),
                "strobes": Out(STROBES),
                "token_load": In(len(TOKEN_QUEUES)),
                "token_value": In(TOKEN_BITS),
                "token_count": Out(data.ArrayLayout(TOKEN_BITS, len(TOKEN_QUEUES))),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        clear_units = Signal()
        clear_tokens = Signal()
        fetch = self._fetch
        load, compute, store = LoadUnit(self._config), _make_compute(self._config), StoreUnit(self._config)
        for name, unit in {"fetch": fetch, "load": load, "compute": compute, "store": store}.items():
            m.submodules[name] = ResetInserter(clear_units)(unit)
        m.submodules.memory_engine = engine = MemoryEngine(self._config)
        for memory, scratchpad in self.scratchpads.items():
            m.submodules[memory.name.lower()] = scratchpad
        self._connect_memory(m, engine, fetch, load, compute, store)
        self._connect_tokens(m, clear_tokens, load, compute, store)
        self._connect_scratchpads(m, load, compute, store)
        self._count(m, engine, fetch, load, compute, store)
        self._control(m, engine, fetch, (load, compute, store), clear_units, clear_tokens)
        return m

    def _connect_memory(
        self, m: Module, engine: MemoryEngine, fetch: Fetch, load: LoadUnit, compute: AnyComputeUnit, store: StoreUnit
    ) -> None:
        connect(m, fetch.port, engine.fetch)
        connect(m, load.port, engine.load)
        connect(m, compute.port, engine.compute)
        connect(m, store.port, engine.store)
        connect(m, engine.axi, flipped(self.axi))
        connect(m, fetch.load, load.i)
        connect(m, fetch.compute, compute.i)
        connect(m, fetch.store, store.i)
        m.d.comb += [
            fetch.base.eq(self.insn_base),
            fetch.count.eq(self.count),
            fetch.start.eq(self.start),
            load.inp_base.eq(self.inp_base),
            load.wgt_base.eq(self.wgt_base),
            compute.uop_base.eq(self.uop_base),
            compute.acc_base.eq(self.acc_base),
            store.base.eq(self.out_base),
            *(unit.halt.eq(self.soft_reset) for unit in (fetch, load, compute, store)),
        ]

    def _connect_tokens(
        self, m: Module, clear: Value, load: LoadUnit, compute: AnyComputeUnit, store: StoreUnit
    ) -> None:
        ends = {
            "l2g": (load.push, compute.pop_load),
            "g2l": (compute.push_load, load.pop),
            "g2s": (compute.push_store, store.pop),
            "s2g": (store.push, compute.pop_store),
        }
        for number, name in enumerate(TOKEN_QUEUES):
            queue = TokenQueue()
            m.submodules[name] = ResetInserter(clear)(queue)
            giver, taker = ends[name]
            connect(m, giver, queue.push)
            connect(m, taker, queue.pop)
            m.d.comb += [
                queue.replace.eq(self.token_load[number]),
                queue.value.eq(self.token_value),
                self.token_count[number].eq(queue.count),
            ]

    def _connect_scratchpads(self, m: Module, load: LoadUnit, compute: AnyComputeUnit, store: StoreUnit) -> None:
        pads = self.scratchpads
        connect(m, load.inp_write, pads[MemoryType.INP].write)
        connect(m, load.wgt_write, pads[MemoryType.WGT].write)
        connect(m, compute.uop_write, pads[MemoryType.UOP].write)
        connect(m, compute.out_write, pads[MemoryType.OUT].write)
        connect(m, compute.inp_read, pads[MemoryType.INP].read[0])
        connect(m, compute.wgt_read, pads[MemoryType.WGT].read[0])
        acc = pads[MemoryType.ACC]
        if isinstance(compute, OverlappedComputeUnit):
            for number in range(2):
                connect(m, compute.uop_read[number], pads[MemoryType.UOP].read[number])
            connect(m, compute.uop_scan, pads[MemoryType.UOP].wide)
            for name in ("gemm", "alu", "operand"):
                connect(m, getattr(compute, f"{name}_acc_read"), getattr(acc, name))
            for name in ("gemm", "alu", "load"):
                connect(m, getattr(compute, f"{name}_acc_write"), getattr(acc, f"{name}_write"))
        else:
            connect(m, compute.uop_read, pads[MemoryType.UOP].read[0])
            connect(m, compute.acc_write, acc.write)
            for number in range(2):
                connect(m, compute.acc_read[number], acc.read[number])
        connect(m, store.read, pads[MemoryType.OUT].wide)

    def _count(
        self, m: Module, engine: MemoryEngine, fetch: Fetch, load: LoadUnit, compute: AnyComputeUnit, store: StoreUnit
    ) -> None:
        """Tell the counters."""
        m.d.comb += [self.events[name].eq(compute.events[name]) for name, _ in compute.events.shape()]
        outer: tuple[tuple[str, LoadUnit | StoreUnit], ...] = (("load", load), ("store", store))
        for name, unit in outer:
            m.d.comb += [
                self.events[f"insn_{name}"].eq(unit.retired),
                self.events[f"{name}_busy"].eq(unit.busy),
                self.events[f"{name}_wait_token"].eq(unit.stall_token),
                self.events[f"{name}_wait_memory"].eq(unit.stall_memory),
            ]
        m.d.comb += [
            self.events.inp_bytes.eq(load.inp_bytes),
            self.events.wgt_bytes.eq(load.wgt_bytes),
            self.events.out_bytes.eq(store.bytes),
            self.events.insn_bytes.eq(fetch.bytes),
            self.events.fetch_wait_queue.eq(fetch.blocked),
            self.events.read_wait.eq(engine.read_wait),
            self.events.write_wait.eq(engine.write_wait),
            self.strobes.dispatch.eq(fetch.dispatched),
            *(self.strobes[name].eq(compute.strobes[name]) for name, _ in COMPUTE_STROBES),
        ]
        for name, unit in {"load": load, "compute": compute, "store": store}.items():
            m.d.comb += [
                self.strobes[f"begin_{name}"].eq(unit.i.valid & unit.i.ready),
                self.strobes[f"end_{name}"].eq(self.events[f"insn_{name}"]),
            ]

    def _control(
        self,
        m: Module,
        engine: MemoryEngine,
        fetch: Fetch,
        units: tuple[LoadUnit, AnyComputeUnit, StoreUnit],
        clear_units: Signal,
        clear_tokens: Signal,
    ) -> None:
        """The course of a launch."""
        _, compute, store = units
        running = Signal()
        finished = Signal()
        complete = Signal(32)
        quiet = Signal(range(QUIET_CYCLES + 1))
        retired = self.events.insn_load + self.events.insn_compute + self.events.insn_store
        stopped = [unit.idle & (unit.waiting | ~unit.i.valid) for unit in units]
        handed_out = fetch.done | fetch.failed | fetch.blocked
        at_rest = engine.idle & fetch.idle & (self.soft_reset | (handed_out & reduce(and_, stopped)))
        stuck = running & (quiet == QUIET_CYCLES)
        done = running & (complete == self.count) & engine.idle & fetch.idle
        fault = earliest(unit.fault for unit in (fetch, *units))
        found = fault.status | Mux(self.finish & ~(done & finished) & ~fetch.failed, Status.DEADLOCK, 0)
        found |= Mux(compute.finished & (~store.idle | store.i.valid), Status.STORES_OUTSTANDING, 0)
        m.d.comb += [
            # A soft reset ends the launch in its own way.
            self.finish.eq((done | stuck) & ~self.soft_reset),
            self.reset_done.eq(self.soft_reset & (quiet == QUIET_CYCLES)),
            clear_tokens.eq(self.reset_done),
            clear_units.eq(self.reset_done | self.finish),
            self.status.eq(Mux(self.soft_reset, 0, found)),
            self.fault_index.eq(fault.index),
        ]
        m.d.sync += quiet.eq(Mux(at_rest, Mux(quiet == QUIET_CYCLES, quiet, quiet + 1), 0))
        with m.If(running):
            m.d.sync += complete.eq(complete + retired)
        with m.If(compute.finished):
            m.d.sync += finished.eq(1)
        with m.If(self.start):
            m.d.sync += [running.eq(1), finished.eq(0), complete.eq(0)]
        with m.If(self.finish | self.reset_done):
            m.d.sync += running.eq(0)


def _make_compute(config: VTAConfig) -> AnyComputeUnit:
    return OverlappedComputeUnit(config) if config.overlap else ComputeUnit(config)


def _make_scratchpads(config: VTAConfig) -> Mapping[MemoryType, AnyScratchpad]:
    def make(memory: MemoryType, *, readers: int = 1, wide: bool = False, transparent: bool = False) -> Scratchpad:
        return Scratchpad(Geometry.of(config, memory), readers=readers, wide=wide, transparent=transparent)

    acc: AnyScratchpad
    if config.overlap:
        acc = SharedAccumulators(Geometry.of(config, MemoryType.ACC))
    else:
        acc = make(MemoryType.ACC, readers=2, transparent=True)
    return {
        MemoryType.UOP: make(MemoryType.UOP, readers=2 if config.overlap else 1, wide=config.overlap),
        MemoryType.INP: make(MemoryType.INP),
        MemoryType.WGT: make(MemoryType.WGT),
        MemoryType.ACC: acc,
        MemoryType.OUT: make(MemoryType.OUT, readers=0, wide=True),
    }
