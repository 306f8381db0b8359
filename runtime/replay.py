"""Runs raw programs: instructions and DRAM contents at stated physical addresses, as any compiler produces them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.device import Bases, Device, LaunchReport
from runtime.errors import SessionError
from runtime.session import check_config
from vta_hw.spec.program import Launch, Program


@dataclass(frozen=True, kw_only=True)
class Range:
    """Bytes ``address..address+nbytes-1`` of physical memory."""

    address: int
    nbytes: int


def replay(
    device: Device,
    program: Program,
    *,
    bases: Bases | None = None,
    dumps: Sequence[Range] = (),
    timeout: float | None = None,
) -> tuple[LaunchReport, list[NDArray[np.uint8]]]:
    """Report of the launches' last, with its trace and with summed counters, and the memory in `dumps` afterwards.

    Tokens left over by one launch are in the queues at the start of the next, as on hardware. Memory that no segment
    covers reads as zero if the device's does. Raises SessionError for a compiled program or another configuration.
    """
    if not program.is_raw:
        raise SessionError("Program must be a raw one: a compiled program runs in a Session")
    check_config(device, program)
    for segment in program.segments:
        device.write(segment.address, np.frombuffer(segment.data, np.uint8))
    device.write(program.insn_address, np.frombuffer(program.insns, np.uint8))
    tokens, counters, trace = program.tokens_before, dict[str, int](), None
    for step in program.steps:
        if not isinstance(step, Launch):
            raise SessionError(f"Step of a raw program must be a launch, not {step!r}")
        address = program.insn_address + step.insn_begin * program.config.insn_bytes
        device.launch(address, step.insn_count, bases=bases, tokens=tokens, allow_leftover_tokens=True)
        report = device.wait(timeout)
        tokens, trace = report.tokens_left, report.trace
        counters = {name: counters.get(name, 0) + value for name, value in report.counters.items()}
    return (
        LaunchReport(counters=counters, tokens_left=tokens, trace=trace),
        [device.read(dump.address, dump.nbytes) for dump in dumps],
    )
