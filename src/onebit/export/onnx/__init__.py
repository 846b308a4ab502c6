"""A Program as an ONNX file. Only this folder imports `onnx`, and only inside functions."""

from __future__ import annotations

from onebit.export.onnx.convert import DEFAULT_OPSET, save_onnx, to_onnx
from onebit.export.onnx.model_builder import MAX_OPSET, MIN_OPSET, check_opset

__all__ = ["DEFAULT_OPSET", "MAX_OPSET", "MIN_OPSET", "check_opset", "save_onnx", "to_onnx"]
