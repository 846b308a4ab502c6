"""BatchNorm statistics measured anew, for a network whose weights or signs changed behind its back.

A BatchNorm's running mean and variance belong to the network that they were measured in. Binarize a trained
network, swap its weights for an average of several, or end a training with a rate so high that the running
averages trail behind, and they no longer fit: the network is then far worse in eval mode than it need be. One
forward pass over some batches repairs it, without a gradient and without touching a weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from onebit.nn.markers import emits_markers
from onebit.nn.modes import modes_kept
from onebit.nn.tracing import is_traced, one_node

__all__ = ["BatchNormFeatures", "reestimate_batch_norm_"]


@torch.no_grad()
def reestimate_batch_norm_(model: nn.Module, batches: Iterable[Any]) -> int:
    """Measure the running mean and variance of every BatchNorm anew, in place; returns the number of batches.

    For n batches, each channel's statistics become

        mean = 1/n · Σ_b mean_b          var = 1/n · Σ_b var_b (unbiased)

    the plain average over the batches, not the exponential one of training (PyTorch's `momentum=None`).
    Every batch counts the same, so leave out a last one that is much smaller. While measuring, each BatchNorm
    normalizes with its batch, as in training, so that the layers behind it see what they were trained on;
    everything else is in eval mode (no dropout, deterministic signs). Weights, modes and momenta are as they
    were afterwards; BatchNorms with track_running_stats=False have nothing to measure.

    model: any module whose BatchNorms derive from PyTorch's.
    batches: inputs as `model` takes them; of a tuple or list, as data loaders yield them, the first entry is
        the input; a mapping is passed as keyword arguments. Tensors are moved to the device of the
        statistics. A few dozen batches are plenty; an iterable that never ends never returns.
    ValueError if there is no BatchNorm to measure, or no batch; the statistics are then as they were.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if not norms:
        raise ValueError(
            f"{type(model).__name__} has no BatchNorm with running statistics: nothing to re-estimate"
        )
    momenta = [m.momentum for m in norms]
    count = 0
    try:
        with modes_kept(model):
            model.eval()
            for batch in batches:
                if count == 0:
                    _start(norms)
                _forward(model, batch, norms[0].running_mean)
                count += 1
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    if count == 0:
        raise ValueError("batches is empty: re-estimating BatchNorm needs at least one batch")
    return count


def _start(norms: list[_BatchNorm]) -> None:
    """Statistics forgotten, and gathered as a cumulative average from here on."""
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.training = True


def _forward(model: nn.Module, batch: Any, like: Tensor | None) -> None:
    device = None if like is None else like.device

    def moved(value: Any) -> Any:
        return value.to(device) if isinstance(value, Tensor) else value

    if isinstance(batch, Mapping):
        model(**{name: moved(value) for name, value in batch.items()})
    else:
        model(moved(batch[0] if isinstance(batch, (tuple, list)) else batch))


class BatchNormFeatures(nn.BatchNorm1d):
    """BatchNorm over the last axis, as a dense layer counts its features: (..., features) -> the same shape.

    On (N, features) it is torch.nn.BatchNorm1d; with more axes, as in (N, tokens, features), every token
    counts as a sample, padded ones too.
    """

    def forward(self, x: Tensor) -> Tensor:
        if is_traced(x):
            return one_node(self, x)
        if x.ndim == 2:
            return super().forward(x)
        if emits_markers():  # the same numbers, with the batch where a Program has it
            y = super().forward(x.movedim(-1, 1).flatten(2))
            return torch.unflatten(y, 2, x.shape[1:-1]).movedim(1, -1)
        return super().forward(x.reshape(-1, x.shape[-1])).reshape(x.shape)
