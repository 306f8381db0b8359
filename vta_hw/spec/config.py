"""The configuration of a VTA: its parameters, what follows from them, and what is possible (VTA spec 1)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from vta_hw.spec import strict_json
from vta_hw.spec.instructions import InstructionSet, MemoryType, codes_of
from vta_hw.spec.parameters import (
    RANGES,
    ConfigError,
    Multiplier,
    check_at_most,
    check_choice,
    check_flag,
    check_range,
    check_text,
)

__all__ = [
    "ISA_TABLE_VERSION",
    "PRESETS",
    "ConfigError",
    "InstructionSet",
    "Multiplier",
    "VTAConfig",
    "default_log_bus_width",
    "preset",
    "resolve",
]

ISA_TABLE_VERSION: Final = 1
"""Raised whenever the field table or the meaning of an instruction changes; part of every digest."""

MAX_ELEMENT_BYTES: Final = 4096
MAX_LOG_UOP_DEPTH: Final = 13
MAX_LOG_ACC_DEPTH: Final = 11
MAX_LOG_SRAM_DEPTH: Final = 16
MIN_DEPTH: Final = 2

# Parameters of this toolkit, which TVM does not know: where they have their defaults, files and digests do not show
# them, so that those of a machine of TVM stay what they are.
_OPTIONS: Final = ("isa", "overlap", "multiplier", "max_dsp", "log_address_width")

# They change neither what a program computes nor which programs run.
_NOT_OF_PROGRAMS: Final = frozenset(
    {"target", "hw_ver", "log_bus_width", "overlap", "multiplier", "max_dsp", "log_address_width"}
)

# TVM derives the bus width from the target (VTA spec 1.5), so its JSON has no key for it.
_WIDE_BUS_TARGETS: Final = frozenset({"ultra96", "zcu104"})


def default_log_bus_width(target: str) -> int:
    """Return log2 of the memory bus bits that TVM assumes for `target` (VTA spec 1.5)."""
    return 7 if target in _WIDE_BUS_TARGETS else 6


@dataclass(frozen=True, kw_only=True)
class VTAConfig:
    """One VTA: tile shape, operand widths, buffer sizes and bus width, each as a power of two, and options.

    Buffer sizes are log2 of bytes, widths log2 of bits. `target` names a board or simulator and `hw_ver` the version
    of the instruction set; neither changes behaviour. The constructor raises `ConfigError` with the rule and the value.

    isa: an `InstructionSet`, as a word; an extended machine runs the programs of TVM unchanged.
    overlap: whether ALU and accumulator loads may run beside GEMM.
    multiplier: a `Multiplier`, as a word; "packed" needs operands of at most 8 bits.
    max_dsp: DSP blocks the GEMM array may use, the other products being built of LUTs; 0 means no limit.
    """

    target: str = "sim"
    hw_ver: str = "0.0.2"
    log_inp_width: int = 3
    log_wgt_width: int = 3
    log_acc_width: int = 5
    log_batch: int = 0
    log_block_in: int = 4
    log_block_out: int = 4
    log_uop_buff_size: int = 15
    log_inp_buff_size: int = 15
    log_wgt_buff_size: int = 18
    log_acc_buff_size: int = 17
    log_bus_width: int = 6
    isa: str = InstructionSet.TVM.value
    overlap: bool = False
    multiplier: str = Multiplier.DSP.value
    max_dsp: int = 0
    log_address_width: int = 5

    def __post_init__(self) -> None:
        check_text("TARGET", self.target, r"[A-Za-z0-9_.-]{1,64}", "1 to 64 letters, digits, '_', '.' or '-'")
        check_text("HW_VER", self.hw_ver, r"[0-9]{1,4}(\.[0-9]{1,4}){1,3}", "a version such as '0.0.2'")
        for name, bounds in RANGES.items():
            check_range(name.upper(), getattr(self, name), bounds)
        self._check_options()
        self._check_elements()
        self._check_depths()

    def _check_options(self) -> None:
        check_choice("ISA", self.isa, InstructionSet)
        check_flag("OVERLAP", self.overlap)
        check_choice("MULTIPLIER", self.multiplier, Multiplier)
        if self.multiplier == Multiplier.PACKED:
            for name, bits in (("INP", self.inp_bits), ("WGT", self.wgt_bits)):
                check_at_most(f"{name} bits", bits, 8, "two products in one DSP block of MULTIPLIER 'packed'")
        if self.multiplier == Multiplier.LUT:
            check_at_most("MAX_DSP", self.max_dsp, 0, "MULTIPLIER 'lut' uses no DSP blocks")

    def _check_elements(self) -> None:
        sizes = {
            "INP": self.inp_elem_bytes,
            "WGT": self.wgt_elem_bytes,
            "ACC": self.acc_elem_bytes,
            "OUT": self.out_elem_bytes,
        }
        for name, nbytes in sizes.items():
            if nbytes > MAX_ELEMENT_BYTES:
                raise ConfigError(f"{name} element must be at most {MAX_ELEMENT_BYTES} bytes, not {nbytes}")

    def _check_depths(self) -> None:
        logs = {"UOP": self.log_uop_depth, "INP": self.log_inp_depth, "WGT": self.log_wgt_depth}
        logs["ACC"] = self.log_acc_depth
        for name, log in logs.items():
            # The smallest index field that C can declare, and so the smallest that has a golden vector, is 1 bit.
            if log < 1:
                size = getattr(self, f"log_{name.lower()}_buff_size")
                least = size - log + 1
                raise ConfigError(
                    f"LOG_{name}_BUFF_SIZE must be at least {least} (room for {MIN_DEPTH} {name} elements), not {size}"
                )
        u, i, w, a = logs.values()
        check_at_most("log2 of the UOP depth", u, MAX_LOG_UOP_DEPTH, "37 + 2U bits of a GEMM must fit 64")
        check_at_most("log2 of the ACC depth", a, MAX_LOG_ACC_DEPTH, "4A + 20 bits of an ALU must fit 64")
        check_at_most("log2 of the INP depth", i, MAX_LOG_SRAM_DEPTH, "sram_base has 16 bits")
        check_at_most("log2 of the WGT depth", w, MAX_LOG_SRAM_DEPTH, "sram_base has 16 bits")
        check_at_most("2A + 2I + 2W", 2 * (a + i + w), 64, f"the factors of a GEMM; A={a} I={i} W={w}")
        check_at_most("A + max(A, I) + W", a + max(a, i) + w, 32, f"the bits of a micro-op; A={a} I={i} W={w}")

    @property
    def batch(self) -> int:
        """Rows of an input, accumulator or output tile."""
        return 1 << self.log_batch

    @property
    def block_in(self) -> int:
        """Input channels of an input or weight tile."""
        return 1 << self.log_block_in

    @property
    def block_out(self) -> int:
        """Output channels of a weight, accumulator or output tile."""
        return 1 << self.log_block_out

    @property
    def inp_bits(self) -> int:
        """Bits of one input scalar."""
        return 1 << self.log_inp_width

    @property
    def wgt_bits(self) -> int:
        """Bits of one weight scalar."""
        return 1 << self.log_wgt_width

    @property
    def acc_bits(self) -> int:
        """Bits of one accumulator scalar."""
        return 1 << self.log_acc_width

    @property
    def out_bits(self) -> int:
        """Bits of one output scalar, the same as of one input scalar (VTA spec 1.2)."""
        return self.inp_bits

    @property
    def bus_bits(self) -> int:
        """Data bits of the memory bus."""
        return 1 << self.log_bus_width

    @property
    def address_bits(self) -> int:
        """Bits of a byte address in DRAM."""
        return 1 << self.log_address_width

    @property
    def is_extended(self) -> bool:
        """Whether the machine knows the instructions that TVM's does not have."""
        return self.isa == InstructionSet.EXTENDED

    @property
    def log_out_width(self) -> int:
        """log2 of `out_bits`."""
        return self.log_inp_width

    @property
    def log_out_buff_size(self) -> int:
        """log2 of the bytes of the OUT buffer, which has the depth of the accumulator (VTA spec 1.2)."""
        return self.log_acc_buff_size + self.log_out_width - self.log_acc_width

    @property
    def insn_bytes(self) -> int:
        """Bytes of one instruction."""
        return 16

    @property
    def uop_elem_bytes(self) -> int:
        """Bytes of one micro-op."""
        return 4

    @property
    def inp_elem_bytes(self) -> int:
        """Bytes of one input tile, [batch][block_in]."""
        return self.batch * self.block_in * self.inp_bits // 8

    @property
    def wgt_elem_bytes(self) -> int:
        """Bytes of one weight tile, [block_out][block_in]."""
        return self.block_out * self.block_in * self.wgt_bits // 8

    @property
    def acc_elem_bytes(self) -> int:
        """Bytes of one accumulator tile, [batch][block_out]."""
        return self.batch * self.block_out * self.acc_bits // 8

    @property
    def out_elem_bytes(self) -> int:
        """Bytes of one output tile, [batch][block_out]."""
        return self.batch * self.block_out * self.out_bits // 8

    @property
    def log_uop_depth(self) -> int:
        """U of the VTA specification: log2 of the micro-ops the buffer holds."""
        return self.log_uop_buff_size - 2

    @property
    def log_inp_depth(self) -> int:
        """I of the VTA specification: log2 of the input tiles the buffer holds."""
        return self.log_inp_buff_size - (self.log_batch + self.log_block_in + self.log_inp_width - 3)

    @property
    def log_wgt_depth(self) -> int:
        """W of the VTA specification: log2 of the weight tiles the buffer holds."""
        return self.log_wgt_buff_size - (self.log_block_out + self.log_block_in + self.log_wgt_width - 3)

    @property
    def log_acc_depth(self) -> int:
        """A of the VTA specification: log2 of the accumulator tiles the buffer holds."""
        return self.log_acc_buff_size - (self.log_batch + self.log_block_out + self.log_acc_width - 3)

    @property
    def uop_depth(self) -> int:
        """Micro-ops the buffer holds."""
        return 1 << self.log_uop_depth

    @property
    def inp_depth(self) -> int:
        """Input tiles the buffer holds."""
        return 1 << self.log_inp_depth

    @property
    def wgt_depth(self) -> int:
        """Weight tiles the buffer holds."""
        return 1 << self.log_wgt_depth

    @property
    def acc_depth(self) -> int:
        """Accumulator tiles the buffer holds."""
        return 1 << self.log_acc_depth

    @property
    def out_depth(self) -> int:
        """Output tiles the OUT buffer holds: one for each accumulator tile."""
        return self.acc_depth

    def dram_elem_bytes(self, memory_type: int) -> int:
        """Return the bytes in DRAM of one element of `memory_type` (VTA spec 3.1); `ConfigError` on unknown codes."""
        sizes = {
            MemoryType.UOP: self.uop_elem_bytes,
            MemoryType.WGT: self.wgt_elem_bytes,
            MemoryType.INP: self.inp_elem_bytes,
            MemoryType.ACC: self.acc_elem_bytes,
            MemoryType.OUT: self.out_elem_bytes,
        }
        known = self._memory_type(memory_type)
        return sizes[known.scratchpad] // (4 if known.is_narrow else 1)

    def depth(self, memory_type: int) -> int:
        """Return the elements of the scratchpad behind `memory_type`; `ConfigError` on unknown codes."""
        depths = {
            MemoryType.UOP: self.uop_depth,
            MemoryType.WGT: self.wgt_depth,
            MemoryType.INP: self.inp_depth,
            MemoryType.ACC: self.acc_depth,
            MemoryType.OUT: self.out_depth,
        }
        return depths[self._memory_type(memory_type).scratchpad]

    def _memory_type(self, code: int) -> MemoryType:
        known = codes_of(MemoryType, self.isa)
        if code not in known:
            raise ConfigError(f"memory type must be 0 to {max(known)}, not {code}")
        return MemoryType(code)

    @property
    def name(self) -> str:
        """Tile shape, widths and buffer sizes in one word, such as `1x16x16_i8w8a32_15_15_18_17`.

        A machine whose instruction set is not TVM's has its name behind them.
        """
        isa = "" if self.isa == InstructionSet.TVM else f"_{self.isa}"
        return f"{self.batch}x{self.block_in}x{self.block_out}_{self._widths_and_sizes}{isa}"

    @property
    def bitstream_name(self) -> str:
        """The name TVM looks a bitstream up by (VTA spec 1.2); equal blocks are written once."""
        blocks = f"{self.block_in}" if self.block_in == self.block_out else f"{self.block_in}x{self.block_out}"
        return f"{self.batch}x{blocks}_{self._widths_and_sizes}"

    @property
    def _widths_and_sizes(self) -> str:
        widths = f"i{self.inp_bits}w{self.wgt_bits}a{self.acc_bits}"
        sizes = (self.log_uop_buff_size, self.log_inp_buff_size, self.log_wgt_buff_size, self.log_acc_buff_size)
        return "_".join((widths, *map(str, sizes)))

    def _stated(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in _OPTIONS:
            if values[name] == getattr(_DEFAULT, name):
                del values[name]
        return values

    @property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) of the whole configuration and of the instruction set's version."""
        return _digest(self._stated())

    @property
    def program_digest(self) -> str:
        """SHA-256 (hexadecimal) of what a program's meaning depends on.

        Target, version label, bus and address width, and how the GEMM array is built are left out: machines with equal
        `program_digest` run the same programs with the same result, bit for bit.
        """
        return _digest({name: value for name, value in self._stated().items() if name not in _NOT_OF_PROGRAMS})

    def to_dict(self) -> dict[str, str | int]:
        """Return the configuration under TVM's keys, as `to_json` writes it."""
        values: dict[str, str | int] = {}
        for name, value in self._stated().items():
            values[name.upper()] = value
            if name == "log_block_out" and self.log_block_in == self.log_block_out:
                del values["LOG_BLOCK_IN"], values["LOG_BLOCK_OUT"]
                values["LOG_BLOCK"] = self.log_block_in
        if self.log_bus_width == default_log_bus_width(self.target):
            del values["LOG_BUS_WIDTH"]
        return values

    def to_json(self) -> str:
        """Return the text of a `vta_config.json`: the keys of TVM and, if needed, those of this toolkit.

        LOG_BLOCK stands for two equal blocks, else there are LOG_BLOCK_IN and LOG_BLOCK_OUT. LOG_BUS_WIDTH
        appears when it is not what TVM assumes for the target, an option when it is not its default.
        """
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_json(cls, source: str | Mapping[str, Any]) -> VTAConfig:
        """Read a `vta_config.json`, as text or as its parsed object; a key that is absent has TVM's default.

        LOG_OUT_WIDTH and LOG_OUT_BUFF_SIZE of older files follow from the other keys and must agree with them. Raises
        `ConfigError` on anything that is not a JSON object of known keys.
        """
        values = dict(_object(source))
        known = {field.name.upper() for field in fields(cls)}
        for key in values:
            if key not in known | {"LOG_BLOCK", "LOG_OUT_WIDTH", "LOG_OUT_BUFF_SIZE"}:
                raise ConfigError(f"configuration key must be one of TVM's, not {key!r}")
        if "LOG_BLOCK" in values:
            block = values.pop("LOG_BLOCK")
            check_range("LOG_BLOCK", block, RANGES["log_block_out"])
            for key in ("LOG_BLOCK_IN", "LOG_BLOCK_OUT"):
                if values.setdefault(key, block) != block:
                    raise ConfigError(f"{key} must be {block!r} as LOG_BLOCK is, not {values[key]!r}")
        derived = {key: values.pop(key) for key in ("LOG_OUT_WIDTH", "LOG_OUT_BUFF_SIZE") if key in values}
        target = values.get("TARGET", cls.target)
        if isinstance(target, str):
            values.setdefault("LOG_BUS_WIDTH", default_log_bus_width(target))
        config = cls(**{key.lower(): value for key, value in values.items()})
        for key, value in derived.items():
            expected = getattr(config, key.lower())
            if type(value) is not int or value != expected:
                raise ConfigError(f"{key} must be {expected}, which follows from the other keys, not {value!r}")
        return config

    @classmethod
    def load(cls, path: str | Path) -> VTAConfig:
        """Read a `vta_config.json` file; raises `ConfigError` naming the file."""
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{path}: configuration cannot be read: {error.strerror}") from error
        except UnicodeDecodeError:
            raise ConfigError(f"{path}: configuration must be JSON, and is no text") from None
        except ValueError as error:
            raise ConfigError(f"{path}: {error}") from error

    def save(self, path: str | Path) -> None:
        """Write `to_json()` to a file."""
        Path(path).write_text(self.to_json(), encoding="utf-8")


