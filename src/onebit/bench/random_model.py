"""A registered model with random weights, as a Program: speed does not depend on the weights."""

from __future__ import annotations

from typing import Any

from onebit.program import Program

_SEED = 20160316


def random_program(name: str, **options: Any) -> Program:
    """The Program of `onebit.models.create(name, **options)` with fresh weights, the same each time.

    BatchNorm's running means are drawn too, so that no sign is decided beforehand. The caller's random state
    stays as it is. ValueError for an unknown name (it lists the known), TypeError for an unknown option.
    """
    import torch

    from onebit import lowering, models

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model = models.create(name, **options).eval()
        with torch.no_grad():
            for module in model.modules():
                mean = getattr(module, "running_mean", None)
                if isinstance(mean, torch.Tensor):
                    mean.normal_()
        example = torch.zeros_like(models.example_input(model))
        return lowering.convert(model, example, name=name)
