"""The check of one launch: what its instructions touch, in an order in which they may be executed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.isa import MemoryType, Module, Opcode
from vta_hw.spec.registers import TOKEN_QUEUES
from vta_sim.check import portability
from vta_sim.check.dram import Cells, Rows
from vta_sim.check.findings import Finding, Place, Race, Rule, Severity
from vta_sim.check.history import Conflict, History, Units
from vta_sim.check.order import Order, TokenFlow, way
from vta_sim.check.touches import fields_of
from vta_sim.deadlock import find_waits
from vta_sim.errors import Deadlock
from vta_sim.functional.lint import Hint

if TYPE_CHECKING:
    from vta_sim.check.checker import Checker

_UNKNOWN_MICRO_OPS: Final = (
    "micro-ops must come from memory whose contents are known; it, and all others like it, count as touching everything"
)
_LAST_END: Final = (1 << 64) - 1
_MODULES: Final = (Module.LOAD, Module.COMPUTE, Module.STORE)


class LaunchCheck:
    """The check of one launch; `order` is one in which it may be executed."""

    def __init__(
        self,
        checker: Checker,
        words: NDArray[np.uint64],
        rows: NDArray[np.void],
        flow: TokenFlow,
        insn_begin: int,
    ) -> None:
        self._checker = checker
        self._words = words
        self._rows = rows
        self._flow = flow
        self._insn_begin = insn_begin
        self._insns = fields_of(rows)
        self.order: Order = flow.execute()
        # Once named, a race is taken for mended: those that follow from it would hide others.
        self._excused = np.zeros((3, 3), np.int64)

    def findings(self) -> Iterator[Finding]:
        """In the order of execution, with those of the launch as a whole behind."""
        moved = list(map(self._checker.moved, self._insns))
        yield from self._beyond_memory(moved)
        loads, stores = self._transfers(moved, Opcode.LOAD), self._transfers(moved, Opcode.STORE)
        self._checker.dram.change(stores)
        cells = Cells(loads, stores)
        dram = History(len(cells.cuts), writer=Module.STORE, readers=[Module.LOAD, Module.COMPUTE])
        other_source = np.zeros(len(self._insns), bool)
        for index in self.order.sequence:
            insn, rows = self._insns[index], moved[index]
            touch = self._checker.toucher.touch(insn, self._checker.dram, 0 if rows is None else rows.address)
            other_source[index] = touch.other_source
            for refusal in touch.refusals:
                rule = Rule.UNKNOWN_CODE if refusal.unknown else Rule.OUT_OF_RANGE
                yield self._error(index, rule, refusal.sentence)
            if not touch.known and self._checker.knows_micro_ops:
                self._checker.knows_micro_ops = False
                yield from self._lint(index, Rule.UNKNOWN_MICRO_OPS, _UNKNOWN_MICRO_OPS)
            yield from self._scratchpads(index, touch.elements)
            if rows is not None:
                yield from self._touched(index, None, dram, cells.of(rows), cells.cuts)
                yield from self._overwrites_code(index, rows)
            for rule, text in portability.breaches_of(insn, touch):
                yield from self._lint(index, rule, text)
        for index, rule, text in portability.breaches(self._rows, other_source):
            yield from self._lint(index, rule, text)
        yield from self._end()

    def _beyond_memory(self, moved: list[Rows | None]) -> Iterator[Finding]:
        """Takes what leaves the address space out of the list."""
        bits = self._checker.config.address_bits
        for index, rows in enumerate(moved):
            # The last byte of 64 bits has none behind it that 64 bits can name.
            if rows is not None and rows.end > min(1 << bits, _LAST_END):
                sentence = f"bytes of DRAM must lie within the {bits} address bits, not end at {rows.end:#x}"
                yield self._error(index, Rule.OUT_OF_RANGE, sentence)
                moved[index] = None

    def _transfers(self, moved: Sequence[Rows | None], opcode: Opcode) -> list[Rows]:
        pairs = zip(moved, self._insns, strict=True)
        return [rows for rows, insn in pairs if rows is not None and insn.opcode == opcode]

    def _scratchpads(self, index: int, elements: Mapping[MemoryType, Units]) -> Iterator[Finding]:
        for memory, units in elements.items():
            if memory is MemoryType.ACC:
                self._checker.acc_loaded[units] = self._flow.numbers[index]
                continue
            yield from self._touched(index, memory, self._checker.pads[memory], units, None)
            if memory is MemoryType.OUT and self._module(index) is Module.STORE:
                yield from self._stale(index, units)

    def _touched(
        self,
        index: int,
        memory: MemoryType | None,
        history: History,
        units: Units,
        addresses: NDArray[np.uint64] | None,
    ) -> Iterator[Finding]:
        """Conflicts of an instruction over units of one memory, which it is then known to have touched."""
        module = self._module(index)
        for conflict in history.conflicts(module, units, self.order.clocks[index]):
            if conflict.number > self._excused[module.value, conflict.module.value]:
                self._excused[module.value, conflict.module.value] = conflict.number
                unit = conflict.unit if addresses is None else int(addresses[conflict.unit])
                yield self._race(index, conflict, memory, unit)
        history.record(module, units, self._flow.numbers[index])

    def _race(self, index: int, conflict: Conflict, memory: MemoryType | None, unit: int) -> Race:
        other = self._flow.insn_of(conflict.module, conflict.number)
        earlier, later = sorted((index, other))
        writes = {Module.LOAD: memory is not None, Module.COMPUTE: memory is MemoryType.OUT}
        writes[Module.STORE] = memory is None
        now, before = (("writes" if writes[self._module(one)] else "reads") for one in (later, earlier))
        what = f"byte {unit:#x} of DRAM" if memory is None else f"{memory.name}[{unit}]"
        queues = way(self._module(earlier), self._module(later))
        missing = " and one of ".join(queues) + (" are" if len(queues) > 1 else " is")
        place = self._place(earlier)
        return Race(
            severity=Severity.ERROR,
            rule=Rule.RACE,
            sentence=(
                f"{now} {what}, which {place} {before}; nothing orders them: "
                f"a token of {missing} missing between the two"
            ),
            place=self._place(later),
            other=place,
            memory=memory,
            index=unit,
            queues=queues,
        )

    def _stale(self, index: int, units: Units) -> Iterator[Finding]:
        """OUT holds what GEMM or ALU wrote last, so not what was loaded since (VTA spec 3.6)."""
        loaded = self._checker.acc_loaded[units]
        written = self._checker.pads[MemoryType.OUT].latest[Module.COMPUTE][units]
        known = self.order.clocks[index][Module.COMPUTE.value]
        stale = np.flatnonzero((loaded > written) & (loaded <= known))
        if len(stale):
            unit = int(units[stale[0]])
            yield from self._lint(index, Rule.STALE_OUT, f"{Hint.STORE_OF_LOADED.value}, here OUT[{unit}]")

    def _overwrites_code(self, index: int, rows: Rows) -> Iterator[Finding]:
        """Fetch reads ahead of everybody, and no token orders it; besides, all that is known here would be wrong."""
        code = self._checker.code
        if code is None or self._insns[index].opcode != Opcode.STORE:
            return
        begins, ends = rows.spans()
        hit = np.flatnonzero((begins < np.uint64(code[1])) & (ends > np.uint64(code[0])))
        if len(hit):
            byte = max(int(begins[hit[0]]), code[0])
            sentence = "a STORE must not write to the instructions of the program, which are fetched at any time"
            yield self._error(index, Rule.RACE, f"{sentence}, as it does at byte {byte:#x} of DRAM")

    def _end(self) -> Iterator[Finding]:
        """What concerns the launch as a whole."""
        checker = self._checker
        if self.order.heads:
            waits = find_waits(checker.config, self._words, self.order.heads, self.order.tokens)
            shifted = (replace(wait, insn=wait.insn + self._insn_begin) for wait in waits)
            error = Deadlock(shifted).in_layers(checker.layers, 0)
            yield self._error(waits[0].insn, Rule.DEADLOCK, error.rule)
            return
        yield from self._within_limits()
        finishes = [index for index, insn in enumerate(self._insns) if insn.opcode == Opcode.FINISH]
        if not finishes:
            sentence = f"launch must execute FINISH, but none of its {len(self._insns)} instructions is one"
            yield self._whole(Severity.ERROR, Rule.MISSING_FINISH, sentence)
        for index in finishes[:1]:
            yield from self._unjoined(index)
        left = {name: getattr(self.order.tokens, name) for name in TOKEN_QUEUES}
        if any(left.values()):
            listed = ", ".join(f"{count} of {name}" for name, count in left.items() if count)
            severity = Severity.LINT if checker.allow_leftover_tokens else Severity.ERROR
            if checker.lints or severity is Severity.ERROR:
                yield self._whole(severity, Rule.TOKENS_LEFT, f"launch must leave no tokens, not {listed}")

    def _within_limits(self) -> Iterator[Finding]:
        """Whether queues of bounded length change anything."""
        limits = self._checker.limits
        most = max(one.count for one in self.order.outstanding.values())
        for name, one in self.order.outstanding.items():
            if one.count > portability.CHISEL_TOKENS:
                sentence = f"tokens of {name} must be at most {portability.CHISEL_TOKENS}, not {one.count}"
                yield from self._lint(one.insn, Rule.MANY_TOKENS, f"{sentence}; Chisel loses more")
        if self.order.sequence == tuple(range(len(self._insns))) and most <= limits.tokens:
            return
        bounded = self._flow.execute(limits)
        if bounded.heads:
            first = min(bounded.heads.values())
            sentence = f"launch must end with queues of {limits.insns} instructions and {limits.tokens} tokens"
            yield self._error(first, Rule.DEADLOCK, f"{sentence}, but comes to a stop before this instruction")

    def _unjoined(self, index: int) -> Iterator[Finding]:
        """FINISH is of compute, and says nothing of the other units (VTA spec 5.4)."""
        clock = self.order.clocks[index]
        late = [
            name
            for module, name in ((Module.LOAD, "load"), (Module.STORE, "store"))
            if clock[module.value] < self._flow.after[module.value]
        ]
        if late:
            sentence = "FINISH must wait for tokens of the last instructions of load and store"
            yield from self._lint(
                index, Rule.FINISH_BEFORE_OTHERS, f"{sentence}, and does not wait for {' and '.join(late)}"
            )

    def _module(self, index: int) -> Module:
        return _MODULES[self._flow.modules[index]]

    def _place(self, index: int) -> Place:
        return self._checker.place(self._words, index, self._insn_begin)

    def _error(self, index: int, rule: Rule, sentence: str) -> Finding:
        return Finding(severity=Severity.ERROR, rule=rule, sentence=sentence, place=self._place(index))

    def _lint(self, index: int, rule: Rule, sentence: str) -> Iterator[Finding]:
        """A finding that is no error, if it is asked for: programs have thousands, and each names its instruction."""
        if self._checker.lints:
            yield Finding(severity=Severity.LINT, rule=rule, sentence=sentence, place=self._place(index))

    def _whole(self, severity: Severity, rule: Rule, sentence: str) -> Finding:
        return Finding(severity=severity, rule=rule, sentence=sentence[0].upper() + sentence[1:])
