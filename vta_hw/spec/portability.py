"""What other implementations of VTA cannot do with a configuration that this one can (VTA spec 1.4)."""

from __future__ import annotations

from vta_hw.spec.config import InstructionSet, VTAConfig, default_log_bus_width

_CHISEL_LOG_DEPTHS = (13, 11, 11, 10)


def limits_elsewhere(config: VTAConfig) -> tuple[str, ...]:
    """Return one sentence for each constraint of a known implementation that `config` breaks; none if it runs anywhere.

    None of this concerns the toolkit's own hardware, compiler and simulators.
    """
    return (*_anybody(config), *_tvm(config), *_hls(config), *_chisel(config), *_opencl(config))


def _anybody(config: VTAConfig) -> list[str]:
    return [] if config.isa == InstructionSet.TVM else [f"ISA must be {InstructionSet.TVM}, not {config.isa}"]


def _tvm(config: VTAConfig) -> list[str]:
    found = []
    if config.log_block_in != config.log_block_out:
        found.append(f"TVM: BLOCK_IN must equal BLOCK_OUT, {config.block_out}, not {config.block_in}")
    if (config.inp_bits, config.wgt_bits) != (8, 8):
        found.append(f"TVM: INP and WGT must have 8 bits in a convolution, not {config.inp_bits} and {config.wgt_bits}")
    default = 1 << default_log_bus_width(config.target)
    if config.bus_bits != default:
        found.append(f"TVM: bus of target {config.target!r} must have {default} bits, not {config.bus_bits}")
    return found


def _hls(config: VTAConfig) -> list[str]:
    elements = {
        "INP": config.inp_elem_bytes,
        "WGT": config.wgt_elem_bytes,
        "ACC": config.acc_elem_bytes,
        "OUT": config.out_elem_bytes,
    }
    # HLS memories are arrays of bus words.
    return [
        f"HLS: {name} element must be a multiple of the bus, {config.bus_bits} bits, not {8 * nbytes}"
        for name, nbytes in elements.items()
        if 8 * nbytes % config.bus_bits
    ]


def _chisel(config: VTAConfig) -> list[str]:
    found = []
    logs = (config.log_uop_depth, config.log_acc_depth, config.log_inp_depth, config.log_wgt_depth)
    if logs != _CHISEL_LOG_DEPTHS:
        found.append(f"Chisel: log2 of the depths U, A, I, W must be {_CHISEL_LOG_DEPTHS}, not {logs}")
    if config.out_bits != 8:
        found.append(f"Chisel: OUT must have 8 bits, not {config.out_bits}")
    if config.batch != 1:
        found.append(f"Chisel: BATCH must be 1 for the ALU, not {config.batch}")
    return found


def _opencl(config: VTAConfig) -> list[str]:
    found = []
    if (config.inp_bits, config.wgt_bits) != (8, 8):
        found.append(f"OpenCL: INP and WGT must have 8 bits, not {config.inp_bits} and {config.wgt_bits}")
    # Its decoder expects dst_factor_out in the second word, where it is only if the first has no room (VTA spec 2.7).
    used = 37 + 2 * config.log_uop_depth + config.log_acc_depth
    if used <= 64:
        found.append(f"OpenCL: 37 + 2U + A must be more than 64, not {used}")
    return found
