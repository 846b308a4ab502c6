"""What ordinary PyTorch optimizers lack for networks with one-bit weights."""

from __future__ import annotations

from onebit.optim.latent import (
    clip_latent_weights_,
    exponential_decay,
    glorot_coefficient,
    glorot_parameter_groups,
    latent_parameters,
)

__all__ = [
    "clip_latent_weights_",
    "exponential_decay",
    "glorot_coefficient",
    "glorot_parameter_groups",
    "latent_parameters",
]
