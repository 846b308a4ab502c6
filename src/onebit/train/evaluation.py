"""How good a model is on a split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onebit.data import Split
from onebit.nn import square_hinge

LossFunction = Callable[[Tensor, Tensor], Tensor]

LOSS_FUNCTIONS: dict[str, LossFunction] = {"square_hinge": square_hinge, "cross_entropy": F.cross_entropy}


@dataclass(frozen=True)
class Evaluation:
    """`loss` is the mean over images, `correct` of `count` images were classified right."""

    loss: float
    correct: int
    count: int

    @property
    def accuracy(self) -> float:
        """Per cent of the images, 0 … 100."""
        return 100.0 * self.correct / self.count

    @property
    def error(self) -> float:
        """Per cent of the images, 0 … 100; what the papers report."""
        return 100.0 * (self.count - self.correct) / self.count


@torch.no_grad()
def evaluate(
    model: nn.Module, split: Split, *, loss: str | LossFunction = "square_hinge", batch_size: int = 1000
) -> Evaluation:
    """Run the model in eval mode over the split, in order; its training mode is put back afterwards.

    `model` maps uint8 (N, C, H, W) to scores (N, classes). It and the split must be on one device.
    """
    function = LOSS_FUNCTIONS[loss] if isinstance(loss, str) else loss
    was_training = model.training
    model.eval()
    total = torch.zeros((), dtype=torch.float64, device=split.labels.device)
    correct = torch.zeros((), dtype=torch.int64, device=split.labels.device)
    try:
        for start in range(0, len(split), batch_size):
            labels = split.labels[start : start + batch_size]
            scores = model(split.images[start : start + batch_size])
            total += function(scores, labels).double() * len(labels)
            correct += (scores.argmax(dim=1) == labels).sum()
    finally:
        model.train(was_training)
    return Evaluation(float(total) / len(split), int(correct), len(split))
