"""Runs Programs on the compiled kernels. Needs NumPy and `onebit.program` only; no PyTorch."""

from __future__ import annotations

from onebit.errors import EngineError
from onebit.runtime import kernels
from onebit.runtime.engine import DEVICES, Engine, Memory, measure_peaks
from onebit.runtime.gpu_engine import cuda_engine
from onebit.runtime.library import available_isas, choose_isa, library
from onebit.runtime.profile import BYTES, ONE_BIT, REAL, REST, OpProfile, kind_of

__all__ = [
    "BYTES",
    "ONE_BIT",
    "REAL",
    "REST",
    "Engine",
    "EngineError",
    "Memory",
    "OpProfile",
    "available_isas",
    "choose_isa",
    "kernels",
    "kind_of",
    "library",
    "measure_peaks",
]

DEVICES["cuda"] = cuda_engine
