"""Lowering: a trained PyTorch model becomes a Program. See docs/numerics.md for what is promised."""

from __future__ import annotations

from onebit.lowering.convert import convert
from onebit.lowering.errors import ConversionError, Problem

__all__ = ["ConversionError", "Problem", "convert"]
