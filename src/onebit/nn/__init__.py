"""Quantizers, one-bit layers, exact pixels and the papers' losses, in plain PyTorch."""

from __future__ import annotations

from onebit.needs_torch import torch  # noqa: F401

# isort: split
from onebit.nn import markers, quantizers
from onebit.nn.activations import RPReLU, RSign
from onebit.nn.batch_norm import BatchNormFeatures, reestimate_batch_norm_
from onebit.nn.binarize import binarize, binarize_report
from onebit.nn.binary_linear import BinaryLinear
from onebit.nn.convolution import BinaryConv1d, BinaryConv2d
from onebit.nn.diagnostics import Diagnosis, FlipCounter, LayerDiagnosis, diagnose
from onebit.nn.losses import SquareHingeLoss, square_hinge
from onebit.nn.pixels import NormalizePixels, ScalePixels
from onebit.nn.power_of_two import ap2
from onebit.nn.quantizers import (
    EDE,
    ApproxSign,
    Heaviside,
    SteSign,
    StochasticSign,
    SwishSign,
    approx_sign,
    ede_sign,
    heaviside,
    ste_sign,
    stochastic_sign,
    swish_sign,
)
from onebit.nn.quantizers_weight import LibraSign, MagnitudeAwareSign, ReCU
from onebit.nn.saved_bits import save_bits_
from onebit.nn.schedules import set_progress_
from onebit.nn.shift_norm import ShiftBatchNorm1d, ShiftBatchNorm2d

__all__ = [
    "EDE",
    "ApproxSign",
    "BatchNormFeatures",
    "BinaryConv1d",
    "BinaryConv2d",
    "BinaryLinear",
    "Diagnosis",
    "FlipCounter",
    "Heaviside",
    "LayerDiagnosis",
    "LibraSign",
    "MagnitudeAwareSign",
    "NormalizePixels",
    "RPReLU",
    "RSign",
    "ReCU",
    "ScalePixels",
    "ShiftBatchNorm1d",
    "ShiftBatchNorm2d",
    "SquareHingeLoss",
    "SteSign",
    "StochasticSign",
    "SwishSign",
    "ap2",
    "approx_sign",
    "binarize",
    "binarize_report",
    "diagnose",
    "ede_sign",
    "heaviside",
    "markers",
    "quantizers",
    "reestimate_batch_norm_",
    "save_bits_",
    "set_progress_",
    "square_hinge",
    "ste_sign",
    "stochastic_sign",
    "swish_sign",
]
