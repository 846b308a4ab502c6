"""Wrappers that torch puts around a model: what is inside, and where one is in the way."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

__all__ = ["inner_wrappers", "unwrapped", "without_parallel"]


def without_parallel(model: nn.Module) -> nn.Module:
    """The module inside DistributedDataParallel or DataParallel, which only spread batches; else `model`."""
    while _is(model, "torch.nn.parallel", "DistributedDataParallel", "DataParallel"):
        inside = model.module
        assert isinstance(inside, nn.Module)
        model = inside
    return model


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside these and what torch.compile made of it, in any order; else `model`."""
    while (inside := without_parallel(getattr(model, "_orig_mod", model))) is not model:
        model = inside
    return model


def inner_wrappers(model: nn.Module) -> Iterator[tuple[str, str]]:
    """(name, what to do) of each wrapper within `model` that cannot be copied or exported.

    DataParallel can: without a GPU it calls the module inside.
    """
    for name, module in model.named_modules():
        if _is(module, "torch.nn.parallel", "DistributedDataParallel"):
            yield name, f"put {name}.module, the module inside, in its place"


def _is(model: object, package: str, *names: str) -> bool:
    """By name: what torch was built without cannot be imported, and what is not imported cannot be here."""
    return type(model).__name__ in names and type(model).__module__.startswith(package)
