"""Directives that read the manual's tables out of the packages, so that the two cannot differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

from vta_hw.spec.config import PRESETS, VTAConfig, preset
from vta_hw.spec.isa import FIELDS, ISA, AluOp, FieldPosition, Format, MemoryType, Opcode


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], widths: Sequence[int]) -> nodes.table:
    """A table of plain text, whose first column is set as code."""

    def row(cells: Sequence[nodes.Node]) -> nodes.row:
        return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells))

    group = nodes.tgroup("", *(nodes.colspec(colwidth=width) for width in widths), cols=len(widths))
    group += nodes.thead("", row([nodes.Text(head) for head in heads]))
    group += nodes.tbody(
        "", *(row([nodes.literal(text=cells[0]), *(nodes.Text(cell) for cell in cells[1:])]) for cells in rows)
    )
    return nodes.table("", group)


def bits(field: FieldPosition) -> str:
    """Bit range as the instruction set writes it, most significant first."""
    return f"{field.lsb + field.width - 1}:{field.lsb}" if field.width > 1 else str(field.lsb)


class FieldTable(Directive):
    """``{fields} <format> <preset> <preset>``: the fields of one format and their bits in two configurations."""

    required_arguments = 3

    def run(self) -> list[nodes.Node]:
        kind = Format[self.arguments[0]]
        layouts = [ISA(preset(name)).layout(kind) for name in self.arguments[1:]]
        # The header has a table of its own.
        first = 0 if kind in (Format.HEADER, Format.UOP) else len(FIELDS[Format.HEADER])
        rows = [
            (field.name, *(bits(position) for position in places), field.meaning)
            for field, *places in zip(FIELDS[kind][first:], *(layout[first:] for layout in layouts), strict=True)
        ]
        return [table(["field", *self.arguments[1:], "meaning"], rows, [16, 10, 10, 44])]


class Codes(Directive):
    """``{codes} <enum>``: the named values of a field, in one line."""

    required_arguments = 1
    enums: Mapping[str, type[IntEnum]] = {enum.__name__: enum for enum in (Opcode, MemoryType, AluOp)}

    def run(self) -> list[nodes.Node]:
        line = nodes.paragraph()
        for code in self.enums[self.arguments[0]]:
            line += [nodes.literal(text=code.name), nodes.Text(f"\u00a0{int(code)} \u2002")]
        return [line]


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


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("fields", FieldTable)
    app.add_directive("codes", Codes)
    app.add_directive("presets", PresetTable)
    return {"parallel_read_safe": True}
