"""Configurations: derived values, refusals, TVM's files, presets."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from tests.vta_hw.strategies import configs
from vta_hw.spec import config as config_module
from vta_hw.spec.config import PRESETS, ConfigError, VTAConfig, preset, resolve
from vta_hw.spec.isa import MemoryType, codes_of

# The contents of config/vta_config.json and of the per-target samples of TVM (VTA spec 1.1 and 1.5).
SAMPLE: dict[str, Any] = {
    "TARGET": "sim",
    "HW_VER": "0.0.2",
    "LOG_INP_WIDTH": 3,
    "LOG_WGT_WIDTH": 3,
    "LOG_ACC_WIDTH": 5,
    "LOG_BATCH": 0,
    "LOG_BLOCK": 4,
    "LOG_UOP_BUFF_SIZE": 15,
    "LOG_INP_BUFF_SIZE": 15,
    "LOG_WGT_BUFF_SIZE": 18,
    "LOG_ACC_BUFF_SIZE": 17,
}


def refusal(message: str) -> Any:
    return pytest.raises(ConfigError, match=f"^{re.escape(message)}$")


def test_default_derived_values() -> None:
    config = VTAConfig()
    assert (config.batch, config.block_in, config.block_out) == (1, 16, 16)
    assert (config.inp_bits, config.wgt_bits, config.acc_bits, config.out_bits) == (8, 8, 32, 8)
    assert (config.log_out_width, config.log_out_buff_size, config.bus_bits) == (3, 15, 64)
    elements = (config.inp_elem_bytes, config.wgt_elem_bytes, config.acc_elem_bytes, config.out_elem_bytes)
    assert elements == (16, 256, 64, 16)
    assert (config.insn_bytes, config.uop_elem_bytes) == (16, 4)
    logs = (config.log_uop_depth, config.log_inp_depth, config.log_wgt_depth, config.log_acc_depth)
    assert logs == (13, 11, 10, 11)
    depths = (config.uop_depth, config.inp_depth, config.wgt_depth, config.acc_depth, config.out_depth)
    assert depths == (8192, 2048, 1024, 2048, 2048)
    assert config.bitstream_name == "1x16_i8w8a32_15_15_18_17"
    assert config.name == "1x16x16_i8w8a32_15_15_18_17"


def test_memory_types() -> None:
    config = VTAConfig()
    sizes = {kind.name: config.dram_elem_bytes(kind) for kind in codes_of(MemoryType, "tvm")}
    assert sizes == {"UOP": 4, "WGT": 256, "INP": 16, "ACC": 64, "OUT": 16, "ACC_8BIT": 16}
    depths = {kind.name: config.depth(kind) for kind in codes_of(MemoryType, "tvm")}
    assert depths == {"UOP": 8192, "WGT": 1024, "INP": 2048, "ACC": 2048, "OUT": 2048, "ACC_8BIT": 2048}
    with refusal("memory type must be 0 to 5, not 6"):
        config.dram_elem_bytes(6)
    with refusal("memory type must be 0 to 5, not 7"):
        config.depth(MemoryType.ACC_8BIT_PAD_MIN)


def test_memory_types_of_an_extended_machine() -> None:
    config = VTAConfig(isa="extended", log_acc_buff_size=16)
    sizes = {kind: config.dram_elem_bytes(kind) for kind in MemoryType}
    assert sizes[MemoryType.ACC_PAD_MIN] == sizes[MemoryType.ACC] == 64
    assert sizes[MemoryType.ACC_8BIT_PAD_MIN] == sizes[MemoryType.ACC_8BIT] == 16
    assert {config.depth(kind) for kind in (3, 5, 6, 7)} == {1024}
    with refusal("memory type must be 0 to 7, not 8"):
        config.dram_elem_bytes(8)


def test_unequal_blocks_and_narrow_operands() -> None:
    config = VTAConfig(
        log_inp_width=4,
        log_wgt_width=2,
        log_batch=1,
        log_block_in=5,
        log_block_out=2,
        log_inp_buff_size=16,
        log_acc_buff_size=14,
    )
    elements = (config.inp_elem_bytes, config.wgt_elem_bytes, config.acc_elem_bytes, config.out_elem_bytes)
    assert elements == (2 * 32 * 2, 4 * 32 // 2, 2 * 4 * 4, 2 * 4 * 2)
    depths = (config.inp_depth, config.wgt_depth, config.acc_depth, config.out_depth)
    assert depths == (2**16 // 128, 2**18 // 64, 2**14 // 32, 2**14 // 32)
    assert config.log_out_buff_size == 13
    assert config.name == config.bitstream_name == "2x32x4_i16w4a32_15_16_18_14"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"target": ""}, "TARGET must be 1 to 64 letters, digits, '_', '.' or '-', not ''"),
        ({"target": "a b"}, "TARGET must be 1 to 64 letters, digits, '_', '.' or '-', not 'a b'"),
        ({"target": 3}, "TARGET must be 1 to 64 letters, digits, '_', '.' or '-', not 3"),
        ({"hw_ver": "new"}, "HW_VER must be a version such as '0.0.2', not 'new'"),
        ({"log_inp_width": 1}, "LOG_INP_WIDTH must be an integer from 2 to 4 (inputs of 4, 8 or 16 bits), not 1"),
        ({"log_inp_width": 5}, "LOG_INP_WIDTH must be an integer from 2 to 4 (inputs of 4, 8 or 16 bits), not 5"),
        ({"log_wgt_width": 5}, "LOG_WGT_WIDTH must be an integer from 2 to 4 (weights of 4, 8 or 16 bits), not 5"),
        (
            {"log_wgt_width": True},
            "LOG_WGT_WIDTH must be an integer from 2 to 4 (weights of 4, 8 or 16 bits), not True",
        ),
        ({"log_acc_width": 4}, "LOG_ACC_WIDTH must be 5 (accumulators of 32 bits), not 4"),
        ({"log_batch": -1}, "LOG_BATCH must be an integer from 0 to 9 (1 to 512 rows in a tile), not -1"),
        (
            {"log_block_in": 0},
            "LOG_BLOCK_IN must be an integer from 1 to 10 (2 to 1024 input channels in a tile), not 0",
        ),
        (
            {"log_block_out": 0},
            "LOG_BLOCK_OUT must be an integer from 1 to 9 (2 to 512 output channels in a tile), not 0",
        ),
        (
            {"log_uop_buff_size": 10**9},
            "LOG_UOP_BUFF_SIZE must be an integer from 0 to 32 (the bytes of the micro-op buffer), not 1000000000",
        ),
        (
            {"log_inp_buff_size": 15.0},
            "LOG_INP_BUFF_SIZE must be an integer from 0 to 32 (the bytes of the input buffer), not 15.0",
        ),
        (
            {"log_wgt_buff_size": "18"},
            "LOG_WGT_BUFF_SIZE must be an integer from 0 to 32 (the bytes of the weight buffer), not '18'",
        ),
        (
            {"log_acc_buff_size": None},
            "LOG_ACC_BUFF_SIZE must be an integer from 0 to 32 (the bytes of the accumulator buffer), not None",
        ),
        (
            {"log_bus_width": 5},
            "LOG_BUS_WIDTH must be an integer from 6 to 9 (a memory bus of 64, 128, 256 or 512 bits), not 5",
        ),
        (
            {"log_bus_width": 10},
            "LOG_BUS_WIDTH must be an integer from 6 to 9 (a memory bus of 64, 128, 256 or 512 bits), not 10",
        ),
        ({"isa": "chisel"}, "ISA must be one of tvm, extended, not 'chisel'"),
        ({"isa": None}, "ISA must be one of tvm, extended, not None"),
        ({"overlap": 1}, "OVERLAP must be true or false, not 1"),
        ({"multiplier": "DSP"}, "MULTIPLIER must be one of dsp, lut, packed, not 'DSP'"),
        ({"multiplier": 0}, "MULTIPLIER must be one of dsp, lut, packed, not 0"),
        (
            {"multiplier": "packed", "log_inp_width": 4},
            "INP bits must be at most 8 (two products in one DSP block of MULTIPLIER 'packed'), not 16",
        ),
        (
            {"multiplier": "packed", "log_wgt_width": 4},
            "WGT bits must be at most 8 (two products in one DSP block of MULTIPLIER 'packed'), not 16",
        ),
        (
            {"multiplier": "packed", "log_block_out": 0},
            "LOG_BLOCK_OUT must be an integer from 1 to 9 (2 to 512 output channels in a tile), not 0",
        ),
        (
            {"max_dsp": -1},
            "MAX_DSP must be an integer from 0 to 65536 (DSP blocks of the GEMM array, 0 for no limit), not -1",
        ),
        (
            {"max_dsp": 65537},
            "MAX_DSP must be an integer from 0 to 65536 (DSP blocks of the GEMM array, 0 for no limit), not 65537",
        ),
        (
            {"max_dsp": 1, "multiplier": "lut"},
            "MAX_DSP must be at most 0 (MULTIPLIER 'lut' uses no DSP blocks), not 1",
        ),
        (
            {"log_address_width": 4},
            "LOG_ADDRESS_WIDTH must be an integer from 5 to 6 (byte addresses of 32 or 64 bits), not 4",
        ),
        (
            {"log_address_width": 7},
            "LOG_ADDRESS_WIDTH must be an integer from 5 to 6 (byte addresses of 32 or 64 bits), not 7",
        ),
        ({"log_batch": 9}, "INP element must be at most 4096 bytes, not 8192"),
        ({"log_block_in": 7, "log_block_out": 6}, "WGT element must be at most 4096 bytes, not 8192"),
        ({"log_batch": 7}, "ACC element must be at most 4096 bytes, not 8192"),
        ({"log_uop_buff_size": 2}, "LOG_UOP_BUFF_SIZE must be at least 3 (room for 2 UOP elements), not 2"),
        ({"log_inp_buff_size": 4}, "LOG_INP_BUFF_SIZE must be at least 5 (room for 2 INP elements), not 4"),
        ({"log_wgt_buff_size": 8}, "LOG_WGT_BUFF_SIZE must be at least 9 (room for 2 WGT elements), not 8"),
        ({"log_acc_buff_size": 6}, "LOG_ACC_BUFF_SIZE must be at least 7 (room for 2 ACC elements), not 6"),
        (
            {"log_uop_buff_size": 16},
            "log2 of the UOP depth must be at most 13 (37 + 2U bits of a GEMM must fit 64), not 14",
        ),
        (
            {"log_acc_buff_size": 18},
            "log2 of the ACC depth must be at most 11 (4A + 20 bits of an ALU must fit 64), not 12",
        ),
        (
            {"log_inp_buff_size": 21, "log_acc_buff_size": 8, "log_wgt_buff_size": 10},
            "log2 of the INP depth must be at most 16 (sram_base has 16 bits), not 17",
        ),
        (
            {"log_wgt_buff_size": 25, "log_acc_buff_size": 8, "log_inp_buff_size": 6},
            "log2 of the WGT depth must be at most 16 (sram_base has 16 bits), not 17",
        ),
        (
            {"log_inp_buff_size": 16},
            "2A + 2I + 2W must be at most 64 (the factors of a GEMM; A=11 I=12 W=10), not 66",
        ),
        (
            {"log_inp_buff_size": 14, "log_wgt_buff_size": 19},
            "A + max(A, I) + W must be at most 32 (the bits of a micro-op; A=11 I=10 W=11), not 33",
        ),
    ],
)
def test_refusals(values: dict[str, Any], message: str) -> None:
    with refusal(message):
        VTAConfig(**values)


def test_each_limit_is_reached() -> None:
    assert VTAConfig(log_uop_buff_size=15).log_uop_depth == config_module.MAX_LOG_UOP_DEPTH
    assert VTAConfig(log_acc_buff_size=17).log_acc_depth == config_module.MAX_LOG_ACC_DEPTH
    deep = VTAConfig(log_inp_buff_size=20, log_wgt_buff_size=23, log_acc_buff_size=7)
    assert (deep.log_inp_depth, deep.log_wgt_depth, deep.log_acc_depth) == (16, 15, 1)
    least = VTAConfig(log_uop_buff_size=3, log_inp_buff_size=5, log_wgt_buff_size=9, log_acc_buff_size=7)
    assert {least.uop_depth, least.inp_depth, least.wgt_depth, least.acc_depth} == {config_module.MIN_DEPTH}
    assert VTAConfig(log_batch=6, log_acc_buff_size=20, log_inp_buff_size=20).acc_elem_bytes == 4096


@given(configs())
def test_json_round_trip(config: VTAConfig) -> None:
    assert VTAConfig.from_json(config.to_json()) == config
    assert VTAConfig.from_json(config.to_dict()) == config
    assert (1 << config.log_out_buff_size) == config.out_depth * config.out_elem_bytes
    assert (1 << config.log_wgt_buff_size) == config.wgt_depth * config.wgt_elem_bytes
    assert (1 << config.log_acc_buff_size) == config.acc_depth * config.acc_elem_bytes
    assert (1 << config.log_inp_buff_size) == config.inp_depth * config.inp_elem_bytes


@pytest.mark.parametrize("target", ["sim", "tsim", "pynq", "ultra96", "zcu104", "de10nano", "intelfocl"])
def test_tvm_samples_load_and_come_back(target: str) -> None:
    sample = SAMPLE | {"TARGET": target}
    config = VTAConfig.from_json(json.dumps(sample))
    assert config == PRESETS[target]
    assert json.loads(config.to_json()) == sample
    assert list(config.to_dict()) == list(sample)
    assert config.bus_bits == (128 if target in ("ultra96", "zcu104") else 64)


def test_old_zcu104_sample_keeps_its_version() -> None:
    config = VTAConfig.from_json(SAMPLE | {"TARGET": "zcu104", "HW_VER": "0.0.1"})
    assert config == replace(PRESETS["zcu104"], hw_ver="0.0.1")


def test_old_keys_are_accepted() -> None:
    old = SAMPLE | {"LOG_BLOCK_IN": 4, "LOG_BLOCK_OUT": 4, "LOG_OUT_WIDTH": 3, "LOG_OUT_BUFF_SIZE": 15}
    assert VTAConfig.from_json(old) == VTAConfig()
    del old["LOG_BLOCK"]
    assert VTAConfig.from_json(old) == VTAConfig()


def test_own_keys_appear_only_when_needed() -> None:
    config = VTAConfig(log_block_in=3, log_bus_width=8, log_inp_buff_size=14, log_wgt_buff_size=17)
    values = config.to_dict()
    assert (values["LOG_BLOCK_IN"], values["LOG_BLOCK_OUT"], values["LOG_BUS_WIDTH"]) == (3, 4, 8)
    assert "LOG_BLOCK" not in values
    assert VTAConfig(target="ultra96").to_dict()["LOG_BUS_WIDTH"] == 6


OPTIONS: dict[str, Any] = {
    "ISA": "extended",
    "OVERLAP": True,
    "MULTIPLIER": "packed",
    "MAX_DSP": 220,
    "LOG_ADDRESS_WIDTH": 6,
}


def test_options_appear_only_when_needed() -> None:
    config = VTAConfig(isa="extended", overlap=True, multiplier="packed", max_dsp=220, log_address_width=6)
    assert config.to_dict() == SAMPLE | OPTIONS
    assert VTAConfig.from_json(SAMPLE | OPTIONS) == config
    defaults = {"ISA": "tvm", "OVERLAP": False, "MULTIPLIER": "dsp", "MAX_DSP": 0, "LOG_ADDRESS_WIDTH": 5}
    assert VTAConfig.from_json(SAMPLE | defaults) == VTAConfig()
    assert (VTAConfig().address_bits, config.address_bits) == (32, 64)
    assert (VTAConfig().is_extended, config.is_extended) == (False, True)
    assert (config.name, config.bitstream_name) == ("1x16x16_i8w8a32_15_15_18_17_extended", "1x16_i8w8a32_15_15_18_17")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"ISA": ["tvm"]}', "ISA must be one of tvm, extended, not ['tvm']"),
        ('{"OVERLAP": "yes"}', "OVERLAP must be true or false, not 'yes'"),
        ('{"MAX_DSP": true}', "MAX_DSP must be an integer from 0 to 65536 (DSP blocks of the GEMM array"),
        ("[]", "configuration must be a JSON object, not list"),
        (
            "{",
            "configuration cannot be read: JSON must be well-formed: Expecting property name enclosed in double quotes",
        ),
        ('{"LOG_BATCH": 0, "LOG_BATCH": 1}', "configuration cannot be read: JSON object must name each key once"),
        ('{"LOG_BATCH": NaN}', "configuration cannot be read: JSON number must be finite, not NaN"),
        ("[" * 5000, "configuration cannot be read: JSON must "),  # which rule, depends on Python's limit
        ("[" * 300 + "]" * 300, "configuration cannot be read: JSON must nest at most 200 levels"),
        (
            '{"LOG_BATCH": ' + "9" * 5000 + "}",
            "configuration cannot be read: JSON must be well-formed: Exceeds the limit",
        ),
        ('{"LOG_FOO": 1}', "configuration key must be one of TVM's, not 'LOG_FOO'"),
        ('{"log_batch": 1}', "configuration key must be one of TVM's, not 'log_batch'"),
        ('{"LOG_BLOCK": 4, "LOG_BLOCK_IN": 5}', "LOG_BLOCK_IN must be 4 as LOG_BLOCK is, not 5"),
        ('{"LOG_BLOCK": 4, "LOG_BLOCK_OUT": 5}', "LOG_BLOCK_OUT must be 4 as LOG_BLOCK is, not 5"),
        ('{"LOG_OUT_WIDTH": 4}', "LOG_OUT_WIDTH must be 3, which follows from the other keys, not 4"),
        ('{"LOG_OUT_BUFF_SIZE": 16}', "LOG_OUT_BUFF_SIZE must be 15, which follows from the other keys, not 16"),
        ('{"LOG_OUT_WIDTH": 3.0}', "LOG_OUT_WIDTH must be 3, which follows from the other keys, not 3.0"),
        ('{"LOG_OUT_BUFF_SIZE": 15.0}', "LOG_OUT_BUFF_SIZE must be 15, which follows from the other keys, not 15.0"),
        (
            '{"LOG_BLOCK": 4.0, "LOG_BLOCK_IN": 4, "LOG_BLOCK_OUT": 4}',
            "LOG_BLOCK must be an integer from 1 to 9 (2 to 512 output channels in a tile), not 4.0",
        ),
        (
            '{"LOG_BLOCK": true, "LOG_BLOCK_IN": 1, "LOG_BLOCK_OUT": 1}',
            "LOG_BLOCK must be an integer from 1 to 9 (2 to 512 output channels in a tile), not True",
        ),
        (
            '{"LOG_BLOCK": 4, "LOG_BLOCK_IN": 4.0}',
            "LOG_BLOCK_IN must be an integer from 1 to 10 (2 to 1024 input channels in a tile), not 4.0",
        ),
        ('{"TARGET": []}', "TARGET must be 1 to 64 letters, digits, '_', '.' or '-', not []"),
        ('{"LOG_BATCH": {}}', "LOG_BATCH must be an integer from 0 to 9 (1 to 512 rows in a tile), not {}"),
    ],
)
def test_json_refusals(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        VTAConfig.from_json(text)


@pytest.mark.parametrize(("source", "kind"), [(5, "int"), (None, "NoneType"), ([], "list"), (b"{}", "bytes")])
def test_what_is_no_object_is_refused(source: Any, kind: str) -> None:
    with refusal(f"configuration must be a JSON object, not {kind}"):
        VTAConfig.from_json(source)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "vta_config.json"
    PRESETS["tiny"].save(path)
    assert VTAConfig.load(path) == resolve(path) == resolve(str(path)) == PRESETS["tiny"]
    path.write_bytes(b"\xff")
    with refusal(f"{path}: configuration must be JSON, and is no text"):
        VTAConfig.load(path)
    with refusal(f"{tmp_path}/none: configuration cannot be read: No such file or directory"):
        VTAConfig.load(tmp_path / "none")


def test_presets() -> None:
    assert resolve("pynq") == preset("pynq") == PRESETS["pynq"]
    assert all(config.target == name for name, config in PRESETS.items())
    names = "sim, tsim, pynq, ultra96, zcu104, de10nano, intelfocl, ulx3s, zynq-7020, ecp5-85f, tiny"
    with refusal(f"preset must be one of {names}, not 'vu9p'"):
        preset("vu9p")
    with refusal(f"configuration must be a file or one of {names}, not 'vu9p'"):
        resolve("vu9p")


def test_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    config = VTAConfig()
    assert config.digest == VTAConfig().digest
    assert re.fullmatch("[0-9a-f]{64}", config.digest)
    assert len({preset.digest for preset in PRESETS.values()}) == len(PRESETS)
    # What runs the same programs has the same program digest; what does not, has not.
    assert config.program_digest == PRESETS["ultra96"].program_digest
    assert config.program_digest != PRESETS["tiny"].program_digest
    # Options change the digest; among them only the instruction set changes which programs run.
    for key, value in OPTIONS.items():
        other = VTAConfig.from_json({key: value})
        assert other.digest != config.digest
        assert (other.program_digest == config.program_digest) is (key != "ISA")
    # Files that exist name these.
    assert config.digest == "a6ac583a17a5e97ea86760e2db683dc51a9ca4e8d2ee6e525879806e5c2ced04"
    assert config.program_digest == "1a7a8d950d35eaa4a73245f1afb0db504a750fe7e26c6616820f5b9096a442c9"
    before = (config.digest, config.program_digest)
    monkeypatch.setattr(config_module, "ISA_TABLE_VERSION", config_module.ISA_TABLE_VERSION + 1)
    assert not {config.digest, config.program_digest} & set(before)
