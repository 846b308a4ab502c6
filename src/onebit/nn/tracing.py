"""How layers behave under what torch.fx and torch.func hand them instead of tensors.

torch.fx's symbolic tracing takes the modules of torch.nn for one node each, and looks into all others. Ours
cannot be looked into: their checks depend on shapes, which a proxy does not have, and an autograd function
takes tensors only. So each is one node by its own word: `forward` begins with

    if is_traced(x):
        return one_node(self, x)

and quantizers, which people also call as functions, say the same by `one_call`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

__all__ = ["in_torch_func", "is_traced", "one_call", "one_node"]


def in_torch_func() -> bool:
    """Whether a transform of torch.func is at work: tensors then have no memory of their own to look at."""
    return bool(torch._C._are_functorch_transforms_active())


def is_traced(x: Any) -> bool:
    """Whether x stands for a tensor in torch.fx's symbolic tracing."""
    return isinstance(x, fx.Proxy)


def one_node(module: nn.Module, x: Any) -> Tensor:
    """The call module(x) as one node of the graph that x is traced into.

    If the module is what is traced, not a part of it, the graph becomes that of a module that has it as `0`.
    """
    tracer = x.tracer
    if module is tracer.root:
        tracer.root = nn.Sequential(module)
        path = "0"
    else:
        path = tracer.path_of_module(module)
    node: Tensor = tracer.create_proxy("call_module", path, (x,), {})
    return node


def one_call(function: Callable[..., Tensor], x: Any, *args: Any) -> Tensor:
    """The call function(x, *args) as one node."""
    node: Tensor = x.tracer.create_proxy("call_function", function, (x, *args), {})
    return node
