"""The recipe's optimizer, its learning rate from epoch to epoch, and what follows each step."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from onebit import optim
from onebit.errors import TrainError
from onebit.nn.modes import modes_kept
from onebit.train.fields import OptimizerRecipe


class Trainer(Protocol):
    """What the loop asks of an optimizer; every torch.optim.Optimizer has it."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups whose rates `set_learning_rate` sets."""
        ...

    def zero_grad(self, set_to_none: bool = True) -> None: ...

    def step(self) -> Any: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


class BopAndAdam:
    """Bop for the one-bit weights and Adam for the others, as one optimizer; the rate is Adam's."""

    def __init__(self, bop: torch.optim.Optimizer, adam: torch.optim.Optimizer | None) -> None:
        self._parts = {"bop": bop, "adam": adam} if adam else {"bop": bop}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Adam's."""
        return self._parts["adam"].param_groups if "adam" in self._parts else []

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Of both."""
        for part in self._parts.values():
            part.zero_grad(set_to_none=set_to_none)

    def step(self) -> None:
        """One step of both."""
        for part in self._parts.values():
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Of both, by name."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What `state_dict` gave."""
        for name, part in self._parts.items():
            part.load_state_dict(state_dict[name])


def make_optimizer(model: nn.Module, recipe: OptimizerRecipe, *, capturable: bool = False) -> Trainer:
    """The recipe's optimizer over all parameters; each group keeps its full rate as "initial_lr".

    `capturable` prepares it for a CUDA graph: its rates are tensors, which `set_learning_rate` fills in
    place, and its step reads nothing back from the device. Bop replaces the latent weights by their signs.
    Raises `TrainError` if the model has nothing for it to train.
    """
    adam: dict[str, Any] = {"betas": recipe.betas, "eps": recipe.eps}
    decay: dict[str, Any] = {"weight_decay": recipe.weight_decay}
    fused: dict[str, Any] = {"fused": True, "capturable": capturable}
    if recipe.name == "bop":
        return _bop(model, recipe, capturable, {**adam, **decay, **fused})
    groups = _groups(model, recipe, capturable)
    if recipe.name == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, fused=True, **decay)
    if recipe.name == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, **adam, **decay, **fused)
    if recipe.name == "shift_adamax":
        return optim.ShiftAdaMax(groups, lr=recipe.lr, **adam)
    return torch.optim.Adam(groups, lr=recipe.lr, **adam, **decay, **fused)


def _bop(model: nn.Module, recipe: OptimizerRecipe, capturable: bool, adam: dict[str, Any]) -> Trainer:
    optim.binarize_latent_weights_(model)
    latent = [p for _, p in optim.latent_parameters(model) if p.requires_grad]
    if not latent:
        raise TrainError("optimizer.name = 'bop': the model has no one-bit weights for it to flip")
    _require_gradients_of_bits(model)
    bop = optim.Bop(latent, gamma=recipe.gamma, threshold=recipe.threshold)
    ids = {id(p) for p in latent}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in ids]
    if not others:
        return BopAndAdam(bop, None)
    groups = _prepared([{"params": others, "lr": recipe.lr}], capturable)
    return BopAndAdam(bop, torch.optim.Adam(groups, lr=recipe.lr, **adam))


def _require_gradients_of_bits(model: nn.Module) -> None:
    """Raise `TrainError` for a weight quantizer that hands weights of ±1 no gradient, or a wrong one.

    ApproxSign's slope at ±1 is 0, SwishSign's negative; what standardises a filter sees it as a whole.
    """
    for name, layer in model.named_modules():
        quantizer = getattr(layer, "weight_quantizer", None)
        if not isinstance(quantizer, nn.Module):
            continue
        weight = torch.tensor([[1.0, 1.0, -1.0, -1.0]], device=next(layer.parameters()).device)
        with modes_kept(quantizer):  # in eval mode nothing is drawn
            (slope,) = torch.autograd.grad(quantizer.eval()(weight.requires_grad_()).sum(), weight)
        if not bool((slope > 0).all()):
            raise TrainError(
                f"optimizer.name = 'bop': {name!r} has the weight quantizer {type(quantizer).__name__}, which"
                " hands weights of ±1 no gradient that Bop can use; 'ste_sign' does"
            )


def _groups(model: nn.Module, recipe: OptimizerRecipe, capturable: bool) -> list[dict[str, Any]]:
    if recipe.glorot:
        groups = optim.glorot_parameter_groups(model, recipe.lr, squared=recipe.name == "sgd")
    else:
        groups = [{"params": [p for p in model.parameters() if p.requires_grad], "lr": recipe.lr}]
    return _prepared(groups, capturable)


def _prepared(groups: list[dict[str, Any]], capturable: bool) -> list[dict[str, Any]]:
    for group in groups:
        group["initial_lr"] = group["lr"]
        if capturable:
            device = group["params"][0].device
            group["lr"] = torch.tensor(group["lr"], dtype=torch.float32, device=device)
    return groups


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


def set_learning_rate(optimizer: Trainer, recipe: OptimizerRecipe, epoch: int, epochs: int) -> None:
    """Bring every group to its rate of that epoch; a rate that is a tensor is filled in place."""
    factor = learning_rate(recipe, epoch, epochs) / recipe.lr
    for group in optimizer.param_groups:
        rate = group["initial_lr"] * factor
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def load_optimizer(optimizer: Trainer, state: dict[str, Any]) -> None:
    """`optimizer.load_state_dict`, but rates that are tensors stay where a recorded step reads them."""
    rates = [group["lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        if isinstance(rate, Tensor):
            group["lr"] = rate.copy_(torch.as_tensor(group["lr"]))
    if isinstance(optimizer, optim.ShiftAdaMax):  # PyTorch leaves a counter where the checkpoint had it
        for parameter, kept in optimizer.state.items():
            kept["step"] = kept["step"].to(parameter.device)


def after_step(model: nn.Module, recipe: OptimizerRecipe) -> None:
    """What the recipe does to latent weights after each `optimizer.step()`."""
    if recipe.center:
        optim.center_latent_weights_(model)
    if recipe.clip and recipe.name != "bop":  # whose weights are ±1 always
        optim.clip_latent_weights_(model)
