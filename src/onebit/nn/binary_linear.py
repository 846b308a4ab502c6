"""The dense layer with one-bit weights. For the order of its operations see binary_layer.py."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onebit.nn.binary_layer import BinaryLayer, Init, InputScale, WeightScale, check_count
from onebit.nn.tracing import is_traced, one_node

__all__ = ["BinaryLinear"]


class BinaryLinear(BinaryLayer):
    """A dense layer with one-bit weights: BinaryConnect (real input) or BNN/XNOR (one-bit input).

    x: (..., in_features), floating point -> (..., out_features), same dtype.

    in_features, out_features: positive counts.
    input_quantizer: a quantizer's name, a module, or None (the input is used as it comes: real, or
        already ±1).
    weight_quantizer: the same for the weight; None makes it an ordinary real layer without latent weights.
    weight_scale: None (BinaryConnect, BNN); "channel_mean": α = mean |W| of each output, recomputed from
        the latent weight (XNOR-Net, arXiv 1603.05279, section 3.1) with its exact gradient;
        "channel_mean_loose", "channel_mean_detached": the same α with the paper's own gradient, or with none
        through α (formulas in onebit.nn.scales);
        "learned": a parameter `scale` of shape (out_features,) that starts at that mean.
    input_scale: None, or "xnor": the output is multiplied by K = mean |x| over the features (XNOR-Net,
        section 3.2, for a dense layer; x before its quantizer). Not with input_quantizer=None.
    bias: adds a parameter of shape (out_features,) that starts at 0. Not needed before a BatchNorm.
    init: "uniform" draws the latent weight from U(-1, 1), as the papers' code does; "glorot" from U(-a, a)
        with a = sqrt(6 / (in_features + out_features)).
    device, dtype: of its parameters, as in torch.nn.Linear.

    `weight`, (out_features, in_features), holds the *latent* weights: real numbers that collect the
    updates. Call `onebit.optim.clip_latent_weights_(model)` after each optimizer step.

    ValueError or TypeError for arguments outside the above and for an input whose last axis is not
    in_features.
    """

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
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_count("in_features", in_features)
        check_count("out_features", out_features)
        super().__init__(
            (out_features, in_features),
            input_quantizer=input_quantizer,
            weight_quantizer=weight_quantizer,
            weight_scale=weight_scale,
            input_scale=input_scale,
            bias=bias,
            init=init,
            device=device,
            dtype=dtype,
        )
        self.in_features = in_features
        self.out_features = out_features

    def forward(self, x: Tensor) -> Tensor:
        if is_traced(x):
            return one_node(self, x)
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(
                f"BinaryLinear({self.in_features}, {self.out_features}) takes inputs of shape "
                f"(..., {self.in_features}); got {tuple(x.shape)}"
            )
        weight, alpha = self.quantized_weight()
        k = None if self.input_scale is None else x.abs().mean(dim=-1, keepdim=True)
        return self.finished(self.summed(self.quantized_input(x), weight), alpha, k, 0)

    def product(self, q: Tensor, weight: Tensor) -> Tensor:
        return F.linear(q, weight)

    def extra_repr(self) -> str:
        return ", ".join([f"{self.in_features}, {self.out_features}", *self.repr_of_options()])
