"""What the programs of the differential tests have to do at least once, by section and name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from tests.vta_sim.spec_model import layout

MEMORY_NAMES: Final = ("UOP", "WGT", "INP", "ACC", "OUT", "ACC_8BIT", "ACC_PAD_MIN", "ACC_8BIT_PAD_MIN")
ALU_NAMES: Final = ("MIN", "MAX", "ADD", "SHR", "MUL", "REQUANT")
LOADED: Final = tuple(name for name in MEMORY_NAMES if name != "OUT")
PADS: Final = ("y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1")
WINDOW: Final = ("sram_base", "dram_base", "y_size", "x_size", "x_stride")
TRIPS: Final = ("uop_bgn", "uop_end", "iter_out", "iter_in")
FACTORS: Final = tuple(f"{operand}_factor_{loop}" for operand in ("dst", "src", "wgt") for loop in ("out", "in"))

RANGE: Final = ("zero", "between", "largest")
FLAG: Final = ("0", "1")
SIGNED: Final = ("smallest", "negative", "zero", "positive", "largest")

DISTANCES: Final = (1, 2, 3, 4, 5, 6)
"""Micro-ops between a write of an accumulator and its next use: the pipeline holds that many, and one less."""

FIELDS: Final[Mapping[str, Mapping[str, Sequence[str]]]] = {
    **{f"LOAD {name}": dict.fromkeys((*WINDOW, *PADS), RANGE) for name in LOADED},
    "STORE": dict.fromkeys(WINDOW, RANGE) | dict.fromkeys(PADS, ("zero", "largest")),
    "GEMM": dict.fromkeys((*TRIPS, *FACTORS), RANGE) | {"reset": FLAG},
    "GEMM_OVERWRITE": dict.fromkeys((*TRIPS, *FACTORS), ("zero", "between")) | {"reset": FLAG},
    "ALU": {
        **dict.fromkeys((*TRIPS, *FACTORS[:4]), RANGE),
        "reset": FLAG,
        "alu_opcode": ALU_NAMES,
        "use_imm": FLAG,
        "imm": SIGNED,
    },
    "micro-op of GEMM": dict.fromkeys(("dst", "src", "wgt"), RANGE),
    "micro-op of ALU": dict.fromkeys(("dst", "src"), RANGE) | {"wgt": ("zero", "between")},
}
"""Instruction -> field -> kinds of values, where the field matters.

