"""One launch: three queues of instructions, four counters of tokens (VTA spec 5).

Among the instructions at the heads of the queues whose tokens are there, the first in program order executes next. A
program without races has the same result in every order; this one is the program's own whenever that is possible.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec import instructions
from vta_hw.spec.isa import Module, Opcode
from vta_sim import pages
from vta_sim._jit import entry, inner, source_stamp
from vta_sim.functional import alu, columns, gemm, load, nest, packing, state, store, vector
from vta_sim.functional.columns import (
    DRAM_BASE,
    FAULT_INSN,
    FAULT_VALUE,
    FIELD_COUNT,
    FLAG_POP_NEXT,
    FLAG_POP_PREV,
    FLAG_PUSH_NEXT,
    FLAG_PUSH_PREV,
    G2L,
    G2S,
    HINT_IMMEDIATE_SOURCE,
    HINT_STORE_OF_LOADED,
    L2G,
    MEMORY_TYPE,
    S2G,
    Code,
    Queues,
)
from vta_sim.functional.state import Machine
from vta_sim.pages import PageTable

_LOAD, _STORE, _GEMM = int(Opcode.LOAD), int(Opcode.STORE), int(Opcode.GEMM)
_ALU, _GEMM_OVERWRITE = int(Opcode.ALU), int(Opcode.GEMM_OVERWRITE)
_LOAD_MODULE, _STORE_MODULE = int(Module.LOAD.value), int(Module.STORE.value)
_DONE, _STUCK, _UNKNOWN_OPCODE = int(Code.DONE), int(Code.STUCK), int(Code.UNKNOWN_OPCODE)


@inner
def decode(words: NDArray[np.uint64], index: int, places: NDArray[np.int64], fields: NDArray[np.int64]) -> int:
    """Fill `fields` from one instruction, as if all were unsigned; return its opcode."""
    opcode = int(words[index, 0] & np.uint64(7))
    for number in range(FIELD_COUNT):
        lsb, width = places[opcode, number, 0], places[opcode, number, 1]
        word = words[index, lsb >> 6] >> np.uint64(lsb & 63)
        fields[number] = np.int64(word & np.uint64((1 << width) - 1))
    return opcode


@inner
def _exchange(queues: Queues, module: int, index: int, commit: bool) -> bool:
    """Whether an instruction has the tokens it takes; with `commit`, take them and give those it gives.

    Flags for which the module has no queue are ignored (VTA spec 5.2).
    """
    flags = np.int64(queues.flags[index])
    if module == _LOAD_MODULE:
        take_0, take_1, give_0, give_1 = L2G, G2L, G2L, L2G
        flags &= 1 << FLAG_POP_NEXT | 1 << FLAG_PUSH_NEXT
    elif module == _STORE_MODULE:
        take_0, take_1, give_0, give_1 = G2S, S2G, S2G, G2S
        flags &= 1 << FLAG_POP_PREV | 1 << FLAG_PUSH_PREV
    else:
        take_0, take_1, give_0, give_1 = L2G, S2G, G2L, G2S
    pop_0, pop_1 = flags >> FLAG_POP_PREV & 1, flags >> FLAG_POP_NEXT & 1
    ready = bool(queues.tokens[take_0] >= pop_0) and bool(queues.tokens[take_1] >= pop_1)
    if ready and commit:
        queues.tokens[take_0] -= pop_0
        queues.tokens[take_1] -= pop_1
        queues.tokens[give_0] += flags >> FLAG_PUSH_PREV & 1
        queues.tokens[give_1] += flags >> FLAG_PUSH_NEXT & 1
    return ready


@inner
def _choose(queues: Queues) -> int:
    """Module whose next instruction executes next, or -1; moves every queue to its next instruction first."""
    count = queues.module.size
    chosen = -1
    for module in range(3):
        index = queues.next_insn[module]
        while index < count and queues.module[index] != module:
            index += 1
        queues.next_insn[module] = index
        earlier = chosen < 0 or index < queues.next_insn[chosen]
        if index < count and earlier and _exchange(queues, module, index, False):
            chosen = module
    return chosen


Run = Callable[[Machine, PageTable, NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64], Queues], int]


def _build(stamp: str) -> Run:
    @entry
    def run(
        m: Machine,
        table: PageTable,
        words: NDArray[np.uint64],
        places: NDArray[np.int64],
        bases: NDArray[np.int64],
        queues: Queues,
    ) -> int:
        _ = stamp
        fields, fault = queues.fields, queues.fault
        status = _DONE
        while status == _DONE:
            module = _choose(queues)
            if module < 0:
                break
            index = queues.next_insn[module]
            opcode = decode(words, index, places, fields)
            if opcode > m.last_opcode:
                fault[FAULT_VALUE] = opcode
                status = _UNKNOWN_OPCODE
            elif opcode == _LOAD or opcode == _STORE:
                kind = fields[MEMORY_TYPE]
                address = bases[kind] + fields[DRAM_BASE] * m.elem_bytes[kind]
                if opcode == _LOAD:
                    status = load.execute(m, table, fields, address, fault)
                else:
                    status = store.execute(m, table, fields, address, fault)
                    if status == _DONE and store.holds_loaded(m, fields):
                        queues.hints[index] = HINT_STORE_OF_LOADED
            elif opcode == _GEMM or opcode == _ALU or opcode == _GEMM_OVERWRITE:
                status = nest.execute(m, fields, opcode == _ALU, opcode == _GEMM_OVERWRITE, fault)
                if opcode == _ALU and status == _DONE and alu.source_differs(m, fields):
                    queues.hints[index] = HINT_IMMEDIATE_SOURCE
            fault[FAULT_INSN] = index
            if status == _DONE:
                _exchange(queues, module, index, True)
                queues.next_insn[module] = index + 1
        left = False
        for queue in range(3):
            left = left or queues.next_insn[queue] < words.shape[0]
        return _STUCK if left and status == _DONE else status

    return run


_SOURCES = (instructions, alu, columns, gemm, load, nest, packing, pages, state, store, vector)

RUN = _build(source_stamp(__file__, *(str(module.__file__) for module in _SOURCES)))
"""Execute until the queues are empty (DONE) or STUCK, or an instruction fails; return the `Code`.

Arguments: machine, page table, uint64 [N][2] instruction words, `field_positions`, int64 [8] base addresses by memory
type, queues. After GROW it is called again, with the new page table and everything else the same.
"""
