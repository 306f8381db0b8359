"""The load unit: its queue, its tokens, and what it says about its time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.vta_hw.rtl.load_bench import CONFIGS, LOAD, Bench, random_bases, random_loads
from vta_hw.rtl.tokens import MAX_IN_FLIGHT
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.instructions import Load, MemoryType

DEFAULT = CONFIGS["default tile"]

NOP = Load(memory_type=MemoryType.INP)
INPUT = Load(memory_type=MemoryType.INP, y_size=1, x_size=1)


class UnitBench(Bench):
    """A load unit whose tokens come, and find room, with the chance `token`; checks the rules for both."""

    def __init__(self, config: VTAConfig, insns: Sequence[Load], *, token: float = 1.0, **options: Any) -> None:
        super().__init__(config, LOAD, insns, block="unit", **options)
        self.gave: list[int] = []
        self.events: dict[str, list[int]] = {name: [] for name in ("waiting", "busy", "stall_token", "stall_memory")}
        self._token = token
        self._available = self._room = False

    def drive(self) -> dict[str, int]:
        """Let tokens come, which stay until they are taken, and room come and go."""
        self._available |= self.rng.random() < self._token
        self._room = self.rng.random() < self._token
        return {"available": int(self._available), "room": int(self._room)}

    def observe(self, outputs: dict[str, int]) -> None:
        """Compare what begins and ends with the flags of the instructions."""
        begun = bool(self.accepted) and self.accepted[-1] == self.cycle
        offered = self.insns[len(self.accepted) - begun] if begun or self.offered else None
        blocked = offered is not None and (
            (offered.pop_next and not self._available) or (offered.push_next and not self._room)
        )
        assert outputs["waiting"] == blocked
        assert not (begun and blocked)
        assert outputs["take"] == bool(begun and offered is not None and offered.pop_next)
        assert outputs["give"] == (outputs["done"] and self.insns[len(self.done)].push_next)
        in_flight = len(self.accepted) - begun > len(self.done)
        assert outputs["idle"] == (not in_flight)
        assert outputs["busy"] == in_flight
        assert outputs["stall_token"] == (blocked and not in_flight)
        if outputs["take"]:
            self._available = False
        if outputs["give"]:
            self.gave.append(self.cycle)
        for name, cycles in self.events.items():
            if outputs[name]:
                cycles.append(self.cycle)


def flagged(insns: Sequence[Load], rng: random.Random) -> list[Load]:
    """Return instructions with random flags, a third of them NOPs."""
    flags = ("pop_prev", "pop_next", "push_prev", "push_next")
    choices = [replace(insn, x_size=0) if rng.random() < 0.3 else insn for insn in insns]
    return [replace(insn, **{flag: rng.random() < 0.4 for flag in flags}) for insn in choices]


@pytest.mark.parametrize("token", [1.0, 0.2])
@pytest.mark.parametrize("name", ["default tile", "1-byte elements, bus 64", "batch 4, 16x4, bus 64, address 64"])
def test_instructions_and_tokens_are_those_of_the_model(name: str, token: float) -> None:
    config = CONFIGS[name]
    rng = random.Random(f"{name} {token}")
    bench = UnitBench(
        config,
        flagged(random_loads(config, LOAD, rng, 40), rng),
        token=token,
        seed=rng.getrandbits(32),
        bases=random_bases(config, LOAD, rng),
        latency=4,
        gap=0.2,
        stall=0.2,
        idle=0.2,
        halt=0.05,
    )
    bench.run()
    assert len(bench.gave) == sum(insn.push_next for insn in bench.insns)


def test_tokens_of_loads_are_given_with_their_last_write() -> None:
    insns = [replace(INPUT, sram_base=number, push_next=True) for number in range(4)]
    bench = UnitBench(DEFAULT, insns, latency=10)
    bench.run()
    writes = [cycle for cycle, _, _ in bench.written]
    assert bench.gave == bench.done == writes[1::2]


def test_nops_retire_in_order_one_in_each_cycle() -> None:
    nop = replace(NOP, pop_next=True, push_next=True)
    bench = UnitBench(DEFAULT, [nop, nop, INPUT, nop, nop, INPUT], latency=5)
    bench.run()
    first = bench.accepted[0]
    assert bench.accepted == list(range(first, first + 6))
    load = bench.written[1][0]
    assert bench.done == [first + 1, first + 2, load, load + 1, load + 2, load + 3]
    assert bench.gave == [first + 1, first + 2, load + 1, load + 2]


def test_instructions_in_flight_are_those_a_token_queue_has_room_for() -> None:
    bench = UnitBench(DEFAULT, [INPUT] + [NOP] * (MAX_IN_FLIGHT + 2), latency=60)
    bench.run()
    first = bench.accepted[0]
    assert bench.accepted[:MAX_IN_FLIGHT] == list(range(first, first + MAX_IN_FLIGHT))
    assert bench.accepted[MAX_IN_FLIGHT] == bench.done[0] + 1


def test_events() -> None:
    bench = UnitBench(DEFAULT, [replace(INPUT, push_next=True), replace(INPUT, pop_next=True)], latency=20, token=0.02)
    bench.run()
    busy = {cycle for begin, end in zip(bench.accepted, bench.done, strict=True) for cycle in range(begin + 1, end + 1)}
    assert set(bench.events["busy"]) == busy
    assert set(bench.events["stall_memory"]) == busy - {cycle for cycle, _, _ in bench.written}
    assert set(bench.events["stall_token"]) == set(bench.events["waiting"]) - busy
    assert bench.events["stall_token"]
