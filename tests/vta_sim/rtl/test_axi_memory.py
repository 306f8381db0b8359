"""The memory model cycle by cycle: what it answers, when, in which order, and what it refuses."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import numpy as np
import pytest

from tests.vta_sim.rtl.master import BUS_BYTES, Master, address, write_words
from vta_sim.memory import Memory
from vta_sim.rtl.axi_memory import DECERR, OKAY, SLVERR, AxiError, AxiMemory, Errors, Response, Shown, WriteWord
from vta_sim.timing import MemoryTiming

BASE = 0x1000


def filled(nbytes: int = 0x2000) -> tuple[Memory, bytes]:
    """Random bytes from `BASE` on."""
    data = np.random.default_rng(1).integers(0, 256, nbytes, dtype=np.uint8)
    memory = Memory()
    memory.write(BASE, data)
    return memory, data.tobytes()


def port(memory: Memory, *, errors: Errors | None = None, **timing: Any) -> AxiMemory:
    settings = dataclasses.replace(MemoryTiming(), **timing)
    return AxiMemory(memory, bus_bytes=BUS_BYTES, max_beats=16, timing=settings, errors=errors)


def bytes_of(master: Master, ident: int = 0) -> bytes:
    """What was read under an ID, in the order in which it came."""
    return b"".join(word.data.to_bytes(BUS_BYTES, "little") for _, word in master.read if word.id == ident)


@pytest.mark.parametrize("latency", [0, 1, 7])
def test_a_read_takes_its_latency_and_then_a_cycle_for_each_word(latency: int) -> None:
    memory, data = filled()
    master = Master(port(memory, latency=latency))
    master.ar.append(address(BASE + 0x40, 4, ident=2))
    master.run()
    ((taken, _),) = master.taken
    assert [cycle for cycle, _ in master.read] == [taken + 1 + latency + beat for beat in range(4)]
    assert bytes_of(master, 2) == data[0x40:0x60]
    assert [word.last for _, word in master.read] == [0, 0, 0, 1]


@pytest.mark.parametrize("latency", [0, 1, 7])
def test_a_write_is_answered_its_latency_after_the_last_word(latency: int) -> None:
    memory = Memory()
    master = Master(port(memory, latency=latency))
    master.aw.append(address(BASE, 3, ident=1))
    master.w += write_words(bytes(range(24)))
    master.run()
    last = max(cycle for cycle, channel in master.taken if channel == "w")
    assert master.written == [(last + 1 + latency, Response(OKAY, 1))]
    assert memory.read(BASE, 24).tobytes() == bytes(range(24))


def test_bursts_are_pipelined() -> None:
    """Six bursts of two words: after the latency of the first, a word in each cycle."""
    memory, data = filled()
    master = Master(port(memory, latency=9))
    master.ar += [address(BASE + 16 * k, 2) for k in range(6)]
    master.run()
    cycles = [cycle for cycle, _ in master.read]
    assert cycles == list(range(cycles[0], cycles[0] + 12))
    assert bytes_of(master) == data[:96]


@pytest.mark.parametrize(("outstanding", "latency"), [(1, 0), (1, 5), (2, 5), (3, 0)])
def test_no_more_bursts_are_accepted_than_may_be_outstanding(outstanding: int, latency: int) -> None:
    memory, data = filled()
    master = Master(port(memory, latency=latency, outstanding=outstanding))
    master.ar += [address(BASE + 16 * k, 2) for k in range(6)]
    master.aw += [address(BASE + 0x1000 + 16 * k, 2) for k in range(6)]
    master.w += [word for k in range(6) for word in write_words(bytes(16))]
    most = 0
    while master.ar or master.aw or master.w or not master.port.idle:
        master.step()
        begun = [sum(channel == name for _, channel in master.taken) for name in ("ar", "aw")]
        done = [sum(word.last for _, word in master.read), len(master.written)]
        most = max([most, *(b - d for b, d in zip(begun, done, strict=True))])
    assert most == outstanding
    assert bytes_of(master) == data[:96]


def test_a_read_sees_memory_as_it_was_when_its_address_was_accepted() -> None:
    memory = Memory()
    master = Master(port(memory, latency=20))
    master.ar.append(address(BASE, 1))
    while not master.taken:
        master.step()
    memory.write(BASE, bytes([7]))
    master.run()
    assert bytes_of(master) == bytes(8)


def test_a_write_takes_effect_when_its_response_comes() -> None:
    memory = Memory()
    master = Master(port(memory, latency=5))
    master.aw.append(address(BASE, 1))
    master.w += write_words(b"abcdefgh")
    while not master.answer.b:
        assert not memory.read(BASE, 8).any()
        master.step()
    assert memory.read(BASE, 8).tobytes() == b"abcdefgh"


@pytest.mark.parametrize("strobes", [0x00, 0x01, 0x80, 0x3C, 0xA5, 0xFF])
def test_only_bytes_with_a_strobe_are_written(strobes: int) -> None:
    memory = Memory()
    memory.write(BASE, b"........")
    master = Master(port(memory))
    master.aw.append(address(BASE, 1))
    master.w += write_words(b"abcdefgh", strobes)
    master.run()
    expected = bytes(b"abcdefgh"[k] if strobes >> k & 1 else ord(".") for k in range(8))
    assert memory.read(BASE, 8).tobytes() == expected


def test_words_may_be_ahead_of_their_addresses_and_behind() -> None:
    memory = Memory()
    master = Master(port(memory))
    master.w += write_words(b"a" * 16) + write_words(b"b" * 8)
    for _ in range(6):
        master.step()
    assert len(master.taken) == 3
    master.aw += [address(BASE, 2), address(BASE + 16, 1), address(BASE + 24, 1)]
    for _ in range(6):
        master.step()
    assert len(master.written) == 2
    master.w += write_words(b"c" * 8)
    master.run()
    assert memory.read(BASE, 32).tobytes() == b"a" * 16 + b"b" * 8 + b"c" * 8


@pytest.mark.parametrize("latency", [0, 6])
def test_words_that_wait_for_their_address_meet_it_one_in_a_cycle(latency: int) -> None:
    memory = Memory()
    master = Master(port(memory, latency=latency))
    master.w += write_words(bytes(range(32))) + write_words(bytes(8))
    for _ in range(8):
        master.step()
    master.aw += [address(BASE, 4), address(BASE + 32, 1)]
    master.run()
    addressed = [cycle for cycle, channel in master.taken if channel == "aw"]
    assert addressed[1] == addressed[0] + 1
    # The word of the second burst is the fifth.
    assert [cycle for cycle, _ in master.written] == [addressed[0] + beat + 1 + latency for beat in (3, 4)]
    assert memory.read(BASE, 32).tobytes() == bytes(range(32))


def cycles_of(master: Master, channel: str) -> list[int]:
    """When words of data moved: those of R were shown, those of W taken."""
    if channel == "r":
        return [cycle for cycle, _ in master.read]
    return [cycle for cycle, name in master.taken if name == channel]


@pytest.mark.parametrize(("nbytes", "every"), [(None, 1), (8, 1), (4, 2), (1, 8)])
@pytest.mark.parametrize("shared", [False, True])
def test_a_narrow_memory_moves_a_word_every_so_many_cycles(nbytes: int | None, every: int, shared: bool) -> None:
    reader = Master(port(Memory(), latency=3, read_bytes=nbytes, shared_bus=shared))
    reader.ar += [address(BASE, 4), address(BASE + 32, 2)]
    reader.run()
    first = cycles_of(reader, "ar")[0] + 4
    assert cycles_of(reader, "r") == [first + every * word for word in range(6)]

    writer = Master(port(Memory(), write_bytes=nbytes, shared_bus=shared))
    writer.aw += [address(BASE, 4), address(BASE + 32, 2)]
    writer.w += write_words(bytes(32)) + write_words(bytes(16))
    writer.run()
    assert cycles_of(writer, "w") == [1 + every * word for word in range(6)]


@pytest.mark.parametrize(("read_bytes", "write_bytes", "turn"), [(None, None, 2), (4, None, 3), (2, 4, 6)])
def test_on_a_shared_bus_directions_take_turns(read_bytes: int | None, write_bytes: int | None, turn: int) -> None:
    """A turn: a word of each direction, with the cycles that each occupies the bus."""
    timing = {"read_bytes": read_bytes, "write_bytes": write_bytes, "shared_bus": True, "outstanding": 2}
    master = Master(port(Memory(), **timing))
    master.ar += [address(BASE + 128 * burst, 16) for burst in range(4)]
    master.aw += [address(BASE + 0x1000 + 128 * burst, 16) for burst in range(4)]
    master.w += [word for _ in range(4) for word in write_words(bytes(128))]
    master.run()
    read, written = cycles_of(master, "r"), cycles_of(master, "w")
    assert not set(read) & set(written)
    # Reads and writes go on together but for the first words of each.
    together = [cycle for cycle in read if written[4] <= cycle <= written[-4]]
    assert len(together) > 40
    assert set(np.diff(together).tolist()) == {turn}
    assert set(np.diff(written[2:-2]).tolist()) == {turn}


def test_directions_with_a_bus_of_their_own_do_not_wait_for_each_other() -> None:
    master = Master(port(Memory(), outstanding=2))
    master.ar.append(address(BASE, 16))
    master.aw.append(address(BASE + 0x1000, 16))
    master.w += write_words(bytes(128))
    master.run()
    for channel in ("r", "w"):
        assert set(np.diff(cycles_of(master, channel)).tolist()) == {1}


@pytest.mark.parametrize("timing", [{"read_bytes": 16}, {"write_bytes": 16}])
def test_memory_that_is_wider_than_the_bus(timing: dict[str, int]) -> None:
    with pytest.raises(ValueError) as caught:
        port(Memory(), **timing)
    name = next(iter(timing)).removesuffix("_bytes")
    assert str(caught.value) == f"Bytes to {name} per cycle must be at most the 8 of the bus, not 16"


def test_errors_are_answered_and_leave_memory_alone() -> None:
    memory, data = filled()
    errors = {range(BASE + 8, BASE + 9): SLVERR, range(BASE + 0x100, BASE + 0x110): DECERR}
    master = Master(port(memory, errors=errors))
    master.ar += [address(BASE, 3), address(BASE + 0xF8, 2)]
    master.run()
    assert [word.resp for _, word in master.read] == [OKAY, SLVERR, OKAY, OKAY, DECERR]
    assert bytes_of(master) == data[:8] + bytes(8) + data[16:24] + data[0xF8:0x100] + bytes(8)
    master.aw += [address(BASE, 2, ident=3), address(BASE + 0x20, 1)]
    master.w += write_words(b"x" * 16) + write_words(b"y" * 8)
    master.run()
    assert [answer for _, answer in master.written] == [Response(SLVERR, 3), Response(OKAY, 0)]
    assert memory.read(BASE, 16).tobytes() == b"x" * 8 + data[8:16]


def storm(seed: int, **timing: Any) -> tuple[Master, Memory]:
    """A hundred bursts each way, on three IDs for reading, with pauses on both sides; checks all data."""
    rng = random.Random(seed)
    memory, data = filled()
    master = Master(port(memory, seed=seed, **timing), pause=0.3, seed=seed)
    reads: dict[int, bytes] = {0: b"", 1: b"", 2: b""}
    written = bytearray(0x1000)
    for _ in range(100):
        beats, ident = rng.randint(1, 16), rng.randrange(3)
        begin = 8 * rng.randrange(0x1000 // 8 - beats)
        master.ar.append(address(BASE + begin, beats, ident))
        reads[ident] += data[begin : begin + 8 * beats]
        beats, strobes = rng.randint(1, 16), rng.choice([0xFF, 0xFF, rng.getrandbits(8)])
        begin, new = 8 * rng.randrange(0x1000 // 8 - beats), rng.randbytes(8 * beats)
        master.aw.append(address(0x10_0000 + begin, beats, ident))
        master.w += write_words(new, strobes)
        for k, byte in enumerate(new):
            if strobes >> k % 8 & 1:
                written[begin + k] = byte
    master.run(30_000)
    assert {ident: bytes_of(master, ident) for ident in reads} == reads
    assert memory.read(0x10_0000, 0x1000).tobytes() == bytes(written)
    assert len(master.written) == 100
    return master, memory


def mixes(master: Master) -> int:
    """How often a burst was interrupted by a word of another."""
    return sum(
        not before.last and before.id != after.id
        for (_, before), (_, after) in zip(master.read, master.read[1:], strict=False)
    )


@pytest.mark.parametrize("latency", [0, 3, 40])
@pytest.mark.parametrize("stalls", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("interleave", [False, True])
def test_many_bursts(latency: int, stalls: float, interleave: bool) -> None:
    master, _ = storm(5, latency=latency, stalls=stalls, interleave=interleave, outstanding=8)
    assert (mixes(master) > 50) == interleave


def test_the_same_seed_gives_the_same_cycles() -> None:
    first, again, other = (storm(seed, stalls=0.4, interleave=True)[0] for seed in (1, 1, 2))
    assert first.read == again.read
    assert first.written == again.written
    assert first.read != other.read


def test_a_pausing_memory_sometimes_wants_words_first_and_sometimes_addresses() -> None:
    """A master that offers one of the two alone is let through by some bursts and kept waiting by others."""
    waits = {"aw": 0, "w": 0}
    for seed in range(30):
        for channel in waits:
            master = Master(port(Memory(), stalls=0.1, seed=seed))
            if channel == "aw":
                master.aw.append(address(BASE, 1))
            else:
                master.w += write_words(bytes(8))
            for _ in range(60):
                master.step()
            waits[channel] += not master.taken
            if channel == "aw":
                master.w += write_words(bytes(8))
            else:
                master.aw.append(address(BASE, 1))
            master.run()
    assert 3 <= waits["aw"] <= 20
    assert 3 <= waits["w"] <= 20


def rests_after(memory: AxiMemory, *cycles: Shown) -> list[bool]:
    """Whether the memory is at rest after each of some cycles."""
    rests = []
    for shown in cycles:
        memory.step(shown)
        rests.append(memory.resting)
    return rests


def test_at_rest_only_when_a_cycle_would_change_nothing() -> None:
    steady = port(Memory(), latency=2)
    assert not steady.resting
    read, ready = Shown(ar=address(BASE, 1)), Shown(r_ready=True)
    assert rests_after(steady, Shown()) == [True]
    assert rests_after(steady, read, Shown(), Shown(), Shown(), ready) == [False, False, False, False, True]
    narrow = port(Memory(), read_bytes=2)
    assert rests_after(narrow, Shown(), read, *[ready] * 4) == [True, False, False, False, False, True]
    pausing = port(Memory(), stalls=0.5)
    assert not any(rests_after(pausing, *[Shown()] * 20))


@pytest.mark.parametrize("channel", ["ar", "aw"])
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"burst": 0}, "burst at 0x1000 must be INCR (1), not of type 0"),
        ({"size": 2}, "burst at 0x1000 must have words of 8 bytes, not 4"),
        ({"lock": 1}, "burst at 0x1000 must be a normal access, not an exclusive one"),
        ({"addr": 0x1004}, "burst must begin at a multiple of 8 bytes, not at 0x1004"),
        ({"len": 16}, "burst at 0x1000 must have at most 16 words, not 17"),
        ({"addr": 0x1FF8, "len": 1}, "burst at 0x1ff8 must not cross 4096 bytes, not have 16 bytes"),
    ],
)
def test_bursts_that_may_not_be(channel: str, change: dict[str, int], sentence: str) -> None:
    memory = port(Memory())
    memory.step(Shown())
    offer: dict[str, Any] = {channel: address(BASE, 1)._replace(**change)}
    with pytest.raises(AxiError) as caught:
        memory.step(Shown(**offer))
    assert str(caught.value) == f"{channel.upper()} {sentence}"


def test_a_burst_up_to_the_boundary_is_fine() -> None:
    master = Master(port(Memory()))
    master.ar.append(address(0x1F80, 16))
    master.run()
    assert len(master.read) == 16


@pytest.mark.parametrize(
    ("lasts", "beats", "sentence"),
    [
        ([0, 1], 3, "WLAST must be in word 3 of the burst at 0x1000, not in word 2"),
        ([0, 0], 2, "WLAST must be in word 2 of the burst at 0x1000, not missing in word 2"),
    ],
)
@pytest.mark.parametrize("address_first", [True, False])
def test_words_that_do_not_fit_their_address(lasts: list[int], beats: int, sentence: str, address_first: bool) -> None:
    master = Master(port(Memory()))

    def offer() -> None:
        for offers_address in (address_first, not address_first):
            if offers_address:
                master.aw.append(address(BASE, beats))
            else:
                master.w += [WriteWord(0, 0xFF, last) for last in lasts]
            for _ in range(5):
                master.step()

    with pytest.raises(AxiError) as caught:
        offer()
    assert str(caught.value) == sentence


@pytest.mark.parametrize("channel", ["ar", "aw", "w"])
def test_an_offer_must_be_kept(channel: str) -> None:
    """No channel is ready in the first cycle."""
    offer = WriteWord(1, 2, 0) if channel == "w" else address(BASE, 1)
    memory = port(Memory())
    shown: dict[str, Any] = {channel: offer}
    memory.step(Shown(**shown))
    with pytest.raises(AxiError) as caught:
        memory.step(Shown())
    assert str(caught.value) == f"{channel.upper()} must be kept until it is taken, not change from {offer} to None"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"latency": -1}, "Memory latency must be 0 to 1048576 cycles, not -1"),
        ({"latency": 1048577}, "Memory latency must be 0 to 1048576 cycles, not 1048577"),
        ({"outstanding": 0}, "Outstanding bursts must be 1 to 1024, not 0"),
        ({"outstanding": 1025}, "Outstanding bursts must be 1 to 1024, not 1025"),
        ({"stalls": 1.0}, "Probability of stalls must be 0 to below 1, not 1.0"),
        ({"stalls": -0.1}, "Probability of stalls must be 0 to below 1, not -0.1"),
        ({"read_bytes": 0}, "Bytes to read per cycle must be a power of two, not 0"),
        ({"read_bytes": 6}, "Bytes to read per cycle must be a power of two, not 6"),
        ({"write_bytes": -1}, "Bytes to write per cycle must be a power of two, not -1"),
        ({"write_bytes": 3}, "Bytes to write per cycle must be a power of two, not 3"),
    ],
)
def test_timings_that_cannot_be(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        dataclasses.replace(MemoryTiming(), **values)
    assert str(caught.value) == sentence
