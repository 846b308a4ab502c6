"""Quantizers, one-bit layers, exact pixels and the papers' losses, in plain PyTorch."""

from __future__ import annotations

from onebit.nn import markers, quantizers
from onebit.nn.conv import BinaryConv1d, BinaryConv2d
from onebit.nn.layers import BinaryLinear
from onebit.nn.losses import SquareHingeLoss, square_hinge
from onebit.nn.pixels import ScalePixels
from onebit.nn.quantizers import SteSign, StochasticSign, ste_sign, stochastic_sign

__all__ = [
    "BinaryConv1d",
    "BinaryConv2d",
    "BinaryLinear",
    "ScalePixels",
    "SquareHingeLoss",
    "SteSign",
    "StochasticSign",
    "markers",
    "quantizers",
    "square_hinge",
    "ste_sign",
    "stochastic_sign",
]
