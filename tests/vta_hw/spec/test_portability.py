"""The limits of other implementations, one configuration for each."""

from __future__ import annotations

from typing import Any

import pytest

from vta_hw.spec.config import PRESETS, VTAConfig
from vta_hw.spec.portability import limits_elsewhere


@pytest.mark.parametrize("name", ["sim", "tsim", "pynq", "ultra96", "zcu104", "de10nano", "intelfocl"])
def test_samples_of_tvm_run_anywhere(name: str) -> None:
    assert limits_elsewhere(PRESETS[name]) == ()


@pytest.mark.parametrize(
    ("values", "sentences"),
    [
        ({"isa": "extended"}, ["ISA must be tvm, not extended"]),
        ({"log_bus_width": 7}, ["TVM: bus of target 'sim' must have 64 bits, not 128"]),
        (
            {"log_block_out": 3, "log_wgt_buff_size": 17, "log_acc_buff_size": 16},
            ["TVM: BLOCK_IN must equal BLOCK_OUT, 8, not 16"],
        ),
        (
            {"log_inp_width": 4, "log_inp_buff_size": 16},
            [
                "TVM: INP and WGT must have 8 bits in a convolution, not 16 and 8",
                "Chisel: OUT must have 8 bits, not 16",
                "OpenCL: INP and WGT must have 8 bits, not 16 and 8",
            ],
        ),
        (
            {"log_batch": 1, "log_inp_buff_size": 16, "log_acc_buff_size": 18},
            ["Chisel: BATCH must be 1 for the ALU, not 2"],
        ),
        (
            {"log_uop_buff_size": 10},
            [
                "Chisel: log2 of the depths U, A, I, W must be (13, 11, 11, 10), not (8, 11, 11, 10)",
                "OpenCL: 37 + 2U + A must be more than 64, not 64",
            ],
        ),
        (
            {"log_block_in": 2, "log_inp_buff_size": 13, "log_wgt_buff_size": 16},
            [
                "TVM: BLOCK_IN must equal BLOCK_OUT, 16, not 4",
                "HLS: INP element must be a multiple of the bus, 64 bits, not 32",
            ],
        ),
    ],
)
def test_limits(values: dict[str, Any], sentences: list[str]) -> None:
    assert list(limits_elsewhere(VTAConfig(**values))) == sentences
