"""One launch: three queues of instructions, four counters of tokens (VTA spec 5).

Among the instructions at the heads of the queues whose tokens are there, the first in program order executes next. A
program without races has the same result in every order; this one is the program's own whenever that is possible.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vta_hw.spec.isa import MemoryType, Module, Opcode
from vta_sim import pages
from vta_sim._jit import entry, inner, source_stamp
from vta_sim.functional import alu, columns, gemm, hints, load, nest, packing, state, store, vector
from vta_sim.functional.columns import (
    DRAM_BASE,
    FAULT_CODE,
    FAULT_INSN,
    G2L,
    G2S,
    L2G,
    MEMORY_TYPE,
    MOST_FIELDS,
    OPCODE,
    POP_NEXT,
    POP_PREV,
    PUSH_NEXT,
    PUSH_PREV,
    S2G,
    X_SIZE,
    Y_SIZE,
    Category,
    Code,
    Columns,
    Hint,
    Queues,
)
from vta_sim.functional.nest import fail
from vta_sim.functional.state import Machine
from vta_sim.pages import PageTable

_LOAD, _STORE, _GEMM = int(Opcode.LOAD), int(Opcode.STORE), int(Opcode.GEMM)
_FINISH, _ALU = int(Opcode.FINISH), int(Opcode.ALU)
_WGT, _INP = int(MemoryType.WGT), int(MemoryType.INP)
_LOAD_MODULE, _COMPUTE_MODULE, _STORE_MODULE = (int(module.value) for module in Module)
_DONE, _STUCK, _UNKNOWN_OPCODE = int(Code.DONE), int(Code.STUCK), int(Code.UNKNOWN_OPCODE)
_NO_CATEGORY, _OUT_CATEGORY = int(Category.NONE), int(Category.OUT)
_GEMM_CATEGORY, _ALU_CATEGORY = int(Category.GEMM), int(Category.ALU)
_AFTER_FINISH = int(Hint.AFTER_FINISH)
_HEADER_ROW, _MEMORY_ROW, _GEMM_ROW, _ALU_ROW = columns.HEADER, columns.MEMORY, columns.GEMM, columns.ALU
# Counter of each memory type: ACC_8BIT counts as ACC; a LOAD of another type does not get that far.
_LOAD_CATEGORY = (int(Category.UOP), int(Category.WGT), int(Category.INP), int(Category.ACC), 0, int(Category.ACC))


@inner
def _decode(
    words: NDArray[np.uint64], index: int, places: NDArray[np.int64], row: int, fields: NDArray[np.int64]
) -> None:
    """Fill `fields` from one instruction, all as if unsigned; a field of width 0 does not exist."""
    for number in range(MOST_FIELDS):
        lsb, width = places[row, number, 0], places[row, number, 1]
        word = words[index, lsb >> 6] >> np.uint64(lsb & 63)
        fields[number] = np.int64(word & np.uint64((1 << width) - 1))


@inner
def _module(words: NDArray[np.uint64], index: int, places: NDArray[np.int64], fields: NDArray[np.int64]) -> int:
    """Number of the module whose queue takes an instruction (VTA spec 5.1)."""
    opcode = np.int64(words[index, 0] & np.uint64(7))
    if opcode == _STORE:
        return _STORE_MODULE
    if opcode != _LOAD:
        return _COMPUTE_MODULE
    _decode(words, index, places, _MEMORY_ROW, fields)
    return _LOAD_MODULE if fields[MEMORY_TYPE] == _INP or fields[MEMORY_TYPE] == _WGT else _COMPUTE_MODULE


@inner
def _exchange(tokens: NDArray[np.int64], module: int, header: NDArray[np.int64], pops: int, pushes: int) -> bool:
    """Take (pops = 1) and give (pushes = 1) the tokens an instruction names; False if one to be taken is missing."""
    if module == _LOAD_MODULE:
        take_0, take_1, give_0, give_1 = G2L, G2L, L2G, L2G
        pop_0, pop_1, push_0, push_1 = 0, header[POP_NEXT], 0, header[PUSH_NEXT]
    elif module == _STORE_MODULE:
        take_0, take_1, give_0, give_1 = G2S, G2S, S2G, S2G
        pop_0, pop_1, push_0, push_1 = header[POP_PREV], 0, header[PUSH_PREV], 0
    else:
        take_0, take_1, give_0, give_1 = L2G, S2G, G2L, G2S
        pop_0, pop_1, push_0, push_1 = header[POP_PREV], header[POP_NEXT], header[PUSH_PREV], header[PUSH_NEXT]
    if tokens[take_0] < pop_0 or tokens[take_1] < pop_1:
        return False
    tokens[take_0] -= pops * pop_0
    tokens[take_1] -= pops * pop_1
    tokens[give_0] += pushes * push_0
    tokens[give_1] += pushes * push_1
    return True


@inner
def _choose(
    words: NDArray[np.uint64],
    places: NDArray[np.int64],
    queues: Queues,
    header: NDArray[np.int64],
    fields: NDArray[np.int64],
) -> int:
    """Module whose next instruction executes next, with `header` decoded; -1 if no instruction can.

    Moves every queue to its next instruction first.
    """
    count = words.shape[0]
    for module in range(3):
        index = queues.next_insn[module]
        while index < count and _module(words, index, places, fields) != module:
            index += 1
        queues.next_insn[module] = index
    tried = -1
    for _ in range(3):
        chosen = -1
        for module in range(3):
            index = queues.next_insn[module]
            if index < count and index > tried and (chosen < 0 or index < queues.next_insn[chosen]):
                chosen = module
        if chosen < 0:
            return -1
        tried = queues.next_insn[chosen]
        _decode(words, tried, places, _HEADER_ROW, header)
        if _exchange(queues.tokens, chosen, header, 0, 0):
            return chosen
    return -1


@inner
def _transfer(
    m: Machine,
    table: PageTable,
    opcode: int,
    fields: NDArray[np.int64],
    bases: NDArray[np.int64],
    index: int,
    out: Columns,
    fault: NDArray[np.int64],
) -> int:
    """Execute a LOAD or STORE and count its bytes (VTA spec 3.9: no pads, ACC_8BIT as wide as ACC)."""
    kind = fields[MEMORY_TYPE]
    address = bases[kind] + fields[DRAM_BASE] * load.element_bytes(m, kind)
    elements = fields[X_SIZE] * fields[Y_SIZE]
    if opcode == _STORE:
        status = store.execute(m, table, fields, address, fault)
        category = _OUT_CATEGORY
    else:
        status = load.execute(m, table, fields, address, fault)
        category = _LOAD_CATEGORY[kind] if kind < len(_LOAD_CATEGORY) else _NO_CATEGORY
    if status == 0 and elements != 0:
        out.category[index] = category
        out.amount[index] = elements * load.counted_bytes(m, kind)
    return status


@inner
def _execute(
    m: Machine,
    table: PageTable,
    words: NDArray[np.uint64],
    places: NDArray[np.int64],
    bases: NDArray[np.int64],
    index: int,
    fields: NDArray[np.int64],
    out: Columns,
    fault: NDArray[np.int64],
) -> int:
    """Execute one instruction; return 0 or more, or -1 with `fault` filled."""
    opcode = np.int64(words[index, 0] & np.uint64(7))
    if opcode == _FINISH:
        return 0
    if opcode == _GEMM:
        _decode(words, index, places, _GEMM_ROW, fields)
        out.category[index] = _GEMM_CATEGORY
        status = gemm.execute(m, fields, fault)
        out.amount[index] = max(status, 0)
        return status
    if opcode == _ALU:
        _decode(words, index, places, _ALU_ROW, fields)
        fields[columns.IMM] = np.int16(fields[columns.IMM])
        out.hints[index] |= hints.insn_hints(m, opcode, fields)
        out.category[index] = _ALU_CATEGORY
        status = alu.execute(m, fields, fault)
        out.amount[index] = max(status, 0)
        return status
    if opcode == _LOAD or opcode == _STORE:
        _decode(words, index, places, _MEMORY_ROW, fields)
        out.hints[index] |= hints.insn_hints(m, opcode, fields)
        return _transfer(m, table, opcode, fields, bases, index, out, fault)
    return fail(fault, _UNKNOWN_OPCODE, opcode, 0, 0)


@inner
def run_queues(
    m: Machine,
    table: PageTable,
    words: NDArray[np.uint64],
    places: NDArray[np.int64],
    bases: NDArray[np.int64],
    queues: Queues,
    out: Columns,
    fault: NDArray[np.int64],
) -> int:
    """Execute until the queues are empty (DONE), stuck, or an instruction fails; return the `Code`.

    After GROW the function is called again with the same arguments but for a larger page table.
    """
    header = np.zeros(MOST_FIELDS, np.int64)
    fields = np.zeros(MOST_FIELDS, np.int64)
    while True:
        module = _choose(words, places, queues, header, fields)
        if module < 0:
            left = queues.next_insn.min() < words.shape[0]
            fault[FAULT_CODE] = _STUCK if left else _DONE
            return fault[FAULT_CODE]
        index = queues.next_insn[module]
        if _execute(m, table, words, places, bases, index, fields, out, fault) < 0:
            fault[FAULT_INSN] = index
            return fault[FAULT_CODE]
        out.hints[index] |= hints.flag_hint(header, module)
        if queues.finished[0] != 0:
            out.hints[index] |= _AFTER_FINISH
        if header[OPCODE] == _FINISH:
            queues.finished[0] += 1
        _exchange(queues.tokens, module, header, 1, 1)
        queues.next_insn[module] = index + 1


Run = Callable[
    [
        Machine,
        PageTable,
        NDArray[np.uint64],
        NDArray[np.int64],
        NDArray[np.int64],
        Queues,
        Columns,
        NDArray[np.int64],
    ],
    int,
]


def _build(stamp: str) -> Run:
    @entry
    def run(
        m: Machine,
        table: PageTable,
        words: NDArray[np.uint64],
        places: NDArray[np.int64],
        bases: NDArray[np.int64],
        queues: Queues,
        out: Columns,
        fault: NDArray[np.int64],
    ) -> int:
        _ = stamp
        return run_queues(m, table, words, places, bases, queues, out, fault)

    return run


_SOURCES = (alu, columns, gemm, hints, load, nest, packing, pages, state, store, vector)

RUN = _build(source_stamp(__file__, *(str(module.__file__) for module in _SOURCES)))
"""`run_queues`, compiled for Python to call; the machine code is kept on disk."""
