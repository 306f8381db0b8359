"""Where values live in DRAM: workspace is shared by values that are never alive at the same time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Lifetime:
    """A value of `nbytes`, written in step `first` and read until step `last`, both inclusive."""

    name: str
    nbytes: int
    first: int
    last: int


def align(address: int, alignment: int) -> int:
    return -(-address // alignment) * alignment


def plan(values: Iterable[Lifetime], *, start: int, alignment: int) -> tuple[dict[str, int], int]:
    """Addresses from `start` on, which is aligned, and the end of what they occupy.

    Largest first, each at the lowest address that is free during its life: a greedy rule that comes close to the least
    possible for networks ("Efficient Memory Management for Deep Neural Net Inference", Pisarchyk and Lee, 2020).
    """
    placed: list[tuple[int, int, Lifetime]] = []
    for value in sorted(values, key=lambda v: (-v.nbytes, v.first, v.name)):
        rivals = sorted(
            (at, end) for at, end, other in placed if other.first <= value.last and value.first <= other.last
        )
        address = start
        for at, end in rivals:
            if address + value.nbytes <= at:
                break
            address = max(address, align(end, alignment))
        placed.append((address, address + value.nbytes, value))
    end = max((end for _, end, _ in placed), default=start)
    return {value.name: address for address, _, value in placed}, end
