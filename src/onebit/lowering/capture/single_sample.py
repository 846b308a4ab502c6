"""A batch of one sample takes the same path through a model as any other batch.

torch.export assumes at least two samples, so it keeps one branch of `if x.shape[0] > 1` and puts up no guard.
Here the model runs eagerly on one and on two samples, and the calls it makes are compared, with the origin of
every tensor; values are not, since sums over another batch may round in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from onebit.errors import ConversionError, Problem

_BATCH = 2
_FIX = "compute the same for every batch size; x.shape[0] and -1 may stand in shapes only"


def check_single_sample(model: torch.nn.Module, example_inputs: tuple[Tensor, ...]) -> None:
    """Raise ConversionError if `model`, in eval mode, treats a batch of one otherwise than a batch of two."""
    one = tuple(x[:1].clone() for x in example_inputs)
    several, shapes = _run(model, tuple(torch.cat([x] * _BATCH) for x in one))
    try:
        alone, shapes_alone = _run(model, one)
    except Exception as error:
        why = f"it fails on a batch of one sample ({type(error).__name__})"
        raise ConversionError([Problem("", type(model).__name__, "", why, _FIX)]) from error
    at = next((i for i, (a, b) in enumerate(zip(alone, several, strict=False)) if not _alike(a, b)), None)
    if at is None and len(alone) != len(several):
        at = min(len(alone), len(several))
    if at is not None:
        calls = max(alone, several, key=len)
        what = f"takes another path for a batch of one sample than for others, at {_name(calls[at][0])}"
    elif not _alike(shapes_alone, shapes):
        what = "gives an output of another rank or shape for a batch of one sample"
    else:
        return
    raise ConversionError([Problem("", type(model).__name__, "", f"it {what}", _FIX)])


class _Recorder(TorchFunctionMode):
    """The calls of a run: function and arguments, tensors by their origin."""

    def __init__(self, model: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []
        self._origins = WeakTensorKeyDictionary()
        self._count = 0
        for tensor in (*model.parameters(), *model.buffers(), *inputs):
            self._origin(tensor)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        call = (func, self._described(args), self._described(kwargs or {}))
        result = func(*args, **(kwargs or {}))
        self.calls.append((*call, self._described(result) if isinstance(result, Tensor) else None))
        return result

    def _origin(self, tensor: Tensor) -> str:
        if tensor not in self._origins:
            self._origins[tensor] = f"tensor {self._count}"
            self._count += 1
        return str(self._origins[tensor])

    def _described(self, argument: Any) -> Any:
        if isinstance(argument, Tensor):
            return self._origin(argument)
        if isinstance(argument, (tuple, list)):
            return tuple(map(self._described, argument))
        if isinstance(argument, Mapping):
            return tuple((key, self._described(argument[key])) for key in sorted(argument))
        if isinstance(argument, slice):
            return tuple(map(self._described, (argument.start, argument.stop, argument.step)))
        plain = argument is None or isinstance(argument, (bool, int, float, str, torch.dtype))
        return argument if plain else type(argument)


def _run(model: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[list[Any], Any]:
    """The calls of a run and the shapes of its outputs."""
    with torch.no_grad(), _Recorder(model, inputs) as recorder:
        outputs = model(*inputs)
    outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
    return recorder.calls, tuple(tuple(y.shape) for y in outputs)


def _alike(one: Any, several: Any) -> bool:
    """Equal, where an integer for several samples may also be the batch size times that for one."""
    if isinstance(one, tuple) and isinstance(several, tuple):
        return len(one) == len(several) and all(map(_alike, one, several))
    if type(one) is int and type(several) is int:
        return several in (one, one * _BATCH)
    return bool(one == several) or (one != one and several != several)


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", function))
