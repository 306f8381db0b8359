"""Random programs: every instruction kind, every field, no races, all indices in range.

What a specification leaves to the reader is what this looks for: garbage in unused bits and on flags without a queue,
zero trip counts, factors that no loop uses, row strides below the row size, windows that are all padding, DRAM never
written, scratchpads never loaded, tokens left from before. What an extended machine knows is used on one.

Every DRAM address is a multiple of the element's bytes, so also of the smaller of element and bus word, as hardware
demands; addresses fit the address width of the configuration.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tests.vta_sim.spec_model import layout
from tests.vta_sim.spec_model.dram import PAGE, Dram
from tests.vta_sim.spec_model.layout import (
    ACC,
    ACC_8BIT,
    ACC_8BIT_PAD_MIN,
    ACC_PAD_MIN,
    INP,
    OUT,
    UOP,
    WGT,
    Fields,
    ModelConfig,
)
from tests.vta_sim.spec_model.machine import OF_ACC, Machine
from tests.vta_sim.spec_model.ordering import Access, Ordering, Resource
from tests.vta_sim.spec_model.pipeline import COMPUTE, LOADER, POPS, PUSHES, QUEUES, STORER, module_of

ARENA_PAGES = 32
"""DRAM a program touches; the first page holds micro-ops and is never stored to."""
SCALE_PAGES = 4
"""Pages behind the first that, for an extended machine, hold bias and parameter tiles in turn."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large the instructions of a program get, so that slow machines can run it.

    micro_ops: executions in one instruction, at least 30. transfer_bytes: DRAM bytes of one LOAD or STORE, unless a
    single element has more; None for as many as fit.
    """

    micro_ops: int = 400
    transfer_bytes: int | None = None

    def elements(self, unit: int) -> int:
        """Elements of `unit` bytes that one transfer may have."""
        return 1 << 16 if self.transfer_bytes is None else max(self.transfer_bytes // unit, 1)


ANY_SIZE = Size()


@dataclass(frozen=True, kw_only=True)
class RandomProgram:
    """A program, the memory it starts from, and the base registers it expects."""

    config: ModelConfig
    words: NDArray[np.uint64]
    dram: Dram
    arena: int
    bases: dict[int, int]
    tokens_before: tuple[int, ...]
    tokens_after: tuple[int, ...]

    @property
    def insn_address(self) -> int:
        """Room for the instructions below the arena."""
        return self.arena - 64 * PAGE


def random_config(rng: random.Random) -> ModelConfig:
    """A small machine; blocks and operand widths are drawn apart, the limits of spec 1.2 and 1.4 hold.

    Two of five are extended, one of four has 64-bit addresses.
    """
    while True:
        batch = rng.choice([0, 0, 0, 1, 1, 2, 2, 3, 4])
        block_in, block_out = (rng.choice([1, 2, 3, 3, 4, 4, 4, 5, 6]) for _ in range(2))
        inp, wgt = rng.choice([2, 3, 3, 4]), rng.choice([2, 3, 3, 4])
        uop_depth = rng.choice([3, 4, 5, 6, 8, 10, 13])
        acc_depth, inp_depth, wgt_depth = rng.randint(1, 8), rng.randint(1, 8), rng.randint(1, 7)
        config = ModelConfig(
            log_inp_width=inp,
            log_wgt_width=wgt,
            log_batch=batch,
            log_block_in=block_in,
            log_block_out=block_out,
            log_uop_buff=uop_depth + 2,
            log_inp_buff=inp_depth + batch + block_in + inp - 3,
            log_wgt_buff=wgt_depth + block_out + block_in + wgt - 3,
            log_acc_buff=acc_depth + batch + block_out + 2,
        )
        scalars = {memory: int(np.prod(config.shape(memory))) for memory in (INP, WGT, ACC, OUT)}
        bits = [count * config.bits(memory) for memory, count in scalars.items()]
        if min(bits) >= 8 and max(bits) <= 8 * PAGE and acc_depth + max(acc_depth, inp_depth) + wgt_depth <= 32:
            return replace(config, extended=rng.random() < 0.4, log_address_width=6 if rng.random() < 0.25 else 5)


class Generator:
    """Grows one program; executes it on the way, since micro-ops decide which indices are in range."""

    def __init__(
        self,
        rng: random.Random,
        config: ModelConfig,
        *,
        tokens_before: tuple[int, ...] = (0, 0, 0, 0),
        with_bases: bool = False,
        pages: int = ARENA_PAGES,
        size: Size = ANY_SIZE,
    ) -> None:
        self.rng, self.config, self.arena_bytes, self.size = rng, config, pages * PAGE, size
        self.tokens_before = tokens_before
        high = [0x5_4000_0000, 0x0123_4567_89AB_C000] if config.log_address_width == 6 and with_bases else []
        self.arena = rng.choice([0x0010_0000, 0x2000_0000, 0xFFF0_0000, *high])
        self.bases = {m: self._base(m) if with_bases else 0 for m in (UOP, WGT, INP, ACC, OUT)}
        self.machine = Machine(config, self._fill(Dram()))
        self.machine.bases = self.bases
        self.before = self.machine.dram.copy()
        self.dram = Resource(self.arena_bytes)
        self.pads = {memory: Resource(config.depth(memory)) for memory in (WGT, INP, OUT)}
        self.ordering = Ordering(tokens_before, nop=self.nop, on_emit=self._execute)

    def generate(self, length: int, *, drain: bool = True) -> RandomProgram:
        """A program of about `length` instructions and what orders them. Without `drain`, tokens may be left over."""
        for memory in (UOP, INP, WGT, ACC):
            self._add_load(memory)
        makers = {
            self._add_load_any: 40,
            self._add_gemm: 20,
            self._add_alu: 25,
            self._add_store: 13,
            self._add_nop: 2,
        }
        if self.config.extended:
            makers |= {self._add_gemm_overwrite: 12, self._add_requant: 15}
        for maker in self.rng.choices(list(makers), list(makers.values()), k=length):
            maker()
            self._extra_tokens()
        self._add_store()
        if drain:
            self.ordering.drain("g2l", "g2s")
        self.ordering.flush()
        self.ordering.join()
        if drain:
            self.ordering.drain("l2g", "s2g")
        if self.rng.random() < 0.5:  # otherwise FINISH carries the last pops
            self.ordering.flush()
        self.ordering.add(self._header(layout.FINISH))
        return RandomProgram(
            config=self.config,
            words=layout.to_words(self._encode(insn) for insn in self.ordering.program),
            dram=self.before,
            arena=self.arena,
            bases=self.bases,
            tokens_before=self.tokens_before,
            tokens_after=tuple(len(self.ordering.queues[queue]) for queue in QUEUES),
        )

    def nop(self, module: str) -> Fields:
        """An instruction that only moves tokens; every other field is garbage."""
        rng = self.rng
        opcode = layout.STORE if module == STORER else layout.LOAD
        memories = {LOADER: (INP, WGT), COMPUTE: (UOP, ACC, ACC_8BIT), STORER: (UOP, OUT)}[module]
        fields = {name: rng.getrandbits(width) for name, (_, width) in layout.memory_slots().items()}
        return {**fields, **self._header(opcode), "memory_type": rng.choice(memories), "x_size": 0}

    def _base(self, memory: int) -> int:
        unit = self.config.element_bytes(memory)
        # dram_base counts elements in 32 bits; of the accumulators the 8-bit ones are the smallest.
        reach = (1 << 31) * (unit // 4 if memory == ACC else unit)
        return self.rng.randrange(max(self.arena - reach, 0) // unit, self.arena // unit) * unit

    def _fill(self, dram: Dram) -> Dram:
        """Micro-ops in the first page; then random pages, small numbers, extremes, and holes that read as zero."""
        noise = np.random.default_rng(self.rng.getrandbits(32))
        slots = list(layout.uop_slots(self.config).values())
        uops = np.array([self._random_uop(slots) for _ in range(PAGE // 4)], "<u4")
        dram.write(self.arena, uops.view(np.uint8))
        for address in range(self.arena + PAGE, self.arena + self.arena_bytes, PAGE):
            match self.rng.randrange(6):
                case 0:
                    continue
                case 1:
                    page = noise.integers(-3, 4, PAGE).astype(np.int8).view(np.uint8)
                case 2:
                    page = noise.choice(np.array([0, 0x7F, 0x80, 0xFF], np.uint8), PAGE)
                case 3:
                    page = noise.integers(-40, 41, PAGE // 4).astype("<i4").view(np.uint8)
                case _:
                    page = noise.integers(0, 256, PAGE).astype(np.uint8)
            dram.write(address, page)
        if self.config.extended:
            dram.write(self.arena + PAGE, self._scales(noise).view(np.uint8))
        return dram

    def _scales(self, noise: np.random.Generator) -> NDArray[np.uint32]:
        """Tiles of biases and of REQUANT parameters in turn, for small results, exact halves, and extremes."""
        scalars = int(np.prod(self.config.shape(ACC)))
        shape = (SCALE_PAGES * PAGE // 4 // scalars // 2, scalars)
        bias = noise.choice(np.array([0, 0, 0, 1, -1, 7, -20, 100, -(2**31), 2**31 - 1]), shape)
        exponent = noise.integers(0, 22, shape)
        factor = noise.choice([1, 3, 5, 7], shape) << exponent & 0xFFFFFF
        shift = exponent + noise.choice([0, 1, 1, 1, 2, 3, 4], shape)
        factor = np.where(noise.random(shape) < 0.2, noise.integers(0, 1 << 24, shape), factor)
        factor = np.where(noise.random(shape) < 0.05, 0xFFFFFF, factor)
        shift = np.where(noise.random(shape) < 0.2, noise.choice([0, 1, 31, 32, 55, 62, 63], shape), shift)
        garbage = noise.integers(0, 4, shape) << 30
        tiles = np.stack([bias, garbage | shift << 24 | factor], axis=1)
        return (tiles & 0xFFFFFFFF).astype("<u4").reshape(-1)

    def _random_uop(self, slots: list[tuple[int, int]]) -> int:
        """Indices that are small more often than not, and garbage above them."""
        word, end = 0, 0
        skew = self.rng.choice([1, 2, 4])
        for bit, width in slots:
            word |= int((1 << width) * self.rng.random() ** skew) << bit
            end = bit + width
        return word | self.rng.getrandbits(32) >> end << end if end < 32 else word

    def _header(self, opcode: int) -> Fields:
        return {"opcode": opcode, **dict.fromkeys(layout.FLAGS, 0)}

    def _encode(self, insn: Fields) -> int:
        """The final bits; flags without a queue are random, since they mean nothing (spec 5.2)."""
        fields, module = dict(insn), module_of(insn)
        for flag in layout.FLAGS:
            if (module, flag) not in POPS and (module, flag) not in PUSHES:
                fields[flag] = int(self.rng.random() < 0.1)
        return layout.encode(self.config, fields.pop("opcode"), self.rng, **fields)

    def _execute(self, insn: Fields) -> None:
        self.machine.execute(len(self.ordering.program) - 1, insn)

    def _extra_tokens(self) -> None:
        """Tokens nobody needs: at most a few in flight, so that later pops meet stale ones."""
        for queue in QUEUES:
            if self.rng.random() < 0.08 and len(self.ordering.queues[queue]) < 6:
                self.ordering.push(queue)
            if self.rng.random() < 0.04 and self.ordering.queues[queue]:
                self.ordering.pop(queue)

    def _add_nop(self) -> None:
        self.ordering.add(self.nop(self.rng.choice([LOADER, COMPUTE, STORER])))

    def _add_load_any(self) -> None:
        more = [ACC_PAD_MIN, ACC_8BIT_PAD_MIN] if self.config.extended else []
        self._add_load(self.rng.choice([UOP, INP, INP, WGT, WGT, ACC, ACC, ACC_8BIT, *more]))

    def _rows(self, size: int, units: int, rows: int) -> tuple[int, int]:
        """A row stride, and the first unit, such that `rows` rows of `size` stay inside `units`."""
        rng = self.rng
        if rows <= 1:
            return rng.getrandbits(16), rng.randint(0, units - size)
        widest = min((units - size) // (rows - 1), 0xFFFF)
        stride = rng.choice([size, size, 0, 1, rng.randint(0, max(widest, 0)), size + 1])
        stride = min(stride, widest)
        return stride, rng.randint(0, units - size - (rows - 1) * stride)

    def _add_load(self, memory: int) -> None:
        rng, config = self.rng, self.config
        pad = ACC if memory in OF_ACC else memory
        unit, depth = config.element_bytes(memory), config.depth(pad)
        most = self.size.elements(unit)
        units = (PAGE if memory == UOP else self.arena_bytes) // unit
        while True:
            room = min(depth - (sram_base := rng.choice([0, rng.randrange(depth)])), most)
            widest = min(room, units)
            x_size = rng.choice([rng.randint(1, min(widest, 24)), rng.randint(1, min(widest, 24)), min(widest, 300)])
            y_size = rng.choice([1, 1, 1, 1, 2, 2, 3, 3, 4, 7, rng.randint(1, 60), 0])
            kind = rng.randrange(4)
            x_pads = [rng.randint(0, 3) if kind & 1 else 0 for _ in range(2)]
            y_pads = [rng.choice([0, 1, 2, 15]) if kind & 2 else 0 for _ in range(2)]
            total = (x_size + sum(x_pads)) * (y_size + sum(y_pads))
            if total <= room:
                break
        stride, first = self._rows(x_size, units, y_size)
        start = self.arena - self.bases.get(pad, 0) + first * unit
        insn = self._header(layout.LOAD) | {
            "memory_type": memory,
            "sram_base": sram_base,
            "dram_base": start // unit,
            "y_size": y_size,
            "x_size": x_size,
            "x_stride": stride,
            "y_pad_0": y_pads[0],
            "y_pad_1": y_pads[1],
            "x_pad_0": x_pads[0],
            "x_pad_1": x_pads[1],
        }
        accesses = [Access(resource=self.dram, units=_bytes(first, stride, y_size, x_size, unit), write=False)]
        if memory in (INP, WGT):
            window = np.arange(sram_base, sram_base + total)
            accesses.append(Access(resource=self.pads[memory], units=window, write=True))
        self.ordering.add(insn, accesses)

    def _add_store(self) -> None:
        rng, config = self.rng, self.config
        unit, depth = config.element_bytes(OUT), config.depth(OUT)
        units = (self.arena_bytes - PAGE) // unit
        sram_base = rng.choice([0, rng.randrange(depth)])
        room = min(depth - sram_base, self.size.elements(unit))
        x_size = rng.randint(1, min(room, 40))
        y_size = rng.randint(0 if rng.random() < 0.1 else 1, max(min(room // x_size, 6), 1))
        stride, first = self._rows(x_size, units, y_size)
        start = self.arena + PAGE - self.bases[OUT] + first * unit
        insn = self._header(layout.STORE) | {
            "memory_type": OUT,
            "sram_base": sram_base,
            "dram_base": start // unit,
            "y_size": y_size,
            "x_size": x_size,
            "x_stride": stride,
        }
        read = Access(resource=self.pads[OUT], units=np.arange(sram_base, sram_base + x_size * y_size), write=False)
        to = Access(resource=self.dram, units=PAGE + _bytes(first, stride, y_size, x_size, unit), write=True)
        self.ordering.add(insn, [read, to])

    def _uop_range(self, limits: dict[str, int]) -> tuple[int, int, dict[str, int]]:
        """A range of micro-ops whose operands in `limits` are below their limits, and the largest of each."""
        rng, depth, uops = self.rng, self.config.depth(UOP), self.machine.pads[UOP]
        for _ in range(12):
            bgn = rng.randrange(min(depth, 64)) if rng.random() < 0.9 else rng.randrange(depth)
            end = min(bgn + rng.choice([1, 1, 2, 3, 8, 30]), depth)
            top = {}
            for name, (bit, width) in layout.uop_slots(self.config).items():
                top[name] = int((uops[bgn:end] >> bit & (1 << width) - 1).max())
            if rng.random() > 0.03 and all(top[name] < limit for name, limit in limits.items()):
                return bgn, end, top
        bgn = rng.randrange(depth)
        return bgn, rng.randint(0, bgn), dict.fromkeys(limits, 0)  # an empty range, its end at or below its begin

    def _trips(self, uops: int) -> tuple[int, int]:
        rng = self.rng
        if rng.random() < 0.04:
            return rng.choice([(0, rng.getrandbits(14)), (rng.getrandbits(14), 0), (0, 0)])
        outer, inner = rng.choice([1, 1, 2, 3, 4, 9, 150]), rng.choice([1, 1, 2, 3, 7, 20, 60])
        while outer * inner > 1 and outer * inner * uops > self.size.micro_ops:
            outer, inner = max(outer // 2, 1), max(inner // 2, 1)
        return outer, inner

    def _nest(self, limits: dict[str, int]) -> Fields:
        """Micro-op range, trip counts and factors; indices of the operands in `limits` stay below their limits."""
        rng = self.rng
        bgn, end, top = self._uop_range(limits)
        trips = dict(zip(("out", "in"), self._trips(end - bgn), strict=True))
        fields = {"uop_bgn": bgn, "uop_end": end, "iter_out": trips["out"], "iter_in": trips["in"]}
        for name, limit in limits.items():
            slack = limit - 1 - top[name]
            for loop, count in trips.items():
                # A factor that no second trip uses may be anything.
                widest = limit - 1 if count <= 1 else min(slack // (count - 1), limit - 1)
                factor = rng.choice([0, min(1, widest), rng.randint(0, widest), rng.randint(0, widest)])
                slack -= factor * max(count - 1, 0)
                fields[f"{name}_factor_{loop}"] = factor
        return fields

    def _add_gemm(self) -> None:
        rng, config = self.rng, self.config
        reset = rng.random() < 0.2
        memories = {"dst": ACC} if reset else {"dst": ACC, "src": INP, "wgt": WGT}
        insn = self._garbage(layout.GEMM) | self._nest({name: config.depth(m) for name, m in memories.items()})
        insn["reset"] = int(reset)
        self._order_gemm(insn, multiplies=not reset)

    def _add_gemm_overwrite(self) -> None:
        limits = {"dst": self.config.depth(ACC), "src": self.config.depth(INP), "wgt": self.config.depth(WGT)}
        self._order_gemm(self._garbage(layout.GEMM_OVERWRITE) | self._nest(limits), multiplies=True)

    def _order_gemm(self, insn: Fields, *, multiplies: bool) -> None:
        nest = self.machine.nest(0, insn)
        accesses = [Access(resource=self.pads[OUT], units=np.unique(nest.dst), write=True)]
        if multiplies:
            accesses.append(Access(resource=self.pads[INP], units=np.unique(nest.src), write=False))
            accesses.append(Access(resource=self.pads[WGT], units=np.unique(nest.wgt), write=False))
        self.ordering.add(insn, accesses)

    def _add_requant(self) -> None:
        """Mostly behind a LOAD of biases and parameters to the places where micro-ops look for them."""
        rng, depth = self.rng, self.config.depth(ACC)
        if rng.random() < 0.6:
            self._add_load_of_scales()
        insn = self._garbage(layout.ALU) | self._nest({"dst": depth, "src": depth})
        zero_point = rng.choice([0, 0, rng.randint(-9, 9), rng.randint(-200, 200), rng.getrandbits(15)]) & 0x7FFF
        insn["alu_opcode"] = layout.REQUANT
        insn["imm"] = zero_point - (0x8000 if rng.random() < 0.4 else 0)
        dst = np.unique(self.machine.nest(0, insn).dst)
        self.ordering.add(insn, [Access(resource=self.pads[OUT], units=dst, write=True)])

    def _add_load_of_scales(self) -> None:
        unit, depth = self.config.element_bytes(ACC), self.config.depth(ACC)
        tiles = min(SCALE_PAGES * PAGE // unit, depth, self.size.elements(unit)) // 2 * 2
        if tiles == 0:
            return
        start = self.arena + PAGE - self.bases[ACC]
        insn = self._header(layout.LOAD) | {
            "memory_type": ACC,
            "sram_base": self.rng.randrange(0, depth - tiles + 1, 2),
            "dram_base": start // unit,
            "y_size": 1,
            "x_size": tiles,
            "x_stride": self.rng.getrandbits(16),
            **dict.fromkeys(("y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1"), 0),
        }
        units = _bytes(PAGE // unit, 0, 1, tiles, unit)
        self.ordering.add(insn, [Access(resource=self.dram, units=units, write=False)])

    def _add_alu(self) -> None:
        rng, depth = self.rng, self.config.depth(ACC)
        use_imm = rng.random() < 0.5
        insn = self._garbage(layout.ALU) | self._nest({"dst": depth} if use_imm else {"dst": depth, "src": depth})
        small, wide = rng.randint(-34, 34), rng.randint(-0x8000, 0x7FFF)
        insn["alu_opcode"], insn["use_imm"] = rng.randrange(5), int(use_imm)
        insn["imm"] = rng.choice([small, small, wide, -0x8000, 0x7FFF])
        dst = np.unique(self.machine.nest(0, insn).dst)
        self.ordering.add(insn, [Access(resource=self.pads[OUT], units=dst, write=True)])

    def _garbage(self, opcode: int) -> Fields:
        """Random bits in all fields, for those that the instruction turns out not to use."""
        slots = layout.slots_of(self.config, opcode)
        fields = {name: self.rng.getrandbits(width) for name, (_, width) in slots.items()}
        return fields | self._header(opcode)


def _bytes(first: int, stride: int, rows: int, size: int, unit: int) -> NDArray[np.int64]:
    """Byte offsets of `rows` rows of `size` elements, each once."""
    starts = (first + np.arange(rows) * stride) * unit
    return np.unique(starts[:, None] + np.arange(size * unit))
