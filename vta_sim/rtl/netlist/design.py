"""A design, compiled."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import amaranth
from amaranth.hdl import Elaboratable, Fragment, ValueLike
from amaranth.hdl import Value as AmaranthValue
from amaranth.hdl import _nir as nir
from amaranth.hdl._ir import build_netlist
from amaranth.hdl._nir import CombinationalCycle
from amaranth.lib import wiring

from vta_sim.rtl.netlist.assemble import Assembler
from vta_sim.rtl.netlist.cache import Cache
from vta_sim.rtl.netlist.cells import check_supported
from vta_sim.rtl.netlist.errors import Unsupported
from vta_sim.rtl.netlist.flatten import Flattener
from vta_sim.rtl.netlist.layout import Layout
from vta_sim.rtl.netlist.native import compile_ir, processor
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
    design: Elaboratable, *, ports: Sequence[ValueLike] | None = None, observe: Iterable[str] = ()
) -> CompiledDesign:
    """Compile a design with a single clock for this processor.

    ports: its signals towards the outside; those it does not drive are inputs. By default those of the signature of a
    `wiring.Component`. observe: hierarchical names ("unit.queue.level") of signals that are wanted beside the ports and
    the registers.

    Raises `Unsupported` for what cannot be compiled, and ValueError for an unknown name.
    """
    source = _Source(design, ports, tuple(observe))
    return CompiledDesign(Code(*source.compile(), source.compile_with_reset if source.resets else None))


def cached_design(
    key: str,
    make: Callable[[], tuple[Elaboratable, Sequence[ValueLike]]],
    *,
    cache: Path,
    observe: Iterable[str] = (),
) -> CompiledDesign:
    """As `compile_design` of what `make` gives (design and ports), or from the files in the directory `cache`.

    key: the caller promises that equal keys mean equal designs; the processor and this compiler need not be part of
    it. The directory holds machine code that will be executed: it must be writable by its owner alone.
    """
    names = tuple(observe)
    stamp = "\n".join((key, *names, processor(), _source_stamp()))
    digest = hashlib.sha256(stamp.encode()).hexdigest()
    files = Cache(directory=cache)

    def source() -> _Source:
        return _Source(*make(), names)

    found = files.load(digest)
    if found is not None:
        description, code = found
        layout = Layout.from_json(description)
        return CompiledDesign(Code(layout, code, _later(source) if RESET in layout.inputs else None))
    made = source()
    layout, code = made.compile()
    files.store(digest, layout.to_json(), code)
    return CompiledDesign(Code(layout, code, made.compile_with_reset if made.resets else None))


def _later(source: Callable[[], _Source]) -> Callable[[], tuple[Layout, bytes]]:
    return lambda: source().compile_with_reset()


class _Source:
    """A netlist that can be compiled."""

    def __init__(self, design: Elaboratable, ports: Sequence[ValueLike] | None, names: tuple[str, ...]) -> None:
        self._netlist = _netlist(design, ports)
        check_supported(self._netlist)
        self._observed = _observed(self._netlist, names)
        self.resets = RESET in self._netlist.top.ports_i

    def compile(self) -> tuple[Layout, bytes]:
        """For a reset that rests, if there is one."""
        return self._compile({RESET: 0} if self.resets else {})

    def compile_with_reset(self) -> tuple[Layout, bytes]:
        return self._compile({})

    def _compile(self, constants: Mapping[str, int]) -> tuple[Layout, bytes]:
        logic = Flattener(self._netlist, self._observed, constants).logic()
        assembly = Assembler(logic).assemble()
        return Layout.of(logic, assembly), compile_ir(assembly.text)


def _source_stamp() -> str:
    """A digest of this compiler."""
    digest = hashlib.sha256(amaranth.__version__.encode())
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


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
