"""A memory behind an AXI4 port, cycle by cycle: what it answers, when, and which rules of AXI the master must keep.

Nothing here knows a simulator: `AxiMemory.step` is told what the master showed in a cycle and says what the memory
shows in the next one, as a block whose outputs are registers. A read sees memory as it was when its address was
accepted, and a write takes effect when its response comes: as late as AXI allows, so that a master is found out which
does not wait for the response.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from vta_sim.memory import Memory
from vta_sim.timing import MemoryTiming

BOUNDARY_BYTES: Final = 4096
"""No burst may cross a multiple of it."""

INCR: Final = 1
OKAY: Final = 0
SLVERR: Final = 2
DECERR: Final = 3

Errors = Mapping[range, int]
"""Byte addresses that answer with SLVERR or DECERR: they read as zero and are not written."""


class AxiError(Exception):
    """The master broke a rule of AXI, or of the bursts this port takes; the message names rule and address."""


class Address(NamedTuple):
    """What a master shows on AR or AW, under AXI's names; `len` is the words of the burst minus one."""

    addr: int
    len: int
    size: int
    burst: int
    lock: int
    id: int


class WriteWord(NamedTuple):
    """What a master shows on W."""

    data: int
    strb: int
    last: int


class ReadWord(NamedTuple):
    """What the memory shows on R."""

    data: int
    resp: int
    last: int
    id: int


class Response(NamedTuple):
    """What the memory shows on B."""

    resp: int
    id: int


class Shown(NamedTuple):
    """The master's side in one cycle; None where a channel is not valid."""

    ar: Address | None = None
    aw: Address | None = None
    w: WriteWord | None = None
    r_ready: bool = False
    b_ready: bool = False


class Answer(NamedTuple):
    """The memory's side in one cycle; None where a channel is not valid."""

    ar_ready: bool = False
    aw_ready: bool = False
    w_ready: bool = False
    r: ReadWord | None = None
    b: Response | None = None


@dataclass(frozen=True, kw_only=True)
class _Port:
    """What both directions share."""

    memory: Memory
    bus_bytes: int
    max_beats: int
    timing: MemoryTiming
    errors: Mapping[range, int]
    random: random.Random

    def pauses(self) -> bool:
        return self.timing.stalls > 0 and self.random.random() < self.timing.stalls

    def response(self, address: int) -> int:
        """The response of the bus word at `address`."""
        word = range(address, address + self.bus_bytes)
        return max(
            (code for bad, code in self.errors.items() if bad.start < word.stop and word.start < bad.stop), default=OKAY
        )

    def check(self, channel: str, address: Address) -> None:
        """Raises AxiError unless the burst is one that this port takes."""
        nbytes = (address.len + 1) * self.bus_bytes
        where = f"at {address.addr:#x}"
        if address.burst != INCR:
            raise AxiError(f"{channel} burst {where} must be INCR ({INCR}), not of type {address.burst}")
        if 1 << address.size != self.bus_bytes:
            raise AxiError(
                f"{channel} burst {where} must have words of {self.bus_bytes} bytes, not {1 << address.size}"
            )
        if address.lock:
            raise AxiError(f"{channel} burst {where} must be a normal access, not an exclusive one")
        if address.addr % self.bus_bytes:
            raise AxiError(f"{channel} burst must begin at a multiple of {self.bus_bytes} bytes, not {where}")
        if address.len >= self.max_beats:
            raise AxiError(f"{channel} burst {where} must have at most {self.max_beats} words, not {address.len + 1}")
        if address.addr % BOUNDARY_BYTES + nbytes > BOUNDARY_BYTES:
            raise AxiError(f"{channel} burst {where} must not cross {BOUNDARY_BYTES} bytes, not have {nbytes} bytes")


def _check_kept(channel: str, held: object, shown: object) -> None:
    if held is not None and held != shown:
        raise AxiError(f"{channel} must be kept until it is taken, not change from {held} to {shown}")


