"""What ordinary optimizers lack for latent weights: clipping, centring, and Glorot-scaled learning rates.

A layer shows its latent weights by a method `latent_parameters()` that returns them as a list; every
one-bit layer of onebit.nn has it, and a layer of your own takes part by having it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

__all__ = [
    "center_latent_weights_",
    "clip_latent_weights_",
    "exponential_decay",
    "glorot_coefficient",
    "glorot_parameter_groups",
    "latent_parameters",
]


def latent_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """(name, parameter) of every latent weight in the model, each parameter once, in module order."""
    latent = {id(p) for _, parameters in _latent_modules(model) for p in parameters}
    for name, parameter in model.named_parameters():
        if id(parameter) in latent:
            yield name, parameter


def _latent_modules(model: nn.Module) -> Iterator[tuple[nn.Module, list[nn.Parameter]]]:
    """Each module that has latent weights, and these."""
    for module in model.modules():
        find = getattr(module, "latent_parameters", None)
        if callable(find):
            yield module, find()


@torch.no_grad()
def clip_latent_weights_(model: nn.Module) -> None:
    """Clip every latent weight to [-1, 1], in place (BinaryConnect, arXiv 1511.00363, Algorithm 1, step 3).

    Call it after each `optimizer.step()`. Only signs are used, so growth beyond ±1 has no effect but to
    make the weight harder to flip. Real layers, BatchNorms, scales and biases are left alone; a model
    without one-bit layers is left as it is. Where nobody ever calls it, a model whose weights have left
    [-1, 1] warns when it goes into eval mode.
    """
    for module, parameters in _latent_modules(model):
        for parameter in parameters:
            parameter.clamp_(-1.0, 1.0)
        if not getattr(module, "latent_clipped", False):
            module.latent_clipped = True  # type: ignore[assignment]


@torch.no_grad()
def center_latent_weights_(model: nn.Module) -> None:
    """Take from every latent weight the mean over its input channels (axis 1), in place.

    XNOR-Net's authors (arXiv 1603.05279) do so at the start of each step, before they clip to [-1, 1]
    (`meancenterConvParms` and `clampConvParms` of their Torch7 code):

        center_latent_weights_(model)
        clip_latent_weights_(model)

    For a convolution that is one mean for each place of a kernel, not one for the filter. A weight with one
    input channel (depthwise) is left as it is: centring would make it 0.
    """
    for _, parameter in latent_parameters(model):
        if parameter.shape[1] > 1:
            parameter.sub_(parameter.mean(dim=1, keepdim=True))


def glorot_coefficient(parameter: torch.Tensor) -> float:
    """sqrt(1.5 / (fan_in + fan_out)) of a weight of shape (out, in, *kernel).

    fan_in = in · kernel size, fan_out = out · kernel size: Glorot & Bengio 2010 as BinaryConnect's code
    has it. ValueError for a tensor of fewer than two axes.
    """
    if parameter.ndim < 2:
        raise ValueError(
            f"a weight needs at least 2 axes (out, in, ...) to have fans; got shape {tuple(parameter.shape)}"
        )
    out_channels, in_channels, *kernel = parameter.shape
    return math.sqrt(1.5 / ((in_channels + out_channels) * math.prod(kernel)))


def glorot_parameter_groups(model: nn.Module, lr: float, *, squared: bool = False) -> list[dict[str, Any]]:
    """Parameter groups for a torch.optim optimizer in which each latent weight has its own learning rate.

    A latent weight of Glorot coefficient c (see `glorot_coefficient`) gets lr / c; with `squared=True` lr
    / c². Everything else (BatchNorm, scales, biases, real layers) keeps `lr`, in one group. BinaryConnect
    (section 2.5): the coefficient for Adam, its square for SGD and Nesterov momentum. Their code
    multiplies Adam's update by 1/c before clipping, which is the same as this; schedulers that multiply
    every group's rate keep the ratios, and for the papers' exponential decay from `start` to `end` over n
    epochs that is `torch.optim.lr_scheduler.ExponentialLR(optimizer, exponential_decay(start, end, n))`.

    Each group also has a "name". Parameters that need no gradient are left out. ValueError if nothing is
    left to train or lr is not positive.

        optimizer = torch.optim.Adam(glorot_parameter_groups(model, lr=3e-3))
    """
    if not lr > 0:
        raise ValueError(f"lr must be positive; got {lr!r}")
    latent = dict(latent_parameters(model))
    groups: list[dict[str, Any]] = []
    others = [p for name, p in model.named_parameters() if name not in latent and p.requires_grad]
    if others:
        groups.append({"params": others, "lr": lr, "name": "others"})
    for name, parameter in latent.items():
        if parameter.requires_grad:
            scale = 1 / glorot_coefficient(parameter)
            groups.append({"params": [parameter], "lr": lr * (scale**2 if squared else scale), "name": name})
    if not groups:
        raise ValueError("the model has no parameter that requires a gradient")
    return groups


def exponential_decay(start: float, end: float, epochs: int) -> float:
    """The factor an epoch that leads from rate `start` to `end` in `epochs` epochs, (end/start)^(1/epochs).

    For torch.optim.lr_scheduler.ExponentialLR's gamma. ValueError unless start, end > 0 and epochs >= 1.
    """
    if not (start > 0 and end > 0 and epochs >= 1):
        raise ValueError(
            f"start and end must be positive and epochs at least 1; got {start!r}, {end!r}, {epochs!r}"
        )
    return float((end / start) ** (1 / epochs))
