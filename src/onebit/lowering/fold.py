"""Pass 2: whatever depends only on parameters and constants is computed now, by PyTorch itself.

So sign(weight), the α of XNOR-Net, or a transposed weight become stored tensors, exactly as eager PyTorch
computes them. Calls that no output needs are dropped.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from onebit.lowering.captured import BatchSize, Call, Captured, substitute
from onebit.lowering.errors import ConversionError, Problem


def fold(captured: Captured) -> Captured:
    """Evaluate every call whose arguments are all constant. ConversionError for random numbers."""
    constants: dict[str, Any] = dict(captured.constants)
    names = dict(captured.constant_names)
    kept: list[Call] = []
    problems: list[Problem] = []
    for call in _needed(captured):
        if torch.Tag.nondeterministic_seeded in getattr(call.function, "tags", ()):
            problems.append(_random(call))
        elif all(ref in constants for ref in call.refs()) and not _has_batch_size(call):
            constants[call.name] = _evaluate(call, constants)
            name = _inherited_name(call, constants, names)
            if name:
                names[call.name] = name
        else:
            kept.append(call)
    if problems:
        raise ConversionError(problems)
    tensors = {name: value for name, value in constants.items() if isinstance(value, Tensor)}
    return replace(captured, calls=tuple(kept), constants=tensors, constant_names=names)


def _needed(captured: Captured) -> list[Call]:
    """The calls that some output depends on, in order."""
    needed = set(captured.outputs)
    kept: list[Call] = []
    for call in reversed(captured.calls):
        if call.name in needed:
            needed.update(call.refs())
            kept.append(call)
    return kept[::-1]


def _has_batch_size(argument: Any) -> bool:
    if isinstance(argument, Call):
        return _has_batch_size((argument.args, tuple(argument.kwargs.values())))
    if isinstance(argument, (tuple, list)):
        return any(_has_batch_size(item) for item in argument)
    return isinstance(argument, BatchSize)


@torch.no_grad()
def _evaluate(call: Call, constants: dict[str, Any]) -> Any:
    args = substitute(call.args, constants.__getitem__)
    kwargs = {k: substitute(v, constants.__getitem__) for k, v in call.kwargs.items()}
    value = call.function(*args, **kwargs)
    return value[0] if isinstance(value, (tuple, list)) else value


def _inherited_name(call: Call, constants: dict[str, Any], names: dict[str, str]) -> str:
    """A tensor made from one parameter, of as many elements, goes by that parameter's name."""
    sources = [ref for ref in call.refs() if ref in names]
    result = constants[call.name]
    if len(sources) != 1 or not isinstance(result, Tensor):
        return ""
    return names[sources[0]] if result.numel() == constants[sources[0]].numel() else ""


def _random(call: Call) -> Problem:
    return Problem(
        call.origin.layer,
        call.origin.kind,
        f"{call.op} at {call.origin.source}" if call.origin.source else call.op,
        "it draws random numbers in eval mode, and a Program is deterministic",
        "draw them in training mode only (if self.training: ...)",
    )
