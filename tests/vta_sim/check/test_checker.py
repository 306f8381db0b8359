"""The checker on whole programs: silent on correct ones, right on those with a fault."""

from __future__ import annotations

import random
import time
from functools import cache
from pathlib import Path

import pytest

from compiler.driver import compile_graph
from tests.fuzz_differential import case_of
from tests.test_configurations import CONFIGS, network
from tests.vta_sim.check.cases import checker_of, faulty_stream, findings, random_stream, stream_of
from tests.vta_sim.check.faulty import FAULTS
from tests.vta_sim.check.fuzz import compare_with_brute_force, judge
from tests.vta_sim.check.fuzz_rtl import Rtl, problems
from tests.vta_sim.check.timings import Stream, is_result, outcomes
from tests.vta_sim.rtl.machines import MACHINES
from tests.vta_sim.rtl.random_cases import PROGRAMS, QUEUE_DEPTHS, draw
from tests.vta_sim.spec_model import compare, layout
from tests.vta_sim.spec_model.dram import Dram
from tests.vta_sim.spec_model.generate import random_config
from tests.vta_sim.spec_model.stream import Stream as Recorded
from tests.vta_sim.test_streams import RECORDED, SYNTHETIC
from vta import checking
from vta.api import compile_model
from vta.errors import CompilerFault
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA
from vta_hw.spec.program import Program, Segment
from vta_sim.check.checker import check_program
from vta_sim.check.findings import Rule, Severity

SECONDS_A_STREAM = 1.0
FAULTY = range(300)
EXECUTED = range(60)
"""Of the faulty ones, those whose timings are executed; the others take `make fuzz`."""
ON_RTL = range(30)

STREAMS = [pytest.param(path, id=path.stem) for path in SYNTHETIC]
STREAMS += [pytest.param(path, id=f"{path.parent.name}-{path.stem}") for path in RECORDED]
if not RECORDED:
    STREAMS.append(pytest.param(None, id="recorded", marks=pytest.mark.skip(reason="no ../shared/streams here")))


@pytest.mark.parametrize("machine", MACHINES)
def test_random_programs_have_no_errors(machine: str) -> None:
    """Three hundred over all machines, some of them two launches, with queues as short as they are to run with."""
    for seed in range(PROGRAMS[machine]):
        case = draw(machine, MACHINES[machine], seed, queue_depth=QUEUE_DEPTHS.get(machine, 512))
        checker = checker_of(compare.model_config(case.config), case.dram, case.bases)
        tokens = compare.as_tokens(case.tokens_before)
        for words in case.launches:
            found, tokens = checker.check_launch(words, tokens)
            assert [finding for finding in found if finding.severity is Severity.ERROR] == [], case.name


@pytest.mark.parametrize("path", STREAMS)
def test_streams_have_no_errors(path: Path) -> None:
    stream = Recorded.load(path)
    program = Program.raw(
        config=VTAConfig.from_json(stream.vta_config),
        insns=stream.insns,
        segments=[
            Segment(address=int(stream.page_addr[first]), data=stream.before[first:end].tobytes())
            for first, end in stream.segments()
        ],
        tokens=compare.as_tokens(stream.tokens_before),
    )
    begin = time.process_time()
    found = check_program(program)
    assert time.process_time() - begin < SECONDS_A_STREAM
    assert [finding for finding in found if finding.severity is Severity.ERROR] == []
    left = [finding for finding in found if finding.rule is Rule.TOKENS_LEFT]
    assert bool(left) == any(stream.tokens_after or ())
    assert check_program(program, lints=False) == ()


@pytest.mark.parametrize("seed", range(2000, 2029))
def test_compiled_programs_have_no_errors(seed: int) -> None:
    case = case_of(seed)
    program = compile_graph(case.graph, case.config)
    assert [str(finding) for finding in check_program(program) if finding.severity is Severity.ERROR] == []


@cache
def digits() -> Program:
    return compile_graph(network(8), CONFIGS["default"])


