"""Training and eval mode: run a model in another one for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["modes_kept"]


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Whatever `train()` and `eval()` do inside the block, each module leaves it in the mode it came in.

    Module by module: a BatchNorm that was frozen by its own `eval()` stays so, as `model.train()` would not
    leave it.
    """
    before = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
