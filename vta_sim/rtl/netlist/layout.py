"""What a simulator knows of a compiled design: where everything is, and how it begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vta_sim.rtl.netlist.assemble import Assembly
from vta_sim.rtl.netlist.logic import Field, Logic, Memory, Part
from vta_sim.rtl.netlist.words import Place


@dataclass(frozen=True, kw_only=True)
class Layout:
    """inputs and names: fields in the state; outputs: in the temporary store; init: (place, value) of registers that
    do not begin as 0. The registers are the bytes of the state from `input_bytes` on."""

    state_bytes: int
    input_bytes: int
    temporary_bytes: int
    inputs: Mapping[str, tuple[Field, ...]]
    outputs: Mapping[str, tuple[Field, ...]]
    names: Mapping[str, tuple[Part, ...]]
    init: tuple[tuple[Place, int], ...]
    memories: tuple[Memory, ...]

    @staticmethod
    def of(logic: Logic, assembly: Assembly) -> Layout:
        return Layout(
            state_bytes=logic.state_bytes,
            input_bytes=logic.input_bytes,
            temporary_bytes=assembly.temporary_bytes,
            inputs=logic.inputs,
            outputs=assembly.outputs,
            names=logic.names,
            init=tuple((register.place, register.init) for register in logic.registers if register.init),
            memories=tuple(logic.memories),
        )

    def to_json(self) -> dict[str, Any]:
        """A description that `from_json` reads."""

        def numbers(fields: tuple[Field, ...]) -> list[list[int]]:
            return [[each.low, each.place.offset, each.place.width] for each in fields]

        def part(each: Part) -> list[int]:
            place = [each.place.offset, each.place.width] if each.place else []
            return [each.low, each.width, each.begin, *place]

        return {
            "state_bytes": self.state_bytes,
            "input_bytes": self.input_bytes,
            "temporary_bytes": self.temporary_bytes,
            "inputs": {name: numbers(fields) for name, fields in self.inputs.items()},
            "outputs": {name: numbers(fields) for name, fields in self.outputs.items()},
            "names": {name: [part(each) for each in parts] for name, parts in self.names.items()},
            "init": [[place.offset, place.width, hex(value)] for place, value in self.init],
            "memories": [
                {
                    **asdict(each),
                    "fields": numbers(each.fields),
                    "init": [[row, hex(value)] for row, value in each.init.items()],
                }
                for each in self.memories
            ],
        }

    @staticmethod
    def from_json(source: Mapping[str, Any]) -> Layout:
        def field(numbers: list[int]) -> Field:
            low, offset, width = numbers
            return Field(low, Place(offset, width))

        def placed(table: Mapping[str, list[list[int]]]) -> dict[str, tuple[Field, ...]]:
            return {name: tuple(map(field, value)) for name, value in table.items()}

        def part(numbers: list[int]) -> Part:
            low, width, begin, *place = numbers
            return Part(low, width, Place(*place) if place else None, begin)

        memories = tuple(
            Memory(
                **{
                    **each,
                    "fields": tuple(map(field, each["fields"])),
                    "init": {row: int(value, 16) for row, value in each["init"]},
                }
            )
            for each in source["memories"]
        )
        return Layout(
            state_bytes=source["state_bytes"],
            input_bytes=source["input_bytes"],
            temporary_bytes=source["temporary_bytes"],
            inputs=placed(source["inputs"]),
            outputs=placed(source["outputs"]),
            names={name: tuple(map(part, parts)) for name, parts in source["names"].items()},
            init=tuple((Place(offset, width), int(value, 16)) for offset, width, value in source["init"]),
            memories=memories,
        )
