"""The machine that code is made for, and LLVM's optimiser and assembler for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import binding as llvm


@dataclass(frozen=True, kw_only=True)
class Target:
    """A triple, a processor name and its features as LLVM writes them, e.g. ``+avx2,-avx512f``."""

    triple: str
    cpu: str
    features: str

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

    def has(self, feature: str) -> bool:
        """Whether the features name one, as LLVM does."""
        return f"+{feature}" in self.features.split(",")

    @property
    def digest_text(self) -> str:
        """What, besides the LLVM IR, decides the object code."""
        return f"{'.'.join(map(str, llvm.llvm_version_info))} {self.triple} {self.cpu} {self.features}"

    def machine(self) -> Any:
        """A new LLVM target machine. It may belong to one execution engine only."""
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        target = llvm.Target.from_triple(self.triple)
        return target.create_target_machine(
            cpu=self.cpu, features=self.features, opt=3, reloc="pic", codemodel="jitdefault"
        )


def optimize(text: str, target: Target) -> tuple[Any, Any]:
    """The optimised LLVM module of LLVM IR `text`, and the target machine it was made with."""
    machine = target.machine()
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


def emit_object(text: str, target: Target) -> bytes:
    """Relocatable object code of LLVM IR `text`."""
    module, machine = optimize(text, target)
    return bytes(machine.emit_object(module))


def emit_assembly(text: str, target: Target) -> str:
    """Assembler text of LLVM IR `text`, to look at."""
    module, machine = optimize(text, target)
    return str(machine.emit_assembly(module))
