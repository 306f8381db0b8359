"""Which package may import what, and the check of it, by reading the sources (nothing is imported).

The table is the layer diagram of docs/concepts.md. Imports at the top, inside functions, under `TYPE_CHECKING`,
relative ones and `importlib.import_module("name")` all count. Only in the search for cycles those under `TYPE_CHECKING`
do not: two classes of one layer may name each other in annotations.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

# Module prefix -> prefixes it may import besides itself and the standard library. The longest match decides.
ALLOWED: Mapping[str, frozenset[str]] = {
    "vta_hw": frozenset(),
    "vta_hw.spec": frozenset({"numpy"}),
    "vta_hw.rtl": frozenset({"vta_hw.spec", "numpy", "amaranth"}),
    "compiler": frozenset({"vta_hw.spec", "numpy"}),
    "compiler.frontend": frozenset({"compiler", "vta_hw.spec", "numpy", "onnx", "google.protobuf"}),
    "compiler.llvm": frozenset({"compiler", "vta_hw.spec", "numpy", "llvmlite"}),
    # llvmlite is numba's own way to write an intrinsic.
    "vta_sim": frozenset({"vta_hw.spec", "numpy", "numba", "llvmlite"}),
    "vta_sim.rtl.netlist": frozenset({"numpy", "amaranth", "llvmlite", "vcd"}),
    "vta_sim.rtl": frozenset({"vta_sim", "vta_hw.spec", "vta_hw.rtl", "numpy", "numba", "amaranth", "llvmlite"}),
    "fpga": frozenset({"vta_hw.spec", "vta_hw.rtl", "amaranth", "amaranth_boards"}),
    "runtime": frozenset({"vta_hw.spec", "vta_sim", "numpy"}),
    "vta": frozenset(
        {"runtime", "vta_sim", "fpga", "vta_hw.spec", "vta_hw.rtl", "compiler", "numpy", "onnx", "click", "rich"}
    ),
    "vta.benchmark": frozenset({"vta", "compiler", "vta_hw.spec", "numpy", "onnxruntime"}),
    "vta.images": frozenset({"vta", "numpy", "PIL"}),
}


def within(module: str, prefix: str) -> bool:
    """Whether `module` is `prefix` or lies below it; `vta_hw` does not lie below `vta`."""
    return module == prefix or module.startswith(prefix + ".")


def find_modules(root: Path) -> dict[str, Path]:
    """Dotted name -> file, for every Python file of the packages in `ALLOWED` that exist under `root`."""
    found = {}
    for package in sorted({prefix.partition(".")[0] for prefix in ALLOWED}):
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def walk(node: ast.AST, *, annotations: bool) -> Iterator[ast.AST]:
    """`node` and all nodes below it, with or without those under ``if TYPE_CHECKING``."""
    yield node
    match node:
        case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=otherwise) if not annotations:
            children: Iterable[ast.AST] = otherwise
        case _:
            children = ast.iter_child_nodes(node)
    for child in children:
        yield from walk(child, annotations=annotations)


def imports(
    module: str, path: Path, modules: Mapping[str, Path], *, annotations: bool = True
) -> Iterator[tuple[int, str]]:
    """(line, imported module) per import of a file; `from p import n` is `p.n` where that is a module, else `p`."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in walk(ast.parse(path.read_text(encoding="utf-8"), str(path)), annotations=annotations):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield node.lineno, alias.name
            case ast.ImportFrom(module=source, names=names, level=level):
                if level:
                    base = package.split(".")[: len(package.split(".")) - level + 1]
                    source = ".".join([*base, source] if source else base)
                for alias in names:
                    submodule = f"{source}.{alias.name}"
                    yield node.lineno, submodule if submodule in modules else str(source)
            case ast.Call(func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module")):
                match node.args:
                    case [ast.Constant(value=str(name)), *_]:
                        yield node.lineno, name
                    case _:
                        yield node.lineno, "a computed name"


def owner(module: str) -> str:
    """The longest prefix in `ALLOWED` that covers `module`."""
    return max((prefix for prefix in ALLOWED if within(module, prefix)), key=len)


def permitted(module: str, target: str) -> bool:
    """Whether `module` may import `target`."""
    layer = owner(module)
    if target.partition(".")[0] in sys.stdlib_module_names:
        return True
    # `vta_hw` is a folder, not a layer: its parts are named one by one.
    return any(within(target, prefix) for prefix in (layer, *ALLOWED[layer]) if prefix != "vta_hw")


def violations(root: Path) -> list[str]:
    """One sentence per import that the table does not allow."""
    modules = find_modules(root)
    return [
        f"{path.relative_to(root)}:{line}: {owner(module)} must not import {target}"
        for module, path in modules.items()
        for line, target in imports(module, path, modules)
        if not permitted(module, target)
    ]


def find_cycle(root: Path) -> list[str]:
    """The modules of one import cycle, first repeated at the end; empty if there is none."""
    modules = find_modules(root)
    graph = {
        module: {target for _, target in imports(module, path, modules, annotations=False)} & modules.keys() - {module}
        for module, path in modules.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        return cycle
    return []
