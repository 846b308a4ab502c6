"""Pass 2: whatever depends only on parameters and constants is computed now, by PyTorch itself.

So sign(weight), the α of XNOR-Net, or a transposed weight become stored tensors, exactly as eager PyTorch
computes them.
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
    for call in captured.calls:
        if torch.Tag.nondeterministic_seeded in getattr(call.function, "tags", ()):
            problems.append(_random(call))
        elif _is_constant(call, constants):
            value = _evaluate(call, constants)
            constants[call.name] = value
            sources = {names[r] for r in call.refs() if r in names}
            if len(sources) == 1:
                names[call.name] = sources.pop()
        else:
            kept.append(call)
    if problems:
        raise ConversionError(problems)
    tensors = {name: value for name, value in constants.items() if isinstance(value, Tensor)}
    return replace(captured, calls=tuple(kept), constants=tensors, constant_names=names)


def _is_constant(call: Call, constants: dict[str, Any]) -> bool:
    batch: list[bool] = []

    def look(argument: Any) -> None:
        if isinstance(argument, BatchSize):
            batch.append(True)
        elif isinstance(argument, (tuple, list)):
            for item in argument:
                look(item)

    look((call.args, tuple(call.kwargs.values())))
    return not batch and all(ref in constants for ref in call.refs())


@torch.no_grad()
def _evaluate(call: Call, constants: dict[str, Any]) -> Any:
    args = substitute(call.args, constants.__getitem__)
    kwargs = {k: substitute(v, constants.__getitem__) for k, v in call.kwargs.items()}
    value = call.function(*args, **kwargs)
    return value[0] if isinstance(value, (tuple, list)) else value


def _random(call: Call) -> Problem:
    return Problem(
        call.origin.layer,
        call.origin.kind,
        f"{call.op} at {call.origin.source}" if call.origin.source else call.op,
        "it draws random numbers in eval mode, and a Program is deterministic",
        "draw them in training mode only (if self.training: ...)",
    )
