"""The ONNX operators that are imported, opset 13 and later, and what makes graph nodes of each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from compiler.frontend.importer import Converter
from compiler.frontend.linear import LINEAR
from compiler.frontend.movement import MOVEMENT
from compiler.frontend.pointwise import POINTWISE
from compiler.frontend.pooling import POOLING
from compiler.frontend.quantized import CONTRIBUTED, QUANTIZED
from compiler.frontend.reductions import REDUCTIONS
from compiler.frontend.resize import RESIZE
from compiler.frontend.statics import STATIC

CONVERTERS: Final[Mapping[str, Converter]] = MappingProxyType(
    {**LINEAR, **MOVEMENT, **POINTWISE, **POOLING, **QUANTIZED, **REDUCTIONS, **RESIZE, **STATIC}
)

BY_DOMAIN: Final[Mapping[str, Mapping[str, Converter]]] = MappingProxyType(
    {"": CONVERTERS, "ai.onnx": CONVERTERS, "com.microsoft": CONTRIBUTED}
)
