"""Launches as a file: what memory holds before each, where its instructions are, and what must come of it.

A file is an .npz of plain arrays. Of N launches: `insn_address`, `insn_count`, `bases` [N][5] and `tokens` [N][4] as in
the control registers, uint64; `registers` int64 [N][R], what the registers `register_names` must read afterwards, -1
for any value; `open`, bool, for launches that may leave anything in memory. Of pages of 4096 bytes: `written` uint8
[P][4096], which the host writes at `written_address` before launch `written_launch`; and `stored`, `stored_address`,
`stored_launch`, the pages that a launch changes. `errors` uint64 [E][4]: launch, first address, address behind the
last, AXI response. `config` is the text of a vta_config.json.

Memory and scratchpads persist from launch to launch, and what was never written is zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from runtime.device import PAGE_BYTES, Bases
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA, MemoryType, Module, Opcode, codes_of, module_codes
from vta_hw.spec.program import Tokens
from vta_hw.spec.registers import TOKEN_QUEUES

Pages = Mapping[int, NDArray[np.uint8]]
"""Contents by address, a multiple of `PAGE_BYTES`; each uint8 [PAGE_BYTES]."""

BASES: Final = ("uop", "inp", "wgt", "acc", "out")
_ANY: Final = -1


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One launch, and what must come of it.

    written: pages that the host writes before. stored: pages that the launch changes, as they are then; None if memory
    may hold anything. registers: what they read afterwards, by name. errors: addresses that answer with SLVERR or
    DECERR.
    """

    insn_address: int
    insn_count: int
    bases: Bases = field(default_factory=Bases)
    tokens: Tokens = field(default_factory=Tokens)
    written: Pages = field(default_factory=dict)
    stored: Pages | None = field(default_factory=dict)
    registers: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[range, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Launches:
    """The launches of a machine, in order."""

    config: VTAConfig
    launches: tuple[Launch, ...]

    def save(self, path: Path) -> None:
        """Write the file."""
        items, rows = self.launches, len(self.launches)
        names = sorted({name for launch in items for name in launch.registers})
        registers = [[launch.registers.get(name, _ANY) for name in names] for launch in items]
        errors = [
            (number, bad.start, bad.stop, response)
            for number, launch in enumerate(items)
            for bad, response in launch.errors.items()
        ]
        arrays: dict[str, Any] = {
            "config": np.array(self.config.to_json()),
            "insn_address": np.array([launch.insn_address for launch in items], np.uint64),
            "insn_count": np.array([launch.insn_count for launch in items], np.uint64),
            "bases": _columns([launch.bases for launch in items], BASES),
            "tokens": _columns([launch.tokens for launch in items], TOKEN_QUEUES),
            "open": np.array([launch.stored is None for launch in items], np.bool_),
            "register_names": np.array(names, np.str_),
            "registers": np.array(registers, np.int64).reshape(rows, len(names)),
            "errors": np.array(errors, np.uint64).reshape(-1, 4),
            **_page_arrays("written", [launch.written for launch in items]),
            **_page_arrays("stored", [launch.stored or {} for launch in items]),
        }
        np.savez_compressed(path, **arrays)

    @staticmethod
    def load(path: Path) -> Launches:
        """Read the file."""
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return Launches(
            config=VTAConfig.from_json(str(arrays["config"])),
            launches=tuple(_launch(arrays, number) for number in range(len(arrays["insn_address"]))),
        )


def _launch(arrays: Mapping[str, NDArray[Any]], number: int) -> Launch:
    values = zip(arrays["register_names"].tolist(), arrays["registers"][number].tolist(), strict=True)
    errors = arrays["errors"][arrays["errors"][:, 0] == number].tolist()
    return Launch(
        insn_address=int(arrays["insn_address"][number]),
        insn_count=int(arrays["insn_count"][number]),
        bases=Bases(**_named(BASES, arrays["bases"][number])),
        tokens=Tokens(**_named(TOKEN_QUEUES, arrays["tokens"][number])),
        written=_pages_of(arrays, "written", number),
        stored=None if arrays["open"][number] else _pages_of(arrays, "stored", number),
        registers={name: value for name, value in values if value != _ANY},
        errors={range(begin, end): response for _, begin, end, response in errors},
    )


def _named(names: Iterable[str], row: NDArray[np.uint64]) -> dict[str, int]:
    return dict(zip(names, row.tolist(), strict=True))


def _columns(items: Sequence[object], names: Iterable[str]) -> NDArray[np.uint64]:
    columns = tuple(names)
    rows = [[getattr(item, name) for name in columns] for item in items]
    return np.array(rows, np.uint64).reshape(len(items), len(columns))


def _page_arrays(kind: str, pages: Sequence[Pages]) -> dict[str, NDArray[Any]]:
    rows = [(number, address, page) for number, of in enumerate(pages) for address, page in of.items()]
    contents = np.array([page for _, _, page in rows], np.uint8)
    return {
        f"{kind}_launch": np.array([number for number, _, _ in rows], np.uint64),
        f"{kind}_address": np.array([address for _, address, _ in rows], np.uint64),
        kind: contents.reshape(-1, PAGE_BYTES),
    }


def _pages_of(arrays: Mapping[str, NDArray[Any]], kind: str, number: int) -> Pages:
    rows = np.flatnonzero(arrays[f"{kind}_launch"] == number)
    return {int(arrays[f"{kind}_address"][row]): arrays[kind][row] for row in rows}


def registers_after(config: VTAConfig, words: NDArray[np.uint64], tokens_left: Tokens) -> dict[str, int]:
    """What the registers read after a launch of instructions, uint64 [N][2], that ends as it should."""
    rows = ISA(config).decode_fields(words)
    modules, opcode, memory_type = module_codes(rows), rows["opcode"], rows["memory_type"]
    elements = rows["x_size"] * rows["y_size"]
    steps = rows["iter_out"] * rows["iter_in"] * np.maximum(rows["uop_end"] - rows["uop_bgn"], 0)
    multiplies = (opcode == Opcode.GEMM) & (rows["reset"] == 0) | (opcode == Opcode.GEMM_OVERWRITE)

    def loaded(scratchpad: MemoryType) -> int:
        codes = [code for code in codes_of(MemoryType, config.isa) if code.scratchpad is scratchpad]
        return sum(
            int(elements[(opcode == Opcode.LOAD) & (memory_type == code)].sum()) * config.dram_elem_bytes(code)
            for code in codes
        )

    left = {f"tokens_{name}": getattr(tokens_left, name) for name in TOKEN_QUEUES}
    return left | {
        "status": 0,
        "insn_load": int((modules == Module.LOAD.value).sum()),
        "insn_compute": int((modules == Module.COMPUTE.value).sum()),
        "insn_store": int((modules == Module.STORE.value).sum()),
        "gemm_uops": int(steps[multiplies].sum()),
        "alu_uops": int(steps[opcode == Opcode.ALU].sum()),
        "insn_bytes": 16 * len(words),
        "uop_bytes": loaded(MemoryType.UOP),
        "inp_bytes": loaded(MemoryType.INP),
        "wgt_bytes": loaded(MemoryType.WGT),
        "acc_bytes": loaded(MemoryType.ACC),
        "out_bytes": int(elements[opcode == Opcode.STORE].sum()) * config.out_elem_bytes,
    }
