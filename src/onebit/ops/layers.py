"""Packed layers: what `pack` puts in the place of BinaryLinear, BinaryConv1d and BinaryConv2d.

A packed layer computes y = (sign(x) ∗ sign(W)) · α · K + bias like the layer it replaces, each factor and the
bias one rounding after the finished sum, so float32 results are the same bit for bit: the sums are integers,
which PyTorch's float32 holds exactly as well. It keeps the signs of W as bits, `bits`, and α and the bias as
parameters that nobody trains. What model code asks the layer before for, it answers: `weight` too, which has
the dtype, shape and device of the float weights and is unpacked when it is asked for.
"""

from __future__ import annotations

from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onebit.nn import BinaryConv1d, BinaryConv2d, BinaryLinear
from onebit.nn.convolution import padded
from onebit.nn.tracing import in_torch_func, is_traced, one_node

_OPERATORS = torch.ops.onebit


class PackedLayer(nn.Module):
    """Base of the packed layers; not a layer by itself.

    layer: the layer to replace, in eval mode.
    bits: its packed signs, int32, output first. alpha: its factor α of the finished sum, float32 (out,).
    before: a module whose ±1 are packed (a quantizer that does more than take the sign); None packs the
        signs of the input itself.
    real: the input is multiplied as it comes, without a sign.
    """

    bits: Tensor
    scale: Tensor | None
    bias: Tensor | None

    def __init__(
        self,
        layer: BinaryLinear | BinaryConv1d | BinaryConv2d,
        bits: Tensor,
        alpha: Tensor | None,
        before: nn.Module | None,
        *,
        real: bool,
    ) -> None:
        super().__init__()
        self.register_buffer("bits", bits)
        # Empty: for code that asks next(model.parameters()) for a dtype and a device.
        like = bits.new_empty(0, dtype=layer.weight.dtype)
        bias = None if layer.bias is None else layer.bias.detach().clone()
        for name, tensor in (("like", like), ("scale", alpha), ("bias", bias)):
            parameter = None if tensor is None else nn.Parameter(tensor, requires_grad=False)
            self.register_parameter(name, parameter)
        self.weight_shape = layer.weight.shape
        self.input_quantizer = before
        self.input_scale = layer.input_scale
        self.real = real
        # One rounding a step: the product may take α or the bias along, but not both, nor a bias behind K.
        biased = layer.bias is not None
        bias_first = biased and alpha is None and layer.input_scale is None
        self.fused = "bias" if bias_first else "" if alpha is None else "scale"
        self.adds_bias = biased and not bias_first
        self.replaces = f"{type(layer).__name__}({layer.extra_repr()})"
        self.unpacked_bytes = sum(
            t.numel() * t.element_size() for t in (*layer.parameters(False), *layer.buffers(False))
        )
        self.eval()

    @property
    def weight(self) -> Tensor:
        """±1, the signs of the weights before packing: in their shape and the layer's dtype, a fresh tensor.

        Unpacked at each call, 32 times the bits in float32.
        """
        rows = _OPERATORS.unpack_bits(self.bits, self.weight_shape[1], dtype=self.like.dtype).movedim(-1, 1)
        return cast(Tensor, rows.reshape(self.weight_shape))

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """As in torch.nn.Module; but α and the bias stay float32, in which the product takes them.

        And become new tensors: what was prepared for the old ones (prepared.py) would not see them change.
        """
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name in ("scale", "bias"):
            old = self._parameters[name]
            if old is not None:
                self._parameters[name] = nn.Parameter(old.detach().float().clone(), requires_grad=False)
        return self

    def _require(self, fits: bool, x: Tensor, shape: str) -> None:
        if self.training:
            raise RuntimeError(
                f"a packed layer ({self.replaces}) cannot be trained: call eval() on the packed model, and "
                "train the model that it was made of"
            )
        if not fits:
            raise ValueError(f"{self.replaces}, packed, takes inputs of shape {shape}; got {tuple(x.shape)}")
        if not x.is_floating_point():
            raise TypeError(f"{self.replaces}, packed, takes floating-point inputs, not {x.dtype}")

    def _operand(self, x: Tensor) -> Tensor:
        """What the product multiplies, channels first as x: signs to pack, or numbers."""
        q = x if self.input_quantizer is None else self.input_quantizer(x)
        return cast(Tensor, q.float() if self.real else q)

    def _epilogue(self) -> dict[str, Any]:
        """What the product itself does after the sum."""
        if self.fused:
            return {self.fused: getattr(self, self.fused)}
        return {} if self.real else {"to_float": True}

    def _finished(self, y: Tensor, k: Tensor | None, x: Tensor, axes_after: int) -> Tensor:
        """The rest: y · K + bias, in x's dtype."""
        if k is not None:
            y = y * k
        if self.adds_bias:
            y = y + cast(Tensor, self.bias).reshape(-1, *[1] * axes_after)
        return y if y.dtype == x.dtype else y.to(x.dtype)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        found = state_dict.get(prefix + "weight")
        if isinstance(found, Tensor):
            errors = args[-1]
            errors.append(
                f"{prefix}weight is {found.dtype}, the layer's weights before packing: load this state dict "
                "into the unpacked model and pack that"
            )
            return
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return self.replaces


def _packable(q: Tensor) -> Tensor:
    """q for a product that packs float32 by itself: one operator instead of two."""
    return q if q.dtype == torch.float32 else cast(Tensor, _OPERATORS.pack_bits(q))


