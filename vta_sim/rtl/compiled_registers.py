"""The host's side of the register port of a compiled machine: AXI4-Lite transfers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vta_hw.spec.registers import REGISTER_BYTES, RegisterMap
from vta_sim.rtl.netlist import Simulator
from vta_sim.rtl.register_port import ALL_BYTES, PATIENCE, RegisterPortError, check_response, joined, unanswered


class Registers:
    """Reads and writes registers, one transfer after the other, while the clock of the simulator ticks.

    Both methods raise RegisterError for an unknown name or a value that does not fit, and RegisterPortError.
    """

    def __init__(self, simulator: Simulator, registers: RegisterMap) -> None:
        self._simulator = simulator
        self._registers = registers

    def write(self, values: Mapping[str, int]) -> None:
        """Write registers in this order."""
        simulator = self._simulator
        simulator.poke("s_axi_bready", 1)
        simulator.poke("s_axi_wstrb", ALL_BYTES)
        for offset, word in self._registers.words(values).items():
            simulator.poke("s_axi_awaddr", offset)
            simulator.poke("s_axi_wdata", word)
            self._transfer("Write", offset, ("aw", "w"), "b")
        simulator.poke("s_axi_bready", 0)

    def read(self, names: Iterable[str]) -> dict[str, int]:
        """Read registers in this order, by name."""
        registers = [self._registers[name] for name in names]
        simulator, words = self._simulator, []
        simulator.poke("s_axi_rready", 1)
        for register in registers:
            for word in range(register.words):
                offset = register.offset + REGISTER_BYTES * word
                simulator.poke("s_axi_araddr", offset)
                words.append(self._transfer("Read", offset, ("ar",), "r"))
        simulator.poke("s_axi_rready", 0)
        return joined(registers, words)

    def _transfer(self, kind: str, offset: int, towards: tuple[str, ...], back: str) -> int:
        """Offer what was poked until it is taken, and wait for the answer; what it carries of data."""
        simulator = self._simulator
        waiting = set(towards)
        for channel in towards:
            simulator.poke(f"s_axi_{channel}valid", 1)
        for _ in range(PATIENCE):
            taken = [channel for channel in waiting if simulator.peek(f"s_axi_{channel}ready")]
            answered = simulator.peek(f"s_axi_{back}valid")
            if answered:
                check_response(kind, offset, simulator.peek(f"s_axi_{back}resp"))
            data = simulator.peek("s_axi_rdata") if answered and back == "r" else 0
            simulator.run(1)
            for channel in taken:
                simulator.poke(f"s_axi_{channel}valid", 0)
                waiting.remove(channel)
            if answered:
                return data
        raise unanswered(kind, offset)


__all__ = ["RegisterPortError", "Registers"]
