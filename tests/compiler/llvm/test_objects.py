"""Object files: what they hold, what their headers say, and what is refused."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vta
from compiler.driver import Target as CompilerTarget
from compiler.driver import compile_graph
from compiler.errors import CompileError, LoweringError
from compiler.graph.ops.elementwise import Pointwise
from compiler.graph.ops.fused import FusedConv
from compiler.graph.ops.softmax import Softmax
from compiler.llvm.apart import emit_object_apart
from compiler.llvm.elf import symbols
from compiler.llvm.jit import Description, NativeRun
from compiler.llvm.module import Call, generate_run
from compiler.llvm.objects import NetworkObject, compile_object
from compiler.llvm.registers import Registers
from compiler.llvm.rounding import with_roundeven
from compiler.llvm.target import TARGETS, Target, emit_object
from compiler.llvm.team import Team
from compiler.tensor.arguments import Signature
from compiler.tensor.ir import Buffer, Const, DType, For, LoopKind, Proc, Store, Unary, UnaryOp, Var, nest
from compiler.tensor.serial import to_json
from tests.compiler.graph.build import Builder, floats
from vta.demo.data import model_bytes
from vta_hw.spec import program_parts
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.program import Host, Program, Role, Segment

AARCH64 = Target.named("aarch64")


def network() -> Program:
    """Two equal convolutions, one after the other, and a softmax."""
    b = Builder()
    value = b.input(1, 16, 4, 4, name="an image*/")
    for seed in (1, 2):
        w, bias = b.constant(floats(16, 16, 3, 3, seed=seed)), b.constant(floats(16, seed=seed))
        value = b(FusedConv(padding=(1, 1, 1, 1)), value, w, bias)
    graph = b.graph(b(Softmax(axis=1), value, name="scores"))
    return compile_graph(graph, VTAConfig(), target=CompilerTarget.CPU)


@pytest.fixture(scope="module")
def program() -> Program:
    return network()


@pytest.fixture(scope="module")
def made(program: Program) -> NetworkObject:
    return compile_object(program, AARCH64, "net")


def test_only_the_entry_is_seen_from_outside(made: NetworkObject) -> None:
    found = symbols(made.code)
    assert found.defined == ("net_run",)
    assert set(found.undefined) <= {"memcpy", "memset"}
    assert made.calls == found.undefined


def test_an_object_is_always_the_same(program: Program, made: NetworkObject) -> None:
    assert compile_object(Program.from_bytes(program.to_bytes()), AARCH64, "net") == made


def test_constants_are_in_the_object(program: Program, made: NetworkObject) -> None:
    weights = [segment.data for segment in program.segments if len(segment.data) > 100]
    assert len(weights) == 2
    assert all(data in made.code for data in weights)
    assert made.constant_bytes >= sum(map(len, weights))


def test_equal_layers_share_a_procedure(program: Program) -> None:
    steps = [step for step in program.steps if isinstance(step, Host)]
    twice = replace(program, steps=(*steps, *steps))
    once, again = (len(compile_object(each, AARCH64, "net").code) for each in (program, twice))
    assert again - once < 1000


HEADER = """\
/*
 * A neural network for aarch64-unknown-linux-gnu, processor generic with +neon,+fp-armv8.
 * Made by vta-toolkit with LLVM {version}. Link with net.o, which calls {calls}.
 * Its {constants} bytes of constants are in its section .rodata.
 */
#ifndef NET_H
#define NET_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

/* Input 'an image* /': float[1][16][4][4], row-major. */
#define NET_IN_AN_IMAGE___RANK 4
#define NET_IN_AN_IMAGE___SHAPE {{1, 16, 4, 4}}
#define NET_IN_AN_IMAGE___BYTES 1024

/* Output 'scores': float[1][16][4][4], row-major. */
#define NET_OUT_SCORES_RANK 4
#define NET_OUT_SCORES_SHAPE {{1, 16, 4, 4}}
#define NET_OUT_SCORES_BYTES 1024

