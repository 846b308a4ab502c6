"""Quantizers, one-bit layers, exact pixels and the papers' losses, in plain PyTorch."""

from __future__ import annotations

from onebit.nn import markers, quantizers
from onebit.nn.activations import RPReLU, RSign
from onebit.nn.batch_norm import reestimate_batch_norm_
from onebit.nn.conv import BinaryConv1d, BinaryConv2d
from onebit.nn.layers import BinaryLinear
from onebit.nn.losses import SquareHingeLoss, square_hinge
from onebit.nn.pixels import NormalizePixels, ScalePixels
from onebit.nn.quantizers import (
    ApproxSign,
    SteSign,
    StochasticSign,
    approx_sign,
    ste_sign,
    stochastic_sign,
)
from onebit.nn.schedules import set_progress_

__all__ = [
    "ApproxSign",
    "BinaryConv1d",
    "BinaryConv2d",
    "BinaryLinear",
    "NormalizePixels",
    "RPReLU",
    "RSign",
    "ScalePixels",
    "SquareHingeLoss",
    "SteSign",
    "StochasticSign",
    "approx_sign",
    "markers",
    "quantizers",
    "reestimate_batch_norm_",
    "set_progress_",
    "square_hinge",
    "ste_sign",
    "stochastic_sign",
]
