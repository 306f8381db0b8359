"""Directives that read the manual's tables out of the packages, so that the two cannot differ."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from amaranth.lib.wiring import In, Member
from click import Command, Context
from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx

from tests.vta_hw.rtl.formal.cases import CASES
from vta.cli.root import root
from vta_hw.rtl.scratchpad import Geometry
from vta_hw.rtl.top import Top
from vta_hw.spec.config import PRESETS, VTAConfig, preset
from vta_hw.spec.fields import FIELDS, Format
from vta_hw.spec.isa import InstructionSet, MemoryType
from vta_hw.spec.manual import manual
from vta_hw.spec.registers import REGISTERS, PointerWidth, Status

ROOT = Path(__file__).parent.parent.parent


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], widths: Sequence[int], *, code: bool = True
) -> nodes.table:
    """A table of plain text; its first column is set as code, unless it is none."""

    def name(cell: str) -> nodes.Node:
        return nodes.literal(text=cell) if code else nodes.Text(cell)

    def row(cells: Sequence[nodes.Node]) -> nodes.row:
        return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells))

    group = nodes.tgroup("", *(nodes.colspec(colwidth=width) for width in widths), cols=len(widths))
    group += nodes.thead("", row([nodes.Text(head) for head in heads]))
    group += nodes.tbody("", *(row([name(cells[0]), *(nodes.Text(cell) for cell in cells[1:])]) for cells in rows))
    return nodes.table("", group)


class FieldTable(Directive):
    """``{fields} <title>``: the table under that title in the manual of the preset `sim`."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        _, _, rest = manual(preset("sim")).partition(f"## {self.arguments[0]}\n")
        if not rest:
            raise self.error(f"the manual has no section {self.arguments[0]!r}")
        container = nodes.container()
        self.state.nested_parse(StringList(rest.partition("\n## ")[0].splitlines()), self.content_offset, container)
        return container.children


class ExtendedCodes(Directive):
    """``{extended-codes}``: the codes that only an extended machine knows, and the fields they are values of."""

    def run(self) -> list[nodes.Node]:
        fields = {field.name: field for kind in Format for field in FIELDS[kind]}
        rows = [
            (code.name, name, str(code.value))
            for name, field in fields.items()
            for code in field.codes or ()
            if code.isa is InstructionSet.EXTENDED
        ]
        return [table(["code", "field", "value"], rows, [24, 16, 8])]


class RegisterTable(Directive):
    """``{registers} <base|extension>``: offsets in both variants of the map, access and meaning."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        maps = [getattr(REGISTERS[width], self.arguments[0]) for width in (PointerWidth.BITS_32, PointerWidth.BITS_64)]
        rows = [
            (narrow.name, f"{narrow.offset:#04x}", f"{wide.offset:#04x}", narrow.access.value, narrow.meaning)
            for narrow, wide in zip(*maps, strict=True)
        ]
        return [table(["register", "32-bit", "64-bit", "access", "meaning"], rows, [18, 8, 8, 8, 50])]


class StatusTable(Directive):
    """``{status-bits}``: the bits of the status register."""

    def run(self) -> list[nodes.Node]:
        rows = [(str(bit.name), str(bit.bit_length() - 1)) for bit in Status]
        return [table(["status", "bit"], rows, [30, 10])]


class PresetTable(Directive):
    """``{presets}``: tile shapes, widths, scratchpad depths and bus of every preset."""

    def run(self) -> list[nodes.Node]:
        def row(name: str, config: VTAConfig) -> tuple[str, ...]:
            tile = f"{config.batch} × {config.block_in} × {config.block_out}"
            widths = f"{config.inp_bits} / {config.wgt_bits} / {config.acc_bits}"
            depths = f"{config.uop_depth} / {config.inp_depth} / {config.wgt_depth} / {config.acc_depth}"
            return name, tile, widths, depths, str(config.bus_bits)

        heads = ["preset", "batch × in × out", "bits inp / wgt / acc", "depth uop / inp / wgt / acc", "bus bits"]
        return [table(heads, [row(*item) for item in PRESETS.items()], [12, 16, 18, 26, 10])]


class ModuleTable(Directive):
    """``{modules} <folder>``: its modules, and what their docstrings begin with."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        rows = [(path.name, _summary(path)) for path in sorted((ROOT / self.arguments[0]).glob("*.py"))]
        if not rows:
            raise self.error(f"no modules in {self.arguments[0]!r}")
        return [table(["file", "contents"], [row for row in rows if row[0] != "__init__.py"], [20, 80])]


