"""The ops of a Program: each has one definition (typing rule, meaning in NumPy, facts), and `OPS` lists them.

To add an op, write its `Op` in the module of its kind and list it there; the verifier, the reference
executor, the file format, the summary, fusion and the energy estimate read this table and name no op that
they treat like others.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from onebit.program.ops.conv import CONV_OPS
from onebit.program.ops.definition import AttrKind, Op, Operand, Role
from onebit.program.ops.elementwise import ELEMENTWISE_OPS
from onebit.program.ops.facts import (
    FLOAT_MAC,
    Call,
    Constants,
    FloatForm,
    FloatKind,
    Kind,
    MacKind,
    Monotone,
    Operations,
    ProductFacts,
    ScaleShift,
    Tolerance,
)
from onebit.program.ops.gemm import GEMM_OPS
from onebit.program.ops.pool import POOL_OPS
from onebit.program.ops.shape import SHAPE_OPS

__all__ = [
    "FLOAT_MAC",
    "OPS",
    "AttrKind",
    "Call",
    "Constants",
    "FloatForm",
    "FloatKind",
    "Kind",
    "MacKind",
    "Monotone",
    "Op",
    "Operand",
    "Operations",
    "ProductFacts",
    "Role",
    "ScaleShift",
    "Tolerance",
]


def _registry(*groups: tuple[Op, ...]) -> Mapping[str, Op]:
    table: dict[str, Op] = {}
    for op in (op for group in groups for op in group):
        if op.name in table:
            raise RuntimeError(f"op {op.name!r} is defined twice")
        table[op.name] = op
    return MappingProxyType(table)


OPS: Mapping[str, Op] = _registry(GEMM_OPS, CONV_OPS, POOL_OPS, ELEMENTWISE_OPS, SHAPE_OPS)
