"""Convolutions with one-bit weights. For the order of their operations see binary_layer.py."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onebit.nn.binary_layer import BinaryLayer, Init, InputScale, WeightScale, check_count
from onebit.nn.tracing import is_traced, one_node

__all__ = ["BinaryConv1d", "BinaryConv2d", "padded"]

PaddingValue = Literal[0, 1, -1]
Padding = int | Sequence[int] | Literal["same", "valid"]


def _per_axis(argument: str, value: object, axes: int, min_size: int) -> tuple[int, ...]:
    """One integer an axis; ValueError unless `value` is one integer or `axes` of them, each >= min_size."""
    sizes = [value] * axes if isinstance(value, int) else value
    if (
        not isinstance(sizes, (list, tuple))
        or len(sizes) != axes
        or not all(isinstance(n, int) and not isinstance(n, bool) and n >= min_size for n in sizes)
    ):
        kind = "a positive integer" if min_size else "an integer of at least 0"
        some = kind if axes == 1 else f"{kind} or {axes} of them"
        raise ValueError(f"{argument} must be {some}; got {value!r}")
    return tuple(sizes)


def padded(
    x: Tensor, value: int, before: tuple[int, ...], after: tuple[int, ...]
) -> tuple[Tensor, tuple[int, ...]]:
    """x with whatever padding a convolution cannot do itself, and the padding that is left to it.

    x: (N, C, *sizes); before, after: pixels of `value` at both ends of each axis. A convolution pads with
    zeros, alike at both ends: then x comes back as it is.
    """
    if before == after and (value == 0 or not any(before)):
        return x, before
    # F.pad counts axes from the last one, two entries each.
    ends = [n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair]
    return F.pad(x, ends, value=float(value)), (0,) * len(before)


class _BinaryConvNd(BinaryLayer):
    """The body of BinaryConv1d and BinaryConv2d, over `axes` image axes."""

    axes: int
    transposed = False
    box: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: Padding = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        *,
        padding_value: PaddingValue = 0,
        input_quantizer: str | nn.Module | None = "ste_sign",
        weight_quantizer: str | nn.Module | None = "ste_sign",
        weight_scale: WeightScale | None = None,
        input_scale: InputScale | None = None,
        bias: bool = False,
        init: Init = "uniform",
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        for argument, count in (
            ("in_channels", in_channels),
            ("out_channels", out_channels),
            ("groups", groups),
        ):
            check_count(argument, count)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                "groups must divide in_channels and out_channels; "
                f"got groups={groups}, in_channels={in_channels}, out_channels={out_channels}"
            )
        if padding_value not in (0, 1, -1):
            raise ValueError(f"padding_value must be 0, 1 or -1; got {padding_value!r}")
        if input_scale is not None and groups != 1:
            raise ValueError(
                f"input_scale={input_scale!r} is defined for groups=1, where every output sees "
                f"every channel; got groups={groups}"
            )
        kernel = _per_axis("kernel_size", kernel_size, self.axes, 1)
        super().__init__(
            (out_channels, in_channels // groups, *kernel),
            input_quantizer=input_quantizer,
            weight_quantizer=weight_quantizer,
            weight_scale=weight_scale,
            input_scale=input_scale,
            bias=bias,
            init=init,
            device=device,
            dtype=dtype,
        )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel
        self.stride = _per_axis("stride", stride, self.axes, 1)
        self.dilation = _per_axis("dilation", dilation, self.axes, 1)
        self.padding = padding
        self.groups = groups
        self.padding_value = padding_value
        self.output_padding = (0,) * self.axes
        pools = self.padding_before == self.padding_after and all(
            d == 1 and 2 * p <= k for d, p, k in zip(self.dilation, self.padding_before, kernel, strict=True)
        )
        box = None
        if input_scale and not pools:
            box = torch.full((1, 1, *kernel), 1 / math.prod(kernel), device=device, dtype=dtype)
        self.register_buffer("box", box, persistent=False)

    @property
    def padding(self) -> tuple[int, ...] | str:
        """As in torch.nn: one number an axis, "same" or "valid". `padding_before` and `padding_after` say
        what that comes to at both ends of each axis."""
        return self._padding

    @padding.setter
    def padding(self, padding: Padding) -> None:
        self.padding_before, self.padding_after = self._paddings(padding)
        self._padding = padding if isinstance(padding, str) else self.padding_before

    @property
    def padding_mode(self) -> str:
        """As in torch.nn: "zeros"; "constant" with another `padding_value`."""
        return "constant" if self.padding_value else "zeros"

    def _paddings(self, padding: object) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Pixels before and after each axis. "same" puts the odd one of an even kernel after, as PyTorch."""
        if isinstance(padding, str) and padding in ("same", "valid"):
            if padding == "valid":
                return (0,) * self.axes, (0,) * self.axes
            if any(s != 1 for s in self.stride):
                raise ValueError(
                    f"padding='same' is not supported for strided convolutions; got stride={self.stride}"
                )
            total = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            return tuple(n // 2 for n in total), tuple(n - n // 2 for n in total)
        if isinstance(padding, str):
            raise ValueError(f"padding must be a number, 'same' or 'valid'; got {padding!r}")
        sizes = _per_axis("padding", padding, self.axes, 0)
        return sizes, sizes

    def forward(self, x: Tensor) -> Tensor:
        if is_traced(x):
            return one_node(self, x)
        if x.ndim != self.axes + 2 or x.shape[1] != self.in_channels:
            image = "length" if self.axes == 1 else "height, width"
            raise ValueError(
                f"{type(self).__name__}({self.in_channels}, {self.out_channels}, ...) takes inputs of shape "
                f"(batch, {self.in_channels}, {image}); got {tuple(x.shape)}"
            )
        weight, alpha = self.quantized_weight()
        k = None if self.input_scale is None else self._input_scale(x)
        return self.finished(self.summed(self.quantized_input(x), weight), alpha, k, self.axes)

    def product(self, q: Tensor, weight: Tensor) -> Tensor:
        q, padding = padded(q, self.padding_value, self.padding_before, self.padding_after)
        return self._convolve(q, weight, self.stride, padding, self.groups)

    def _input_scale(self, x: Tensor) -> Tensor:
        """K, (N, 1, *output size): XNOR-Net eq. 11. Outside the image |x| is 0, whatever padding_value."""
        a = x.abs().mean(dim=1, keepdim=True)
        if self.box is None:
            return self._average(a)
        a, padding = padded(a, 0, self.padding_before, self.padding_after)
        return self._convolve(a, self.box, self.stride, padding, 1)

    def _convolve(
        self, x: Tensor, w: Tensor, stride: tuple[int, ...], padding: tuple[int, ...], groups: int
    ) -> Tensor:
        raise NotImplementedError

    def _average(self, a: Tensor) -> Tensor:
        raise NotImplementedError

    def extra_repr(self) -> str:
        kernel = self.kernel_size[0] if self.axes == 1 else self.kernel_size
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={kernel}"]
        for argument, default in (("stride", 1), ("padding", 0), ("dilation", 1)):
            sizes = getattr(self, "padding_before" if argument == "padding" else argument)
            if argument == "padding" and self.padding_before != self.padding_after:
                parts.append("padding='same'")
            elif sizes != (default,) * self.axes:
                parts.append(f"{argument}={sizes[0] if self.axes == 1 else sizes}")
        for argument, default in (("groups", 1), ("padding_value", 0)):
            if getattr(self, argument) != default:
                parts.append(f"{argument}={getattr(self, argument)}")
        return ", ".join([*parts, *self.repr_of_options()])


class BinaryConv2d(_BinaryConvNd):
    """A 2-d convolution with one-bit weights: BinaryConnect/BWN (real input) or BNN/XNOR (one-bit input).

    x: (N, in_channels, H, W), floating point -> (N, out_channels, H', W'), same dtype, with
    H' = (H + 2·padding − dilation·(kernel − 1) − 1) // stride + 1, and W' likewise.

    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, device, dtype: as in
        torch.nn.Conv2d; sizes are an integer or one integer an axis, padding also "valid" (0) or "same" (the
        output is as large as the input; an even kernel has the odd pixel at the end; stride 1 only).
    padding_value: what a *binarized* activation sees outside the image: 0 (a tap there adds nothing), 1 or
        -1. The padding comes after the quantizer. With input_quantizer=None the input is padded as it comes.
    input_quantizer: a quantizer's name, a module, or None (the input is used as it comes: real, or
        already ±1).
    weight_quantizer: the same for the weight; None makes it an ordinary real layer without latent weights.
    weight_scale: None (BinaryConnect, BNN); "channel_mean": α = mean |W| of each filter, recomputed from
        the latent weight (BWN and XNOR-Net, arXiv 1603.05279, section 3.1) with its exact gradient;
        "channel_mean_loose", "channel_mean_detached": the same α with the paper's own gradient, or with none
        through α (formulas in onebit.nn.scales);
        "learned": a parameter `scale` of shape (out_channels,) that starts at that mean.
    input_scale: None, or "xnor": the output is multiplied by K, the mean of |x| over the channels, averaged
        over the kernel's window with the same stride, padding and dilation (XNOR-Net, section 3.2, eq. 9-11;
        x before its quantizer; outside the image |x| counts as 0). Not with input_quantizer=None or groups.
    bias: adds a parameter of shape (out_channels,) that starts at 0. Not needed before a BatchNorm.
    init: "uniform" draws the latent weight from U(-1, 1), as the papers' code does; "glorot" from U(-a, a)
        with a = sqrt(6 / (fan_in + fan_out)), the fans those of `onebit.optim.glorot_coefficient`.

    The factors and the bias are applied to the finished sum, which is an exact integer if both sides are ±1.
    `weight`, (out_channels, in_channels / groups, *kernel_size), holds the *latent* weights: real numbers
    that collect the updates. Call `onebit.optim.clip_latent_weights_(model)` after each optimizer step.

    ValueError or TypeError for arguments outside the above and for an input of another shape.
    """

    axes = 2

    def _convolve(
        self, x: Tensor, w: Tensor, stride: tuple[int, ...], padding: tuple[int, ...], groups: int
    ) -> Tensor:
        return F.conv2d(x, w, None, stride, padding, self.dilation, groups)

    def _average(self, a: Tensor) -> Tensor:
        return F.avg_pool2d(a, self.kernel_size, self.stride, self.padding_before, count_include_pad=True)


class BinaryConv1d(_BinaryConvNd):
    """A 1-d convolution with one-bit weights; everything else is as in `BinaryConv2d`.

    x: (N, in_channels, L), floating point -> (N, out_channels, L'), same dtype.
    """

    axes = 1

    def _convolve(
        self, x: Tensor, w: Tensor, stride: tuple[int, ...], padding: tuple[int, ...], groups: int
    ) -> Tensor:
        return F.conv1d(x, w, None, stride, padding, self.dilation, groups)

    def _average(self, a: Tensor) -> Tensor:
        return F.avg_pool1d(a, self.kernel_size, self.stride, self.padding_before, count_include_pad=True)
