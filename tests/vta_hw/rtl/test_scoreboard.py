"""The table of instructions against a model of it: who waits for whom, and who retires when."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from amaranth.sim import Simulator

from tests.vta_hw.rtl.machine import TINY
from vta_hw.rtl.scoreboard import SLOTS, Lane, Scoreboard


@dataclass
class Entry:
    """An instruction: what it reads and writes of micro-ops ("u") and accumulators ("a"), and what it waits for."""

    slot: int
    lane: Lane
    known: bool
    ranges: dict[str, Any]
    retirement: int
    waits: list[Entry] = field(default_factory=list)
    complete: bool = False

    def accesses(self, *, write: bool) -> set[tuple[str, int]]:
        found: set[tuple[str, int]] = set()
        for name, kind in (("uop", "u"), ("dst", "a"), ("src", "a")):
            interval = self.ranges[name]
            writes = bool(self.ranges["uop_write"]) if name == "uop" else name == "dst"
            if interval["valid"] and (writes or not write):
                found |= {(kind, index) for index in range(interval["first"], interval["last"] + 1)}
        return found

    def clashes(self, other: Entry) -> bool:
        if not (self.known and other.known):
            return True
        mine, theirs = self.accesses(write=True), other.accesses(write=True)
        return bool(mine & other.accesses(write=False) or theirs & self.accesses(write=False))

    @property
    def runnable(self) -> bool:
        return all(older.complete for older in self.waits)


class Model:
    """Drives a scoreboard at random, as the unit around it may, and compares every output in every cycle."""

    def __init__(self, ctx: Any, board: Scoreboard, rng: random.Random) -> None:
        self.ctx, self.board, self.rng = ctx, board, rng
        self.table: list[Entry] = []
        self.next_slot = 0
        self.retired = 0
        self.waited = 0
        self.most = 0

    def random_entry(self) -> Entry:
        rng = self.rng

        def interval(depth: int) -> dict[str, int]:
            first = rng.randrange(depth)
            return {
                "valid": int(rng.random() < 0.7),
                "first": first,
                "last": rng.randrange(first, min(first + 6, depth)),
            }

        lane = Lane(rng.choice([Lane.NONE, Lane.GEMM, Lane.GEMM, Lane.ALU, Lane.ALU, Lane.LOAD]))
        write = int(lane is Lane.LOAD and rng.random() < 0.5)
        ranges = {"uop": interval(64), "uop_write": write, "dst": interval(20), "src": interval(20)}
        return Entry(self.next_slot, lane, rng.random() < 0.8, ranges, rng.getrandbits(3))

    def completions(self) -> list[Entry]:
        """Of each lane, at most the oldest that is not complete, if it may run."""
        completing = []
        for lane in (Lane.GEMM, Lane.ALU, Lane.LOAD):
            left = [entry for entry in self.table if entry.lane is lane and not entry.complete]
            if left and left[0].runnable and self.rng.random() < 0.3:
                completing.append(left[0])
        return completing

    async def step(self) -> None:
        ctx, board = self.ctx, self.board
        busy = [entry for entry in self.table if not entry.complete]
        self._compare(busy)
        completing = self.completions()
        for number, lane in enumerate((Lane.GEMM, Lane.ALU, Lane.LOAD)):
            slots = [entry.slot for entry in completing if entry.lane is lane]
            ctx.set(board.completed[number], {"valid": len(slots), "slot": slots[0] if slots else 0})
        unknown = [entry for entry in busy if not entry.known]
        found = self.rng.choice(unknown) if unknown and self.rng.random() < 0.2 else None
        entry = None if found or self.rng.random() < 0.3 else self.random_entry()
        ctx.set(board.found, {"valid": int(found is not None), "slot": found.slot if found else 0})
        ctx.set(board.i.valid, entry is not None)
        offered = entry or found
        if offered:
            payload = {"lane": offered.lane, "known": offered.known, "ranges": offered.ranges}
            ctx.set(board.i.p, payload | {"retirement": {"slot": offered.retirement}})
        for done in completing:
            done.complete = True
        head = self.table[0] if self.table else None
        retires = head is not None and head.complete
        accepted = entry is not None and len(self.table) < SLOTS
        assert ctx.get(board.i.ready) == (len(self.table) < SLOTS)
        assert ctx.get(board.slot) == self.next_slot
        assert ctx.get(board.retired) == retires
        if head and retires:
            assert ctx.get(board.retirement.slot) == head.retirement
            self.table.pop(0)
            self.retired += 1
        if found:
            found.known = True
        if entry and accepted:
            older = [other for other in busy if not other.complete and other.lane is not entry.lane]
            entry.waits = [other for other in older if entry.clashes(other)]
            entry.complete = entry.lane is Lane.NONE
            self.waited += bool(entry.waits)
            self.table.append(entry)
            self.next_slot = (self.next_slot + 1) % SLOTS
        self.most = max(self.most, len(self.table))
        await ctx.tick()

    def _compare(self, busy: list[Entry]) -> None:
        ctx, board = self.ctx, self.board
        assert ctx.get(board.empty) == (not self.table)
        assert ctx.get(board.busy) == sum(1 << lane for lane in {entry.lane for entry in busy})
        writes = (entry.lane is Lane.LOAD and (not entry.known or entry.ranges["uop_write"]) for entry in busy)
        assert ctx.get(board.loads_uops) == any(writes)
        for entry in busy:
            assert ctx.get(board.runnable) >> entry.slot & 1 == entry.runnable


def test_instructions_wait_for_older_ones_that_they_clash_with_and_retire_in_order() -> None:
    board = Scoreboard(TINY)
    simulator = Simulator(board)
    simulator.add_clock(1e-8)

    async def test(ctx: Any) -> None:
        model = Model(ctx, board, random.Random(5))
        for _ in range(1500):
            await model.step()
        assert model.most == SLOTS
        assert min(model.retired, 3 * model.waited) > 400

    simulator.add_testbench(test)
    simulator.run()
