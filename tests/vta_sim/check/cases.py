"""Launches of the model as the checker takes them, and the random ones of the tests."""

from __future__ import annotations

import random
from collections.abc import Mapping

from tests.vta_sim.check.faulty import FAULTS, with_fault
from tests.vta_sim.check.timings import Stream
from tests.vta_sim.spec_model import compare
from tests.vta_sim.spec_model.dram import PAGE, Dram
from tests.vta_sim.spec_model.generate import RandomProgram, Size
from tests.vta_sim.spec_model.layout import ModelConfig
from vta_hw.spec.isa import MemoryType
from vta_sim.check.checker import Checker
from vta_sim.check.dram import Dram as Known
from vta_sim.check.findings import Finding, Severity

SIZE = Size(micro_ops=30, transfer_bytes=256)


def random_stream(seed: int) -> Stream:
    """A random program without races, on a random machine."""
    length = random.Random(seed).choice([5, 8, 12])
    return stream_of(compare.random_program(seed, length=length, size=SIZE))


def stream_of(program: RandomProgram) -> Stream:
    """A program of the generator as one launch."""
    return Stream(
        config=program.config,
        words=program.words,
        dram=program.dram,
        bases=program.bases,
        tokens=program.tokens_before,
    )


def faulty_stream(seed: int) -> Stream:
    """The same with a fault, of each kind in turn."""
    return with_fault(random_stream(seed), FAULTS[seed % len(FAULTS)], random.Random(seed))


def checker_of(config: ModelConfig, dram: Dram, bases: Mapping[int, int]) -> Checker:
    """A checker of launches that begin with this memory; tokens may be left."""
    return Checker(
        compare.toolkit_config(config),
        Known([(number * PAGE, page.tobytes()) for number, page in dram.pages.items()], rest_is_zero=True),
        bases={MemoryType(memory): base for memory, base in bases.items()},
        allow_leftover_tokens=True,
    )


def findings(stream: Stream) -> list[Finding]:
    """All that the checker finds."""
    checker = checker_of(stream.config, stream.dram, stream.bases)
    return checker.check_launch(stream.words, compare.as_tokens(stream.tokens))[0]


def errors(stream: Stream) -> list[Finding]:
    """The errors among them."""
    return [finding for finding in findings(stream) if finding.severity is Severity.ERROR]
