"""Lines as images: operators with windows take [N,C,W] too, which is [N,C,1,W]."""

from __future__ import annotations

from dataclasses import dataclass

from compiler.errors import FrontendError
from compiler.frontend.importer import Importer, OnnxNode
from compiler.graph.ir import Op
from compiler.graph.ops.shape import Reshape


@dataclass(frozen=True)
class Image:
    """The first input of a node as [N,C,H,W]. is_line: whether the node knows nothing of H."""

    value: str
    shape: tuple[int, int, int, int]
    is_line: bool

    @staticmethod
    def of(importer: Importer, node: OnnxNode) -> Image:
        """Raises FrontendError for an input of another rank than 3 or 4."""
        shape, value = importer.shape(node, 0), importer.value(node, 0)
        if len(shape) == 3:
            full = shape[0], shape[1], 1, shape[2]
            return Image(importer.emit(node, Reshape(shape=full), (value,), last=False), full, True)
        if len(shape) != 4:
            raise FrontendError(f"input must have rank 3 or 4, not shape {list(shape)}")
        return Image(value, (shape[0], shape[1], shape[2], shape[3]), False)

    def emit(self, importer: Importer, node: OnnxNode, op: Op, inputs: tuple[str, ...]) -> None:
        """Add `op` as what computes the node's result."""
        result = importer.emit(node, op, inputs, last=not self.is_line)
        if self.is_line:
            n, c, _, w = importer.shape_of(result)
            importer.emit(node, Reshape(shape=(n, c, w)), (result,))
