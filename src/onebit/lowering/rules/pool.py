"""Rules for pooling and for means."""

from __future__ import annotations

from typing import Any

from onebit.lowering.capture.captured import TorchCall
from onebit.lowering.emit.context import Context, lowers
from onebit.lowering.rules.shape import reshaped
from onebit.lowering.rules.two_values import rising
from onebit.lowering.rules.window_arguments import Windows, image_operand, windows
from onebit.lowering.values.image_layout import ImageLayout
from onebit.lowering.values.kinds import Bytes, Floats, Signs, Sums, Value, Varying, moved


@lowers("aten.max_pool1d.default", "aten.max_pool2d.default", "aten.max_pool2d_with_indices.default")
def max_pool(
    context: Context,
    call: TorchCall,
    x: Value,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Value:
    """The largest of each window; of signs, sums and bytes too."""
    axes = _axes(call)
    image = image_operand(context, x, axes)
    size = context.shape(image)[1:]
    at = windows(context, axes, kernel, stride, padding, dilation, size=size, ceil_mode=ceil_mode)
    return _max_pool(context, image, axes, at)


def _max_pool(context: Context, image: Varying, axes: int, at: Windows) -> Value:
    if isinstance(image, Signs):
        image = rising(context, image)  # now the largest bit is the largest number
    elif isinstance(image, Bytes) and not bool((image.table[1:] >= image.table[:-1]).all()):
        image = Floats(context.floats(image))

    def pool(name: str) -> str:
        return context.image_node(
            *("max_pool2d", name),
            axes=axes,
            kernel=at.kernel,
            stride=at.stride,
            padding=at.padding,
            dilation=at.dilation,
        )

    return moved(image, pool)


@lowers("aten.avg_pool1d.default", "aten.avg_pool2d.default")
def avg_pool(
    context: Context,
    call: TorchCall,
    x: Value,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    """The mean of each window."""
    if divisor_override is not None:
        context.refuse(f"divisor_override={divisor_override}", "multiply in a step of its own")
    axes = _axes(call)
    image = image_operand(context, x, axes)
    size = context.shape(image)[1:]
    at = windows(context, axes, kernel, stride, padding, 1, size=size, ceil_mode=ceil_mode)
    own = any(p > a for p, a in zip(at.padding[1::2], at.added, strict=True))
    if own and any(at.added) and count_include_pad:
        context.refuse(
            "ceil_mode with padding that counts: the divisor differs from window to window",
            "use count_include_pad=False, or ceil_mode=False",
        )
    return _avg_pool(context, image, axes, at, int(own and count_include_pad))


def _avg_pool(context: Context, image: Varying, axes: int, at: Windows, count_include_pad: int = 0) -> Value:
    attrs = {"kernel": at.kernel, "stride": at.stride, "padding": at.padding}
    name = context.floats(image)
    return Floats(
        context.image_node("avg_pool2d", name, axes=axes, count_include_pad=count_include_pad, **attrs)
    )


@lowers(
    *(f"aten.adaptive_{kind}_pool{axes}d.default" for kind in ("avg", "max") for axes in (1, 2)),
)
def adaptive_pool(context: Context, call: TorchCall, x: Value, *args: Any) -> Value:
    """Windows that tile the image: to one pixel, or where the sizes divide."""
    axes = _axes(call)
    image = image_operand(context, x, axes)
    size, outputs = context.shape(image)[1:], context.sample()[1:]
    if any(n % m for n, m in zip(size, outputs, strict=True)):
        context.refuse(
            f"adaptive pooling from {size} to {outputs}, whose windows differ in size",
            "choose an output size that divides the image's, such as 1",
        )
    kernel = [n // m for n, m in zip(size, outputs, strict=True)]
    at = windows(context, axes, kernel, (), 0, 1)
    if max(kernel) == 1:
        return image
    return (_max_pool if "max" in call.op else _avg_pool)(context, image, axes, at)


@lowers("aten.mean.dim")
def mean(
    context: Context, call: TorchCall, x: Value, dims: Any, keepdim: bool = False, **kwargs: Any
) -> Value:
    """The mean over the channels, or over axes of the image."""
    context.sample()
    if not isinstance(x, (Floats, Sums, Signs, Bytes)):
        context.refuse("the mean of a constant", "store it")
    rank = len(context.shape(x))
    axes = {axis % (rank + 1) - 1 for axis in (dims or range(rank + 1))}
    floats = Floats(context.floats(x))
    if axes == {rank - 1} and (rank == 1 or context.layout(x) is None):
        return _keep(context, Floats(context.node("channel_mean", floats.name)), keepdim)
    if rank not in (2, 3) or (0 in axes and len(axes) > 1):
        context.refuse(
            f"the mean over the axes {tuple(dims or ())} of one sample of shape {context.shape(x)}",
            "take the mean over the channels, or over axes of an image",
        )
    image = context.image(floats)
    if axes == {0}:
        layout = ImageLayout(1, context.shape(image)[1:])
        return _keep(context, Floats(context.node("channel_mean", image.name, layout=layout)), keepdim)
    kernel = [n if axis in axes else 1 for axis, n in enumerate(context.shape(image)[1:], start=1)]
    return _keep(
        context, _avg_pool(context, image, rank - 1, windows(context, rank - 1, kernel, (), 0, 1)), keepdim
    )


def _keep(context: Context, x: Value, keepdim: bool) -> Value:
    return x if keepdim else reshaped(context, x, context.sample())


def _axes(call: TorchCall) -> int:
    return 1 if "pool1d" in call.op else 2