def without_flags(program: Program, insn: int) -> Program:
    """The program with one instruction that moves no tokens."""
    words = bytearray(program.insns)
    words[16 * insn] &= 0x87
    values = {name: getattr(program, name) for name in program.__dataclass_fields__}
    return Program(**{**values, "insns": bytes(words)})


def test_the_demo_network_needs_every_one_of_its_tokens() -> None:
    program = digits()
    assert [finding for finding in check_program(program) if finding.severity is Severity.ERROR] == []
    insns = ISA(program.config).decode_program(program.insns)
    moving = [
        index for index, insn in enumerate(insns) if insn.pop_prev or insn.pop_next or insn.push_prev or insn.push_next
    ]
    assert len(moving) > 50
    for index in moving:
        wrong = without_flags(program, index)
        errors = tuple(finding for finding in check_program(wrong) if finding.severity is Severity.ERROR)
        assert errors, index
        assert check_program(wrong, lints=False) == errors, index


def test_the_compiler_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    first = next(
        index for index, insn in enumerate(ISA(digits().config).decode_program(digits().insns)) if insn.pop_prev
    )
    wrong = without_flags(digits(), first)
    with pytest.raises(CompilerFault, match=r"^Compiler must make programs without errors, not this: Instruction "):
        checking.proved(wrong)
    monkeypatch.setattr("compiler.driver.compile_graph", lambda *_, **__: wrong)
    with pytest.raises(CompilerFault):
        compile_model(network(8), config=CONFIGS["default"])


def test_random_programs_have_one_result_in_all_timings() -> None:
    for seed in range(10):
        results = outcomes(random_stream(seed), seed)
        assert len(results) == 1
        assert is_result(results.pop())


@pytest.mark.parametrize("seed", range(0, len(FAULTY), 30))
def test_of_a_fault_the_checker_says_what_brute_force_says(seed: int) -> None:
    """Races and deadlocks, no less and no more."""
    for number in range(seed, seed + 30):
        assert compare_with_brute_force(faulty_stream(number)) == [], number


@pytest.mark.parametrize("kind", range(len(FAULTS)), ids=FAULTS)
def test_a_fault_that_some_timing_shows_is_reported(kind: int) -> None:
    verdicts = [judge(seed) for seed in EXECUTED if seed % len(FAULTS) == kind]
    assert [verdict.problems for verdict in verdicts if verdict.problems] == []
    assert sum(verdict.goes_wrong for verdict in verdicts) >= 3


def test_a_fault_that_some_memory_shows_on_the_rtl_is_reported() -> None:
    rtl = Rtl()
    assert [problem for seed in ON_RTL for problem in problems(rtl, seed)] == []


def test_what_execution_finds_portable_or_not_the_checker_finds_too() -> None:
    """Flags, pads, shifts and operands as the functional simulator reports them."""
    for seed in range(30):
        program = compare.random_program(seed)
        simulator = compare.FunctionalSimulator(
            compare.toolkit_config(program.config), memory=compare.toolkit_memory(program.dram)
        )
        expected = {(lint.insn, lint.hint.value) for lint in compare.launch(simulator, program).lint}
        told = {
            (finding.place.insn, finding.sentence.partition(", here OUT")[0])
            for finding in findings(stream_of(program))
            if finding.place is not None
        }
        # Whether a STORE of what was loaded is stale depends on the order; the checker names those that always are.
        always = {(insn, hint) for insn, hint in expected if "STORE must take" not in hint}
        assert always <= told
        assert {one for one in told if "STORE must take" in one[1]} <= expected


def test_any_bits_have_an_answer() -> None:
    """Noise, with addresses and tokens that no launch has: sentences, and quickly, but no exception."""
    for seed in range(100):
        rng = random.Random(seed)
        stream = Stream(
            config=random_config(rng),
            words=layout.to_words([rng.getrandbits(128) for _ in range(rng.randint(1, 40))]),
            dram=Dram(),
            bases={port: rng.choice([0, 2**64 - 1, rng.getrandbits(64)]) for port in range(5)},
            tokens=tuple(rng.choice([0, 5, 3000]) for _ in range(4)),
        )
        assert all(str(finding) for finding in findings(stream))
