"""What the optimizers of this package share: the walk over groups, and the refusal of sparse gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

__all__ = ["SteppingOptimizer"]


class SteppingOptimizer(Optimizer):
    """An optimizer that says what one step does to some parameters of a group: `_update`."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update. closure: computes the loss again and returns it; its value is returned.

        RuntimeError for sparse gradients.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            gradients = {p: p.grad for p in group["params"] if p.grad is not None}
            if any(g.is_sparse for g in gradients.values()):
                raise RuntimeError(f"{type(self).__name__} does not take sparse gradients; use dense ones")
            if gradients:
                self._update(list(gradients), list(gradients.values()), group)
        return loss

    def _update(self, parameters: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        raise NotImplementedError
