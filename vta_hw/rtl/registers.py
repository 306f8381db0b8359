"""The control registers: an AXI4-Lite port in front of the register map of `vta_hw.spec.registers`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from amaranth.hdl import C, Cat, Elaboratable, Module, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from vta_hw.rtl.axi import REGISTER_ADDRESS_BITS, AXI4Lite, Response
from vta_hw.rtl.instruction import STATUS_BITS
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.registers import (
    EXTENSION_ID,
    FAULTS,
    REGISTER_BYTES,
    REGISTERS,
    TOKEN_BITS,
    TOKEN_QUEUES,
    Access,
    Control,
    Counts,
    PointerWidth,
    Register,
    RegisterMap,
)

_CYCLE_COUNT: Final = "cycle_count"
_ACC_WRITES: Final = "acc_writes"


def register_map(config: VTAConfig) -> RegisterMap:
    """The variant of the map that a machine has: that of its addresses."""
    return REGISTERS[PointerWidth(config.address_bits)]


def event_layout(config: VTAConfig) -> data.StructLayout:
    """What each counter of the map adds in a cycle: 0 or 1 (2 accumulators), or bytes up to a word of the memory bus.

    There is no field for `cycle_count`, which needs no telling.
    """
    return data.StructLayout(
        {
            register.name: _amount_bits(register, config)
            for register in register_map(config).counters
            if register.name != _CYCLE_COUNT
        }
    )


def _amount_bits(register: Register, config: VTAConfig) -> int:
    if register.counts is Counts.BYTES:
        return (config.bus_bits // 8).bit_length()
    # GEMM and ALU write in the same cycle if they overlap.
    return 2 if config.overlap and register.name == _ACC_WRITES else 1


class SaturatingCounter(wiring.Component):
    """A sum that stops at its largest value.

    In a cycle with `en` it adds `amount`, in one with `clear` it becomes 0 instead; `total` is what it will be after an
    addition in this cycle.

    bits: of the sum, at least `amount_bits`.
    """

    def __init__(self, *, bits: int, amount_bits: int) -> None:
        if not 1 <= amount_bits <= bits:
            raise ValueError(f"amount_bits must be 1 to {bits}, not {amount_bits!r}")
        super().__init__(
            {"clear": In(1), "en": In(1), "amount": In(amount_bits), "count": Out(bits), "total": Out(bits)}
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        bits = len(self.count)
        added = Signal(bits + 1)
        m.d.comb += [
            added.eq(self.count + self.amount),
            self.total.eq(added[:bits] | added[bits].replicate(bits)),
        ]
        with m.If(self.clear):
            m.d.sync += self.count.eq(0)
        with m.Elif(self.en):
            m.d.sync += self.count.eq(self.total)
        return m


class RegisterPort(wiring.Component):
    """An AXI4-Lite slave that turns its channels into reads and writes of single cycles.

    AW and W are taken in any order, each up to one transfer ahead; one write awaits its B, one read its R, and reads
    and writes pass each other. In a cycle with `write`, the bits `write_mask` of `write_data` go to `write_addr`; B is
    valid from the next cycle on. `read_data` answers `read_addr` in the same cycle; R is valid in the one after that of
    AR. Every response is OKAY.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "axi": In(AXI4Lite()),
                "write": Out(1),
                "write_addr": Out(REGISTER_ADDRESS_BITS),
                "write_data": Out(32),
                "write_mask": Out(32),
                "read_addr": Out(REGISTER_ADDRESS_BITS),
                "read_data": In(32),
            }
        )

    def written(self, register: Register, word: int = 0) -> Value:
        """Whether this cycle writes a word of a register."""
        return self.write & (self.write_addr == register.offset + REGISTER_BYTES * word)

    def merged(self, old: Value) -> Value:
        """The 32 bits that a write leaves where `old` was."""
        return (self.write_data & self.write_mask) | (old & ~self.write_mask)

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        self._elaborate_write(m)
        self._elaborate_read(m)
        return m

    def _elaborate_write(self, m: Module) -> None:
        aw, w, b = self.axi.aw, self.axi.w, self.axi.b
        has_addr = Signal()
        has_data = Signal()
        m.d.comb += [aw.ready.eq(~has_addr), w.ready.eq(~has_data), self.write.eq(has_addr & has_data & ~b.valid)]
        with m.If(self.write):
            m.d.sync += [has_addr.eq(0), has_data.eq(0), b.valid.eq(1), b.payload.eq(Response.OKAY)]
        with m.Elif(b.ready):
            m.d.sync += b.valid.eq(0)
        with m.If(aw.valid & aw.ready):
            m.d.sync += [has_addr.eq(1), self.write_addr.eq(aw.payload)]
        with m.If(w.valid & w.ready):
            mask = Cat(strobe.replicate(8) for strobe in w.payload.strb)
            m.d.sync += [has_data.eq(1), self.write_data.eq(w.payload.data), self.write_mask.eq(mask)]

    def _elaborate_read(self, m: Module) -> None:
        ar, r = self.axi.ar, self.axi.r
        m.d.comb += [ar.ready.eq(~r.valid), self.read_addr.eq(ar.payload)]
        with m.If(ar.valid & ar.ready):
            m.d.sync += [r.valid.eq(1), r.payload.data.eq(self.read_data), r.payload.resp.eq(Response.OKAY)]
        with m.Elif(r.ready):
            m.d.sync += r.valid.eq(0)


