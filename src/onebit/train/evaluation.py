"""How good a model is on a split."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onebit.data import Split
from onebit.nn import square_hinge
from onebit.nn.modes import modes_kept

LossFunction = Callable[[Tensor, Tensor], Tensor]

LOSS_FUNCTIONS: dict[str, LossFunction] = {"square_hinge": square_hinge, "cross_entropy": F.cross_entropy}

TOP = 5  # of many classes, papers also report how often the label is among the five highest scores …
MANY_CLASSES = 100  # … and this many are many


@dataclass(frozen=True)
class Evaluation:
    """`loss` is the mean over images, `correct` of `count` images were classified right.

    Of `near` images the label was among the `TOP` highest scores.
    """

    loss: float
    correct: int
    count: int
    near: int

    @property
    def accuracy(self) -> float:
        """Per cent of the images, 0 … 100."""
        return 100.0 * self.correct / self.count

    @property
    def error(self) -> float:
        """Per cent of the images, 0 … 100; what the papers report."""
        return 100.0 * (self.count - self.correct) / self.count

    @property
    def top_accuracy(self) -> float:
        """Per cent of the images whose label was among the `TOP` highest scores, 0 … 100."""
        return 100.0 * self.near / self.count


def evaluate(
    model: nn.Module, split: Split, *, loss: str | LossFunction = "square_hinge", batch_size: int = 1000
) -> Evaluation:
    """Run the model in eval mode over the split, in order; its training mode is put back afterwards.

    `model` maps the split's inputs, (N, …), to scores (N, classes). It and the split must be on one device.
    """
    starts = range(0, len(split), batch_size)
    pieces = (slice(start, start + batch_size) for start in starts)
    batches = ((split.images[piece], split.labels[piece]) for piece in pieces)
    return summed(measure(model, batches, loss=loss, device=split.labels.device))


@torch.no_grad()
def measure(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    loss: str | LossFunction,
    device: torch.device,
) -> Tensor:
    """Sums over `batches` of the model in eval mode: losses, right answers, samples, and samples whose label
    is among the `TOP` highest scores; float64 (4,).

    Such sums may be added, over processes say, before `summed` reads them. The training mode is put back.
    """
    function = LOSS_FUNCTIONS[loss] if isinstance(loss, str) else loss
    sums = torch.zeros(4, dtype=torch.float64, device=device)
    with modes_kept(model):
        model.eval()
        for inputs, labels in batches:
            scores = model(inputs)
            sums[0] += function(scores, labels).double() * len(labels)
            sums[1] += (scores.argmax(dim=1) == labels).sum()
            sums[2] += len(labels)
            highest = scores.topk(min(TOP, scores.shape[1]), dim=1).indices
            sums[3] += (highest == labels[:, None]).sum()
    return sums


def summed(sums: Tensor) -> Evaluation:
    """The evaluation that `measure`'s sums amount to."""
    loss, correct, count, near = sums.tolist()
    return Evaluation(loss / count, round(correct), round(count), round(near))
