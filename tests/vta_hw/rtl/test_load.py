"""The load engine against a model, and its exact cycle counts."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.vta_hw.rtl.load_bench import (
    COMPUTE,
    CONFIGS,
    LOAD,
    OUTSIDE,
    Bench,
    Model,
    Pair,
    config_of,
    random_bases,
    random_loads,
)
from vta_hw.rtl.load import LOADS_IN_FLIGHT, LoadEngine
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.instructions import Load, MemoryType
from vta_hw.spec.registers import Status

DEFAULT = CONFIGS["default tile"]
"""64-bit bus; an input has 2 beats, a weight 32, and two micro-ops share one."""


WRAPPING = {
    "default tile": DEFAULT,
    "few elements, bus 512": config_of(batch=0, block_in=2, block_out=2, bus=9, depths=(2, 1, 2, 1), isa="extended"),
}
"""The second has words of more elements than there are in a scratchpad."""


def inp(**fields: Any) -> Load:
    """Return a LOAD of inputs."""
    return Load(memory_type=MemoryType.INP, **fields)


def test_scratchpads_are_those_that_are_loaded() -> None:
    with pytest.raises(ValueError, match=r"^scratchpad must be UOP, INP, WGT or ACC, not <MemoryType.OUT: 4>$"):
        LoadEngine(VTAConfig(), (MemoryType.INP, MemoryType.OUT))


@pytest.mark.parametrize("scratchpads", [LOAD, COMPUTE], ids=["load", "compute"])
@pytest.mark.parametrize("name", CONFIGS)
def test_loads_are_those_of_the_model(name: str, scratchpads: Pair) -> None:
    config = CONFIGS[name]
    rng = random.Random(f"{name} {len(scratchpads[0].name)} {scratchpads[0]}")
    insns = random_loads(config, scratchpads, rng, 18)
    bench = Bench(
        config,
        scratchpads,
        insns,
        seed=rng.getrandbits(32),
        bases=random_bases(config, scratchpads, rng),
        latency=rng.choice((1, 5, 20)),
        gap=rng.choice((0, 0, 0.5)),
        stall=rng.choice((0, 0.3)),
        idle=rng.choice((0, 0, 0.5)),
        halt=rng.choice((0, 0.1)),
    )
    bench.run()
    assert bench.faults == []


@pytest.mark.parametrize("scratchpads", [LOAD, COMPUTE], ids=["load", "compute"])
@pytest.mark.parametrize("config", WRAPPING.values(), ids=WRAPPING)
def test_indices_wrap_and_faults_name_their_instructions(config: VTAConfig, scratchpads: Pair) -> None:
    rng = random.Random(8)  # No pad and beat are at fault in the same cycle, where the older would be named.
    insns = random_loads(config, scratchpads, rng, 40, beyond=0.9)
    model = Model(config, dict.fromkeys(scratchpads, 0))
    read = [address for insn in insns for address in model.addresses(insn)]
    bench = Bench(config, scratchpads, insns, latency=4, gap=0.2, errors=rng.sample(read, 4))
    bench.run()
    found: dict[int, Status] = {}
    for _, status, index in bench.faults:
        found[index] = found.get(index, Status(0)) | status
    wanted = (Status.READ_ERROR, *(OUTSIDE[memory] for memory in scratchpads))
    assert all(any(status & fault for status in found.values()) for fault in wanted)
    assert found == bench.model.faults


def test_fault_of_a_pad_and_of_a_beat() -> None:
    depth = DEFAULT.inp_depth
    beyond = inp(sram_base=depth - 2, y_size=1, x_size=2, x_pad_1=1)
    wrong = inp(sram_base=0, dram_base=8, y_size=1, x_size=1)
    bench = Bench(DEFAULT, LOAD, [beyond, wrong], errors=[8 * 16 + 8])
    bench.run()
    (pad, *first), (beat, *second) = bench.faults
    assert first == [Status.INP_INDEX, 0]
    assert second == [Status.READ_ERROR, 1]
    assert (pad + 1, MemoryType.INP, (0,)) in bench.written
    assert beat == bench.memory.arrived[-1]


def test_row_of_16_kib() -> None:
    config = config_of(batch=0, block_in=4, block_out=4, bus=6, depths=(6, 10, 5, 6))
    bench = Bench(config, LOAD, [inp(dram_base=64, y_size=1, x_size=1024)], latency=32)
    bench.run()
    cycles = bench.done[0] - bench.accepted[0] + 1
    # Two cycles to the first burst, the latency, the beats, and one to write the last.
    assert cycles == 2 + 32 + 2048 + 1
    assert cycles <= 16384 / 8 / 0.95
    assert [burst[2] for burst in bench.memory.bursts] == [16] * 128


def test_aligned_rows_arrive_without_a_bubble() -> None:
    insns = [inp(dram_base=64 * number, y_size=4, x_size=8, x_stride=16, sram_base=16 * number) for number in range(2)]
    bench = Bench(DEFAULT, LOAD, insns, latency=10)
    bench.run()
    arrived = bench.memory.arrived
    assert arrived == list(range(arrived[0], arrived[0] + 2 * 4 * 8 * 2))
    assert [cycle for cycle, _, _ in bench.written] == [cycle + 1 for cycle in arrived]
    assert bench.done == [arrived[63] + 1, arrived[127] + 1]


@pytest.mark.parametrize("memory", [MemoryType.UOP, MemoryType.ACC_8BIT])
def test_short_rows_make_a_burst_in_each_cycle(memory: MemoryType) -> None:
    insns = [
        Load(memory_type=memory, dram_base=9 * n, y_size=6, x_size=1, x_stride=5, sram_base=8 * n) for n in range(3)
    ]
    bench = Bench(DEFAULT, COMPUTE, insns, latency=4)
    bench.run()
    cycles = [burst[0] for burst in bench.memory.bursts]
    assert cycles == list(range(bench.accepted[0] + 2, bench.accepted[0] + 2 + 18))


def test_instructions_in_flight() -> None:
    insns = [inp(dram_base=number, y_size=1, x_size=1, sram_base=number) for number in range(LOADS_IN_FLIGHT + 3)]
    bench = Bench(DEFAULT, LOAD, insns, latency=40)
    bench.run()
    limit = LOADS_IN_FLIGHT + 1
    assert bench.accepted[:limit] == list(range(limit))
    assert bench.accepted[limit:] == [done + 1 for done in bench.done[: len(insns) - limit]]


def test_long_latency_does_not_limit_bursts_in_flight() -> None:
    bench = Bench(DEFAULT, LOAD, [Load(memory_type=MemoryType.WGT, y_size=1, x_size=32)], latency=200)
    bench.run()
    assert sum(cycle < bench.memory.arrived[0] for cycle, _, _ in bench.memory.bursts) == 64


def test_pads_are_written_while_data_is_on_its_way() -> None:
    insn = inp(y_size=3, x_size=2, x_stride=2, y_pad_0=1, y_pad_1=1, x_pad_0=1, x_pad_1=1)
    bench = Bench(DEFAULT, LOAD, [insn], latency=40)
    bench.run()
    pads = [0, 1, 2, 3, 4, 7, 8, 11, 12, 15, 16, 17, 18, 19]
    begin = bench.accepted[0] + 3
    assert bench.written[: len(pads)] == [(begin + n, MemoryType.INP, (pad,)) for n, pad in enumerate(pads)]
    assert bench.memory.arrived[0] > begin + len(pads)
    assert bench.done == [bench.memory.arrived[-1] + 1]


def test_pads_take_the_cycles_without_a_beat() -> None:
    insn = inp(y_size=3, x_size=4, x_stride=4, y_pad_0=3, y_pad_1=3, x_pad_0=2, x_pad_1=2)
    bench = Bench(DEFAULT, LOAD, [insn], latency=1, gap=0.3, seed=3)
    bench.run()
    cycles = [cycle for cycle, _, _ in bench.written]
    assert cycles == list(range(cycles[0], cycles[0] + 24 + 60))
    assert bench.done == [cycles[-1]]


def test_rows_without_pads_between_them_are_walked_over_in_time() -> None:
    insn = inp(y_size=12, x_size=2, x_stride=2, y_pad_1=2)
    bench = Bench(DEFAULT, LOAD, [insn], latency=8)
    bench.run()
    assert bench.done == [bench.memory.arrived[-1] + 1 + 4]


def test_pads_alone() -> None:
    pads = inp(y_size=0, x_size=2, y_pad_0=1, y_pad_1=2, x_pad_1=1)
    nothing = inp(y_size=0, x_size=2, x_pad_0=1)
    weight = Load(memory_type=MemoryType.WGT, y_size=1, x_size=1)
    bench = Bench(DEFAULT, LOAD, [pads, weight, nothing, weight, nothing, nothing, pads], latency=1)
    bench.run()
    assert bench.written[:9] == [(bench.accepted[0] + 3 + n, MemoryType.INP, (n,)) for n in range(9)]


def test_later_writes_win() -> None:
    padded = inp(dram_base=5, y_size=2, x_size=3, x_stride=3, y_pad_0=2, y_pad_1=2, x_pad_0=1, x_pad_1=1)
    plain = inp(dram_base=40, y_size=1, x_size=30)
    bench = Bench(DEFAULT, LOAD, [padded, plain, padded, padded, plain], latency=2)
    bench.run()
    assert (bench.model.contents[MemoryType.INP][:30].any(axis=1)).all()


def test_another_scratchpad_does_not_wait_for_pads() -> None:
    weight = Load(memory_type=MemoryType.WGT, y_size=1, x_size=1)
    padded = inp(y_size=1, x_size=8, y_pad_0=3, x_pad_0=1)
    bench = Bench(DEFAULT, LOAD, [padded, weight, padded], latency=2)
    bench.run()
    assert bench.accepted[1] == bench.accepted[0] + 1
    last_pad = next(cycle for cycle, _, cells in bench.written if cells == (27,))
    assert bench.accepted[2] == last_pad + 1


def test_no_burst_begins_during_halt() -> None:
    bench = Bench(DEFAULT, LOAD, random_loads(DEFAULT, LOAD, random.Random(3), 12), halt=0.9, stall=0.3)
    bench.run()
    assert bench.shown
    assert not bench.halted & {cycle - 1 for cycle in bench.shown}
