"""Runs Programs on the compiled kernels. Needs NumPy and `onebit.program` only; no PyTorch."""

from __future__ import annotations

from onebit.errors import EngineError
from onebit.runtime import kernels
from onebit.runtime.engine import Engine, Memory
from onebit.runtime.library import available_isas, choose_isa, library
from onebit.runtime.profile import BYTES, MOVES, ONE_BIT, REAL, OpProfile, kind_of, measure_roofs

__all__ = [
    "BYTES",
    "MOVES",
    "ONE_BIT",
    "REAL",
    "Engine",
    "EngineError",
    "Memory",
    "OpProfile",
    "available_isas",
    "choose_isa",
    "kernels",
    "kind_of",
    "library",
    "measure_roofs",
]
