"""DRAM as the checker sees it: what is known of its contents, and where loads and stores of a launch meet."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint64]


class Dram:
    """What is known of memory before the first launch.

    images: (address, contents), none over another. rest_is_zero: whether all other bytes are known to be zero, or else
    unknown.
    """

    def __init__(self, images: Iterable[tuple[int, bytes]], *, rest_is_zero: bool) -> None:
        filled = sorted((address, data) for address, data in images if data)
        self._begins = [address for address, _ in filled]
        self._images = [np.frombuffer(data, np.uint8) for _, data in filled]
        self._rest_is_zero = rest_is_zero
        self._changed: list[tuple[Bytes, Bytes]] = []

    def change(self, transfers: Sequence[Rows]) -> None:
        """The bytes of these STOREs are not known any more: they are written sooner or later."""
        self._changed.append(_covered(transfers))

    def read(self, address: int, nbytes: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Bytes from `address` on, and which of them are known; uint8 and bool [nbytes]."""
        data = np.zeros(nbytes, np.uint8)
        known = np.full(nbytes, self._rest_is_zero)
        for number in range(max(bisect_right(self._begins, address) - 1, 0), len(self._begins)):
            begin, image = self._begins[number], self._images[number]
            if begin >= address + nbytes:
                break
            low, high = max(begin, address), min(begin + len(image), address + nbytes)
            if low < high:
                data[low - address : high - address] = image[low - begin : high - begin]
                known[low - address : high - address] = True
        for begins, ends in self._changed:
            first = int(np.searchsorted(ends, np.uint64(address), side="right"))
            last = int(np.searchsorted(begins, np.uint64(address + nbytes), side="left"))
            for begin, end in zip(begins[first:last].tolist(), ends[first:last].tolist(), strict=True):
                known[max(begin - address, 0) : end - address] = False
        return data, known


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """The bytes of DRAM that a LOAD or STORE moves: `count` rows of `nbytes`, `pitch` from one to the next."""

    address: int
    count: int
    nbytes: int
    pitch: int

    @property
    def end(self) -> int:
        """The byte behind the last."""
        return self.address + (self.count - 1) * self.pitch + self.nbytes

    def spans(self) -> tuple[Bytes, Bytes]:
        """First bytes, and bytes behind the last, uint64 [n]: rows that follow each other without a gap are one."""
        if self.pitch <= self.nbytes:
            return np.array([self.address], np.uint64), np.array([self.end], np.uint64)
        begins = np.uint64(self.address) + np.arange(self.count, dtype=np.uint64) * np.uint64(self.pitch)
        return begins, begins + np.uint64(self.nbytes)


class Cells:
    """The bytes that some transfers read and others write, cut where any of these transfers begins or ends.

    The bytes between two neighbouring cuts, a cell, are used together or not at all. Cell `k` begins at byte `cuts[k]`.
    reads, writes: the transfers of a launch.
    """

    def __init__(self, reads: Sequence[Rows], writes: Sequence[Rows]) -> None:
        transfers = [*reads, *writes]
        self._numbers = {rows: number for number, rows in enumerate(transfers)}
        both = _meet(_covered(reads), _covered(writes))
        begins, ends, owners = _clipped(transfers, *both)
        self.cuts: Bytes = np.unique(np.concatenate([begins, ends]))
        self._first, self._last = np.searchsorted(self.cuts, begins), np.searchsorted(self.cuts, ends)
        self._spans = np.searchsorted(owners, np.arange(len(transfers) + 1)).tolist()

    def of(self, rows: Rows) -> NDArray[np.int64]:
        """The cells that one of the transfers uses; what only readers or only writers use does not count."""
        number = self._numbers[rows]
        spans = slice(self._spans[number], self._spans[number + 1])
        first, lengths = self._first[spans], self._last[spans] - self._first[spans]
        if len(first) == 1:
            return np.arange(first[0], first[0] + lengths[0])
        # All of first..first + length - 1, range after range.
        starts = np.repeat(first - (np.cumsum(lengths) - lengths), lengths)
        return starts + np.arange(len(starts))


def _clipped(transfers: Sequence[Rows], low: Bytes, high: Bytes) -> tuple[Bytes, Bytes, NDArray[np.int64]]:
    """Spans of all transfers one after the other, as far as they lie from `low[k]` to `high[k]` - 1 for some k.

    With each comes the number of its transfer. A span that lies in several of these is kept from the first to the last.
    """
    begins, ends, owners = _spans(transfers)
    first = np.searchsorted(high, begins, side="right")
    last = np.searchsorted(low, ends, side="left")
    inside = first < last
    begins = np.maximum(begins[inside], low[first[inside]])
    ends = np.minimum(ends[inside], high[last[inside] - 1])
    return begins, ends, owners[inside]


def _spans(transfers: Sequence[Rows]) -> tuple[Bytes, Bytes, NDArray[np.int64]]:
    """Spans of all transfers one after the other, with the number of the transfer of each."""
    nothing = np.zeros(0, np.uint64)
    spans = [rows.spans() for rows in transfers]
    begins = np.concatenate([nothing, *(begins for begins, _ in spans)])
    ends = np.concatenate([nothing, *(ends for _, ends in spans)])
    return begins, ends, np.repeat(np.arange(len(spans)), [len(begins) for begins, _ in spans])


def _covered(transfers: Sequence[Rows]) -> tuple[Bytes, Bytes]:
    """What transfers use together, as ascending spans with gaps between them."""
    begins, ends, _ = _spans(transfers)
    if not len(begins):
        return begins, ends
    order = np.argsort(begins)
    begins, reached = begins[order], np.maximum.accumulate(ends[order])
    heads = np.concatenate([[True], begins[1:] > reached[:-1]])
    return begins[heads], reached[np.concatenate([heads[1:], [True]])]


def _meet(one: tuple[Bytes, Bytes], other: tuple[Bytes, Bytes]) -> tuple[Bytes, Bytes]:
    """The spans that lie in both of two covers."""
    begins, ends = [], []
    first = np.searchsorted(other[1], one[0], side="right")
    last = np.searchsorted(other[0], one[1], side="left")
    for span in np.flatnonzero(first < last).tolist():
        inside = slice(int(first[span]), int(last[span]))
        begins.append(np.maximum(other[0][inside], one[0][span]))
        ends.append(np.minimum(other[1][inside], one[1][span]))
    if not begins:
        return np.zeros(0, np.uint64), np.zeros(0, np.uint64)
    return np.concatenate(begins), np.concatenate(ends)
