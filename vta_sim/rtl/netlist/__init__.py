"""A compiler from Amaranth's netlists to machine code, for any design with one clock; nothing here knows a VTA.

The way of a design, a module for each step: `cells` what a netlist consists of, `cuts` where wide values are cut,
`flatten` netlist to words (`words`, `logic`), `assemble` words to functions, `emit` words to LLVM, `native` LLVM to
machine code. `simulator` runs it, `waveform` shows what it does.
"""

from vta_sim.rtl.netlist.assemble import HOOK_SETS, HOOK_STOPS
from vta_sim.rtl.netlist.design import CompiledDesign, cached_design, compile_design
from vta_sim.rtl.netlist.errors import Unsupported
from vta_sim.rtl.netlist.simulator import Simulator

__all__ = ["HOOK_SETS", "HOOK_STOPS", "CompiledDesign", "Simulator", "Unsupported", "cached_design", "compile_design"]
