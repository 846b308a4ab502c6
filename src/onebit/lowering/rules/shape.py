"""Rules for operations that compute nothing: views that keep the batch, permutations, concat, and copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from onebit.lowering.capture.captured import TorchCall
from onebit.lowering.emit.context import Context, lowers
from onebit.lowering.rules.two_values import rising
from onebit.lowering.values.image_layout import ImageLayout
from onebit.lowering.values.kinds import Floats, Known, Padded, Signs, Sums, Value, Varying, moved


@lowers(
    "aten.clone.default",
    "aten.alias.default",
    "aten.detach.default",
    "aten.detach_.default",
    "aten.contiguous.default",
    "aten.lift_fresh_copy.default",
    padded=True,
)
def copy(context: Context, call: TorchCall, x: Value | Padded, **kwargs: Any) -> Value | Padded:
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
def view(context: Context, call: TorchCall, x: Value, *args: Any) -> Value:
    """The same elements of each sample, in the same order, in another shape."""
    return reshaped(context, x, context.sample())


def reshaped(context: Context, x: Value, shape: tuple[int, ...]) -> Value:
    """x in another shape of one sample, the elements in PyTorch's order."""
    if isinstance(x, Known):
        context.refuse("a constant is given the size of the batch", "let the constant broadcast instead")
    if context.shape(x) == shape:
        return x
    layout = _viewed(context.layout(x), shape)
    if layout is None:
        x = context.plain(x)
        if context.shape(x) == shape:
            return x
    elif layout.keeps_order and layout.flat:
        layout = None
    return _in_shape(context, x, shape if layout is None else layout.program_shape, layout)


def _viewed(layout: ImageLayout | None, shape: tuple[int, ...]) -> ImageLayout | None:
    """How an image lies in another shape, if its channels stay whole."""
    if layout is None or not shape:
        return None
    if len(shape) == 1:
        return replace(layout, flat=True)
    return ImageLayout(layout.channels, shape[1:]) if shape[0] == layout.channels else None


def _in_shape(context: Context, x: Varying, shape: tuple[int, ...], layout: ImageLayout | None) -> Varying:
    def move(name: str) -> str:
        return context.node("reshape", name, layout=layout, shape=shape)

    if isinstance(x, Signs) and not shape:
        return Floats(move(context.floats(x)))
    return moved(x, move)


@lowers("aten.permute.default", "aten.transpose.int")
def permute(context: Context, call: TorchCall, x: Value, *axes: Any) -> Value:
    """The axes of each sample in another order."""
    context.sample()
    if isinstance(x, Known):
        context.refuse("a constant is given the size of the batch", "let the constant broadcast instead")
    order = list(range(len(context.shape(x)) + 1))
    if "transpose" in call.op:
        a, b = axes
        order[a], order[b] = order[b], order[a]
    else:
        order = [order[axis] for axis in axes[0]]
    if order[0] != 0:
        context.refuse("it moves the batch", "keep axis 0 first")
    if order == sorted(order):
        return x
    new = tuple(axis - 1 for axis in order[1:])
    return moved(context.plain(x), lambda name: context.node("permute", name, axes=new))


@lowers("aten.cat.default")
def concat(context: Context, call: TorchCall, parts: Any, dim: int = 0) -> Value:
    """Values side by side along the channels; the narrowest type that holds them all."""
    sample = context.sample()
    axis = dim + len(sample) + 1 if dim < 0 else dim
    if any(isinstance(part, Known) for part in parts):
        context.refuse("it puts a constant beside values", "compute every part from the input")
    if axis == 1 and len(sample) > 1:
        parts = [context.image(part) for part in parts]
    elif axis == len(sample):
        parts = [context.plain(part) for part in parts]
    else:
        context.refuse(f"it concatenates along axis {dim}", "concatenate along the channels, axis 1")
    layouts = [context.layout(part) for part in parts]
    layout = layouts[0]
    if layout is not None:
        layout = ImageLayout(sample[0], layout.sizes)

    def join(names: list[str]) -> str:
        return names[0] if len(names) == 1 else context.node("concat", *names, layout=layout)

    signs = _alike(context, parts)
    if signs:
        return Signs(join([p.name for p in signs]), signs[0].pair)
    first = parts[0]
    if isinstance(first, Sums) and all(isinstance(p, Sums) and p.unit == first.unit for p in parts):
        return Sums(join([p.name for p in parts]), first.unit)
    return Floats(join([context.floats(p) for p in parts]))


def _alike(context: Context, parts: Sequence[Value]) -> list[Signs]:
    """The parts as Signs of the same two numbers, or nothing."""
    signs = [part for part in parts if isinstance(part, Signs)]
    if len(signs) < len(parts):
        return []
    for same in (signs, [rising(context, part) for part in signs]):
        pair = same[0].pair
        if all(torch.equal(part.pair, pair) and part.pair.dtype is pair.dtype for part in same):
            return same
    return []
