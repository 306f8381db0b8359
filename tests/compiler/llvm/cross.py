"""Networks linked into a C program for another processor, and that program run by an emulator of it.

The program reads the arrays of all networks from stdin, calls each network once with arrays between canaries that are
aligned to no more than was asked for, and writes the outputs to stdout.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compiler.driver import Target as CompilerTarget
from compiler.driver import compile_graph
from compiler.graph.ir import Graph
from compiler.llvm.header import port_names
from compiler.llvm.objects import compile_object
from compiler.llvm.target import Target
from compiler.tensor import interp
from compiler.tensor.arguments import written
from compiler.tensor.ir import Proc
from compiler.tensor.serial import to_json
from runtime.session import stored
from vta.engines import Engine, open_session
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.program import Buffer, Host, Program, Role

Array = np.ndarray[Any, Any]

_HEAD = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MARGIN = 256, CANARY = 0x3c };

static char *array(size_t nbytes, size_t alignment)
{
    char *start = (char *)malloc(nbytes + 2 * MARGIN + 3 * alignment) + MARGIN;
    start += 3 * alignment - (size_t)start % (2 * alignment);
    memset(start - MARGIN, CANARY, MARGIN);
    memset(start + nbytes, CANARY, MARGIN);
    return start;
}

static char *input(size_t nbytes, size_t alignment)
{
    char *start = array(nbytes, alignment);
    if (fread(start, 1, nbytes, stdin) != nbytes)
        exit(3);
    return start;
}

static void check(const char *start, size_t nbytes)
{
    for (int n = 0; n < MARGIN; n++)
        if (start[n - MARGIN] != CANARY || start[nbytes + n] != CANARY)
            exit(4);
}
"""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A processor to test on: how C is compiled for it, and what runs its programs."""

    target: str
    compiler: str
    emulator: tuple[str, ...] = ()
    packages: str
    features: frozenset[str] = frozenset()
    emulator_version: int = 0

    @property
    def missing(self) -> str | None:
        """Why nothing can be tested here, if so."""
        if self.target.startswith("x86-64") and platform.machine() != "x86_64":
            return f"{self.target} needs a processor of its kind, not {platform.machine()}"
        tools = [tool for tool in (self.compiler, *self.emulator[:1]) if shutil.which(tool) is None]
        if tools:
            return f"{self.target} needs {' and '.join(tools)}: apt-get install {self.packages}"
        if self.emulator and self._version() < self.emulator_version:
            return f"{self.target} needs QEMU {self.emulator_version} or later, not {self._version()}"
        lacking = self.features - set(Target.host().features.split(","))
        return f"{self.target} needs a processor with {', '.join(sorted(lacking))}" if lacking else None

    def _version(self) -> int:
        said = subprocess.run([self.emulator[0], "--version"], capture_output=True, encoding="utf-8", check=True).stdout
        return int(said.split("version ")[1].partition(".")[0])


MACHINES = {
    "aarch64": Machine(
        target="aarch64",
        compiler="aarch64-linux-gnu-gcc",
        emulator=("qemu-aarch64",),
        packages="qemu-user gcc-aarch64-linux-gnu",
    ),
    "aarch64-dotprod": Machine(
        target="aarch64-dotprod",
        compiler="aarch64-linux-gnu-gcc",
        emulator=("qemu-aarch64", "-cpu", "max"),
        packages="qemu-user gcc-aarch64-linux-gnu",
    ),
    "armv7": Machine(
        target="armv7",
        compiler="arm-linux-gnueabihf-gcc",
        emulator=("qemu-arm", "-cpu", "cortex-a7"),
        packages="qemu-user gcc-arm-linux-gnueabihf",
    ),
    **{
        f"riscv64, vectors of {bits} bits": Machine(
            target="riscv64",
            compiler="riscv64-linux-gnu-gcc",
            emulator=("qemu-riscv64", "-cpu", f"rv64,v=true,vext_spec=v1.0,vlen={bits}"),
            packages="qemu-user gcc-riscv64-linux-gnu",
            emulator_version=8,  # those before fail on conversions of vectors (QEMU issue 1441)
        )
        for bits in (128, 256)
    },
    "x86-64-v2": Machine(target="x86-64-v2", compiler="gcc", packages="gcc"),
    "x86-64-v3": Machine(target="x86-64-v3", compiler="gcc", packages="gcc", features=frozenset({"+avx2", "+fma"})),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A program, what its ports hold before it runs, and what the interpreter says that its outputs hold then.

    An output without contents holds anything.
    """

    program: Program
    arrays: Mapping[str, Array]
    expected: Mapping[str, Array]

    @property
    def ports(self) -> Iterator[tuple[Buffer, str]]:
        for name, port in port_names(self.program.inputs, self.program.outputs).items():
            yield self.program.buffer(name), port


