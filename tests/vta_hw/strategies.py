"""Hypothesis strategies for what the specification allows."""

from __future__ import annotations

from hypothesis import strategies as st

from vta_hw.spec.config import VTAConfig


@st.composite
def configs(draw: st.DrawFn) -> VTAConfig:
    """Any possible configuration, drawn by its depths so that no draw is wasted."""
    log_inp_width, log_wgt_width = draw(st.integers(2, 4)), draw(st.integers(2, 4))
    log_block_in = draw(st.integers(1, 5))
    log_block_out = draw(st.integers(1, 5))
    log_batch = draw(st.integers(0, 4))
    acc = draw(st.integers(1, 11))
    inp = draw(st.integers(1, min(16, 31 - acc)))
    wgt = draw(st.integers(1, min(16, 32 - acc - max(acc, inp))))
    narrow = max(log_inp_width, log_wgt_width) <= 3
    multiplier = draw(st.sampled_from(["dsp", "lut", "packed"] if narrow else ["dsp", "lut"]))
    return VTAConfig(
        log_inp_width=log_inp_width,
        log_wgt_width=log_wgt_width,
        log_batch=log_batch,
        log_block_in=log_block_in,
        log_block_out=log_block_out,
        log_uop_buff_size=draw(st.integers(1, 13)) + 2,
        log_inp_buff_size=inp + log_batch + log_block_in + log_inp_width - 3,
        log_wgt_buff_size=wgt + log_block_out + log_block_in + log_wgt_width - 3,
        log_acc_buff_size=acc + log_batch + log_block_out + 2,
        log_bus_width=draw(st.integers(6, 9)),
        isa=draw(st.sampled_from(["tvm", "extended"])),
        overlap=draw(st.booleans()),
        multiplier=multiplier,
        max_dsp=0 if multiplier == "lut" else draw(st.integers(0, 65536)),
        log_address_width=draw(st.integers(5, 6)),
    )
