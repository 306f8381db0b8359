"""The order of loads: that in which what they bring is needed.

The load unit works ahead of the compute unit, as far as there are places to load to, but in program order. A load for
which there is no hurry would hold up those that come behind it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compiler.vta.tokens import Space, Work
from vta_hw.spec.isa import Module

_SCRATCHPADS = (Space.INP, Space.WGT)


def sink(works: Sequence[Work]) -> list[Work]:
    """The same works, each load of INP and WGT just before the first instruction that reads what it brings.

    Loads that are needed at once keep their order, but those that wait for stores come last. What no instruction reads
    stays where it is.
    """
    ends = dict.fromkeys(_SCRATCHPADS, 0)
    for work in works:
        for span in (*work.reads, *work.writes):
            if span.space in ends:
                ends[span.space] = max(ends[span.space], span.end)
    # Before what each element must be loaded: its reader, or the load that replaces it.
    due = {space: np.full(end, len(works), np.int64) for space, end in ends.items()}
    target = np.arange(len(works))
    for position in range(len(works) - 1, -1, -1):
        work = works[position]
        if work.module is Module.LOAD:
            found = min((int(due[span.space][span.begin : span.end].min()) for span in work.writes), default=len(works))
            target[position] = found if found < len(works) else position
            for span in work.writes:
                due[span.space][span.begin : span.end] = target[position]
        else:
            for span in work.reads:
                if span.space in due:
                    due[span.space][span.begin : span.end] = position
    # A load goes before its reader, which has the same target.
    is_load = np.array([work.module is Module.LOAD for work in works], np.bool_)
    waits = np.array([any(span.space is Space.RELEASED for span in work.reads) for work in works], np.bool_)
    return [works[k] for k in np.lexsort((np.arange(len(works)), waits & is_load, ~is_load, target))]
