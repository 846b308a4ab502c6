"""Rules for operations that move nothing: views that keep the batch, and copies."""

from __future__ import annotations

from typing import Any

from onebit.lowering.captured import Call
from onebit.lowering.context import Context, lowers
from onebit.lowering.values import Bytes, Floats, Known, Signs, Sums, Value


@lowers(
    "aten.clone.default",
    "aten.alias.default",
    "aten.detach.default",
    "aten.detach_.default",
    "aten.contiguous.default",
    "aten.lift_fresh_copy.default",
)
def copy(context: Context, call: Call, x: Value, **kwargs: Any) -> Value:
    """The value itself."""
    return x


@lowers(
    "aten.view.default",
    "aten.reshape.default",
    "aten._unsafe_view.default",
    "aten.flatten.using_ints",
    "aten.unflatten.int",
    "aten.squeeze.default",
    "aten.squeeze.dim",
    "aten.squeeze.dims",
    "aten.unsqueeze.default",
)
def view(context: Context, call: Call, x: Value, *args: Any) -> Value:
    """The same elements of each sample, in the same order, in another shape."""
    shape = context.sample()
    if isinstance(x, Known):
        context.refuse("a constant is given the size of the batch", "let the constant broadcast instead")
    if context.shape(x) == shape:
        return x
    if isinstance(x, Bytes):
        floats = None if x.floats is None else context.node("reshape", x.floats, shape=shape)
        return Bytes(context.node("reshape", x.name, shape=shape), x.table, floats)
    if isinstance(x, Signs):
        if not shape:
            return Floats(context.node("reshape", context.floats(x), shape=shape))
        return Signs(context.node("reshape", x.name, shape=shape), x.pair)
    name = context.node("reshape", x.name, shape=shape)
    return Sums(name) if isinstance(x, Sums) else Floats(name)
