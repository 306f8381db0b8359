"""Recorded instruction streams: what a launch read, and the DRAM pages it changed, as .npz files.

Keys: `insns` (N, 2) uint64, low word first; `page_addr` (P,) uint64, byte addresses of 4096-byte pages; `before`
(P, 4096) uint8; `after_idx` (C,) and `after` (C, 4096), the pages that changed; `config`, a JSON string with
`vta_config`, `token_order`, `tokens_before` and, when the recorder knew it, `tokens_after`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.vta_sim.spec_model.dram import PAGE, Dram
from tests.vta_sim.spec_model.pipeline import QUEUES


@dataclass(frozen=True, kw_only=True)
class Stream:
    """One file, with `after` filled up to all pages."""

    insns: NDArray[np.uint64]
    page_addr: NDArray[np.uint64]
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    vta_config: dict[str, Any]
    tokens_before: tuple[int, ...]
    tokens_after: tuple[int, ...] | None
    counts: dict[str, int]

    @classmethod
    def load(cls, path: Path) -> Stream:
        with np.load(path) as file:
            about = json.loads(str(file["config"]))
            after = file["before"].copy()
            after[file["after_idx"]] = file["after"]
            order = [about["token_order"].index(queue) for queue in QUEUES]
            left = about.get("tokens_after")
            return cls(
                insns=file["insns"],
                page_addr=file["page_addr"],
                before=file["before"],
                after=after,
                vta_config=about["vta_config"],
                tokens_before=tuple(about["tokens_before"][i] for i in order),
                tokens_after=None if left is None else tuple(left[i] for i in order),
                counts=about.get("counts_from_insns", {}),
            )

    def save(self, path: Path) -> None:
        """Write the file; only changed pages are kept twice."""
        changed = np.flatnonzero((self.before != self.after).any(axis=1))
        about = {
            "vta_config": self.vta_config,
            "token_order": QUEUES,
            "tokens_before": self.tokens_before,
            "tokens_after": self.tokens_after,
        }
        np.savez_compressed(
            path,
            insns=self.insns,
            page_addr=self.page_addr,
            before=self.before,
            after_idx=changed,
            after=self.after[changed],
            config=np.array(json.dumps(about)),
        )

    def memory(self) -> Dram:
        """DRAM as it was before the launch."""
        dram = Dram()
        for address, page in zip(self.page_addr.tolist(), self.before, strict=True):
            dram.write(address, page)
        return dram

    def segments(self) -> Iterator[tuple[int, int]]:
        """Runs of consecutive pages as (first page, end page) in the order of the file."""
        address = self.page_addr.astype(np.int64)
        cuts = np.flatnonzero(np.diff(address) != PAGE) + 1
        edges = [0, *cuts.tolist(), len(address)] if len(address) else []
        yield from itertools.pairwise(edges)

    def free_address(self) -> int:
        """A page-aligned address above every page, where a test can put the instructions."""
        return int(self.page_addr.max(initial=0)) + 16 * PAGE
