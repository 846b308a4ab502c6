"""Lowering: a trained PyTorch model becomes a Program. See docs/numerics.md for what is promised."""

from __future__ import annotations

from onebit.needs_torch import torch  # noqa: F401

# isort: split
from onebit.errors import ConversionError, Problem
from onebit.lowering.convert import convert

__all__ = ["ConversionError", "Problem", "convert"]
