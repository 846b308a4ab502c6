"""Pass 2: whatever depends only on parameters and constants is computed now, by PyTorch itself.

So sign(weight), the α of XNOR-Net, or a transposed weight become stored tensors, exactly as eager PyTorch
computes them. What came through a sign or a comparison is marked as such: that is how one-bit weights are
told from weights whose numbers happen to be alike. Calls that no output needs are dropped.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from onebit.lowering.capture.captured import Captured, TorchCall, batch_sizes, substitute

# Operations whose results are two-valued: the marker of onebit.nn's quantizers, and signs written by hand.
_SIGNS = (
    *("onebit.sign.", "aten.ge.", "aten.gt.", "aten.le.", "aten.lt.", "aten.sign.", "aten.sgn."),
    *("aten.signbit.", "aten.heaviside.", "aten.copysign."),
)


def fold(captured: Captured) -> Captured:
    """Evaluate every call whose arguments are all constant, except for random numbers."""
    constants: dict[str, Any] = dict(captured.constants)
    names = dict(captured.constant_names)
    from_signs: set[str] = set()
    kept: list[TorchCall] = []
    for call in _needed(captured):
        if all(ref in constants for ref in call.refs()) and not batch_sizes(call) and not is_random(call):
            constants[call.name] = _evaluate(call, constants)
            if call.op.startswith(_SIGNS) or not from_signs.isdisjoint(call.refs()):
                from_signs.add(call.name)
            name = _inherited_name(call, constants, names)
            if name:
                names[call.name] = name
        else:
            kept.append(call)
    tensors = {name: value for name, value in constants.items() if isinstance(value, Tensor)}
    return replace(
        captured,
        calls=tuple(kept),
        constants=tensors,
        constant_names=names,
        from_signs=frozenset(from_signs),
    )


def _needed(captured: Captured) -> list[TorchCall]:
    """The calls that some output depends on, in order."""
    needed = set(captured.outputs)
    kept: list[TorchCall] = []
    for call in reversed(captured.calls):
        if call.name in needed:
            needed.update(call.refs())
            kept.append(call)
    return kept[::-1]


def is_random(call: TorchCall) -> bool:
    """Does the call draw from a random generator?"""
    return torch.Tag.nondeterministic_seeded in getattr(call.function, "tags", ())


@torch.no_grad()
def _evaluate(call: TorchCall, constants: dict[str, Any]) -> Any:
    args = substitute(call.args, constants.__getitem__)
    kwargs = {k: substitute(v, constants.__getitem__) for k, v in call.kwargs.items()}
    value = call.function(*args, **kwargs)
    return value[0] if isinstance(value, (tuple, list)) else value


def _inherited_name(call: TorchCall, constants: dict[str, Any], names: dict[str, str]) -> str:
    """A tensor made from one parameter, of as many elements, goes by that parameter's name."""
    sources = [ref for ref in call.refs() if ref in names]
    result = constants[call.name]
    if len(sources) != 1 or not isinstance(result, Tensor):
        return ""
    return names[sources[0]] if result.numel() == constants[sources[0]].numel() else ""