def _digest(values: Mapping[str, str | int]) -> str:
    canonical = json.dumps({"isa": ISA_TABLE_VERSION, "config": values}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _object(source: object) -> Mapping[str, Any]:
    try:
        value = strict_json.parse(source) if isinstance(source, str) else source
    except strict_json.JsonError as error:
        raise ConfigError(f"configuration cannot be read: {error}") from error
    if not isinstance(value, Mapping):
        raise ConfigError(f"configuration must be a JSON object, not {type(value).__name__}")
    return value


_DEFAULT: Final = VTAConfig()


def _target(name: str) -> VTAConfig:
    return replace(_DEFAULT, target=name, log_bus_width=default_log_bus_width(name))


# 133 of the 208 block RAMs and 88 of the 156 multipliers of an ECP5-85F, with room for a memory controller.
_ULX3S: Final = VTAConfig(
    target="ulx3s",
    log_block_in=3,
    log_block_out=3,
    log_uop_buff_size=13,
    log_inp_buff_size=14,
    log_wgt_buff_size=16,
    log_acc_buff_size=16,
)

# BLOCK 16 in a Zynq-7020 and in an ECP5-85F, as bench/area.py measures: the accumulators and the weights of the default
# are of 64 block RAMs of 36 Kb each, and the ALU's multiplications take 48 DSP blocks besides those of the array.
_ZYNQ_7020: Final = VTAConfig(target="zynq-7020", log_wgt_buff_size=17, multiplier=Multiplier.PACKED.value)
_ECP5_85F: Final = VTAConfig(target="ecp5-85f", log_wgt_buff_size=17, log_acc_buff_size=16, max_dsp=96)

# 64 micro-ops, 64 input, 32 weight and 64 accumulator tiles of 4 channels: room for two 3x3 kernels, and for
# double buffering; everything simulates in milliseconds, and index fields fall into other words than by default.
_TINY: Final = VTAConfig(
    target="tiny",
    log_block_in=2,
    log_block_out=2,
    log_uop_buff_size=8,
    log_inp_buff_size=8,
    log_wgt_buff_size=9,
    log_acc_buff_size=10,
)

PRESETS: Final[Mapping[str, VTAConfig]] = MappingProxyType(
    {
        "sim": _DEFAULT,
        "tsim": _target("tsim"),
        "pynq": _target("pynq"),
        "ultra96": _target("ultra96"),
        "zcu104": _target("zcu104"),
        "de10nano": _target("de10nano"),
        "intelfocl": _target("intelfocl"),
        "ulx3s": _ULX3S,
        "zynq-7020": _ZYNQ_7020,
        "ecp5-85f": _ECP5_85F,
        "tiny": _TINY,
    }
)
"""Configurations by name; the names of TVM's sample targets mean what its sample files say (VTA spec 1.5)."""


def preset(name: str) -> VTAConfig:
    """Return a preset; `ConfigError` lists the names there are."""
    if name not in PRESETS:
        raise ConfigError(f"preset must be one of {', '.join(PRESETS)}, not {name!r}")
    return PRESETS[name]


def resolve(name_or_path: str | Path) -> VTAConfig:
    """Return the preset of that name, or else read the `vta_config.json` at that path; raises `ConfigError`."""
    if str(name_or_path) in PRESETS:
        return PRESETS[str(name_or_path)]
    if not Path(name_or_path).exists():
        names = ", ".join(PRESETS)
        raise ConfigError(f"configuration must be a file or one of {names}, not {str(name_or_path)!r}")
    return VTAConfig.load(name_or_path)
