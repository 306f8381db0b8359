"""What a compilation can refuse. Each message is one sentence naming the rule and the value that breaks it."""

from __future__ import annotations


class CompileError(Exception):
    """Base of every refusal that concerns the caller's model, configuration or schedule rather than a bug of ours."""


class GraphError(CompileError):
    """Raised by `Op.infer`, `Graph.verify` and the passes: operands of a wrong type, or an ill-formed graph."""


class FrontendError(CompileError):
    """Raised by the importers: the file is damaged, or asks for what the graph IR cannot express.

    node: name of the offending node, or its first output when it has none; "" when no node is to blame.
    op: its operator, "" likewise.
    """

    def __init__(self, reason: str, *, node: str = "", op: str = "") -> None:
        self.reason, self.node, self.op = reason, node, op
        super().__init__(f"Node {node!r} ({op}): {reason}" if op else reason)


class QuantizeError(CompileError):
    """Raised by the quantiser: no choice of scales keeps a layer within the accumulator, or calibration is unusable."""


class MissingScaleError(QuantizeError):
    """Raised where a value has a scale neither from the model nor from calibration inputs."""


class UnfitGridError(QuantizeError):
    """Raised where a model gives a value integers that the machine has not, such as those with a zero point."""


class LoweringError(CompileError):
    """Raised when an op or a tensor-IR procedure has no form on the chosen target."""
