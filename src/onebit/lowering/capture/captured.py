"""A model as captured: a flat list of PyTorch calls with the batch axis taken out of every shape.

This is the only form in which the later passes see PyTorch; none of them touches `torch.fx`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ref:
    """An argument that is the result of another call, a constant, or an input of the model."""

    name: str


@dataclass(frozen=True)
class BatchSize:
    """An argument that depends on the number of samples, or (`from_data`) on the numbers in a tensor."""

    from_data: bool = False


@dataclass(frozen=True)
class Origin:
    """Where in the user's model a call comes from."""

    layer: str = ""  # dotted path
    kind: str = ""  # class name of that module
    source: str = ""  # the user's own line, as 'model.py:12 "y = self.act(y)"'


@dataclass(frozen=True)
class ResultType:
    """What a call returns. `sample`: shape of one sample, None where the batch is not the first axis."""

    dtype: torch.dtype
    sample: tuple[int, ...] | None
    shape: str  # as PyTorch prints it, for errors


@dataclass(frozen=True)
class TorchCall:
    """One PyTorch operation. `op` is its full name, e.g. "aten.add.Tensor" or "onebit.sign.default"."""

    name: str
    op: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    origin: Origin
    result: ResultType | None

    def refs(self) -> list[str]:
        """Names of everything this call reads."""
        found: list[str] = []
        _collect((self.args, tuple(self.kwargs.values())), found)
        return found


@dataclass(frozen=True)
class Input:
    """One input of the model, without its batch axis."""

    name: str
    dtype: torch.dtype
    sample: tuple[int, ...]


@dataclass(frozen=True)
class Captured:
    """A whole model. `constants` holds parameters, buffers and what `fold` computed from them."""

    name: str
    kind: str  # class of the model
    inputs: tuple[Input, ...]
    calls: tuple[TorchCall, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    constant_names: Mapping[str, str] = field(default_factory=dict)  # name here -> dotted name in the model
    from_signs: frozenset[str] = frozenset()  # constants that `fold` computed through a sign or a comparison


def batch_sizes(argument: Any) -> list[BatchSize]:
    """Every BatchSize in the arguments of a call, or in an argument."""
    if isinstance(argument, TorchCall):
        return batch_sizes((argument.args, tuple(argument.kwargs.values())))
    if isinstance(argument, (tuple, list)):
        return [found for item in argument for found in batch_sizes(item)]
    return [argument] if isinstance(argument, BatchSize) else []


def _collect(argument: Any, found: list[str]) -> None:
    if isinstance(argument, Ref):
        found.append(argument.name)
    elif isinstance(argument, (tuple, list)):
        for item in argument:
            _collect(item, found)


def substitute(argument: Any, values: Callable[[str], Any]) -> Any:
    """`argument` with every Ref replaced by what `values` returns for its name."""
    if isinstance(argument, Ref):
        return values(argument.name)
    if isinstance(argument, (tuple, list)):
        return type(argument)(substitute(item, values) for item in argument)
    return argument