class ControlRegisters(wiring.Component):
    """The registers of `register_map(config)`, with what they start, set, count and report.

    An unmapped address reads 0 and ignores writes. Byte strobes are honoured. Everything is 0 after reset but the three
    constants.

    axi: the host's port.
    start: high for one cycle when `control.launch` rises; `running`: from the cycle after that up to and with the one
        of `finish` or `reset_done`. While launch is 1, a write to `control` can ask for a soft reset and nothing else.
    finish: ends a launch, in a cycle with `running`; `control` becomes 2, whatever the host writes in that cycle, but
        a soft reset is not lost.
    soft_reset: from the write of `control.reset` until `reset_done`, which leaves 0 in `control`. In between `control`
        cannot be written. The other registers keep their values.
    insn_count, insn_base, uop_base, inp_base, wgt_base, acc_base, out_base: the parameters of a launch, as they are in
        the registers; a host leaves them alone while it runs.
    status, fault_index: bits to set; if one of them is a fault and no fault is left from before, `fault_insn` takes
        `fault_index` of that cycle. A bit that is set and cleared in the same cycle is set. `start` clears them all.
    events: what the counters add (`event_layout`). They count in the cycles of `running` without `soft_reset`, so not
        in that of `start`, which clears them, and in that of `finish`, the last; `cycle_count` is how many cycles that
        are. Counters saturate. `cycle_count` and `acc_writes` are captured at `finish`; the others show how far they
        are, and a host that reads 64 bits while they count reads the high half again after the low one.
    token_load, token_value: for each of `TOKEN_QUEUES` a pulse that sets its tokens; only with launch and soft reset 0.
    token_count: the tokens there are.
    irq: high while `control.finish` and `irq_enable` are 1.

    `counters` holds the counter of each register that counts, by name, for who looks inside in a simulation.
    """

    def __init__(self, config: VTAConfig) -> None:
        self._config = config
        self._map = register_map(config)
        self.counters: Mapping[str, SaturatingCounter] = {
            register.name: SaturatingCounter(bits=register.bits, amount_bits=_amount_bits(register, config))
            for register in self._map.counters
        }
        super().__init__(
            {
                "axi": In(AXI4Lite()),
                "start": Out(1),
                "running": Out(1),
                "finish": In(1),
                "soft_reset": Out(1),
                "reset_done": In(1),
                **{register.name: Out(register.bits) for register in self._map.parameters},
                "status": In(STATUS_BITS),
                "fault_index": In(32),
                "events": In(event_layout(config)),
                "token_load": Out(len(TOKEN_QUEUES)),
                "token_value": Out(TOKEN_BITS),
                "token_count": In(data.ArrayLayout(TOKEN_BITS, len(TOKEN_QUEUES))),
                "irq": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.port = port = RegisterPort()
        wiring.connect(m, wiring.flipped(self.axi), port.axi)
        values = {
            **self._constants(),
            **self._elaborate_control(m, port),
            **self._elaborate_parameters(m, port),
            **self._elaborate_status(m, port),
            **self._elaborate_tokens(m, port),
            **self._elaborate_counters(m, port),
        }
        with m.Switch(port.read_addr):
            for register in self._map:
                for word in range(register.words):
                    with m.Case(register.offset + REGISTER_BYTES * word):
                        m.d.comb += port.read_data.eq(values[register.name][32 * word : 32 * (word + 1)])
        return m

    def _constants(self) -> dict[str, Value]:
        return {
            "ext_id": C(EXTENSION_ID, 32),
            "ext_words": C(self._map.extension_words, 32),
            "program_digest": C(int(self._config.program_digest[:8], 16), 32),
        }

    def _write(self, m: Module, port: RegisterPort, register: Register, storage: Value) -> None:
        for word in range(register.words):
            bits = storage[32 * word : 32 * (word + 1)]
            with m.If(port.written(register, word)):
                m.d.sync += bits.eq(port.merged(bits))

    def _elaborate_control(self, m: Module, port: RegisterPort) -> dict[str, Value]:
        launch = Signal()
        finish = Signal()
        irq_enable = Signal()
        m.d.comb += [self.start.eq(launch & ~self.running), self.irq.eq(finish & irq_enable)]
        m.d.sync += self.running.eq(launch & ~self.finish & ~self.reset_done)
        control = Cat(launch, finish, self.soft_reset)
        wanted = Signal(Control)
        m.d.comb += wanted.eq(port.merged(control))
        with m.If(port.written(self._map["control"]) & ~self.soft_reset):
            with m.If(wanted & Control.RESET):
                m.d.sync += self.soft_reset.eq(1)
            with m.Elif(~launch):
                launches = (wanted & Control.LAUNCH).any()
                m.d.sync += [launch.eq(launches), finish.eq((wanted & Control.FINISH).any() & ~launches)]
        with m.If(self.finish):
            m.d.sync += [launch.eq(0), finish.eq(1)]
        with m.If(self.reset_done):
            m.d.sync += [launch.eq(0), finish.eq(0), self.soft_reset.eq(0)]
        self._write(m, port, self._map["irq_enable"], irq_enable)
        return {"control": control, "irq_enable": irq_enable}

    def _elaborate_parameters(self, m: Module, port: RegisterPort) -> dict[str, Value]:
        values = {register.name: getattr(self, register.name) for register in self._map.parameters}
        for name, storage in values.items():
            self._write(m, port, self._map[name], storage)
        return values

    def _elaborate_status(self, m: Module, port: RegisterPort) -> dict[str, Value]:
        status = Signal(STATUS_BITS)
        fault_insn = Signal(32)
        kept = Signal(STATUS_BITS)
        m.d.comb += kept.eq(status)
        with m.If(self.start):
            m.d.comb += kept.eq(0)
        with m.Elif(port.written(self._map["status"])):
            m.d.comb += kept.eq(status & ~port.merged(C(0, 32)))
        m.d.sync += status.eq(kept | self.status)
        with m.If((self.status & FAULTS).any() & ~(kept & FAULTS).any()):
            m.d.sync += fault_insn.eq(self.fault_index)
        return {"status": status, "fault_insn": fault_insn}

    def _elaborate_tokens(self, m: Module, port: RegisterPort) -> dict[str, Value]:
        values = {}
        idle = ~(self.start | self.running | self.soft_reset)
        for number, queue in enumerate(TOKEN_QUEUES):
            name = f"tokens_{queue}"
            values[name] = self.token_count[number]
            with m.If(port.written(self._map[name])):
                m.d.comb += [
                    self.token_load[number].eq(idle),
                    self.token_value.eq(port.merged(self.token_count[number])),
                ]
        return values

    def _elaborate_counters(self, m: Module, port: RegisterPort) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for register in self._map.counters:
            amount = C(1) if register.name == _CYCLE_COUNT else self.events[register.name]
            m.submodules[f"count_{register.name}"] = counter = self.counters[register.name]
            counts = self.running & ~self.soft_reset
            m.d.comb += [counter.clear.eq(self.start), counter.en.eq(counts), counter.amount.eq(amount)]
            if register.access is Access.READ_WRITE:
                captured = Signal(register.bits, name=register.name)
                self._write(m, port, register, captured)
                with m.If(self.finish):
                    m.d.sync += captured.eq(counter.total)
                values[register.name] = captured
            else:
                values[register.name] = counter.count
        return values
