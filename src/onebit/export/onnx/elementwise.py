"""Elementwise ops, pools and what moves elements, as ONNX nodes."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import numpy.typing as npt

from onebit.export.channels_first import IMAGE, Placed
from onebit.export.onnx.writer import EXACT_INTEGERS, Held, Writer, pads_of
from onebit.program import OPS, Node, unpack_bits
from onebit.program.fusion import Step
from onebit.program.ops.facts import EXACT
from onebit.program.tensors import Array


def write_threshold(
    w: Writer, name: str, threshold: npt.NDArray[np.int32], flip: npt.NDArray[np.uint32], output: str
) -> None:
    """(x >= threshold) xor flip, compared as the value is held."""
    like, b = w.placed[name], w.b
    levels: Array = threshold
    if not w.held[name].int32:  # |x| <= 2^24, and the nearest even numbers beyond are float32 too
        levels = np.clip(threshold, -EXACT_INTEGERS - 2, EXACT_INTEGERS + 2).astype(np.float32)
    reached = b.node("GreaterOrEqual", [like.name, b.constant(w.spread(like, levels))])
    flips = unpack_bits(flip, len(threshold))
    if flips.any():
        reached = b.node("Xor", [reached, b.constant(w.spread(like, flips))])
    _choose_sign(w, reached, like, output, w.held[name].exact)


def _choose_sign(w: Writer, positive: str, like: Placed, output: str, exact: bool) -> None:
    ends = [w.b.constant(np.float32(end)) for end in (1, -1)]
    made = w.b.node("Where", [positive, *ends], w.fresh(output))
    w.place(output, made, like, Held(1, exact))


def threshold(w: Writer, step: Step, node: Node) -> None:
    """A threshold that stands alone."""
    assert step.threshold is not None
    assert step.flip is not None
    write_threshold(w, node.inputs[0], step.threshold, step.flip, step.output)


def sign(w: Writer, step: Step, node: Node) -> None:
    """+1 where x >= 0, also for −0.0; −1 for NaN. Exactness ends where the value's own did."""
    like = w.placed[node.inputs[0]]
    reached = w.b.node("GreaterOrEqual", [like.name, w.b.constant(np.float32(0))])
    _choose_sign(w, reached, like, step.output, w.held[node.inputs[0]].exact)


def to_float(w: Writer, step: Step, node: Node) -> None:
    """The same number as float32."""
    held = w.held[node.inputs[0]]
    like = w.placed[node.inputs[0]]
    made = w.barrier(node.inputs[0], like.name)
    w.place(step.output, made, like, replace(held, int32=False, sum=False))


def scale_pixels(w: Writer, step: Step, node: Node) -> None:
    """(2x − 255)/256: both steps are exact."""
    like, b = w.placed[node.inputs[0]], w.b
    scaled = b.node("Mul", [like.name, b.constant(np.float32(2 / 256))])
    made = b.node("Add", [scaled, b.constant(np.float32(-255 / 256))], w.fresh(step.output))
    w.place(step.output, made, like, Held(exact=w.held[node.inputs[0]].exact))


def affine(w: Writer, step: Step, node: Node) -> None:
    """One fused multiply-add."""
    like = w.placed[node.inputs[0]]
    scale, shift = (w.constant(name) for name in node.inputs[1:])
    made, held = w.fma(node.inputs[0], like, scale, shift)
    w.place(step.output, made, like, held)


def binary(w: Writer, step: Step, node: Node) -> None:
    """Of two values, or of a value and a constant."""
    op = OPS[node.op]
    constants = [name in w.program.constants for name in node.inputs]
    values = [name for name, is_constant in zip(node.inputs, constants, strict=True) if not is_constant]
    exact = all(w.held[name].exact for name in values) and op.tolerance == EXACT
    if any(constants):
        like = w.placed[values[0]]
        other = w.b.constant(_along(like, w.constant(node.inputs[constants.index(True)])))
        names = [other if is_constant else like.name for is_constant in constants]
    else:
        placed = w.same_axes(node.inputs)
        like, names = placed[0], [p.name for p in placed]
    made = w.b.node(op.float_form.onnx, names, w.fresh(step.output))
    w.place(step.output, made, like, Held(exact=exact))


def _along(like: Placed, constant: Array) -> Array:
    """A constant that broadcasts to the value's shape in the Program, laid as the value is."""
    rank = len(like.axes)
    whole = constant.reshape((1,) * (rank - constant.ndim) + constant.shape)
    if like.index is not None:
        return whole if whole.shape == (1,) else whole[like.index]
    return np.ascontiguousarray(whole.transpose(like.axes))


def function(w: Writer, step: Step, node: Node) -> None:
    """A function of one value and the attributes: its operator, or the steps that round as it does."""
    like, op = w.placed[node.inputs[0]], OPS[node.op]
    attrs = [cast(float, node.attrs[name]) for name in op.attrs]
    steps = op.float_form.onnx_steps or ((op.float_form.onnx, "x", *attrs),)
    made = like.name
    for index, (operator, *operands) in enumerate(steps, 1):
        named = {"x": like.name, "_": made}
        names = [named[o] if isinstance(o, str) else w.b.constant(np.float32(o)) for o in operands]
        made = w.b.node(str(operator), names, w.fresh(step.output) if index == len(steps) else "")
    w.place(step.output, made, like, Held(exact=w.held[node.inputs[0]].exact and op.tolerance == EXACT))