/* What a call computes in. Nothing in it outlasts the call. */
#define NET_WORKSPACE_BYTES {workspace}
#define NET_WORKSPACE_ALIGN 64

/* Buffers on the stack; what the compiler saves there comes on top. */
#define NET_STACK_BYTES {stack}

/*
 * Run the network. The arrays must not overlap; they are aligned to their elements, the workspace to
 * NET_WORKSPACE_ALIGN. Returns 0, or -1 if a pointer is null or not aligned, when nothing is done.
 * Calls may run at the same time, each with a workspace and outputs of its own.
 */
int net_run(const float *in_an_image__, float *out_scores, void *workspace);

#ifdef __cplusplus
}}
#endif
#endif
"""


def test_the_header_says_all_that_a_caller_needs(made: NetworkObject) -> None:
    from llvmlite import binding as llvm

    stack = next(line.split()[-1] for line in made.header.splitlines() if "NET_STACK_BYTES" in line)
    assert 0 < int(stack) < 16384
    assert made.workspace_bytes > 0
    assert made.header == HEADER.format(
        version=".".join(map(str, llvm.llvm_version_info)),
        calls=", ".join(made.calls) or "no other function",
        constants=made.constant_bytes,
        workspace=made.workspace_bytes,
        stack=stack,
    )


def test_names_that_c_has_not_are_told_apart() -> None:
    b = Builder()
    first, second = b.input(4, name="a.b"), b.input(4, name="A b")
    graph = b.graph(b(Pointwise(function="subtract"), first, second, name="in_a.b"))
    header = compile_object(compile_graph(graph, VTAConfig(), target=CompilerTarget.CPU), AARCH64, "n").header
    assert "int n_run(const float *in_a_b, const float *in_A_b_, float *out_in_a_b, void *workspace);" in header
    assert "#define N_IN_A_B_BYTES 16\n" in header
    assert "#define N_IN_A_B__BYTES 16\n" in header


def test_registers_of_targets() -> None:
    found = {name: Registers.of(target) for name, target in TARGETS.items()}
    assert {name: (each.count, each.lanes) for name, each in found.items()} == {
        "aarch64": (32, 4),
        "aarch64-dotprod": (32, 4),
        "armv7": (16, 4),
        "riscv64": (32, 4),
        "x86-64-v2": (16, 4),
        "x86-64-v3": (16, 8),
        "x86-64-v4": (32, 16),
    }


def test_rounding_without_an_instruction() -> None:
    """Vectors of 16 and single numbers."""
    x, y = (Buffer.of(name, DType.FLOAT32, (67,)) for name in "xy")
    i = Var("i")
    store = Store(y, (i,), Unary(UnaryOp.RINT, x[i,]))
    proc = Proc("round", (x, y), (For(i, Const(67), (store,), LoopKind.VECTORIZED),))
    module = generate_run([proc], [Call(proc=0, buffers=(0, 1))], Target.host())
    description = Description(calls=((Signature.of(proc), (0, 1)),), shared=module.shared, private=module.private)
    text = with_roundeven(module.text, "own")
    assert "llvm.roundeven" in module.text
    assert "llvm.roundeven" not in text
    edges = [0.0, 0.5, 1.5, 2.5, 0.49999997, 1e-45, 8388607.5, 8388608.0, 16777217.0, 3e38, np.inf, np.nan]
    values = np.array([*edges, *(-edge for edge in edges), *floats(43, seed=1) * 100], np.float32)
    found = np.empty_like(values)
    NativeRun(description, emit_object(text, Target.host()), Team()).bound([[values, found]])({})
    np.testing.assert_array_equal(found, np.rint(values))
    np.testing.assert_array_equal(np.signbit(found), np.signbit(values))


# -- refusals


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(CompileError) as error:
        Target.named("riscv46")
    assert str(error.value) == (
        "Target must be one of 'aarch64', 'aarch64-dotprod', 'armv7', 'riscv64', "
        "'x86-64-v2', 'x86-64-v3', 'x86-64-v4', not 'riscv46'; "
        "did you mean 'riscv64'?"
    )


@pytest.mark.parametrize("name", ["", "3d", "a-b", "ä", "n" * 65])
def test_a_name_that_is_no_identifier_is_refused(program: Program, name: str) -> None:
    with pytest.raises(CompileError) as error:
        compile_object(program, AARCH64, name)
    assert str(error.value) == f"Name must be an identifier of C with at most 64 characters, not {name!r}"


def test_a_program_of_the_accelerator_is_refused() -> None:
    images = np.zeros((2, 1, 8, 8), np.float32)
    images[1] = 1
    with pytest.raises(CompileError) as error:
        compile_object(vta.compile(model_bytes(), calibration=images).program, AARCH64, "net")
    assert str(error.value) == (
        "Program must have host steps alone to become an object file, not launches of the accelerator: "
        "compile it for the CPU"
    )


def copying(x: Role, y: Role, **fields: Any) -> Program:
    """A program of one step, which copies the 16 bytes of x to y."""
    source, copy = (Buffer.of(name, DType.FLOAT32, (4,)) for name in "xy")
    proc = Proc("copy", (source, copy), (nest([("i", 4)], Store(copy, (Var("i"),), source[Var("i"),])),))
    places = {"x": (x, 0), "y": (y, 0 if x is y is Role.WORKSPACE else 64)}
    buffers = tuple(
        program_parts.Buffer(name=name, role=role, dtype="float32", shape=(4,), address=address, nbytes=16)
        for name, (role, address) in places.items()
    )
    step = Host(name="a copy", proc=to_json(proc), buffers=("x", "y"))
    program = Program(config=VTAConfig(), insns=b"", insn_address=128, uop_address=128, arena_bytes=256)
    return replace(program, **{"buffers": buffers, "steps": (step,), **fields})


def test_a_program_of_one_step_is_compiled() -> None:
    assert compile_object(copying(Role.INPUT, Role.OUTPUT), AARCH64, "copy").workspace_bytes == 0


@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        (
            copying(Role.INPUT, Role.CONSTANT),
            "Host step 'a copy' must store to outputs and workspace alone, not to the constant 'y'",
        ),
        (
            copying(Role.OUTPUT, Role.INPUT),
            "Host step 'a copy' must store to outputs and workspace alone, not to the input 'y'",
        ),
        (copying(Role.WORKSPACE, Role.WORKSPACE), "Arguments x and y of a copy must not share memory"),
        (
            copying(Role.INPUT, Role.OUTPUT, segments=(Segment(address=72, data=b"1234"),)),
            "Segment at 72 must lie within a constant to become part of an object file, and it does not",
        ),
        (
            copying(Role.CONSTANT, Role.OUTPUT, segments=(Segment(address=8, data=bytes(9)),)),
            "Segment at 8 must lie within a constant to become part of an object file, and it does not",
        ),
    ],
)
def test_a_program_that_would_leave_its_buffers_is_refused(program: Program, sentence: str) -> None:
    with pytest.raises(CompileError) as error:
        compile_object(program, AARCH64, "net")
    assert str(error.value) == sentence


def test_buffers_that_do_not_fit_are_refused() -> None:
    program = copying(Role.INPUT, Role.OUTPUT)
    (step,) = program.steps
    assert isinstance(step, Host)
    with pytest.raises(CompileError) as error:
        compile_object(replace(program, steps=(replace(step, buffers=("x",)),)), AARCH64, "net")
    assert str(error.value) == "Host step 'a copy' must have 2 buffers, not 1"
    short = tuple(replace(buffer, shape=(3,), nbytes=12) for buffer in program.buffers)
    with pytest.raises(CompileError) as error:
        compile_object(replace(program, buffers=short), AARCH64, "net")
    assert str(error.value) == "Parameter 'x' of host step 'a copy' must have the 12 bytes of its buffer, not 16"
    skewed = tuple(replace(buffer, dtype="uint8", shape=(16,)) for buffer in program.buffers)
    with pytest.raises(CompileError) as error:
        compile_object(replace(program, buffers=skewed), AARCH64, "net")
    sentence = "Parameter 'x' of host step 'a copy' must have the type of its buffer, uint8, not float32"
    assert str(error.value) == sentence


# -- the child process

FOREIGN = """
declare <4 x float> @llvm.x86.sse.rcp.ps(<4 x float>)
define <4 x float> @f(<4 x float> %x) {
  %y = call <4 x float> @llvm.x86.sse.rcp.ps(<4 x float> %x)
  ret <4 x float> %y
}
"""


def test_an_operation_that_the_target_has_not_is_an_error() -> None:
    with pytest.raises(LoweringError) as error:
        emit_object_apart(FOREIGN, AARCH64, "Step 'f'")
    assert str(error.value) == (
        "Step 'f' must be code that LLVM can make for aarch64-unknown-linux-gnu (generic), and it cannot: "
        "Cannot select: intrinsic %llvm.x86.sse.rcp.ps"
    )


def test_a_processor_of_another_kind_is_an_error() -> None:
    target = replace(Target.named("riscv64"), cpu="generic-rv32")
    with pytest.raises(LoweringError, match=r"and it cannot: RV64 target requires an RV64 CPU$"):
        emit_object_apart("define void @f() {\n  ret void\n}\n", target, "Step 'f'")


def test_the_step_that_has_no_code_is_named() -> None:
    """Only the network's softmax returns a float in a register, which is not there."""
    target = Target(triple="x86_64-unknown-linux-gnu", cpu="x86-64", features="-sse")
    program = vta.compile(model_bytes(), target="cpu").program
    with pytest.raises(LoweringError) as error:
        compile_object(program, target, "net")
    begin = "Host step 'softmax' must be code that LLVM can make for x86_64-unknown-linux-gnu (x86-64), and it cannot: "
    assert str(error.value).startswith(begin)
    assert "SSE register return with SSE disabled" in str(error.value)


