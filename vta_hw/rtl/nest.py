"""The loop nest of GEMM and ALU: two loops around micro-ops, one micro-op per cycle (VTA spec 3.4)."""

from __future__ import annotations

from typing import Final

from amaranth.hdl import Elaboratable, Module, Shape, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from vta_hw.spec.config import VTAConfig

OPERANDS: Final = ("dst", "src", "wgt")


def index_bits(config: VTAConfig, operand: str) -> int:
    """Bits of an operand's index: `src` serves inputs (GEMM) and accumulators (ALU)."""
    bits = {
        "dst": config.log_acc_depth,
        "src": max(config.log_acc_depth, config.log_inp_depth),
        "wgt": config.log_wgt_depth,
    }
    return bits[operand]


OPERATION: Final = data.StructLayout(
    {
        "gemm": 1,
        "reset": 1,
        "overwrite": 1,
        "alu": 1,
        "requant": 1,
        "alu_opcode": 3,
        "use_imm": 1,
        "imm": 16,
    }
)
"""What each micro-op of an instruction does: `gemm` with `reset` or `overwrite`, or `alu` with or without `requant`."""

SLOT_BITS: Final = 3

RETIREMENT: Final = data.StructLayout({"push_prev": 1, "push_next": 1, "finish": 1, "slot": SLOT_BITS})
"""What happens when an instruction's last micro-op is done. `slot`: its place in the scoreboard, if there is one."""


def command_layout(config: VTAConfig) -> data.StructLayout:
    """An instruction ready to run: what to do, the loops, and a step of each index for each loop."""
    factors = {
        f"{operand}_factor_{loop}": unsigned(index_bits(config, operand))
        for operand in OPERANDS
        for loop in ("out", "in")
    }
    return data.StructLayout(
        {
            "operation": OPERATION,
            "retirement": RETIREMENT,
            "index": 32,
            "uop_bgn": config.log_uop_depth,
            "uop_end": config.log_uop_depth + 1,
            "iter_out": 14,
            "iter_in": 14,
            **factors,
        }
    )


def offset_layout(bits: int) -> data.StructLayout:
    """A sum of indices modulo 2**`bits`, and whether it ever went beyond."""
    return data.StructLayout({"value": bits, "over": 1})


def add_index(m: Module, base: data.View, step: Value, name: str) -> data.View:
    """Return base + step, with `over` sticky: indices only grow, so a sum once out of range stays there."""
    layout = base.shape()
    bits = Shape.cast(layout["value"].shape).width
    total = Signal(bits + 1, name=f"{name}_total")
    result = Signal(layout, name=name)
    m.d.comb += [
        total.eq(base.value + step),
        result.value.eq(total[:bits]),
        result.over.eq(base.over | total[bits]),
    ]
    return result


def step_layout(config: VTAConfig) -> data.StructLayout:
    """One micro-op to run: its place in the UOP scratchpad, what to add to its indices, and what it belongs to.

    `work` is 0 for the only step of an instruction that runs no micro-op; `last` marks an instruction's last step.
    """
    return data.StructLayout(
        {
            "operation": OPERATION,
            "retirement": RETIREMENT,
            "index": 32,
            "uop": offset_layout(config.log_uop_depth),
            **{operand: offset_layout(index_bits(config, operand)) for operand in OPERANDS},
            "work": 1,
            "last": 1,
        }
    )


class Nest(wiring.Component):
    """Walks the loop nest: outer loop, inner loop, micro-ops; one step per cycle in which `o` is taken.

    The first step is valid one cycle after its command was accepted, and the next command is accepted in the cycle
    in which the last step is taken: there are no bubbles between micro-ops, loop levels or instructions. A nest of
    zero trips makes one step without work, so that instructions retire in order.
    """

    def __init__(self, config: VTAConfig) -> None:
        self._config = config
        super().__init__(
            {
                "i": In(stream.Signature(command_layout(config))),
                "o": Out(stream.Signature(step_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        config = self._config
        command = Signal(command_layout(config))
        active = Signal()
        empty = Signal()
        uop = Signal(config.log_uop_depth + 1)
        outer = Signal(14)
        inner = Signal(14)
        last_uop = Signal()
        last_inner = Signal()
        last_outer = Signal()

        m.d.comb += [
            last_uop.eq((uop + 1 == command.uop_end) | empty),
            last_inner.eq((inner + 1 == command.iter_in) | empty),
            last_outer.eq((outer + 1 == command.iter_out) | empty),
            self.o.valid.eq(active),
            self.o.p.operation.eq(command.operation),
            self.o.p.retirement.eq(command.retirement),
            self.o.p.index.eq(command.index),
            self.o.p.uop.value.eq(uop),
            self.o.p.uop.over.eq(uop[-1]),
            self.o.p.work.eq(~empty),
            self.o.p.last.eq(last_uop & last_inner & last_outer),
            self.i.ready.eq(~active | (self.o.ready & self.o.p.last)),
        ]
        advance = self.o.valid & self.o.ready
        with m.If(advance):
            m.d.sync += uop.eq(uop + 1)
            with m.If(last_uop):
                m.d.sync += [uop.eq(command.uop_bgn), inner.eq(inner + 1)]
                with m.If(last_inner):
                    m.d.sync += [inner.eq(0), outer.eq(outer + 1)]
            with m.If(self.o.p.last):
                m.d.sync += active.eq(0)
        accept = self.i.valid & self.i.ready
        with m.If(accept):
            p = self.i.p
            m.d.sync += [
                command.eq(p),
                active.eq(1),
                empty.eq((p.iter_out == 0) | (p.iter_in == 0) | (p.uop_bgn >= p.uop_end)),
                uop.eq(p.uop_bgn),
                inner.eq(0),
                outer.eq(0),
            ]
        for operand in OPERANDS:
            self._walk(m, operand, command, accept, advance & last_uop, last_inner)
        return m

    def _walk(self, m: Module, operand: str, command: data.View, accept: Value, end: Value, last_inner: Value) -> None:
        """The offset of one operand: of the outer loop alone, and of both loops."""
        layout = offset_layout(index_bits(self._config, operand))
        of_outer, offset = Signal(layout, name=f"{operand}_outer"), Signal(layout, name=f"{operand}_offset")
        next_outer = add_index(m, of_outer, command[f"{operand}_factor_out"], f"{operand}_next_outer")
        next_inner = add_index(m, offset, command[f"{operand}_factor_in"], f"{operand}_next_inner")
        m.d.comb += self.o.p[operand].eq(offset)
        with m.If(end & last_inner):
            m.d.sync += [of_outer.eq(next_outer), offset.eq(next_outer)]
        with m.Elif(end):
            m.d.sync += offset.eq(next_inner)
        with m.If(accept):
            m.d.sync += [of_outer.eq(0), offset.eq(0)]
