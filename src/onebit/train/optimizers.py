"""The recipe's optimizer, its learning rate from epoch to epoch, and what follows each step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from onebit import optim
from onebit.train.errors import TrainError
from onebit.train.fields import OptimizerRecipe


def make_optimizer(
    model: nn.Module, recipe: OptimizerRecipe, *, capturable: bool = False
) -> torch.optim.Optimizer:
    """The recipe's optimizer over all parameters; each group keeps its full rate as "initial_lr".

    `capturable` prepares it for a CUDA graph: its rates are tensors, which `set_learning_rate` fills in
    place, and its step reads nothing back from the device. Raises `TrainError` for an optimizer that this
    version of onebit lacks, or that cannot be captured.
    """
    groups = _groups(model, recipe)
    for group in groups:
        group["initial_lr"] = group["lr"]
        if capturable:
            device = group["params"][0].device
            group["lr"] = torch.tensor(group["lr"], dtype=torch.float32, device=device)
    decay = recipe.weight_decay
    adam: dict[str, Any] = {"betas": recipe.betas, "eps": recipe.eps, "weight_decay": decay}
    if recipe.name == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, weight_decay=decay, fused=True)
    if recipe.name == "adam":
        return torch.optim.Adam(groups, lr=recipe.lr, fused=True, capturable=capturable, **adam)
    if recipe.name == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, fused=True, capturable=capturable, **adam)
    raise TrainError(f"optimizer.name = {recipe.name!r}: this version of onebit does not have it")


def _groups(model: nn.Module, recipe: OptimizerRecipe) -> list[dict[str, Any]]:
    if recipe.glorot:
        return optim.glorot_parameter_groups(model, recipe.lr, squared=recipe.name == "sgd")
    return [{"params": [p for p in model.parameters() if p.requires_grad], "lr": recipe.lr}]


def learning_rate(recipe: OptimizerRecipe, epoch: int, epochs: int) -> float:
    """The rate of epoch `epoch` (from 0) of `epochs`, before Glorot's scaling.

    With w = warmup_epochs, the rate of epoch e < w is lr · (e + 1) / (w + 1). After that, with
    t = (e - w) / (epochs - w), it goes from lr at t = 0 towards lr_end, which it would reach at t = 1:

        exponential (the papers' code)   lr · (lr_end / lr)^t
        cosine (arXiv 1608.03983)        lr_end + (lr - lr_end) · (1 + cos(π·t)) / 2
        linear                           lr + (lr_end - lr) · t
        step                             lr · step_factor^⌊(e - w) / step_epochs⌋; lr_end plays no part
        constant                         lr
    """
    start, end, warmup = recipe.lr, recipe.lr_end, recipe.warmup_epochs
    if epoch < warmup:
        return start * (epoch + 1) / (warmup + 1)
    epoch, epochs = epoch - warmup, epochs - warmup
    if recipe.schedule == "cosine":
        return end + (start - end) * (1 + math.cos(math.pi * epoch / epochs)) / 2
    if recipe.schedule == "linear":
        return start + (end - start) * epoch / epochs
    if recipe.schedule == "step":
        return float(start * recipe.step_factor ** (epoch // recipe.step_epochs))
    if recipe.schedule == "constant":
        return start
    return float(start * (end / start) ** (epoch / epochs))


def set_learning_rate(
    optimizer: torch.optim.Optimizer, recipe: OptimizerRecipe, epoch: int, epochs: int
) -> None:
    """Bring every group to its rate of that epoch; a rate that is a tensor is filled in place."""
    factor = learning_rate(recipe, epoch, epochs) / recipe.lr
    for group in optimizer.param_groups:
        rate = group["initial_lr"] * factor
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """`optimizer.load_state_dict`, but rates that are tensors stay on the device of their parameters."""
    rates = [group["lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        if isinstance(rate, Tensor):
            group["lr"] = rate.copy_(torch.as_tensor(group["lr"]))


def _own(name: str, field: str) -> Any:
    found = getattr(optim, name, None)
    if found is None:
        raise TrainError(f"{field}: this version of onebit does not have it")
    return found


def after_step(model: nn.Module, recipe: OptimizerRecipe) -> None:
    """What the recipe does to latent weights after each `optimizer.step()`."""
    if recipe.center:
        _own("center_latent_weights_", "optimizer.center = true")(model)
    if recipe.clip:
        optim.clip_latent_weights_(model)
