"""What changes as training goes on: one call tells every module of a model how far it has come.

A module takes part by having a method `set_progress_(fraction)`; EDE and ReCU do. What it sets is a buffer,
filled in place: a checkpoint holds it, and a compiled step is not compiled again.
"""

from __future__ import annotations

from torch import nn

__all__ = ["set_progress_"]


def set_progress_(model: nn.Module, fraction: float) -> int:
    """Tell every scheduled module in `model` which part of the training is done; returns how many there are.

    fraction: from 0, at the start, to 1. Call it at the start of each epoch (or step) with
    done / total. A model without scheduled modules is left as it is. ValueError outside [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must lie between 0 (start of training) and 1 (its end); got {fraction!r}")
    told = 0
    for module in model.modules():
        tell = getattr(module, "set_progress_", None)
        if callable(tell):
            tell(float(fraction))
            told += 1
    return told
