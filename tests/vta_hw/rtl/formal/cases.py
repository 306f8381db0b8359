"""All proofs."""

from __future__ import annotations

from typing import Final

from tests.vta_hw.rtl.formal import clients, memory_engine, registers, splitter, streams, tokens

CASES: Final = (*tokens.CASES, *streams.CASES, *splitter.CASES, *memory_engine.CASES, *clients.CASES, *registers.CASES)
