"""Imports point strictly downward (docs/concepts.md), and the check of it can fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.layering import ALLOWED, find_cycle, find_modules, violations

ROOT = Path(__file__).parent.parent


def loaded_by(statement: str) -> set[str]:
    """Top-level names of all modules that a fresh interpreter has loaded after `statement`."""
    script = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def write(root: Path, **sources: str) -> None:
    """Create modules under `root`; in the keyword `__` stands for a dot."""
    for name, source in sources.items():
        path = root / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")


def test_imports_point_downward() -> None:
    assert violations(ROOT) == []


def test_no_import_cycles() -> None:
    assert find_cycle(ROOT) == []


def test_the_sources_are_found() -> None:
    assert {"vta", "vta_hw", "vta_hw.spec.isa", "compiler", "runtime", "vta_sim"} <= find_modules(ROOT).keys()


def test_vta_hw_imports_nothing() -> None:
    source = (ROOT / "vta_hw" / "__init__.py").read_text(encoding="utf-8")
    assert "import" not in source.replace("from __future__ import annotations", "")


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import vta_hw.spec.isa, vta_hw.spec.program", {"amaranth", "numba", "llvmlite", "onnx", "click", "rich"}),
        ("import vta_sim.functional.engine", {"amaranth", "onnx", "compiler", "runtime"}),
        ("import runtime", {"amaranth", "onnx", "compiler", "vta"}),
        ("import compiler", {"amaranth", "vta_sim", "runtime", "vta"}),
    ],
)
def test_importing_a_lower_layer_loads_no_higher_one(statement: str, absent: set[str]) -> None:
    assert loaded_by(statement) & absent == set()


@pytest.mark.parametrize(
    ("module", "source", "rule"),
    [
        ("vta_hw__spec__isa", "import amaranth", "1: vta_hw.spec must not import amaranth"),
        ("vta_hw__spec__isa", "from vta_hw.rtl import core", "1: vta_hw.spec must not import vta_hw.rtl"),
        ("vta_hw__spec__isa", "from ..rtl import core", "1: vta_hw.spec must not import vta_hw.rtl"),
        ("vta_hw__rtl__core", "import compiler", "1: vta_hw.rtl must not import compiler"),
        ("compiler__vta__emit", "import vta_hw.rtl.core", "1: compiler must not import vta_hw.rtl.core"),
        ("compiler__graph__ir", "import onnx", "1: compiler must not import onnx"),
        ("compiler__tune", "def f():\n    import runtime", "2: compiler must not import runtime"),
        ("vta_sim__memory", "import amaranth.sim", "1: vta_sim must not import amaranth.sim"),
        ("vta_sim__memory", "import compiler.tensor", "1: vta_sim must not import compiler.tensor"),
        ("vta_sim__memory", "import fpga", "1: vta_sim must not import fpga"),
        ("fpga__build", "import vta_sim", "1: fpga must not import vta_sim"),
        ("runtime__device", "import compiler", "1: runtime must not import compiler"),
        ("runtime__device", "from vta import api", "1: runtime must not import vta"),
        ("runtime__device", "import_module('vta.cli')", "1: runtime must not import vta.cli"),
        ("runtime__device", "import_module(name)", "1: runtime must not import a computed name"),
        ("vta__api", "import torch", "1: vta must not import torch"),
    ],
)
def test_a_wrong_import_is_named(tmp_path: Path, module: str, source: str, rule: str) -> None:
    write(tmp_path, **{module: source})
    assert violations(tmp_path) == [f"{module.replace('__', '/')}.py:{rule}"]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("vta_hw__spec__isa", "import enum, numpy.typing\nfrom .config import VTAConfig"),
        ("vta_hw__rtl__core", "import amaranth.lib.wiring\nfrom vta_hw.spec import isa"),
        ("compiler__frontend__onnx", "import onnx\nfrom compiler.graph.ir import Graph"),
        ("vta_sim__rtl__engine", "import amaranth, vta_hw.rtl.core, vta_sim.memory"),
        ("vta__api", "import compiler, runtime, vta_sim, vta_hw.spec.program"),
    ],
)
def test_a_right_import_passes(tmp_path: Path, module: str, source: str) -> None:
    write(tmp_path, **{module: source})
    assert violations(tmp_path) == []


def test_a_cycle_is_found(tmp_path: Path) -> None:
    write(
        tmp_path,
        compiler__a="from compiler import b",
        compiler__b="from . import c",
        compiler__c="def late():\n    from compiler.a import f",
    )
    cycle = find_cycle(tmp_path)
    assert cycle[0] == cycle[-1]
    assert set(cycle) == {"compiler.a", "compiler.b", "compiler.c"}


def test_annotations_make_no_cycle(tmp_path: Path) -> None:
    names = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from compiler.b import B"
    write(tmp_path, compiler__a=names, compiler__b="from compiler.a import A")
    assert find_cycle(tmp_path) == []


def test_annotations_count_for_layers(tmp_path: Path) -> None:
    write(tmp_path, runtime__a="if TYPE_CHECKING:\n    from compiler.b import B")
    assert violations(tmp_path) == ["runtime/a.py:2: runtime must not import compiler.b"]


def test_every_layer_allows_only_known_packages() -> None:
    third_party = {"numpy", "numba", "llvmlite", "onnx", "google.protobuf", "click", "rich"}
    third_party |= {"amaranth", "amaranth_boards", "vcd", "PIL", "onnxruntime"}
    assert set().union(*ALLOWED.values()) - ALLOWED.keys() == third_party
