"""The machine that code is made for, and LLVM's optimiser and assembler for it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from llvmlite import binding as llvm

from compiler.errors import CompileError


@dataclass(frozen=True, kw_only=True)
class Target:
    """A triple, a processor name and its features as LLVM writes them, e.g. ``+avx2,-avx512f``.

    abi: how arguments are passed, where the triple does not say. has_roundeven: whether the processor can round to the
    nearest integer, ties to even; LLVM would else call a function of C23.
    """

    triple: str
    cpu: str
    features: str
    abi: str = ""
    has_roundeven: bool = True

    @staticmethod
    def any() -> Target:
        """A processor of which nothing is known."""
        return Target(triple="", cpu="", features="")

    @staticmethod
    def host() -> Target:
        """The machine this runs on, with all its vector extensions."""
        return Target(
            triple=llvm.get_process_triple(),
            cpu=llvm.get_host_cpu_name(),
            features=llvm.get_host_cpu_features().flatten(),
        )

    @staticmethod
    def named(name: str) -> Target:
        """One of `TARGETS`. Raises CompileError for a name that is none."""
        if name in TARGETS:
            return TARGETS[name]
        near = difflib.get_close_matches(name, TARGETS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise CompileError(f"Target must be one of {', '.join(map(repr, TARGETS))}, not {name!r}{hint}")

    def has(self, feature: str) -> bool:
        """Whether the features name one, as LLVM does."""
        return f"+{feature}" in self.features.split(",")

    @property
    def digest_text(self) -> str:
        """What, besides the LLVM IR, decides the object code."""
        return f"{'.'.join(map(str, llvm.llvm_version_info))} {self.triple} {self.cpu} {self.features} {self.abi}"

    def machine(self, *, jit: bool = True) -> Any:
        """A new LLVM target machine, for code in this process or to be linked. One execution engine may own it."""
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        target = llvm.Target.from_triple(self.triple)
        return target.create_target_machine(
            cpu=self.cpu,
            features=self.features,
            opt=3,
            reloc="pic",
            codemodel="jitdefault" if jit else "default",
            abiname=self.abi,
        )


TARGETS: Final[Mapping[str, Target]] = MappingProxyType(
    {
        # ARMv8-A: NEON, with fused products and sums, belongs to every one.
        "aarch64": Target(triple="aarch64-unknown-linux-gnu", cpu="generic", features="+neon,+fp-armv8"),
        # ARMv8.2-A's dot products of bytes, optional there: Cortex-A55, A75 and later.
        "aarch64-dotprod": Target(
            triple="aarch64-unknown-linux-gnu", cpu="generic", features="+neon,+fp-armv8,+dotprod"
        ),
        # Cortex-A7, A15, A17 and later: NEON with fused products and sums (VFPv4), floats passed in registers. Its
        # vectors count numbers below 2**-126 as zero.
        "armv7": Target(
            triple="armv7-unknown-linux-gnueabihf",
            cpu="generic",
            features="+v7,+neon,+vfp4,+hwdiv,+hwdiv-arm",
            has_roundeven=False,
        ),
        # RV64GCV: vectors of 128 bits or more, of which 128 are counted on; floats passed in registers of 64 bits.
        "riscv64": Target(
            triple="riscv64-unknown-linux-gnu", cpu="generic-rv64", features="+m,+a,+f,+d,+c,+v", abi="lp64d"
        ),
        # The levels of the x86-64 psABI: SSE4.2 (fused products and sums are calls of fmaf), AVX2 with FMA, AVX-512.
        "x86-64-v2": Target(triple="x86_64-unknown-linux-gnu", cpu="x86-64-v2", features="+sse4.2"),
        "x86-64-v3": Target(triple="x86_64-unknown-linux-gnu", cpu="x86-64-v3", features="+avx,+avx2,+fma"),
        "x86-64-v4": Target(
            triple="x86_64-unknown-linux-gnu",
            cpu="x86-64-v4",
            features="+avx,+avx2,+fma,+avx512f,+avx512bw,+avx512dq,+avx512vl,-prefer-256-bit",
        ),
    }
)
"""What object files can be made for, by name."""


def optimize(text: str, target: Target, *, jit: bool = True) -> tuple[Any, Any]:
    """The optimised LLVM module of LLVM IR `text`, and the target machine it was made with."""
    machine = target.machine(jit=jit)
    module = llvm.parse_assembly(text)
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = True
    options.slp_vectorization = True
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return module, machine


def emit_object(text: str, target: Target, *, jit: bool = True) -> bytes:
    """Relocatable object code of LLVM IR `text`, to be loaded into this process or to be linked."""
    module, machine = optimize(text, target, jit=jit)
    return bytes(machine.emit_object(module))


def emit_assembly(text: str, target: Target) -> str:
    """Assembler text of LLVM IR `text`, to look at."""
    module, machine = optimize(text, target)
    return str(machine.emit_assembly(module))