@dataclass
class _ReadBurst:
    """The cycle after which the next word may be shown, and the words that are left, in reverse."""

    due: int
    words: list[ReadWord]


class _Bus:
    """From which cycle on each direction may move a word of data."""

    def __init__(self, timing: MemoryTiming, bus_bytes: int) -> None:
        self._read_gap, self._write_gap = timing.gaps(bus_bytes)
        self._shared = timing.shared_bus
        self.read_free = self.write_free = 0
        self._read_was_last = False

    def grants_read(self, *, wanted: bool, write_waits: bool) -> bool:
        """Whether a read word that `wanted` to move may do so, in spite of one that waits to be written."""
        return wanted and not (self._shared and write_waits and self._read_was_last)

    def grants_write(self, *, reads: bool) -> bool:
        """Whether a word to be written may be taken, if a read word moves or not."""
        return not (self._shared and reads)

    def move_read(self, cycle: int) -> None:
        """A read word is first shown in a cycle."""
        self.read_free = cycle + 1 + self._read_gap
        self._read_was_last = True
        if self._shared:
            self.write_free = self.read_free

    def move_write(self, cycle: int) -> None:
        """A word to be written is taken in a cycle."""
        self.write_free = cycle + 1 + self._write_gap
        self._read_was_last = False
        if self._shared:
            self.read_free = self.write_free


class _Reads:
    """The channels AR and R."""

    def __init__(self, port: _Port, bus: _Bus) -> None:
        self._port = port
        self._bus = bus
        self._bursts: list[_ReadBurst] = []
        self._held: Address | None = None
        self._ready = False
        self._word: ReadWord | None = None
        self.unfinished = 0

    def accept(self, cycle: int, ar: Address | None, r_ready: bool) -> None:
        """What the master did in a cycle."""
        _check_kept("AR", self._held, ar)
        self._held = None if self._ready else ar
        if self._word is not None and r_ready:
            self.unfinished -= self._word.last
            self._word = None
        if ar is not None and self._ready:
            self._accept_address(cycle, ar)

    def ready(self) -> bool:
        """Whether AR is ready in the next cycle; to be asked once."""
        self._ready = self.unfinished < self._port.timing.outstanding and not self._port.pauses()
        return self._ready

    def choose(self, cycle: int) -> _ReadBurst | None:
        """The burst whose next word could be shown in the next cycle, if there is one."""
        if self._word is not None or not self._bursts or self._port.pauses() or self._bus.read_free > cycle + 1:
            return None
        return self._next(cycle)

    def show(self, cycle: int, burst: _ReadBurst | None) -> ReadWord | None:
        """What R shows in the next cycle: the word that the master has not taken yet, or the next one of `burst`."""
        if burst is not None:
            self._word = burst.words.pop()
            self._bus.move_read(cycle + 1)
            if self._word.last:
                self._bursts.remove(burst)
        return self._word

    def _accept_address(self, cycle: int, address: Address) -> None:
        port = self._port
        port.check("AR", address)
        beats, size = address.len + 1, port.bus_bytes
        data = port.memory.read(address.addr, beats * size).tobytes()
        words = []
        for beat in reversed(range(beats)):
            response = port.response(address.addr + beat * size) if port.errors else OKAY
            value = 0 if response else int.from_bytes(data[beat * size : (beat + 1) * size], "little")
            words.append(ReadWord(value, response, int(beat == address.len), address.id))
        self._bursts.append(_ReadBurst(cycle + port.timing.latency, words))
        self.unfinished += 1

    def _next(self, cycle: int) -> _ReadBurst | None:
        """The first burst, or the first of any ID, if it is due."""
        chosen = self._bursts[0]
        if self._port.timing.interleave:
            first = {burst.words[-1].id: burst for burst in reversed(self._bursts)}
            chosen = self._port.random.choice([burst for burst in first.values() if burst.due <= cycle] or [chosen])
        return chosen if chosen.due <= cycle else None


