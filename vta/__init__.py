"""Compile neural networks for VTA, and run them.

    import vta

    program = vta.compile("model.onnx", config="pynq", calibration=images)
    scores = program.run(images)
    program.save("model.vta")
    same = vta.load("model.vta").run(images)

Names load on first use: `import vta` alone costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vta.api import CompiledProgram, Engine, layer_noise, load
    from vta.api import compile_model as compile  # noqa: A004 - read as vta.compile, like re.compile
    from vta.errors import ApiError

__all__ = ["ApiError", "CompiledProgram", "Engine", "compile", "layer_noise", "load"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'vta' has no attribute {name!r}")
    from vta import api

    return getattr(api, "compile_model" if name == "compile" else name)
