"""The waist: a typed, packed, framework-free description of an inference, and what it means.

Build a `Program`, `verify` it, `save` and `load` it, `execute` it slowly, `summarize` it. Needs NumPy only.
"""

from __future__ import annotations

from onebit.errors import ProgramError
from onebit.program.energy import Energy, estimate_energy
from onebit.program.file_format import file_size, save, stored_checksum
from onebit.program.graph import Constant, Graph, Node
from onebit.program.inputs import ARRAY_DTYPES, check_inputs
from onebit.program.numerics import fma
from onebit.program.ops import OPS
from onebit.program.program import Program, load
from onebit.program.reference import execute
from onebit.program.summary import Summary, summarize
from onebit.program.tensors import Attr, DType, TensorType, pack_bits, unpack_bits, words
from onebit.program.verify import verify

__all__ = [
    "ARRAY_DTYPES",
    "OPS",
    "Attr",
    "Constant",
    "DType",
    "Energy",
    "Graph",
    "Node",
    "Program",
    "ProgramError",
    "Summary",
    "TensorType",
    "check_inputs",
    "estimate_energy",
    "execute",
    "file_size",
    "fma",
    "load",
    "pack_bits",
    "save",
    "stored_checksum",
    "summarize",
    "unpack_bits",
    "verify",
    "words",
]