@dataclass
class _WriteBurst:
    """What is known of a write burst: address, words, and the cycle after which the response may be shown.

    placed: how many of the words have met their address. A memory that pauses may want the address before it takes
    words, or a word before it takes the address.
    """

    address_first: bool
    word_first: bool
    address: Address | None = None
    words: list[WriteWord] = field(default_factory=list)
    placed: int = 0
    due: int = -1


class _Writes:
    """The channels AW, W and B."""

    def __init__(self, port: _Port, bus: _Bus) -> None:
        self._port = port
        self._bus = bus
        # In order: the address is known of the first `_addressed`, all words of the first `_filled`; those of the first
        # `_placed` have met their address.
        self._bursts: deque[_WriteBurst] = deque()
        self._addressed = self._filled = self._placed = 0
        self._held: tuple[Address | None, WriteWord | None] = (None, None)
        self._ready = (False, False)
        self._response: Response | None = None

    @property
    def idle(self) -> bool:
        return not (self._addressed or self._filled or self._burst(0).words)

    @property
    def word_waits(self) -> bool:
        """Whether the master offers a word that was not taken."""
        return self._held[1] is not None

    def accept(self, cycle: int, aw: Address | None, w: WriteWord | None, b_ready: bool) -> None:
        """What the master did in a cycle."""
        _check_kept("AW", self._held[0], aw)
        _check_kept("W", self._held[1], w)
        aw_ready, w_ready = self._ready
        self._held = (None if aw_ready else aw, None if w_ready else w)
        if self._response is not None and b_ready:
            self._bursts.popleft()
            self._addressed -= 1
            self._filled -= 1
            self._placed -= 1
            self._response = None
        if aw is not None and aw_ready:
            self._accept_address(aw)
        if w is not None and w_ready:
            self._bus.move_write(cycle)
            self._accept_word(w)
        self._place_word(cycle)

    def able(self, cycle: int) -> tuple[bool, bool]:
        """Whether AW can be ready in the next cycle, and W but for the bus; to be asked once."""
        aw_ready = self._takes_address() and not self._port.pauses()
        return aw_ready, self._takes_word() and not self._port.pauses() and self._bus.write_free <= cycle + 1

    def ready(self, aw_ready: bool, w_ready: bool) -> None:
        """Note what is ready in the next cycle."""
        self._ready = aw_ready, w_ready

    def respond(self, cycle: int) -> Response | None:
        """What B shows in the next cycle; to be asked once."""
        if self._response is None and self._answers(cycle) and not self._port.pauses():
            self._response = self._commit(self._bursts[0])
        return self._response

    def _burst(self, number: int) -> _WriteBurst:
        while len(self._bursts) <= number:
            first = self._port.random.randrange(3) if self._port.timing.stalls else 0
            self._bursts.append(_WriteBurst(address_first=first == 1, word_first=first == 2))
        return self._bursts[number]

    def _takes_address(self) -> bool:
        burst = self._burst(self._addressed)
        return self._addressed < self._port.timing.outstanding and bool(burst.words or not burst.word_first)

    def _takes_word(self) -> bool:
        burst = self._burst(self._filled)
        return self._filled < self._port.timing.outstanding and bool(burst.address or not burst.address_first)

    def _accept_address(self, address: Address) -> None:
        self._port.check("AW", address)
        burst = self._burst(self._addressed)
        burst.address = address
        self._addressed += 1
        _check_words(burst)

    def _accept_word(self, word: WriteWord) -> None:
        burst = self._burst(self._filled)
        burst.words.append(word)
        self._filled += word.last
        _check_words(burst)

    def _place_word(self, cycle: int) -> None:
        """Let the oldest word that has not met its address meet it: one in a cycle."""
        burst = self._burst(self._placed)
        if burst.address is not None and burst.placed < len(burst.words):
            burst.placed += 1
            if burst.words[burst.placed - 1].last:
                burst.due = cycle + self._port.timing.latency
                self._placed += 1

    def _answers(self, cycle: int) -> bool:
        return 0 <= self._burst(0).due <= cycle

    def _commit(self, burst: _WriteBurst) -> Response:
        """Write the words to memory; the worst of their responses is the burst's."""
        assert burst.address is not None
        port, worst = self._port, OKAY
        for number, word in enumerate(burst.words):
            address = burst.address.addr + number * port.bus_bytes
            response = port.response(address) if port.errors else OKAY
            worst = max(worst, response)
            if response == OKAY:
                data = word.data.to_bytes(port.bus_bytes, "little")
                for begin, end in _runs(word.strb, port.bus_bytes):
                    port.memory.write(address + begin, data[begin:end])
        return Response(worst, burst.address.id)