The largest size of a window is that of its scratchpad. A number of trips above 255 is called the largest here; what
takes longest is among the corners.
"""

_LOAD: Final = (
    "x_size is 0, and everything else garbage",
    "no rows at all",
    "no rows, but rows of padding",
    "no rows, but padding on all sides",
    "x_stride is 0: the same row again",
    "x_stride below x_size: rows overlap in DRAM",
    "x_stride equal to x_size",
    "x_stride above x_size",
    "padding on all sides at once",
    "ends at the last element of the scratchpad",
    "a row crosses a multiple of 4096 bytes",
    "a row begins within a bus word",
    "a row is shorter than a bus word",
)
_STORE: Final = (
    "x_size is 0, and everything else garbage, the memory type too",
    "no rows",
    "x_stride is 0: the last row stays",
    "x_stride below x_size: later rows stay",
    "x_stride equal to x_size",
    "x_stride above x_size",
    "pads, which mean nothing",
    "ends at the last element of OUT",
    "a row crosses a multiple of 4096 bytes",
    "a row begins within a bus word",
    "a row ends within a bus word",
)
_NEST: Final = (
    "no outer trips",
    "no inner trips",
    "no micro-ops: uop_end equals uop_bgn",
    "no micro-ops: uop_end below uop_bgn",
    "one step",
    "both loops and several micro-ops at once",
)
_GEMM: Final = (
    *_NEST,
    "reset",
    *(f"the same dst at distance {distance}" for distance in DISTANCES),
    *(f"reset of the same dst at distance {distance}" for distance in DISTANCES[:3]),
    "a sum wraps",
    "smallest input times smallest weight",
    "a result beyond the range of OUT",
)
_OVERWRITE: Final = ("no work", "one step", *(f"the same dst at distance {d}" for d in DISTANCES[:4]))
_ALU: Final = (
    *_NEST,
    *(f"{name} with {form}" for name in ALU_NAMES[:5] for form in ("an immediate", "a register")),
    *(f"immediate: the same dst at distance {distance}" for distance in DISTANCES),
    *(f"register: the same dst at distance {distance}" for distance in DISTANCES),
    *(f"register: src is the dst of distance {distance}" for distance in DISTANCES),
    "register: src equals dst",
    "immediate: src differs from dst and is not read",
    "ADD wraps",
    "MUL wraps",
    "MUL of two negative numbers",
    "MIN and MAX of numbers of different sign",
    "a result beyond the range of OUT",
)
_AMOUNTS: Final = ("0", "1 to 15", "16 to 31", "32 and more", "-1 to -16", "-17 to -31", "-32", "below -32")
_SHIFTS: Final = (
    *(f"{form} {amount}" for form in ("immediate", "register") for amount in _AMOUNTS),
    "register -2147483648",
    "of a negative number to the right",
    "of bits out to the left",
)
_REQUANT: Final = (
    "with ReLU",
    "without ReLU",
    "zero point 0",
    "zero point above 0",
    "zero point below 0",
    "shift 0",
    "shift 63",
    "saturates up",
    "saturates down",
    "an exact half above 0",
    "an exact half below 0",
    *(f"reads at src what was written at distance {distance}" for distance in DISTANCES),
    *(f"the same dst at distance {distance}" for distance in DISTANCES[:4]),
)
_SEQUENCES: Final = (
    "STORE of what a reset left",
    "STORE of tiles that a LOAD put apart from the accumulators",
    "STORE of tiles that nothing ever wrote",
    "ALU goes on where GEMM ended",
    "GEMM goes on where ALU ended",
    "GEMM goes on where a reset ended",
    "ALU goes on where ALU ended",
    "a reset of what GEMM just wrote",
    "GEMM or ALU uses what the LOAD before it brought",
    "LOAD of accumulators that the instruction before it wrote",
    "micro-ops are loaded right before they are used",
    "micro-ops are overwritten right after they were used",
)
_UNITS: Final = ("load", "compute", "store")
_TOKENS: Final = (
    *(f"{unit}: {flag} of a queue" for unit, flag in (
        ("load", "pop_next"), ("load", "push_next"),
        ("compute", "pop_prev"), ("compute", "pop_next"), ("compute", "push_prev"), ("compute", "push_next"),
        ("store", "pop_prev"), ("store", "push_prev"),
    )),
    *(f"{unit}: a flag without a queue" for unit in ("load", "store")),
    *(f"{unit}: NOP" for unit in _UNITS),
    *(f"{unit}: instruction that pops and pushes" for unit in _UNITS),
    "compute pops both queues at once",
    "compute pushes both queues at once",
    "FINISH pops one queue",
    "FINISH pops both queues",
    "FINISH pushes",
    "tokens in every queue before the launch",
    "tokens left in every queue",
    "a launch goes on with the tokens of the one before",
    "a launch of one instruction",
    "more than 512 instructions of a unit wait",
    "more than 255 tokens in a queue",
    "1023 tokens left in every queue",
    "as many tokens in a queue as it holds",
)  # fmt: skip
_MACHINE: Final = (
    *(f"bus of {bits} bits" for bits in (64, 128, 256, 512)),
    *(f"addresses of {bits} bits" for bits in (32, 64)),
    "addresses above 4 GiB",
    "base registers",
    "instruction set tvm",
    "instruction set extended",
    "ALU and loads beside GEMM",
    *(f"products of {multiplier}" for multiplier in ("dsp", "lut", "packed")),
    "a limited number of DSP blocks",
    "batch above 1",
    "blocks that differ",
    *(f"inputs of {bits} bits" for bits in (4, 8, 16)),
    *(f"weights of {bits} bits" for bits in (4, 8, 16)),
    "elements of one byte",
    "elements of 32 bus words",
    "more elements than ports of a scratchpad in a bus word",
    "scratchpads of two elements",
    "unused bits of instructions are not zero",
    "unused bits of micro-ops are not zero",
    "instructions begin within a bus word",
    "queues of two instructions",
    "memory answers in the next cycle",
    "memory takes 100 cycles",
    "memory takes one burst at a time",
    "memory pauses",
    "words of different readers come mixed",
)

CORNERS: Final[Mapping[str, Sequence[str]]] = {
    **{f"LOAD {name}": _LOAD for name in LOADED},
    "STORE": _STORE,
    "GEMM": _GEMM,
    "GEMM_OVERWRITE": _OVERWRITE,
    "ALU": _ALU,
    "SHR": _SHIFTS,
    "REQUANT": _REQUANT,
    "Sequences": _SEQUENCES,
    "Loops": ("16383 outer trips", "16383 inner trips"),
    "Tokens and launches": _TOKENS,
    "Machines and memories": _MACHINE,
}
"""Section -> what has to happen."""

MISUSE: Final[Mapping[str, str]] = {
    "an unknown opcode": "test_unknown_opcodes_do_nothing_but_move_tokens",
    "a LOAD of an unknown memory type": "test_loads_of_unknown_memories_do_nothing_but_move_tokens",
    "a STORE of another memory type than OUT": "test_stores_of_other_memories_do_nothing_but_move_tokens",
    "an unknown ALU operation": "test_unknown_alu_operations_do_nothing_but_move_tokens",
    "a LOAD beyond its scratchpad": "test_loads_beyond_the_scratchpad_wrap",
    "a STORE beyond OUT": "test_stores_beyond_the_scratchpad_wrap",
    "micro-ops, or what they name, beyond a scratchpad": "test_micro_ops_beyond_the_scratchpads_wrap",
    "several faults in a launch": "test_the_first_fault_is_named_and_all_are_kept_until_the_next_launch",
    "a token, or room for one, that never comes": "test_a_missing_token_ends_the_launch_and_keeps_the_others",
    "a token that only an instruction behind a full queue gives": "test_a_token_from_behind_a_full_queue_never_comes",
    "no FINISH": "test_without_finish_everything_is_done_and_the_launch_ends",
    "instructions behind FINISH": "test_what_comes_after_finish_is_done_too",
    "a FINISH that does not wait for stores": "test_a_finish_that_did_not_wait_for_stores_says_so",
    "a launch of no instructions": "test_a_launch_of_nothing_ends",
    "an error response to a load": "test_read_errors_name_the_instruction_and_the_launch_goes_on",
    "an error response to a store": "test_write_errors_name_the_instruction_and_the_launch_goes_on",
    "an error response to fetch": "test_an_error_of_fetch_ends_the_launch",
}
"""What no correct program does -> the test in `test_misuse` that says what the machine does then."""


def instruction_name(insn: layout.Fields, *, extended: bool) -> str | None:
    """The name of an instruction in `FIELDS`, None for one that is not there."""
    match insn["opcode"]:
        case layout.LOAD:
            return f"LOAD {MEMORY_NAMES[insn['memory_type']]}"
        case layout.STORE:
            return "STORE"
        case layout.GEMM:
            return "GEMM"
        case layout.ALU:
            return "ALU"
        case layout.GEMM_OVERWRITE if extended:
            return "GEMM_OVERWRITE"
        case _:
            return None
