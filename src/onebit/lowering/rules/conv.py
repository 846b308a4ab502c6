"""Rules for convolutions and for the padding before them."""

from __future__ import annotations

from typing import Any

import numpy as np

from onebit.lowering.capture.captured import TorchCall
from onebit.lowering.emit.context import Context, lowers
from onebit.lowering.rules.arithmetic import arithmetic
from onebit.lowering.rules.weighted_sums import Ops, checked_weights, weighted
from onebit.lowering.rules.window_arguments import image_operand, windows
from onebit.lowering.values.kinds import Known, Padded, Value

_CONVOLUTIONS = Ops("binary_conv2d", "u8_conv2d", "f32_binary_conv2d", "f32_conv2d")


@lowers(
    *("aten.conv1d.default", "aten.conv1d.padding", "aten.conv2d.default", "aten.conv2d.padding"), padded=True
)
def convolution(
    context: Context,
    call: TorchCall,
    x: Value | Padded,
    weight: Value,
    bias: Value | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    """x ⋆ weight (+ bias, as an op of its own), weight (N, C/groups, [KH,] KW)."""
    axes = 1 if "conv1d" in call.op else 2
    around, fill = (x.padding, x.fill) if isinstance(x, Padded) else ((0, 0, 0, 0), 0.0)
    image = image_operand(context, x.value if isinstance(x, Padded) else x, axes)
    if not isinstance(weight, Known):
        context.refuse(
            "it convolves with weights that depend on the input",
            "a Program multiplies by stored weights only: make them a parameter or buffer",
        )
    at = windows(context, axes, weight.tensor.shape[2:], stride, padding, dilation)
    if any(at.padding) and fill != 0:
        context.refuse(
            f"it pads with 0 what is padded with {fill:g} already", "pad once, before the convolution"
        )
    weights = np.moveaxis(checked_weights(context, weight), 1, -1)
    if axes == 1:
        weights = weights[:, None]

    pads = tuple(a + b for a, b in zip(at.padding, around, strict=True))

    def node(op: str, *inputs: str, **attrs: Any) -> str:
        if op == "binary_conv2d":
            attrs.setdefault("padding_value", 0)
        elif fill != 0 and any(pads):
            context.refuse(
                f"it is padded with {fill:g}; any convolution can be with 0, one of signs with signs with "
                "±1, one of {0, 1} with signs with 1",
                "pad with 0, or binarize both its input and its weights",
            )
        geometry = {"stride": at.stride, "padding": pads, "dilation": at.dilation, "groups": groups}
        return context.image_node(op, *inputs, axes=axes, **geometry, **attrs)

    sums = weighted(context, image, weights, weight, _CONVOLUTIONS, node, fill if any(pads) else None)
    if bias is None:
        return sums
    if not isinstance(bias, Known):
        context.refuse("its bias depends on the input", "add it in a step of its own")
    return arithmetic(context, "add", sums, Known(bias.tensor.reshape(-1, *[1] * axes), bias.hint))


@lowers("aten.pad.default", "aten.constant_pad_nd.default", padded=True)
def pad(
    context: Context,
    call: TorchCall,
    x: Value | Padded,
    sizes: Any,
    mode: Any = "constant",
    value: Any = None,
) -> Padded:
    """Constant padding around images, kept aside for the convolution that follows."""
    if call.op.startswith("aten.constant_pad"):
        mode, value = "constant", mode if isinstance(mode, (int, float)) else value
    if mode != "constant":
        context.refuse(f"padding of the mode {mode!r}", "pad with a constant (0, 1 or −1)")
    fill = float(value or 0)
    inner, around = (x.value, x.padding) if isinstance(x, Padded) else (x, (0, 0, 0, 0))
    if isinstance(inner, Known):
        context.refuse("padding of a constant", "store it padded")
    if isinstance(x, Padded) and x.fill != fill:
        context.refuse(f"padding with {fill:g} around padding with {x.fill:g}", "pad once")
    axes = len(context.shape(inner)) - 1
    if min(sizes) < 0 or axes not in (1, 2) or any(sizes[2 * axes :]):
        context.refuse(f"padding by {tuple(sizes)}", "pad the axes of an image only, by positive numbers")
    left, right, top, bottom = [*sizes, 0, 0, 0, 0][:4]
    t, b, le, r = around
    return Padded(inner, (t + top, b + bottom, le + left, r + right), fill)
