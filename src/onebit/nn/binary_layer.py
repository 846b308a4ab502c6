"""What every layer with one-bit weights shares: its parameters, its factors, its start and its checks.

y = (Qin(x) ∗ Qw(W)) · α · K + bias, where ∗ is a matrix product or a convolution, and the factors and the
bias are operations of their own *after* the sum: a sum of ±1 products is an exact integer in float32 (up to
2^24 terms, in any order), and it stays one. Multiplying the weights by α first, or a fused bias, would round
inside the sum and give other floats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Self, get_args

import torch
from torch import Tensor, nn

from onebit.nn import quantizers
from onebit.nn.exact_sums import needs_float64
from onebit.nn.markers import emits_markers
from onebit.nn.scales import channel_mean, with_loose_gradient
from onebit.nn.unclipped import warn_if_unclipped

__all__ = ["BinaryLayer", "Init", "InputScale", "WeightScale"]

WeightScale = Literal["channel_mean", "channel_mean_loose", "channel_mean_detached", "learned"]
InputScale = Literal["xnor"]
Init = Literal["uniform", "glorot"]


def check_choice(argument: str, value: object, choices: tuple[object, ...]) -> None:
    """ValueError unless value is one of choices."""
    if value not in choices:
        raise ValueError(f"{argument} must be one of {', '.join(map(repr, choices))}; got {value!r}")


def check_count(argument: str, value: object) -> None:
    """ValueError unless value is a positive integer."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{argument} must be a positive integer; got {value!r}")


class BinaryLayer(nn.Module):
    """Base of BinaryLinear and of the binary convolutions; not a layer by itself.

    weight_shape: (out, in per group, *kernel).
    The keyword arguments are those of the layers, where they are explained.
    """

    scale: Tensor | None
    bias: Tensor | None

    def __init__(
        self,
        weight_shape: Sequence[int],
        *,
        input_quantizer: str | nn.Module | None,
        weight_quantizer: str | nn.Module | None,
        weight_scale: WeightScale | None,
        input_scale: InputScale | None,
        bias: bool,
        init: Init,
        device: torch.device | str | int | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        check_choice("weight_scale", weight_scale, (None, *get_args(WeightScale)))
        check_choice("input_scale", input_scale, (None, *get_args(InputScale)))
        check_choice("init", init, get_args(Init))
        if input_scale is not None and input_quantizer is None:
            raise ValueError(
                f"input_scale={input_scale!r} restores the magnitude that the layer's input quantizer "
                "drops; with input_quantizer=None there is none: name a quantizer, or use input_scale=None"
            )
        self.weight_scale = weight_scale
        self.input_scale = input_scale
        self.init = init
        self.input_quantizer = quantizers.resolve(input_quantizer, "input_quantizer")
        self.weight_quantizer = quantizers.resolve(weight_quantizer, "weight_quantizer")
        self.to(device=device, dtype=dtype)  # the quantizers' own tensors, which their names do not tell
        if weight_scale is not None and hasattr(self.weight_quantizer, "factors"):
            raise ValueError(
                f"weight_scale={weight_scale!r} meets weight_quantizer={weight_quantizer!r}, which brings a "
                "scale of its own: use weight_scale=None, or another quantizer"
            )
        outputs = weight_shape[0]
        self.weight = nn.Parameter(torch.empty(*weight_shape, device=device, dtype=dtype))
        for name, exists in (("scale", weight_scale == "learned"), ("bias", bias)):
            vector = nn.Parameter(torch.empty(outputs, device=device, dtype=dtype)) if exists else None
            self.register_parameter(name, vector)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the latent weights anew, from torch's global generator; set scale and bias to their start."""
        outputs, inputs, *kernel = self.weight.shape
        fans = (inputs + outputs) * math.prod(kernel)
        bound = 1.0 if self.init == "uniform" else math.sqrt(6 / fans)
        self.weight.uniform_(-bound, bound)
        if self.scale is not None:
            self.scale.copy_(channel_mean(self.weight))
        if self.bias is not None:
            self.bias.zero_()

    def train(self, mode: bool = True) -> Self:
        """As in torch.nn.Module; on the way to eval mode latent weights that nobody clips are reported."""
        if self.training and not mode and not torch.compiler.is_compiling():
            warn_if_unclipped(self)
        return super().train(mode)

    def latent_parameters(self) -> list[nn.Parameter]:
        """The parameters of which only the sign is used; `onebit.optim` finds them through this method."""
        return [] if self.weight_quantizer is None else [self.weight]

    def quantized_input(self, x: Tensor) -> Tensor:
        """What the product sees of the input."""
        return x if self.input_quantizer is None else self.input_quantizer(x)

    def quantized_weight(self) -> tuple[Tensor, Tensor | None]:
        """What the product sees of the weight, and the factor α, (out,), of the finished sum, if any.

        A weight quantizer that has `factors` brings its own α (see quantizers_weight.py).
        """
        factors = getattr(self.weight_quantizer, "factors", None)
        if factors is not None:
            signs, alpha = factors(self.weight)
            return signs, alpha
        binary = self.weight if self.weight_quantizer is None else self.weight_quantizer(self.weight)
        if self.weight_scale == "channel_mean":
            return binary, channel_mean(self.weight)
        if self.weight_scale == "channel_mean_loose":
            return with_loose_gradient(binary, self.weight)
        if self.weight_scale == "channel_mean_detached":
            return binary, channel_mean(self.weight if emits_markers() else self.weight.detach())
        return binary, self.scale

    def product(self, q: Tensor, weight: Tensor) -> Tensor:
        """The sum itself, of what `quantized_input` and `quantized_weight` give: an exact integer of ±1."""
        raise NotImplementedError

    def summed(self, q: Tensor, weight: Tensor) -> Tensor:
        """The product; in eval mode exact, then rounded once, for an input on a grid (see exact_sums.py)."""
        exact = not self.training and self.input_quantizer is None and self.weight_quantizer is not None
        if exact and weight.dtype is q.dtype and needs_float64(q, math.prod(weight.shape[1:])):
            return self.product(q.double(), weight.double()).to(q.dtype)
        return self.product(q, weight)

    def finished(self, y: Tensor, alpha: Tensor | None, k: Tensor | None, axes_after: int) -> Tensor:
        """y · α · k + bias, one rounding each; y has `axes_after` axes behind its channels."""
        ones = [1] * axes_after
        if alpha is not None:
            y = y * alpha.reshape(-1, *ones)
        if k is not None:
            y = y * k
        return y if self.bias is None else y + self.bias.reshape(-1, *ones)

    def repr_of_options(self) -> list[str]:
        """The options that differ from their defaults, as they were written."""
        parts = []
        for argument in ("weight_scale", "input_scale"):
            if getattr(self, argument) is not None:
                parts.append(f"{argument}={getattr(self, argument)!r}")
        if self.bias is not None:
            parts.append("bias=True")
        for argument in ("input_quantizer", "weight_quantizer"):
            if getattr(self, argument) is None:
                parts.append(f"{argument}=None")
        return parts