class DocstringTable(Directive):
    """``{docstring-table} <file>``: the first table in the docstring of a module."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        lines = _docstring(ROOT / self.arguments[0]).splitlines()
        rows = [line for line in lines if line.startswith("|")]
        if not rows:
            raise self.error(f"no table in the docstring of {self.arguments[0]!r}")
        container = nodes.container()
        self.state.nested_parse(StringList(rows), self.content_offset, container)
        return container.children


class ProofTable(Directive):
    """``{proofs}``: what is proved of each block, to which depth, and the planted bug that each proof must find.

    Blocks of which the same is proved share a table.
    """

    def run(self) -> list[nodes.Node]:
        tables: list[nodes.Node] = []
        for planted, group in groupby(CASES, key=lambda case: case.planted):
            first, *others = group
            title = "; ".join(case.name for case in (first, *others))
            depth = f"{first.depth} cycles from reset" + (", and by induction for ever" if first.inductive else "")
            rows = [(claim, inspect.getdoc(bug) or "") for claim, bug in planted.items()]
            proofs = table(["property", "planted bug"], rows, [50, 50], code=False)
            proofs.insert(0, nodes.title(text=f"{title}: {depth}"))
            tables.append(proofs)
        return tables


class ScenarioTable(Directive):
    """``{scenarios}``: what a host does with the emitted Verilog in each simulator."""

    def run(self) -> list[nodes.Node]:
        module = ast.parse((ROOT / "tests/vta_hw/rtl/cocotb/scenarios.py").read_text(encoding="utf-8"))
        tests = [node for node in module.body if isinstance(node, ast.AsyncFunctionDef) and node.decorator_list]
        return [
            table(["scenario", "contents"], [(test.name, ast.get_docstring(test) or "") for test in tests], [26, 74])
        ]


class PortTable(Directive):
    """``{ports}``: the signals of the top level on the preset `sim`, a row for each channel."""

    def run(self) -> list[nodes.Node]:
        channels: dict[str, list[tuple[str, Member]]] = {}
        for name, member in Top(preset("sim")).signature.members.items():
            channel = next((prefix for prefix in _CHANNELS if name.startswith(prefix)), name)
            channels.setdefault(channel, []).append((name.removeprefix(channel) or name, member))
        rows = [
            (channel, *(_listed(members, inputs) for inputs in (True, False))) for channel, members in channels.items()
        ]
        return [table(["signals", "inputs", "outputs"], rows, [16, 42, 42])]


class ScratchpadTable(Directive):
    """``{scratchpads}``: how the scratchpads of the preset `sim` are cut."""

    def run(self) -> list[nodes.Node]:
        def row(memory: MemoryType, geometry: Geometry) -> tuple[str, ...]:
            numbers = (geometry.elem_bits, geometry.depth, geometry.banks, geometry.lines, geometry.granules)
            return memory.name, *map(str, numbers)

        memories = [memory for memory in MemoryType if memory is memory.scratchpad]
        heads = ["scratchpad", "bits of an element", "elements", "banks", "lines of a bank", "granules of an element"]
        rows = [row(memory, Geometry.of(preset("sim"), memory)) for memory in memories]
        return [table(heads, rows, [16, 16, 16, 16, 16, 20])]


class CommandHelp(Directive):
    """``{command-help}``: what each sub-command's ``--help`` prints, a section each."""

    def run(self) -> list[nodes.Node]:
        return [self.section(name, command) for name, command in root.commands.items()]

    def section(self, name: str, command: Command) -> nodes.section:
        """Title and help text of one sub-command."""
        title = f"vta {name}"
        context = Context(command, info_name=title, terminal_width=84, max_content_width=84)
        text = command.get_help(context)
        section = nodes.section("", nodes.title(text=title), nodes.literal_block(text, text, language="none"))
        section["ids"], section["names"] = [f"vta-{name}"], [title]
        return section


_CHANNELS = tuple(f"{port}_axi_{channel}" for port in "sm" for channel in ("aw", "ar", "w", "b", "r"))


def _listed(members: Iterable[tuple[str, Member]], inputs: bool) -> str:
    """Names of signals, with the bits of those that have several."""
    chosen = [(name, member.shape) for name, member in members if (member.flow is In) is inputs]
    return ", ".join(name if bits == 1 else f"{name}[{bits}]" for name, bits in chosen)


def _docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def _summary(path: Path) -> str:
    return _docstring(path).partition("\n\n")[0].replace("\n", " ").replace("`", "")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("fields", FieldTable)
    app.add_directive("extended-codes", ExtendedCodes)
    app.add_directive("presets", PresetTable)
    app.add_directive("registers", RegisterTable)
    app.add_directive("status-bits", StatusTable)
    app.add_directive("modules", ModuleTable)
    app.add_directive("docstring-table", DocstringTable)
    app.add_directive("proofs", ProofTable)
    app.add_directive("scenarios", ScenarioTable)
    app.add_directive("ports", PortTable)
    app.add_directive("scratchpads", ScratchpadTable)
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True}
