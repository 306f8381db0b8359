"""Who touched what last: the memory of the checker for conflicts between units."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.isa import Module
from vta_sim.check.order import Clock

Units = NDArray[np.int64]


class Conflict(NamedTuple):
    """A unit's instruction of this number touched `unit` and is not known to be complete."""

    module: Module
    number: int
    unit: int


class History:
    """A memory that one unit of the machine writes and others read.

    Instructions must be given in an order in which they may be executed. Then of the instructions of another unit the
    latest to touch something decides: whoever knows it to be complete knows that of all before it.

    latest: for each element of the memory, the number of the last instruction of a unit that touched it, 0 if none did.
    """

    def __init__(self, size: int, *, writer: Module, readers: Sequence[Module]) -> None:
        self._rivals: Mapping[Module, Sequence[Module]] = {writer: readers, **{reader: [writer] for reader in readers}}
        self.latest = {module: np.zeros(size, np.int64) for module in (writer, *readers)}

    def conflicts(self, module: Module, units: Units, clock: Clock) -> Iterator[Conflict]:
        """What an instruction of `module` that touches `units`, and knows `clock`, must not begin before."""
        for rival in self._rivals[module]:
            numbers = self.latest[rival][units]
            if len(numbers) and (number := int(numbers.max())) > clock[rival.value]:
                yield Conflict(module=rival, number=number, unit=int(units[numbers.argmax()]))

    def record(self, module: Module, units: Units, number: int) -> None:
        """The instruction of `module` with this number touches `units`."""
        self.latest[module][units] = number
