"""Elementwise operations on values that take few distinct numbers: PyTorch itself computes them.

A comparison takes two numbers, a byte 256. Applying the user's own operation to those few settles
every way of writing a sign or scaling pixels, without a rule for each.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from onebit.lowering.capture.captured import TorchCall
from onebit.lowering.values.kinds import Bytes, Floats, Known, Signs, Value

ValueOrNumber = Value | int | float


def as_value(operand: ValueOrNumber) -> Value:
    """A Python number as a Known; PyTorch too rounds it to float32 before it meets a float32 tensor."""
    if isinstance(operand, (int, float)):
        return Known(torch.tensor(float(operand), dtype=torch.float32))
    return operand


def is_scalar(operand: object) -> bool:
    """A number, or a constant with one element."""
    return isinstance(operand, (int, float)) or (isinstance(operand, Known) and operand.tensor.numel() == 1)


def pointwise(call: TorchCall, *operands: Any) -> Value | None:
    """The result of an elementwise call on constants, or on Signs of the same bits and scalars; else None."""
    varying = [o for o in operands if isinstance(o, (Floats, Signs, Bytes)) or not _is_constant(o)]
    if not varying:
        from_sign = any(isinstance(o, Known) and o.from_sign for o in operands)
        return Known(_evaluate(call, *operands), from_sign=from_sign)
    first = varying[0]
    if not isinstance(first, Signs):
        return None
    same = all(isinstance(o, Signs) and o.name == first.name for o in varying)
    if not same or not all(is_scalar(o) for o in operands if _is_constant(o) and o is not None):
        return None
    pair = _evaluate(call, *operands)
    expected = None if call.result is None else call.result.dtype
    return Signs(first.name, pair) if pair.shape == (2,) and pair.dtype is expected else None


def with_table(call: TorchCall, result: Floats, *operands: Any) -> Value:
    """`result`, still known as a function of one byte if the operands were one Bytes and scalars."""
    varying = [o for o in operands if not is_scalar(o)]
    if len(varying) != 1 or not isinstance(varying[0], Bytes) or varying[0].floats is None:
        return result
    table = _evaluate(call, *operands)
    if table.shape != (256,) or table.dtype is not torch.float32:
        return result
    return Bytes(varying[0].name, table, result.name)


def _is_constant(operand: Any) -> bool:
    return operand is None or isinstance(operand, (Known, int, float))


def _evaluate(call: TorchCall, *operands: Any) -> Tensor:
    with torch.no_grad():
        result: Tensor = call.function(*(_plain(o) for o in operands), **call.kwargs)
    return result


def _plain(operand: Any) -> Any:
    if isinstance(operand, Known):
        return operand.tensor.reshape(()) if operand.tensor.numel() == 1 else operand.tensor
    if isinstance(operand, Signs):
        return operand.pair
    return operand.table if isinstance(operand, Bytes) else operand
