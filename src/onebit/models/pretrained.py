"""Float weights into a binary network of the registry: where XNOR-Net's authors start from.

"XNOR-Net" (arXiv 1603.05279, section 4.1) trains from scratch; its published code also starts from a trained
float AlexNet. The layers of such a network and of ours have other names, and other things between them: a
BatchNorm before the sign where the float network has none. What they share is the order of their products.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from onebit.nn.binary_layer import BinaryLayer
from onebit.nn.from_float import load_latent_

__all__ = ["FloatWeights", "load_float_weights"]

_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class FloatWeights:
    """What `load_float_weights` did; `print` shows it.

    loaded: (name in the state dict, name in the model). unused: (name in the state dict, why).
    untouched: names in the model that the state dict has nothing for, and that are as they were.
    """

    loaded: tuple[tuple[str, str], ...]
    unused: tuple[tuple[str, str], ...]
    untouched: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{theirs} → {ours}" for theirs, ours in self.loaded]
        lines += [f"{theirs}: not used, {why}" for theirs, why in self.unused]
        lines += [f"{ours}: as it was" for ours in self.untouched]
        return "\n".join(lines)


@torch.no_grad()
def load_float_weights(model: nn.Module, state_dict: Mapping[str, Any]) -> FloatWeights:
    """Let a binary network start from the weights of a trained float one, in place; returns what matched.

    Dense layers and convolutions are paired in their order, which the model's and the state dict's must
    share; a one-bit layer gets latent weights by the rules of onebit.nn.from_float (mean-centred, clamped to
    [-1, 1]), a real one the weights as they are. A bias has no place in a layer that has none because a
    BatchNorm follows. BatchNorms are taken over only if *all* layers pair up, theirs and ours: in XNOR-Net's
    order they stand elsewhere and see other numbers. In any case call
    `onebit.nn.reestimate_batch_norm_(model, batches)` afterwards.

        model = onebit.models.create("alexnet_xnor", widths=(64, 192, 384, 256, 256))
        report = load_float_weights(model, torch.load("alexnet.pth", weights_only=True))  # torchvision's
        onebit.nn.reestimate_batch_norm_(model, batches)

    model: one of the registry, or any of plain and onebit.nn layers, registered in the order they run.
    state_dict: name → tensor; a "module." in front, and a checkpoint's {"state_dict": …} around it, are seen
        through.
    ValueError, with nothing changed, if the numbers of layers or any of their shapes differ.
    """
    state = _plain(state_dict)
    theirs, ours = _their_layers(state), _our_layers(model)
    same = [(p.is_norm, p.shape) for p in theirs] == [(p.is_norm, p.shape) for p in ours]
    if not same:
        theirs, ours = ([p for p in side if not p.is_norm] for side in (theirs, ours))
    _check(theirs, ours)
    modules = dict(model.named_modules())
    loaded = [
        pair
        for their, our in zip(theirs, ours, strict=True)
        for pair in _load(modules[our.name], our.name, state, their.name)
    ]
    used = {theirs for theirs, _ in loaded}
    filled = {ours for _, ours in loaded}
    products = {f"{p.name}.{key}" for p in theirs for key in ("weight", "bias")}
    unused = [
        (name, "a layer without a bias, before a BatchNorm" if name in products else "no layer of its order")
        for name in state
        if name not in used and not name.endswith("num_batches_tracked")
    ]
    kept = [name for name in model.state_dict() if name not in filled and not name.endswith("_tracked")]
    return FloatWeights(tuple(loaded), tuple(unused), tuple(kept))


@dataclass(frozen=True)
class _Layer:
    name: str
    shape: tuple[int, ...]
    is_norm: bool


def _plain(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    inner = state_dict.get("state_dict", state_dict)
    if not isinstance(inner, Mapping):
        inner = state_dict
    state = {name.replace("module.", ""): value for name, value in inner.items() if isinstance(value, Tensor)}
    if not state:
        raise ValueError(f"a state dict maps names to tensors; this one holds {', '.join(state_dict)[:80]!r}")
    return state


def _their_layers(state: Mapping[str, Tensor]) -> list[_Layer]:
    layers = []
    for name, value in state.items():
        prefix, _, key = name.rpartition(".")
        if key == "weight" and value.ndim > 0:
            layers.append(_Layer(prefix, tuple(value.shape), value.ndim == 1))
    return layers


def _our_layers(model: nn.Module) -> list[_Layer]:
    layers = []
    for name, module in model.named_modules():
        weight = module._parameters.get("weight")
        if weight is not None and isinstance(weight, Tensor):
            layers.append(_Layer(name, tuple(weight.shape), weight.ndim == 1))
    return layers


def _check(theirs: list[_Layer], ours: list[_Layer]) -> None:
    """ValueError unless the layers pair up by shape, one by one."""

    def listed(layers: list[_Layer]) -> str:
        return ", ".join(str(layer.shape) for layer in layers)

    if len(theirs) != len(ours):
        raise ValueError(
            f"the state dict has {len(theirs)} dense and convolution layers, the model {len(ours)}: theirs "
            f"are {listed(theirs)}; the model's are {listed(ours)}"
        )
    wrong = [
        f"{their.name}.weight is {their.shape}, the model's {our.name} is {our.shape}"
        for their, our in zip(theirs, ours, strict=True)
        if their.shape != our.shape
    ]
    if wrong:
        outputs = ", ".join(str(layer.shape[0]) for layer in theirs)
        raise ValueError(
            f"{len(wrong)} of {len(ours)} layers differ in shape: {'; '.join(wrong)}. The state dict's "
            f"layers have {outputs} outputs: create the model with these sizes (AlexNet's options are "
            "widths, hidden and classes)"
        )


def _load(module: nn.Module, name: str, state: Mapping[str, Tensor], theirs: str) -> list[tuple[str, str]]:
    """Copy what a layer of theirs has into one of ours; the pairs of names."""
    loaded = []
    own = {**module._parameters, **module._buffers}
    for key in ("weight", "bias") if state[f"{theirs}.weight"].ndim > 1 else _NORM:
        value, target = state.get(f"{theirs}.{key}"), own.get(key)
        if value is None or target is None:
            continue
        if key == "weight" and isinstance(module, BinaryLayer):
            load_latent_(module, value)
        else:
            target.copy_(value)
        loaded.append((f"{theirs}.{key}", f"{name}.{key}"))
    return loaded
