"""Runs Programs on the compiled kernels. Needs NumPy and `onebit.program` only; no PyTorch."""

from __future__ import annotations

from onebit.runtime import kernels
from onebit.runtime.engine import Engine, Memory, OpProfile
from onebit.runtime.errors import EngineError
from onebit.runtime.library import available_isas, choose_isa, library

__all__ = [
    "Engine",
    "EngineError",
    "Memory",
    "OpProfile",
    "available_isas",
    "choose_isa",
    "kernels",
    "library",
]
