"""Registered models in small, as Programs that tests compare executors with."""

from __future__ import annotations

from functools import cache

import torch

from onebit import convert, models
from onebit.program import Program


@cache
def dyadic(name: str) -> Program:
    """A small registered model whose BatchNorms are dyadic, with negative and positive scales."""
    generator = torch.Generator().manual_seed(7)
    torch.manual_seed(7)
    model = models.create_small(name)

    def draw(tensor: torch.Tensor, low: int, high: int) -> torch.Tensor:
        return torch.randint(low, high, tensor.shape, generator=generator) / 4

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.running_mean.copy_(draw(module.running_mean, -8, 9))
                if module.affine and module.weight is not None:
                    sign = 1 - 8 * draw(module.weight, 0, 2)  # 1 or −1
                    module.weight.copy_(draw(module.weight, 1, 5) * sign)
                if module.affine and module.bias is not None:
                    module.bias.copy_(draw(module.bias, -8, 9))
    return convert(model.eval(), torch.zeros_like(models.example_input(model)), name=name)
