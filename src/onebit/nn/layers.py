"""Layers with one-bit weights.

y = (Qin(x) · Qw(W)ᵀ) * scale + bias, with scale and bias as operations of their own *after* the sum: a sum
of ±1 products is an exact integer in float32 (up to 2^24 terms, in any order), and it stays one.
Multiplying the weights by α first, or a fused bias, would round inside the sum and give other floats.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onebit.nn import quantizers

__all__ = ["BinaryLinear"]

WeightScale = Literal["channel_mean", "learned"]
InputScale = Literal["xnor"]
Init = Literal["uniform", "glorot"]


def _check_choice(argument: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{argument} must be one of {', '.join(map(repr, choices))}; got {value!r}")


class BinaryLinear(nn.Module):
    """A dense layer with one-bit weights: BinaryConnect (real input) or BNN/XNOR (one-bit input).

    x: (..., in_features), floating point -> (..., out_features), same dtype.

    in_features, out_features: positive counts.
    input_quantizer: a quantizer's name, a module, or None (the input is used as it comes: real, or
        already ±1).
    weight_quantizer: the same for the weight; None makes it an ordinary real layer without latent weights.
    weight_scale: None (BinaryConnect, BNN); "channel_mean": α = mean |W| of each output, recomputed from
        the latent weight (XNOR-Net, arXiv 1603.05279, section 3.1; autograd gives its exact gradient);
        "learned": a parameter `scale` of shape (out_features,) that starts at that mean.
    input_scale: None. "xnor" (K of XNOR-Net) raises NotImplementedError: it comes with binary convolutions.
    bias: adds a parameter of shape (out_features,) that starts at 0. Not needed before a BatchNorm.
    init: "uniform" draws the latent weight from U(-1, 1), as the papers' code does; "glorot" from U(-a, a)
        with a = sqrt(6 / (in_features + out_features)).

    `weight`, (out_features, in_features), holds the *latent* weights: real numbers that collect the
    updates. Call `onebit.optim.clip_latent_weights_(model)` after each optimizer step.

    ValueError or TypeError for arguments outside the above and for an input whose last axis is not
    in_features.
    """

    scale: Tensor | None
    bias: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        input_quantizer: str | nn.Module | None = "ste_sign",
        weight_quantizer: str | nn.Module | None = "ste_sign",
        weight_scale: WeightScale | None = None,
        input_scale: InputScale | None = None,
        bias: bool = False,
        init: Init = "uniform",
    ) -> None:
        super().__init__()
        for argument, count in (("in_features", in_features), ("out_features", out_features)):
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                raise ValueError(f"{argument} must be a positive integer; got {count!r}")
        _check_choice("weight_scale", weight_scale, (None, *get_args(WeightScale)))
        _check_choice("input_scale", input_scale, (None, *get_args(InputScale)))
        _check_choice("init", init, get_args(Init))
        if input_scale is not None:
            raise NotImplementedError(
                f"input_scale={input_scale!r} (K of XNOR-Net) is not available for BinaryLinear yet; "
                "use input_scale=None"
            )
        self.in_features = in_features
        self.out_features = out_features
        self.weight_scale = weight_scale
        self.init = init
        self.input_quantizer = quantizers.resolve(input_quantizer, "input_quantizer")
        self.weight_quantizer = quantizers.resolve(weight_quantizer, "weight_quantizer")
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.register_parameter(
            "scale", nn.Parameter(torch.empty(out_features)) if weight_scale == "learned" else None
        )
        self.register_parameter("bias", nn.Parameter(torch.empty(out_features)) if bias else None)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the latent weights anew, from torch's global generator; set scale and bias to their start."""
        bound = 1.0 if self.init == "uniform" else math.sqrt(6 / (self.in_features + self.out_features))
        self.weight.uniform_(-bound, bound)
        if self.scale is not None:
            self.scale.copy_(self.weight.abs().mean(dim=1))
        if self.bias is not None:
            self.bias.zero_()

    def latent_parameters(self) -> list[nn.Parameter]:
        """The parameters of which only the sign is used; `onebit.optim` finds them through this method."""
        return [] if self.weight_quantizer is None else [self.weight]

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(
                f"BinaryLinear({self.in_features}, {self.out_features}) takes inputs of shape "
                f"(..., {self.in_features}); got {tuple(x.shape)}"
            )
        if self.input_quantizer is not None:
            x = self.input_quantizer(x)
        weight = self.weight if self.weight_quantizer is None else self.weight_quantizer(self.weight)
        y = F.linear(x, weight)
        if self.weight_scale == "channel_mean":
            y = y * self.weight.abs().mean(dim=1)
        elif self.scale is not None:
            y = y * self.scale
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        parts = [f"{self.in_features}, {self.out_features}"]
        if self.weight_scale is not None:
            parts.append(f"weight_scale={self.weight_scale!r}")
        if self.bias is not None:
            parts.append("bias=True")
        for argument in ("input_quantizer", "weight_quantizer"):
            if getattr(self, argument) is None:
                parts.append(f"{argument}=None")
        return ", ".join(parts)
