"""Presets named after a part fit its block RAMs and DSPs; bench/area.py measures them, and all else."""

from __future__ import annotations

import pytest

from fpga.report import PARTS, Family, Part
from vta_hw.spec.config import preset
from vta_hw.spec.parameters import Multiplier

# Data bits of a block RAM without parity, and the DSPs of a 32-bit product of which the low half is kept.
RAM_BITS = {Family.ECP5: 16 << 10, Family.XC7: 32 << 10}
ALU_DSPS = 3


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_a_block_of_16_fits(part: Part) -> None:
    config = preset(part.name)
    assert config.block_in == config.block_out == 16
    # GEMM and ALU read two accumulators in a cycle, for which block RAM holds them twice.
    logs = (config.log_uop_buff_size, config.log_inp_buff_size, config.log_wgt_buff_size, config.log_out_buff_size)
    buffers = sum(1 << log for log in (*logs, config.log_acc_buff_size, config.log_acc_buff_size))
    # A tenth is left for the queues.
    assert 8 * buffers / RAM_BITS[part.family] <= 0.9 * part.brams
    products = config.batch * config.block_in * config.block_out
    if config.multiplier == Multiplier.PACKED:
        products //= 2
    assert min(config.max_dsp or products, products) + ALU_DSPS * config.batch * config.block_out <= part.dsps
