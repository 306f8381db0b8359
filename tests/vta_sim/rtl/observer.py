"""Watches a program run on the model of the specification, and notes which corners of the catalogue it reaches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from tests.vta_sim.rtl.catalogue import (
    ALU_NAMES,
    CORNERS,
    DISTANCES,
    FACTORS,
    FIELDS,
    MEMORY_NAMES,
    PADS,
    TRIPS,
    instruction_name,
)
from tests.vta_sim.rtl.machines import Case
from tests.vta_sim.spec_model import compare, layout
from tests.vta_sim.spec_model.layout import ACC, INP, OUT, UOP, WGT, Fields
from tests.vta_sim.spec_model.machine import OF_ACC, Machine, alu, requantise
from tests.vta_sim.spec_model.packing import Array, wrap

Corner = tuple[str, str, str]
"""The kind ("field" or "corner"); instruction or section; the field and the kind of its value, or the corner's name."""

WATCHED_STEPS = 64
"""Steps of a long loop whose numbers are looked at."""
NOTHING, LOADED, RESET, GEMM, ALU = range(5)
"""Who wrote an accumulator last."""


class Observer(Machine):
    """A machine that collects what it sees in `seen`."""

    def __init__(self, case: Case) -> None:
        super().__init__(compare.model_config(case.config), case.dram.copy())
        self.seen: set[Corner] = set()
        self._bus_bytes = case.config.bus_bits // 8
        self._writer = np.full(self.config.depth(ACC), NOTHING)
        self._stale = np.zeros(self.config.depth(ACC), bool)
        # Of the instruction before this one of the compute unit: what it was, and what it touched.
        self._before: tuple[str, Array] = ("", np.zeros(0, np.int64))
        self._used_uops = (0, 0)

    def hit(self, section: str, name: str) -> None:
        """Note a corner; it must be in the catalogue."""
        assert name in CORNERS[section], (section, name)
        self.seen.add(("corner", section, name))

    def hit_if(self, happened: object, section: str, name: str) -> None:
        if happened:
            self.hit(section, name)

    def field(self, insn: str, field: str, kind: str) -> None:
        """Note a kind of value of a field, if the catalogue asks for it."""
        if kind in FIELDS[insn].get(field, ()):
            self.seen.add(("field", insn, f"{field} {kind}"))

    def number(self, insn: str, field: str, value: int, largest: int) -> None:
        self.field(insn, field, "zero" if value == 0 else "largest" if value == largest else "between")

    def execute(self, index: int, insn: Fields) -> None:
        match insn["opcode"]:
            case layout.LOAD:
                self._note_load(insn)
            case layout.STORE:
                self._note_store(insn)
            case layout.GEMM | layout.GEMM_OVERWRITE | layout.ALU:
                self._note_nest(insn)
        super().execute(index, insn)

    def _note_load(self, insn: Fields) -> None:
        memory, section = insn["memory_type"], f"LOAD {MEMORY_NAMES[insn['memory_type']]}"
        x_size, y_size = insn["x_size"], insn["y_size"]
        pads = [insn[name] for name in PADS]
        garbage = any(pads) and y_size and insn["x_stride"] and insn["sram_base"]
        self.hit_if(x_size == 0 and garbage, section, "x_size is 0, and everything else garbage")
        if x_size == 0:
            self.field(section, "x_size", "zero")
            return
        rows, columns = y_size + pads[0] + pads[1], x_size + pads[2] + pads[3]
        self.hit_if(rows == 0, section, "no rows at all")
        if rows == 0:
            return
        self.hit_if(y_size == 0, section, "no rows, but rows of padding")
        self.hit_if(y_size == 0 and all(pads), section, "no rows, but padding on all sides")
        self.hit_if(y_size and all(pads), section, "padding on all sides at once")
        pad = ACC if memory in OF_ACC else memory
        depth, end = self.config.depth(pad), insn["sram_base"] + rows * columns
        self.hit_if(end == depth, section, "ends at the last element of the scratchpad")
        self._note_window(section, insn, depth, rows_stay=("the same row again", "rows overlap in DRAM"))
        for name, value in zip(PADS, pads, strict=True):
            self.number(section, name, value, 15)
        if pad == UOP:
            self._note_loaded_uops(insn["sram_base"], end)
        if pad == ACC:
            window = np.arange(insn["sram_base"], end)
            kind, touched = self._before
            clash = kind in ("GEMM", "ALU", "reset") and np.isin(window, touched).any()
            self.hit_if(clash, "Sequences", "LOAD of accumulators that the instruction before it wrote")
            self._writer[window], self._stale[window] = LOADED, True
            self._before = ("LOAD", window)

    def _note_loaded_uops(self, begin: int, end: int) -> None:
        first, behind = self._used_uops
        overwritten = first < end and begin < behind and self._before[0] in ("GEMM", "ALU", "reset")
        self.hit_if(overwritten, "Sequences", "micro-ops are overwritten right after they were used")
        self._before = ("LOAD UOP", np.arange(begin, end))

    def _note_window(self, section: str, insn: Fields, depth: int, *, rows_stay: Sequence[str]) -> None:
        """Size, stride and place in DRAM of a window that moves data, of a LOAD or of a STORE."""
        x_size, y_size, stride = insn["x_size"], insn["y_size"], insn["x_stride"]
        self.number(section, "x_size", x_size, depth)
        self.number(section, "y_size", y_size, depth)
        self.number(section, "sram_base", insn["sram_base"], depth - 1)
        if y_size == 0:
            return
        self.number(section, "dram_base", insn["dram_base"], 0xFFFF_FFFF)
        if y_size > 1:
            self.number(section, "x_stride", stride, 0xFFFF)
            self.hit_if(stride == 0, section, f"x_stride is 0: {rows_stay[0]}")
            self.hit_if(0 < stride < x_size, section, f"x_stride below x_size: {rows_stay[1]}")
            self.hit_if(stride == x_size, section, "x_stride equal to x_size")
            self.hit_if(stride > x_size, section, "x_stride above x_size")
        self._note_rows(section, insn)

    def _note_rows(self, section: str, insn: Fields) -> None:
        unit, bus = self.config.element_bytes(insn["memory_type"]), self._bus_bytes
        nbytes = insn["x_size"] * unit
        for row in range(min(insn["y_size"], 64)):
            begin = self.address(insn, row * insn["x_stride"])
            crosses = begin // 4096 != (begin + nbytes - 1) // 4096
            self.hit_if(crosses, section, "a row crosses a multiple of 4096 bytes")
            self.hit_if(begin % bus, section, "a row begins within a bus word")
            self.hit_if(begin >> 32, "Machines and memories", "addresses above 4 GiB")
            if section == "STORE":
                self.hit_if((begin + nbytes) % bus, section, "a row ends within a bus word")
            else:
                self.hit_if(nbytes < bus, section, "a row is shorter than a bus word")

    def _note_store(self, insn: Fields) -> None:
        section, pads = "STORE", [insn[name] for name in PADS]
        garbage = insn["memory_type"] != OUT and any(pads) and insn["y_size"]
        self.hit_if(
            insn["x_size"] == 0 and garbage, section, "x_size is 0, and everything else garbage, the memory type too"
        )
        if insn["x_size"] == 0:
            self.field(section, "x_size", "zero")
            return
        self.hit_if(insn["y_size"] == 0, section, "no rows")
        if insn["y_size"] == 0:
            self.field(section, "y_size", "zero")
            return
        depth, end = self.config.depth(OUT), insn["sram_base"] + insn["x_size"] * insn["y_size"]
        self.hit_if(end == depth, section, "ends at the last element of OUT")
        self.hit_if(any(pads), section, "pads, which mean nothing")
        for name, value in zip(PADS, pads, strict=True):
            self.number(section, name, value, 15)
        self._note_window(section, insn, depth, rows_stay=("the last row stays", "later rows stay"))
        tiles = slice(insn["sram_base"], end)
        self.hit_if((self._writer[tiles] == RESET).any(), "Sequences", "STORE of what a reset left")
        apart = "STORE of tiles that a LOAD put apart from the accumulators"
        self.hit_if(self._stale[tiles].any(), "Sequences", apart)
        self.hit_if((self._writer[tiles] == NOTHING).any(), "Sequences", "STORE of tiles that nothing ever wrote")

    def _note_nest(self, insn: Fields) -> None:
        name = instruction_name(insn, extended=self.config.extended)
        assert name is not None
        is_alu = name == "ALU"
        requant = is_alu and insn["alu_opcode"] == layout.REQUANT
        section = "REQUANT" if requant else name
        nest = self.nest(0, insn)
        self._note_trips(name, section, insn, len(nest.dst))
        if not len(nest.dst):
            return
        resets = name == "GEMM" and bool(insn["reset"])
        reads = ["dst", *(["src"] if not resets and not (is_alu and insn["use_imm"] and not requant) else [])]
        reads += ["wgt"] if name in ("GEMM", "GEMM_OVERWRITE") and not resets else []
        self._note_factors(name, insn, reads)
        self._note_micro_ops(f"micro-op of {'ALU' if is_alu else 'GEMM'}", insn, reads)
        self._note_sequence("reset" if resets else "ALU" if is_alu else "GEMM", insn, nest.dst, nest.src, is_alu)
        if requant:
            self._note_requant(insn, nest.dst, nest.src)
        elif is_alu:
            self._note_alu(insn, nest.dst, nest.src)
        elif name == "GEMM_OVERWRITE":
            self._note_distances(section, nest.dst, "the same dst at distance {}", DISTANCES[:4])
        else:
            self._note_gemm(insn, nest.dst, nest.src, nest.wgt)
        self._writer[nest.dst] = RESET if resets else ALU if is_alu else GEMM
        self._stale[nest.dst] = False

    def _note_trips(self, name: str, section: str, insn: Fields, steps: int) -> None:
        uops = insn["uop_end"] - insn["uop_bgn"]
        outer, inner = insn["iter_out"], insn["iter_in"]
        if section == "GEMM_OVERWRITE":
            self.hit_if(steps == 0, section, "no work")
        elif section != "REQUANT":
            self.hit_if(outer == 0 and inner and uops > 0, section, "no outer trips")
            self.hit_if(inner == 0 and outer and uops > 0, section, "no inner trips")
            self.hit_if(uops == 0 and outer and inner, section, "no micro-ops: uop_end equals uop_bgn")
            self.hit_if(uops < 0 and outer and inner, section, "no micro-ops: uop_end below uop_bgn")
            several = steps and outer > 1 and inner > 1 and uops > 1
            self.hit_if(several, section, "both loops and several micro-ops at once")
        if section != "REQUANT":
            self.hit_if(steps == 1, section, "one step")
        depth = self.config.depth(UOP)
        largest = {"uop_bgn": depth - 1, "uop_end": depth, "iter_out": 16383, "iter_in": 16383}
        for field in TRIPS:
            if steps or insn[field] == 0:
                # The largest number of trips takes as many cycles: "Loops" asks for them, here 256 will do.
                most = largest[field] if field.startswith("uop") else max(insn[field], 256)
                self.number(name, field, insn[field], most)
        self.hit_if(steps and outer == 16383, "Loops", "16383 outer trips")
        self.hit_if(steps and inner == 16383, "Loops", "16383 inner trips")

    def _note_factors(self, name: str, insn: Fields, operands: Iterable[str]) -> None:
        slots = layout.slots_of(self.config, insn["opcode"])
        for field in FACTORS:
            operand, _, loop = field.partition("_factor_")
            if operand in operands and insn[f"iter_{loop}"] > 1:
                self.number(name, field, insn[field], (1 << slots[field][1]) - 1)
        if name != "ALU" or insn["alu_opcode"] != layout.REQUANT:
            self.field(name, "reset", str(insn["reset"]))

    def _note_micro_ops(self, name: str, insn: Fields, operands: Iterable[str]) -> None:
        raw = self.pads[UOP][insn["uop_bgn"] : insn["uop_end"]]
        slots = layout.uop_slots(self.config)
        depths = {"dst": ACC, "src": ACC if name.endswith("ALU") else INP, "wgt": WGT}
        for operand, (bit, width) in slots.items():
            if operand in operands or (operand == "wgt" and name.endswith("ALU")):
                for value in set((raw >> bit & (1 << width) - 1).tolist()):
                    self.number(name, operand, value, self.config.depth(depths[operand]) - 1)
        end = max(bit + width for bit, width in slots.values())
        self.hit_if((raw >> end).any(), "Machines and memories", "unused bits of micro-ops are not zero")

    def _note_sequence(self, kind: str, insn: Fields, dst: Array, src: Array, is_alu: bool) -> None:
        before, touched = self._before
        if before in ("GEMM", "ALU", "reset") and touched[-1] == dst[0]:
            goes_on = {
                ("GEMM", "ALU"): "ALU goes on where GEMM ended",
                ("ALU", "GEMM"): "GEMM goes on where ALU ended",
                ("reset", "GEMM"): "GEMM goes on where a reset ended",
                ("ALU", "ALU"): "ALU goes on where ALU ended",
                ("GEMM", "reset"): "a reset of what GEMM just wrote",
            }
            if (before, kind) in goes_on:
                self.hit("Sequences", goes_on[before, kind])
        uses = np.isin(dst, touched).any() or (is_alu and np.isin(src, touched).any())
        self.hit_if(before == "LOAD" and uses, "Sequences", "GEMM or ALU uses what the LOAD before it brought")
        used = np.isin(np.arange(insn["uop_bgn"], insn["uop_end"]), touched).any()
        self.hit_if(before == "LOAD UOP" and used, "Sequences", "micro-ops are loaded right before they are used")
        self._before, self._used_uops = (kind, dst), (insn["uop_bgn"], insn["uop_end"])

    def _note_distances(self, section: str, dst: Array, name: str, distances: Iterable[int]) -> None:
        for distance in distances:
            self.hit_if((dst[distance:] == dst[:-distance]).any(), section, name.format(distance))

    def _note_gemm(self, insn: Fields, dst: Array, src: Array, wgt: Array) -> None:
        if insn["reset"]:
            self.hit("GEMM", "reset")
            self._note_distances("GEMM", dst, "reset of the same dst at distance {}", DISTANCES[:3])
            return
        self._note_distances("GEMM", dst, "the same dst at distance {}", DISTANCES)
        acc = self.pads[ACC].copy()
        low = {memory: -(1 << self.config.bits(memory) - 1) for memory in (INP, WGT)}
        for d, s, w in zip(*(indices[:WATCHED_STEPS].tolist() for indices in (dst, src, wgt)), strict=True):
            inputs, weights = self.pads[INP][s], self.pads[WGT][w]
            exact = acc[d] + inputs @ weights.T
            acc[d] = wrap(exact, self.config.bits(ACC))
            self.hit_if((exact != acc[d]).any(), "GEMM", "a sum wraps")
            both = (inputs == low[INP])[:, None, :] & (weights == low[WGT])[None, :, :]
            self.hit_if(both.any(), "GEMM", "smallest input times smallest weight")
            self._note_truncation("GEMM", acc[d])

    def _note_truncation(self, section: str, tile: Array) -> None:
        cut = (wrap(tile, self.config.bits(OUT)) != tile).any()
        self.hit_if(cut, section, "a result beyond the range of OUT")

    def _note_alu(self, insn: Fields, dst: Array, src: Array) -> None:
        opcode, immediate = insn["alu_opcode"], bool(insn["use_imm"])
        form = "immediate" if immediate else "register"
        self.field("ALU", "alu_opcode", ALU_NAMES[opcode])
        self.field("ALU", "use_imm", str(insn["use_imm"]))
        self.hit("ALU", f"{ALU_NAMES[opcode]} with {'an immediate' if immediate else 'a register'}")
        self._note_distances("ALU", dst, f"{form}: the same dst at distance {{}}", DISTANCES)
        if immediate:
            self._note_immediate(insn["imm"])
            self.hit_if((src != dst).any(), "ALU", "immediate: src differs from dst and is not read")
        else:
            self.hit_if((src == dst).any(), "ALU", "register: src equals dst")
            for distance in DISTANCES:
                follows = (src[distance:] == dst[:-distance]).any()
                self.hit_if(follows, "ALU", f"register: src is the dst of distance {distance}")
        acc = self.pads[ACC].copy()
        for d, s in zip(dst[:WATCHED_STEPS].tolist(), src[:WATCHED_STEPS].tolist(), strict=True):
            x, y = acc[d].copy(), np.broadcast_to(np.int64(insn["imm"]), acc[d].shape) if immediate else acc[s].copy()
            exact = alu(opcode, x, y)
            acc[d] = wrap(exact, self.config.bits(ACC))
            self._note_operation(opcode, form, x, y, exact, acc[d])

    def _note_immediate(self, imm: int) -> None:
        named = {-0x8000: "smallest", 0: "zero", 0x7FFF: "largest"}
        self.field("ALU", "imm", named.get(imm, "negative" if imm < 0 else "positive"))

    def _note_operation(self, opcode: int, form: str, x: Array, y: Array, exact: Array, result: Array) -> None:
        wraps = (exact != result).any()
        self._note_truncation("ALU", result)
        if opcode == layout.SHR:
            for amount in set(y.reshape(-1).tolist()):
                self.hit("SHR", f"{form} {shift_class(amount)}")
                self.hit_if(amount == -(2**31), "SHR", "register -2147483648")
            self.hit_if(((x < 0) & (y > 0) & (y & 31 != 0)).any(), "SHR", "of a negative number to the right")
            self.hit_if(wraps, "SHR", "of bits out to the left")
        self.hit_if(opcode == layout.ADD and wraps, "ALU", "ADD wraps")
        self.hit_if(opcode == layout.MUL and wraps, "ALU", "MUL wraps")
        self.hit_if(opcode == layout.MUL and ((x < 0) & (y < 0)).any(), "ALU", "MUL of two negative numbers")
        differ = opcode in (layout.MIN, layout.MAX) and ((x < 0) != (y < 0)).any()
        self.hit_if(differ, "ALU", "MIN and MAX of numbers of different sign")

    def _note_requant(self, insn: Fields, dst: Array, src: Array) -> None:
        section = "REQUANT"
        self.field("ALU", "alu_opcode", "REQUANT")
        self._note_distances(section, dst, "the same dst at distance {}", DISTANCES[:4])
        for distance in DISTANCES:
            follows = (src[distance:] | 1 == dst[:-distance] | 1).any()
            self.hit_if(follows, section, f"reads at src what was written at distance {distance}")
        self.hit(section, "with ReLU" if insn["imm"] < 0 else "without ReLU")
        zero_point = int(wrap(np.array(insn["imm"]), 15))
        self.hit(section, f"zero point {'above ' * (zero_point > 0)}{'below ' * (zero_point < 0)}0")
        acc, bits = self.pads[ACC].copy(), self.config.bits(OUT)
        for d, s in zip(dst[:WATCHED_STEPS].tolist(), src[:WATCHED_STEPS].tolist(), strict=True):
            total = wrap(acc[d] + acc[s & ~1], self.config.bits(ACC))
            parameters = acc[s | 1]
            self._note_scaling(total, parameters, zero_point, bits)
            acc[d] = requantise(total, parameters, insn["imm"], bits)

    def _note_scaling(self, total: Array, parameters: Array, zero_point: int, bits: int) -> None:
        factor, shift = (parameters & 0xFFFFFF).astype(object), (parameters >> 24 & 63).astype(object)
        products = (total.astype(object) * factor).reshape(-1).tolist()
        for product, amount in zip(products, shift.reshape(-1).tolist(), strict=True):
            scaled = product / 2**amount + zero_point
            half = amount > 0 and product % 2**amount == 2 ** (amount - 1)
            self.hit_if(amount == 0, "REQUANT", "shift 0")
            self.hit_if(amount == 63, "REQUANT", "shift 63")
            self.hit_if(scaled > 1 << bits - 1, "REQUANT", "saturates up")
            self.hit_if(scaled < -(1 << bits - 1) - 1, "REQUANT", "saturates down")
            self.hit_if(half and product > 0, "REQUANT", "an exact half above 0")
            self.hit_if(half and product < 0, "REQUANT", "an exact half below 0")


def shift_class(amount: int) -> str:
    """The row of VTA spec 3.5 that an amount belongs to."""
    if amount >= 0:
        return "0" if amount == 0 else "1 to 15" if amount < 16 else "16 to 31" if amount < 32 else "32 and more"
    return "-1 to -16" if amount >= -16 else "-17 to -31" if amount >= -31 else "-32" if amount == -32 else "below -32"