SLOW = """
import signal

from compiler.llvm.apart import emit_object_apart
from compiler.llvm.target import Target

lines = [f"%v{n + 1} = mul i2000 %v{n}, %v{n}" for n in range(400)]
text = "\\n".join(["define i2000 @f(i2000 %v0) {", *lines, "ret i2000 %v400", "}"])
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
emit_object_apart(text, Target.named("aarch64"), "f")
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc that tells a process's children")
def test_an_interrupt_ends_the_child() -> None:
    """What it works on takes minutes."""
    parent = subprocess.Popen([sys.executable, "-c", SLOW], stderr=subprocess.PIPE)
    listed = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    while not (children := listed.read_text().split()):
        time.sleep(0.01)
    child = Path(f"/proc/{children[0]}")
    while b"compiler.llvm.apart" not in (child / "cmdline").read_bytes():
        time.sleep(0.01)
    parent.send_signal(signal.SIGINT)
    _, said = parent.communicate()
    assert b"KeyboardInterrupt" in said
    while is_running(child):
        time.sleep(0.01)


def is_running(process: Path) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("logical", ["*/ int evil(void) {return 1;} /*", [1, 16, 4], [1, 16, 4, "*/"], None])
def test_a_layout_that_is_none_is_no_part_of_a_header(program: Program, logical: object) -> None:
    buffers = tuple(
        replace(buffer, layout={"logical": logical, "n": 1, "c": 16}) if buffer.role is Role.INPUT else buffer
        for buffer in program.buffers
    )
    with pytest.raises(CompileError, match=r"^Layout of buffer .* must have a logical shape of four integers, not \{"):
        compile_object(replace(program, buffers=buffers), AARCH64, "net")