def _check_words(burst: _WriteBurst) -> None:
    """Raises AxiError if the words cannot be those of the address."""
    if burst.address is None or not burst.words:
        return
    beats = burst.address.len + 1
    last = bool(burst.words[-1].last)
    if len(burst.words) > beats or last != (len(burst.words) == beats):
        raise AxiError(
            f"WLAST must be in word {beats} of the burst at {burst.address.addr:#x}, "
            f"not {'' if last else 'missing '}in word {len(burst.words)}"
        )


def _runs(strobes: int, count: int) -> Iterator[tuple[int, int]]:
    """(first, behind the last) of each run of ones in the low `count` bits."""
    if strobes == (1 << count) - 1:
        yield 0, count
        return
    edges = strobes ^ (strobes << 1)
    places = [place for place in range(count + 1) if edges >> place & 1]
    yield from zip(places[::2], places[1::2], strict=True)


class AxiMemory:
    """`memory` behind an AXI4 port of `bus_bytes` bytes; see `MemoryTiming` for when it answers.

    It takes INCR bursts of up to `max_beats` full bus words. errors: addresses that answer with an error. While
    `resting`, a cycle in which the master shows nothing changes nothing, and its step may be left out. Raises
    ValueError for a timing that is wider than the bus.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        bus_bytes: int,
        max_beats: int,
        timing: MemoryTiming,
        errors: Errors | None = None,
    ) -> None:
        port = _Port(
            memory=memory,
            bus_bytes=bus_bytes,
            max_beats=max_beats,
            timing=timing,
            errors=errors or {},
            random=random.Random(timing.seed),
        )
        self._cycle = 0
        self._bus = _Bus(timing, bus_bytes)
        self._reads, self._writes = _Reads(port, self._bus), _Writes(port, self._bus)
        self._steady = timing.stalls == 0
        self.resting = False

    @property
    def idle(self) -> bool:
        """Whether every burst was answered to its end."""
        return not self._reads.unfinished and self._writes.idle

    def step(self, shown: Shown) -> Answer:
        """What the memory shows in the next cycle, after a cycle in which the master showed `shown`.

        Raises AxiError.
        """
        self._cycle += 1
        cycle, bus, reads, writes = self._cycle, self._bus, self._reads, self._writes
        reads.accept(cycle, shown.ar, shown.r_ready)
        writes.accept(cycle, shown.aw, shown.w, shown.b_ready)
        ar_ready, burst = reads.ready(), reads.choose(cycle)
        aw_ready, w_able = writes.able(cycle)
        if not bus.grants_read(wanted=burst is not None, write_waits=w_able and writes.word_waits):
            burst = None
        w_ready = w_able and bus.grants_write(reads=burst is not None)
        writes.ready(aw_ready, w_ready)
        r, b = reads.show(cycle, burst), writes.respond(cycle)
        quiet = self._steady and self.idle and bus.read_free <= cycle + 1
        self.resting = quiet and ar_ready and aw_ready and w_ready
        return Answer(ar_ready, aw_ready, w_ready, r, b)
