"""Sequences: what of a model runs one after another, as far as its nn.Sequentials tell.

From them `binarize` knows what stands before a sign, and where nobody else can see an activation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from torch import nn

from onebit.nn.module_scan import Calls, centred, is_pad, passes_through

__all__ = ["dropout_notes", "normalized", "padded", "reordered", "replaced", "sequences"]

_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout)
_MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d)


def replaced(model: nn.Module, name: str, old: nn.Module, new: nn.Module) -> nn.Module:
    """`new` wherever the model holds `old`; returns the model, which is `new` if it was `old` itself."""
    if not name:
        return new
    for parent in list(model.modules()):
        for key, child in list(parent._modules.items()):
            if child is old:
                parent._modules[key] = new
    return model


def sequences(model: nn.Module, calls: Calls | None) -> list[list[tuple[str, nn.Module]]]:
    """Every outermost nn.Sequential as one flat list of (name, module): what runs one after another.

    Not one that the example showed to be no call of its own: somebody walks through its layers, and sees what
    lies between them.
    """
    inner: set[int] = set()

    def is_plain(name: str, module: nn.Module) -> bool:
        return type(module).forward is nn.Sequential.forward and (calls is None or name in calls.called)

    def flat(name: str, module: nn.Module) -> Iterable[tuple[str, nn.Module]]:
        if not is_plain(name, module):
            yield name, module
            return
        inner.add(id(module))
        for key, child in module._modules.items():
            if child is not None:
                yield from flat(f"{name}.{key}".lstrip("."), child)

    return [
        list(flat(name, module))
        for name, module in model.named_modules()
        if id(module) not in inner and is_plain(name, module)
    ]


def reordered(model: nn.Module, chosen: set[int], calls: Calls | None) -> list[str]:
    """Replace by nn.Identity each ReLU whose output only a layer to be made binary sees; notes on it."""
    notes = []
    times = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
    for sequence in sequences(model, calls):
        for i, (name, module) in enumerate(sequence):
            behind, layer = next(
                (
                    (n, m)
                    for n, m in sequence[i + 1 :]
                    if not (passes_through(m) or centred(m) or isinstance(m, _MAX_POOLS))
                ),
                ("", module),
            )
            if id(layer) not in chosen:
                continue
            if isinstance(module, nn.ReLU) and times[id(module)] == 1:
                replaced(model, name, module, nn.Identity())
                notes.append(f"{name}: ReLU left out, the sign in {behind} stands for it")
    return notes


def dropout_notes(model: nn.Module, chosen: set[int], calls: Calls | None) -> list[str]:
    """Each dropout directly before a sign: what it drops is no longer absent."""
    return [
        f"{name}: dropout before the sign in {behind} makes dropped inputs +1 or -1, not 0: consider p=0"
        for sequence in sequences(model, calls)
        for (name, module), (behind, layer) in pairwise(sequence)
        if id(layer) in chosen and isinstance(module, _DROPOUTS) and module.p > 0
    ]


def normalized(model: nn.Module, calls: Calls | None) -> set[int]:
    """ids of the layers that stand directly behind a centring normalization, wherever they are used."""
    found = {id(model.get_submodule(name)) for name in calls.normalized} if calls is not None else set()
    elsewhere: set[int] = set()
    for sequence in sequences(model, calls):
        for i, (_, module) in enumerate(sequence):
            before = next((m for _, m in reversed(sequence[:i]) if not passes_through(m)), None)
            (found if before is not None and centred(before) else elsewhere).add(id(module))
    times = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
    return {module for module in found if times[module] == 1 or module not in elsewhere}


def padded(model: nn.Module, calls: Calls | None) -> dict[int, str]:
    """{id of a layer: name of the pad that stands directly before it and serves nothing else}."""
    times = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
    found = {}
    if calls is not None:
        found = {id(model.get_submodule(layer)): pad for layer, pad in calls.padded.items()}
    for sequence in sequences(model, calls):
        for i, (_, layer) in enumerate(sequence):
            others = (
                pair for pair in reversed(sequence[:i]) if is_pad(pair[1]) or not passes_through(pair[1])
            )
            name, module = next(others, ("", layer))
            if is_pad(module):
                found[id(layer)] = name
    return {
        layer: name
        for layer, name in found.items()
        if times[layer] == 1 and times[id(model.get_submodule(name))] == 1
    }