def case_of_program(program: Program, inputs: Mapping[str, Array], engine: Engine = Engine.INTERP) -> Case:
    """engine: what answers in the interpreter's stead, for programs that would take it long."""
    return Case(program=program, arrays=inputs, expected=open_session(program, engine).run(inputs))


def case_of_graph(graph: Graph, inputs: Mapping[str, Array], config: VTAConfig | None = None) -> Case:
    """A graph, compiled for the CPU."""
    return case_of_program(compile_graph(graph, config or VTAConfig(), target=CompilerTarget.CPU), inputs)


def case_of_procs(procs: Mapping[str, tuple[Proc, list[Array]]]) -> Case:
    """Procedures that run one after the other, each on arrays of its own."""
    buffers: list[Buffer] = []
    steps: list[Host] = []
    before: dict[str, Array] = {}
    after: dict[str, Array] = {}
    address = 0
    for key, (proc, arrays) in procs.items():
        results = [array.copy() for array in arrays]
        interp.run(proc, results)
        names = tuple(f"{key}.{parameter.name}" for parameter in proc.params)
        before.update(zip(names, arrays, strict=True))
        after.update(zip(names, results, strict=True))
        for name, parameter, array in zip(names, proc.params, arrays, strict=True):
            role = Role.OUTPUT if parameter.name in written(proc) else Role.INPUT
            dtype, shape = parameter.type.value, parameter.static_shape
            buffers.append(Buffer(name=name, role=role, dtype=dtype, shape=shape, address=address, nbytes=array.nbytes))
            address += -(-array.nbytes // 64) * 64
        steps.append(Host(name=key, proc=to_json(proc), buffers=names))
    program = Program(
        config=VTAConfig(), insns=b"", insn_address=address, uop_address=address, arena_bytes=address,
        buffers=tuple(buffers), steps=tuple(steps),
    )  # fmt: skip
    outputs = {buffer.name: after[buffer.name] for buffer in program.outputs}
    return Case(program=program, arrays=before, expected=outputs)


def build(target: str, compiler: str, cases: Mapping[str, Case], folder: Path) -> Path:
    """The statically linked program of all cases."""
    calls: list[str] = []
    for name, case in cases.items():
        made = compile_object(case.program, Target.named(target), name)
        (folder / f"{name}.o").write_bytes(made.code)
        (folder / f"{name}.h").write_text(made.header)
        calls += _call(name, case)
    includes = [f'#include "{name}.h"' for name in cases]
    source = "\n".join([*includes, _HEAD, "int main(void)", "{", *calls, "    return 0;", "}"]) + "\n"
    (folder / "main.c").write_text(source)
    objects = [f"{name}.o" for name in cases]
    command = [compiler, "-std=c99", "-Wall", "-Wextra", "-Werror", "-O1", "-static", "-o", "main", "main.c"]
    subprocess.run([*command, *objects, "-lm"], cwd=folder, check=True)
    return folder / "main"


def _call(name: str, case: Case) -> Iterator[str]:
    macro = name.upper()
    arguments, after = [], []
    yield "    {"
    for buffer, port in case.ports:
        size, itemsize = f"{macro}_{port.upper()}_BYTES", stored(buffer)[0].itemsize
        given = buffer.name in case.arrays
        yield f"        char *{port} = {'input' if given else 'array'}({size}, {itemsize});"
        arguments.append(f"(void *){port}")
        after.append(f"        check({port}, {size});")
        if buffer.role is Role.OUTPUT:
            after.append(f"        fwrite({port}, 1, {size}, stdout);")
    size, alignment = f"{macro}_WORKSPACE_BYTES", f"{macro}_WORKSPACE_ALIGN"
    yield f"        char *workspace = array({size}, {alignment});"
    yield f"        if ({name}_run({', '.join([*arguments, 'workspace'])}))"
    yield "            return 1;"
    yield from after
    yield f"        check(workspace, {size});"
    for wrong in ("(char *)0", "workspace + 1"):
        yield f"        if ({macro}_WORKSPACE_BYTES && {name}_run({', '.join([*arguments, wrong])}) != -1)"
        yield "            return 2;"
    yield "    }"


def run(machine: Machine, program: Path, cases: Mapping[str, Case]) -> dict[str, dict[str, Array]]:
    """The outputs of every case."""
    data = b"".join(
        case.arrays[buffer.name].tobytes()
        for case in cases.values()
        for buffer, _ in case.ports
        if buffer.name in case.arrays
    )
    result = subprocess.run([*machine.emulator, program], input=data, capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (0, b"")
    answers: dict[str, dict[str, Array]] = {}
    at = 0
    for name, case in cases.items():
        answers[name] = {}
        for buffer in case.program.outputs:
            dtype, shape = stored(buffer)
            answers[name][buffer.name] = np.frombuffer(result.stdout, dtype, int(np.prod(shape)), at).reshape(shape)
            at += buffer.nbytes
    assert at == len(result.stdout)
    return answers
