"""The instruction queues (`amaranth.lib.fifo.SyncFIFOBuffered`)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from vta_sim._jit import inner
from vta_sim.cycle.records import array
from vta_sim.cycle.wires import Parameters

FLAG_FINISH: Final = 4
"""A bit beside those of `columns.FLAG_POP_PREV` and so on: the instruction is a FINISH."""


class InsnQueues:
    """The queues of load, compute and store, in the order of `Module`.

    level: instructions behind the head; shows: whether there is a head (`r_rdy`). head: place of the head, or of the
    next one to come, among all instructions of its unit. write, read: in this cycle.
    """

    level: NDArray[np.int64] = array(3)
    shows: NDArray[np.int64] = array(3)
    head: NDArray[np.int64] = array(3)
    write: NDArray[np.int64] = array(3)
    read: NDArray[np.int64] = array(3)


@inner
def is_full(q: InsnQueues, p: Parameters, module: int) -> bool:
    """Whether no instruction can be written (`w_rdy`)."""
    return bool(q.level[module] == p.queue_depth - 1)


@inner
def step(q: InsnQueues) -> bool:
    """One clock edge; whether anything changed."""
    moved = False
    for module in range(3):
        write, read = q.write[module], q.read[module]
        moves_up = q.level[module] != 0 and (q.shows[module] == 0 or read != 0)
        if write or read or moves_up:
            moved = True
            q.level[module] += write - moves_up
            q.head[module] += read
            q.shows[module] = int(moves_up or (q.shows[module] != 0 and read == 0))
            q.write[module] = 0
            q.read[module] = 0
    return moved