class PackedLinear(PackedLayer):
    """A packed BinaryLinear. x: (..., in_features) -> (..., out_features), same dtype."""

    def __init__(self, layer: BinaryLinear, *args: Any, **options: Any) -> None:
        super().__init__(layer, *args, **options)
        self.in_features = layer.in_features
        self.out_features = layer.out_features

    def forward(self, x: Tensor) -> Tensor:
        if is_traced(x):
            return one_node(self, x)
        self._require(x.shape[-1:] == (self.in_features,), x, f"(..., {self.in_features})")
        k = None if self.input_scale is None else x.abs().mean(dim=-1, keepdim=True)
        q = self._operand(x)
        if self.real:
            y = _OPERATORS.f32_binary_matmul(q, self.bits, **self._epilogue())
        else:
            y = _OPERATORS.binary_matmul(_packable(q), self.bits, self.in_features, **self._epilogue())
        return self._finished(y, k, x, 0)


def _is_channels_last(x: Tensor) -> bool:
    if in_torch_func():
        return False
    return x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


class _PackedConv(PackedLayer):
    """The body of PackedConv1d and PackedConv2d, over `axes` image axes; one axis is an image of height 1.

    bits: (out, kernel height, kernel width, words).
    """

    axes: int
    transposed = False
    box: Tensor | None

    def __init__(self, layer: BinaryConv1d | BinaryConv2d, *args: Any, **options: Any) -> None:
        super().__init__(layer, *args, **options)
        self.in_channels = layer.in_channels
        self.out_channels = layer.out_channels
        self.kernel_size = layer.kernel_size
        self.stride = layer.stride
        self.padding = layer.padding
        self.padding_before = layer.padding_before
        self.padding_after = layer.padding_after
        self.padding_mode = layer.padding_mode
        self.output_padding = layer.output_padding
        self.dilation = layer.dilation
        self.groups = layer.groups
        self.padding_value = layer.padding_value
        self.channels_last = _is_channels_last(layer.weight)
        self.register_buffer("box", layer.box, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if is_traced(x):
            return one_node(self, x)
        shape = f"(batch, {self.in_channels}, {'length' if self.axes == 1 else 'height, width'})"
        self._require(x.ndim == self.axes + 2 and x.shape[1] == self.in_channels, x, shape)
        k = None if self.input_scale is None else self._input_scale(x)
        y = self._product(self._operand(x), self._wants_channels_first(x))
        return self._finished(y, k, x, self.axes)

    def _wants_channels_first(self, x: Tensor) -> bool:
        """Whether PyTorch's convolution of x has a contiguous result, not a channels-last one.

        What follows may sum over pixels, and the order of PyTorch's summation depends on the memory format.
        """
        return not (self.channels_last or _is_channels_last(x))

    def _product(self, q: Tensor, channels_first: bool) -> Tensor:
        """The convolution, scaled, of q; channels_first says how the result lies in memory."""
        padding = self.padding_after  # of bits at both ends; what is too much of it is cut off below
        if self.real:
            q, padding = padded(q, self.padding_value, self.padding_before, self.padding_after)
        options = {**self._epilogue(), "groups": self.groups, "channels_first": channels_first}
        for name, sizes in (("stride", self.stride), ("padding", padding), ("dilation", self.dilation)):
            options[name] = sizes if self.axes == 2 else ((0 if name == "padding" else 1), *sizes)
        q = q.movedim(1, -1)
        if self.real:
            y = _OPERATORS.f32_binary_conv2d(self._as_image(q), self.bits, **options)
        else:
            q = self._as_image(_packable(q))
            options["padding_value"] = self.padding_value
            y = _OPERATORS.binary_conv2d(q, self.bits, self.in_channels, **options)
        y = y if channels_first else y.movedim(-1, 1)
        y = cast(Tensor, y if self.axes == 2 else y.squeeze(2))
        return y if self.real else self._cut(y, channels_first)

    def _cut(self, y: Tensor, channels_first: bool) -> Tensor:
        """y without the rows and columns that "same" of an even kernel, which has stride 1, does not give."""
        if self.padding_before == self.padding_after:
            return y
        ends = zip(self.padding_before, self.padding_after, strict=True)
        for axis, (before, after) in enumerate(ends, start=2):
            y = y.narrow(axis, after - before, y.shape[axis] - (after - before))
        last = self.axes == 2 and not channels_first
        return y.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)

    def _as_image(self, x: Tensor) -> Tensor:
        """(batch, length, …) as an image of height 1."""
        return x if self.axes == 2 else x.unsqueeze(1)

    def _input_scale(self, x: Tensor) -> Tensor:
        """K, (batch, 1, *output size): XNOR-Net, arXiv 1603.05279, eq. 11."""
        a = x.abs().mean(dim=1, keepdim=True)
        if self.box is None:
            average = F.avg_pool1d if self.axes == 1 else F.avg_pool2d
            return average(a, self.kernel_size, self.stride, self.padding_before)
        a, padding = padded(a, 0, self.padding_before, self.padding_after)
        convolve = F.conv1d if self.axes == 1 else F.conv2d
        return convolve(a, self.box, None, self.stride, padding, self.dilation)


class PackedConv1d(_PackedConv):
    """A packed BinaryConv1d. x: (batch, in_channels, L) -> (batch, out_channels, L'), same dtype."""

    axes = 1


class PackedConv2d(_PackedConv):
    """A packed BinaryConv2d. x: (batch, in_channels, H, W) -> (batch, out_channels, H', W'), same dtype.

    The result is channels last in memory if x is, else contiguous, as with torch.nn.Conv2d. Channels last is
    the quicker: nothing is transposed.
    """

    axes = 2
