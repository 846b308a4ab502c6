"""A binary layer from a real one: latent weights that start from trained ones, everything else kept.

Which latent weights? All that the binary layer uses of them is their sign and, with
weight_scale="channel_mean", the mean of their magnitudes. So

1. mean-centred: W ← W − mean of W over the inputs (axis 1), as XNOR-Net's authors do in every step
   (github.com/allenai/XNOR-Net, util.lua). Signs then divide the weights of a filter evenly, and a filter
   whose weights all lean to one side is no constant. Only where the input is ±1, of about zero mean, so that
   little is lost: a real input behind a ReLU and {0, 1} have a mean, which centring would take out of every
   sum. Nor in a depthwise convolution, where the mean of one weight is that weight.
2. kept in scale: α·sign(W) with α = mean |W| is the nearest one-bit filter to W (arXiv 1603.05279, eq. 6),
   and only at that scale; a learned scale starts there. A trained weight is small, 0.01 to 0.1, and so is the
   way to its flip: fine-tune with the rates of the float network, not with those of latent weights drawn from
   U(−1, 1).
3. clamped to [−1, 1], the window in which the STE passes gradients.
"""

from __future__ import annotations

import copy
from typing import TypedDict, cast

import torch
from torch import Tensor, nn

from onebit.nn import quantizers
from onebit.nn.binary_layer import BinaryLayer, InputScale, WeightScale
from onebit.nn.binary_linear import BinaryLinear
from onebit.nn.convolution import BinaryConv1d, BinaryConv2d, Padding
from onebit.nn.scales import channel_mean

__all__ = ["BinaryOptions", "binary_from_float", "load_latent_"]


class BinaryOptions(TypedDict):
    """The options of a binary layer that a real layer does not bring along."""

    input_quantizer: str | nn.Module | None
    weight_quantizer: str | nn.Module | None
    weight_scale: WeightScale | None
    input_scale: InputScale | None


@torch.no_grad()
def load_latent_(layer: BinaryLayer, weight: Tensor) -> None:
    """Let `layer` start from a trained real weight of its own shape, in place, by the rules above.

    weight: (out, in per group, *kernel), floating point. A learned scale starts at its mean |W|. A layer
    without weight quantizer takes the weight as it is. ValueError for another shape.
    """
    if weight.shape != layer.weight.shape:
        raise ValueError(f"a weight of shape {tuple(weight.shape)} for one of {tuple(layer.weight.shape)}")
    latent = weight.detach().to(layer.weight)
    if layer.weight_quantizer is not None:
        if _is_centred(layer.input_quantizer) and latent.shape[1] > 1:
            latent = latent - latent.mean(dim=1, keepdim=True)
        if layer.scale is not None:
            layer.scale.copy_(channel_mean(latent))
        latent = latent.clamp(-1.0, 1.0)
    layer.weight.copy_(latent)


def _is_centred(input_quantizer: nn.Module | None) -> bool:
    """±1, of about zero mean; not a real input, nor {0, 1}."""
    return input_quantizer is not None and not isinstance(input_quantizer, quantizers.Heaviside)


def _fresh(quantizer: str | nn.Module | None, argument: str) -> nn.Module | None:
    """A quantizer of the layer's own: one module given for many layers would share its parameters."""
    return copy.deepcopy(quantizers.resolve(quantizer, argument))


def binary_from_float(
    layer: nn.Linear | nn.Conv1d | nn.Conv2d, options: BinaryOptions
) -> BinaryLinear | BinaryConv1d | BinaryConv2d:
    """The binary layer that starts from `layer`: latent weights as above; bias, stride, padding, dilation,
    groups, dtype, device, mode and requires_grad as they were.

    The convolution must pad with zeros. ValueError for options that do not go together.
    """
    bias = layer.bias is not None
    input_quantizer = _fresh(options["input_quantizer"], "input_quantizer")
    weight_quantizer = _fresh(options["weight_quantizer"], "weight_quantizer")
    weight_scale, input_scale = options["weight_scale"], options["input_scale"]
    binary: BinaryLinear | BinaryConv1d | BinaryConv2d
    if isinstance(layer, nn.Linear):
        binary = BinaryLinear(
            layer.in_features,
            layer.out_features,
            input_quantizer=input_quantizer,
            weight_quantizer=weight_quantizer,
            weight_scale=weight_scale,
            input_scale=input_scale,
            bias=bias,
        )
    else:
        if layer.padding_mode != "zeros":
            raise ValueError(f"a binary convolution pads with zeros; got {layer}")
        make = BinaryConv2d if isinstance(layer, nn.Conv2d) else BinaryConv1d
        binary = make(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            layer.stride,
            cast(Padding, layer.padding),
            layer.dilation,
            layer.groups,
            input_quantizer=input_quantizer,
            weight_quantizer=weight_quantizer,
            weight_scale=weight_scale,
            input_scale=input_scale,
            bias=bias,
        )
    binary.to(device=layer.weight.device, dtype=layer.weight.dtype)
    load_latent_(binary, layer.weight)
    binary.weight.requires_grad_(layer.weight.requires_grad)
    if binary.bias is not None and layer.bias is not None:
        with torch.no_grad():
            binary.bias.copy_(layer.bias)
        binary.bias.requires_grad_(layer.bias.requires_grad)
    return binary.train(layer.training)
