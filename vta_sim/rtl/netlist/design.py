"""A design, compiled."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from amaranth.hdl import Elaboratable, Fragment, ValueLike
from amaranth.hdl import Value as AmaranthValue
from amaranth.hdl import _nir as nir
from amaranth.hdl._ir import build_netlist
from amaranth.hdl._nir import CombinationalCycle
from amaranth.lib import wiring

from vta_sim.rtl.netlist import native
from vta_sim.rtl.netlist.assemble import Assembler
from vta_sim.rtl.netlist.cache import Cache
from vta_sim.rtl.netlist.cells import check_supported
from vta_sim.rtl.netlist.errors import Unsupported
from vta_sim.rtl.netlist.flatten import Flattener
from vta_sim.rtl.netlist.layout import Layout
from vta_sim.rtl.netlist.simulator import Code, Simulator

RESET: Final = "rst"
"""The input that resets the registers of domain `sync`."""


class CompiledDesign:
    """Machine code of a design, from which simulators are made."""

    def __init__(self, code: Code) -> None:
        self._code = code

    def simulator(self) -> Simulator:
        """A simulator in the state after power-on."""
        return Simulator(self._code)


def compile_design(
    design: Elaboratable,
    *,
    ports: Sequence[ValueLike] | None = None,
    observe: Iterable[str] = (),
    cache: Path | None = None,
) -> CompiledDesign:
    """Compile a design with a single clock for this processor.

    ports: its signals towards the outside; those it does not drive are inputs. By default those of the signature of a
    `wiring.Component`. observe: hierarchical names ("unit.queue.level") of signals that are wanted beside the ports and
    the registers. cache: directory for machine code, which must be writable by its owner alone.

    Raises `Unsupported` for what cannot be compiled, and ValueError for an unknown name.
    """
    netlist = _netlist(design, ports)
    check_supported(netlist)
    observed = _observed(netlist, tuple(observe))
    constants = {RESET: 0} if RESET in netlist.top.ports_i else {}
    layout, code = _compile(netlist, observed, constants, cache)

    def with_reset() -> tuple[Layout, bytes]:
        return _compile(netlist, observed, {}, cache)

    return CompiledDesign(Code(layout, code, with_reset if constants else None))


def _netlist(design: Elaboratable, ports: Sequence[ValueLike] | None) -> nir.Netlist:
    if ports is None:
        if not isinstance(design, wiring.Component):
            raise ValueError("Ports must be given for a design that is not a wiring.Component")
        ports = [AmaranthValue.cast(value) for _, _, value in design.signature.flatten(design)]
    fragment = Fragment.get(design, None)
    try:
        return build_netlist(fragment, ports=[AmaranthValue.cast(port) for port in ports])
    except CombinationalCycle as error:
        raise Unsupported(f"Design must not have combinational loops: {error}") from error


def _observed(netlist: nir.Netlist, names: tuple[str, ...]) -> Mapping[str, nir.Value]:
    known: dict[str, nir.Value] = {}
    for module in netlist.modules:
        for signal, name in module.signal_names.items():
            known[".".join((*module.name[1:], name))] = netlist.signals[signal]
    for name in names:
        if name not in known:
            raise ValueError(f"Observed signal must be one of the design's, not {name!r}")
    return {name: known[name] for name in names if name not in netlist.top.ports_o}


def _compile(
    netlist: nir.Netlist, observed: Mapping[str, nir.Value], constants: Mapping[str, int], directory: Path | None
) -> tuple[Layout, bytes]:
    logic = Flattener(netlist, observed, constants).logic()
    assembly = Assembler(logic).assemble()
    layout = Layout.of(logic, assembly)
    if directory is None:
        return layout, native.compile_ir(assembly.text)
    key = hashlib.sha256(f"{native.processor()}\n{assembly.text}".encode()).hexdigest()
    cache = Cache(directory=directory)
    found = cache.load(key)
    if found is not None:
        return layout, found[1]
    code = native.compile_ir(assembly.text)
    cache.store(key, {}, code)
    return layout, code
