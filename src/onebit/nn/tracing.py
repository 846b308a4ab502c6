"""How layers behave under what torch.fx and torch.func hand them instead of tensors."""

from __future__ import annotations

import torch

__all__ = ["in_torch_func"]


def in_torch_func() -> bool:
    """Whether a transform of torch.func is at work: tensors then have no memory of their own to look at."""
    return bool(torch._C._are_functorch_transforms_active())
