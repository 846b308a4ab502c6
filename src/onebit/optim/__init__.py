"""What ordinary PyTorch optimizers lack for networks with one-bit weights."""

from __future__ import annotations

from onebit.needs_torch import torch  # noqa: F401

# isort: split
from onebit.optim.bop import Bop, binarize_latent_weights_
from onebit.optim.latent import (
    center_latent_weights_,
    clip_latent_weights_,
    exponential_decay,
    glorot_coefficient,
    glorot_parameter_groups,
    latent_parameters,
)
from onebit.optim.shift_adamax import ShiftAdaMax

__all__ = [
    "Bop",
    "ShiftAdaMax",
    "binarize_latent_weights_",
    "center_latent_weights_",
    "clip_latent_weights_",
    "exponential_decay",
    "glorot_coefficient",
    "glorot_parameter_groups",
    "latent_parameters",
]
