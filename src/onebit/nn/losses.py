"""Losses of the papers that PyTorch lacks. (Cross-entropy is torch.nn.CrossEntropyLoss.)"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["SquareHingeLoss", "square_hinge"]


def square_hinge(output: Tensor, target: Tensor) -> Tensor:
    """Multi-class square hinge (L2-SVM) loss: mean over *all* elements of max(0, 1 - t·y)².

    output: (N, C), floating point: one score a class.
    target: either (N,) int64 class numbers, expanded to t = +1 at the class and -1 elsewhere, or (N, C) of
        ±1 in a floating-point dtype.
    Returns a scalar of output's dtype.

    One against all, as in BinaryConnect and BNN (arXiv 1511.00363, section 3; 1602.02830); the mean runs
    over batch *and* classes as in the authors' code, so that their learning rates carry over.
    ValueError or TypeError if the shapes or dtypes are others. A class number outside 0..C-1 raises on the
    CPU.
    """
    if output.ndim != 2 or not output.is_floating_point():
        raise ValueError(
            "square_hinge takes scores of shape (N, classes) in floating point; "
            f"got {tuple(output.shape)} {output.dtype}"
        )
    if target.dtype == torch.int64:
        if target.shape != output.shape[:1]:
            raise ValueError(
                f"square_hinge takes one class number a row: for scores of shape {tuple(output.shape)} a "
                f"target of shape ({output.shape[0]},); got {tuple(target.shape)}"
            )
        target = torch.full_like(output, -1.0, requires_grad=False).scatter(1, target[:, None], 1.0)
    elif not target.is_floating_point():
        raise TypeError(
            f"square_hinge takes int64 class numbers or floating-point ±1 targets; got {target.dtype}"
        )
    elif target.shape != output.shape:
        raise ValueError(
            f"square_hinge takes ±1 targets of the scores' shape {tuple(output.shape)}; "
            f"got {tuple(target.shape)}"
        )
    return (1 - target.to(output.dtype) * output).clamp(min=0).square().mean()


class SquareHingeLoss(nn.Module):
    """`square_hinge` as a module."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return square_hinge(output, target)
