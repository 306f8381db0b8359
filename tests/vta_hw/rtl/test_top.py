"""The top level: what it refuses, and the ports a block design sees."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from amaranth.back import rtlil

from vta_hw.rtl.scratchpad import Geometry
from vta_hw.rtl.top import Top
from vta_hw.spec.config import VTAConfig, preset
from vta_hw.spec.instructions import MemoryType
from vta_hw.spec.parameters import ConfigError

TINY = preset("tiny")
# Accumulators of 4096 bytes, the largest there are.
LARGE = replace(TINY, log_batch=5, log_block_out=5, log_inp_buff_size=13, log_wgt_buff_size=12, log_acc_buff_size=16)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (
            replace(LARGE, isa="extended"),
            "line of ACC must have at most 65534 bits, not 65536 (2 banks of 32768 bits)",
        ),
        (
            replace(LARGE, overlap=True),
            "line of ACC must have at most 65534 bits, not 131072 (4 banks of 32768 bits)",
        ),
    ],
)
def test_configurations_that_no_tool_can_build_are_refused(config: VTAConfig, sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        Top(config)
    assert str(error.value) == sentence


def test_arguments_of_another_type_are_refused() -> None:
    with pytest.raises(TypeError, match=r"^config must be a VTAConfig, not 'tiny'$"):
        Top("tiny")  # type: ignore[arg-type]  # the refusal is tested
    with pytest.raises(ValueError, match=r"^queue_depth must be an integer from 2 to 65536, not 2\.5$"):
        Top(TINY, queue_depth=2.5)  # type: ignore[arg-type]  # the refusal is tested


def test_the_largest_accumulators_can_be_built_in_order() -> None:
    assert Geometry.of(LARGE, MemoryType.ACC).elem_bits == 32768


@pytest.mark.parametrize(
    "options",
    [
        {"log_bus_width": 6, "log_address_width": 6, "isa": "tvm", "overlap": True},
        {"log_bus_width": 9, "log_address_width": 5, "isa": "extended", "overlap": False},
    ],
)
def test_ports_have_the_names_and_widths_of_axi(options: dict[str, Any]) -> None:
    config = replace(TINY, **options)
    top = Top(config)
    assert "m_axi_araddr" in rtlil.convert(top)
    ports = {name: len(getattr(top, name)) for name in top.signature.members}
    assert ports["m_axi_wdata"] == ports["m_axi_rdata"] == config.bus_bits
    assert ports["m_axi_wstrb"] == config.bus_bits // 8
    assert ports["m_axi_araddr"] == ports["m_axi_awaddr"] == config.address_bits
    assert (ports["s_axi_wdata"], ports["s_axi_araddr"], ports["irq"]) == (32, 16, 1)
    assert {name.split("_")[0] for name in ports} == {"s", "m", "irq"}
