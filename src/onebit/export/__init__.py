"""Other forms of a Program: the float network that a runtime without bits would run, and ONNX."""

from __future__ import annotations

from onebit.errors import ExportError
from onebit.export.float_network import FloatNetwork, FloatOp, NotComparable, float_network

__all__ = ["ExportError", "FloatNetwork", "FloatOp", "NotComparable", "float_network"]
