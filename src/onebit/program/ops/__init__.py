"""The ops of a Program: each has one definition (typing rule, meaning in NumPy, cost), and `OPS` lists them.

To add an op, write its `Op` in the module of its kind and list it there; the verifier, the reference
executor, the file format and the summary read this table and need no change.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from onebit.program.ops.conv import CONV_OPS
from onebit.program.ops.definition import AttrKind, Call, Op, Operand, Role
from onebit.program.ops.elementwise import ELEMENTWISE_OPS
from onebit.program.ops.gemm import GEMM_OPS
from onebit.program.ops.pool import POOL_OPS
from onebit.program.ops.shape import SHAPE_OPS

__all__ = ["ELEMENTWISE", "OPS", "AttrKind", "Call", "Op", "Operand", "Role"]


def _registry(*groups: tuple[Op, ...]) -> Mapping[str, Op]:
    table: dict[str, Op] = {}
    for op in (op for group in groups for op in group):
        if op.name in table:
            raise RuntimeError(f"op {op.name!r} is defined twice")
        table[op.name] = op
    return MappingProxyType(table)


# Ops that treat each element alone: their results lie as their operands do.
ELEMENTWISE = frozenset(op.name for op in ELEMENTWISE_OPS)
OPS: Mapping[str, Op] = _registry(GEMM_OPS, CONV_OPS, POOL_OPS, ELEMENTWISE_OPS, SHAPE_OPS)