def prelu(w: Writer, step: Step, node: Node) -> None:
    """x where x >= 0, else slope·x."""
    like = w.placed[node.inputs[0]]
    slope = w.constant(node.inputs[1])
    one = slope.size == 1
    laid = slope.reshape((1,) * len(like.axes)) if one else w.spread(like, slope)
    made = w.b.node("PRelu", [like.name, w.b.constant(laid)], w.fresh(step.output))
    w.place(step.output, made, like, Held(exact=w.held[node.inputs[0]].exact))


def max_pool(w: Writer, step: Step, node: Node) -> None:
    """The largest of a window; int32 goes through float64, which MaxPool knows and which holds it."""
    placed, held, b = w.to(node.inputs[0], IMAGE), w.held[node.inputs[0]], w.b
    kernel, pads = list(_ints(node, "kernel")), _needed_pads(w, node)
    source = b.cast(placed.name, "DOUBLE") if held.int32 else placed.name
    if any(pad >= size for pad, size in zip(pads, kernel * 2, strict=True)):  # ONNX Runtime refuses those
        amounts = b.constant(np.array([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64))
        outside = np.float64(-np.inf) if held.int32 else np.float32(-np.inf)
        source, pads = b.node("Pad", [source, amounts, b.constant(outside)], mode="constant"), [0] * 4
    made = b.node(
        "MaxPool",
        [source],
        kernel_shape=kernel,
        strides=list(_ints(node, "stride")),
        dilations=list(_ints(node, "dilation")),
        pads=pads,
    )
    if held.int32:
        made = b.cast(made, "INT32")
    if step.flip is not None:
        flips = unpack_bits(step.flip, w.program.values[step.output].channels)
        signs = b.constant(w.spread(placed, np.where(flips, np.int8(-1), np.int8(1))))
        made = b.node("Mul", [made, b.cast(signs, "FLOAT")])
    w.place(step.output, made, placed, replace(held, sum=False))


def avg_pool(w: Writer, step: Step, node: Node) -> None:
    """A mean over windows; of integers within float32's exactness only the division rounds."""
    placed, held = w.to(node.inputs[0], IMAGE), w.held[node.inputs[0]]
    kernel = _ints(node, "kernel")
    made = w.b.node(
        "AveragePool",
        [placed.name],
        kernel_shape=list(kernel),
        strides=list(_ints(node, "stride")),
        pads=_needed_pads(w, node),
        count_include_pad=node.attrs["count_include_pad"],
    )
    w.place(step.output, made, placed, _mean_of(held, kernel[0] * kernel[1]))


def channel_mean(w: Writer, step: Step, node: Node) -> None:
    """The mean over the channels, which keep their axis."""
    like, held = w.placed[node.inputs[0]], w.held[node.inputs[0]]
    channels = w.shape(node.inputs[0])[-1]
    axes = w.b.constant(np.array([w.channel_axis(like) + 1], np.int64))
    total = w.b.node("ReduceSum", [like.name, axes], keepdims=1)
    made = w.b.node("Div", [total, w.b.constant(np.float32(channels))], w.fresh(step.output))
    w.place(step.output, made, Placed("", like.axes), _mean_of(held, channels))


def _mean_of(held: Held, count: int) -> Held:
    return Held(exact=held.exact and held.bound is not None and held.bound * count <= EXACT_INTEGERS)


def _needed_pads(w: Writer, node: Node) -> list[int]:
    """The padding that some window reads, as ONNX has it."""
    padding = list(_ints(node, "padding"))
    kernel, stride = _ints(node, "kernel"), _ints(node, "stride")
    dilation = cast(tuple[int, ...], node.attrs.get("dilation", (1, 1)))
    for axis in range(2):
        size, outputs = (w.shape(name)[axis] for name in (node.inputs[0], node.output))
        last = (outputs - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1
        padding[2 * axis + 1] = max(0, last - padding[2 * axis] - size)
    return pads_of(padding)


def concat(w: Writer, step: Step, node: Node) -> None:
    """Channels one after another; int32 if one of the values is."""
    held = [w.held[name] for name in node.inputs]
    placed = w.same_axes(node.inputs)
    int32 = any(h.int32 for h in held)
    names = [
        w.b.cast(p.name, "INT32") if int32 and not h.int32 else p.name
        for p, h in zip(placed, held, strict=True)
    ]
    like = Placed("", placed[0].axes)
    made = w.b.node("Concat", names, w.fresh(step.output), axis=w.channel_axis(like) + 1)
    bounds = [h.bound for h in held]
    bound = None if None in bounds else max(cast(list[int], bounds))
    w.place(step.output, made, like, Held(bound, all(h.exact for h in held), int32))


def permute(w: Writer, step: Step, node: Node) -> None:
    """Axes get other names; nothing is written."""
    w.permute(node)
    w.held[step.output] = w.held[node.inputs[0]]


def reshape(w: Writer, step: Step, node: Node) -> None:
    """The same elements in another shape."""
    w.reshape(node)
    w.held[step.output] = w.held[node.inputs[0]]


def _ints(node: Node, name: str) -> tuple[int, ...]:
    return cast(tuple[int, ...], node.attrs[name])
