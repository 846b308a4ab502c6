"""Which layers can be packed, and why the others cannot."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from onebit.nn import (
    ApproxSign,
    BinaryConv1d,
    BinaryConv2d,
    BinaryLinear,
    RSign,
    SteSign,
    StochasticSign,
)

PackableLayer = BinaryLinear | BinaryConv1d | BinaryConv2d
BINARY_LAYERS: tuple[type[PackableLayer], ...] = (BinaryLinear, BinaryConv1d, BinaryConv2d)
_PLAIN_SIGNS = (SteSign, ApproxSign)
# What a module keeps its hooks in. Packing puts another module in its place, which has none of them.
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


class LayerParts(NamedTuple):
    """What a packed layer is made of: ±1 weights, α, what stays before the product, whether that is real."""

    signs: Tensor
    alpha: Tensor | None
    before: nn.Module | None
    real: bool


@torch.no_grad()
def parts_of(layer: PackableLayer, *, real_inputs: bool) -> LayerParts | str:
    """What a packed layer in the place of `layer` is made of, or why there can be none.

    The layer must be in eval mode. real_inputs: whether a layer without a sign on its input may be packed.
    """
    why = _altered(layer) or _wrong_tensors(layer)
    if why:
        return why
    signs, alpha = layer.quantized_weight()
    if not torch.all(signs.abs() == 1):
        return f"in eval mode its weights are not ±1 (weight_quantizer={layer.weight_quantizer})"
    quantizer = layer.input_quantizer
    if quantizer is None:
        if real_inputs:
            return LayerParts(signs, alpha, None, True)
        return "its input is not binarized (input_quantizer=None); real_inputs='pack' packs it all the same"
    if _is_plain_sign(quantizer):
        return LayerParts(signs, alpha, None, False)
    why = _why_not_signs(quantizer, layer)
    return f"its input is not seen to become ±1: {why}" if why else LayerParts(signs, alpha, quantizer, False)


def _altered(layer: PackableLayer) -> str:
    """What somebody attached to the layer and packing would drop."""
    if parametrize.is_parametrized(layer):
        return "it has parametrizations; torch.nn.utils.parametrize.remove_parametrizations makes them plain"
    if type(layer) not in BINARY_LAYERS:
        return f"{type(layer).__name__} is a class derived from it, whose computation is unknown"
    for name in _HOOKS:
        if getattr(layer, name, None):
            return f"it has hooks ({name.strip('_')}), which a packed layer would lose; remove them first"
    if "forward" in vars(layer):
        return "its forward was replaced on the instance"
    return ""


def _wrong_tensors(layer: PackableLayer) -> str:
    for name, tensor in (("weight", layer.weight), ("scale", layer.scale), ("bias", layer.bias)):
        if tensor is not None and tensor.dtype != torch.float32:
            return f"its {name} is {tensor.dtype}; packed layers compute in torch.float32 (model.float())"
        if tensor is not None and tensor.is_meta:
            return f"its {name} is on the meta device and has no numbers"
    return ""


def _is_plain_sign(quantizer: nn.Module) -> bool:
    """Whether the module, in eval mode, is x → sign(x) and nothing else."""
    if _altered_module(quantizer):
        return False
    if type(quantizer) is StochasticSign:
        return not quantizer.real_in_eval
    return type(quantizer) in _PLAIN_SIGNS


def _altered_module(module: nn.Module) -> bool:
    return "forward" in vars(module) or any(getattr(module, name, None) for name in _HOOKS)


def _why_not_signs(quantizer: nn.Module, layer: PackableLayer) -> str:
    """Why the module's last act, in eval mode, is not known to be a sign; "" if it is.

    As in `onebit.convert`: it is exported, and then shows itself by the marker onebit::sign.
    """
    if _altered_module(quantizer):
        return f"input_quantizer={quantizer} has hooks or a replaced forward"
    if type(quantizer) is RSign and _is_plain_sign(quantizer.quantizer):
        return ""  # the common one, without waiting for torch.export
    columns = layer.in_features if isinstance(layer, BinaryLinear) else layer.in_channels
    example = torch.zeros(2, columns, *layer.weight.shape[2:], device=layer.weight.device)
    try:
        exported = torch.export.export(quantizer, (example,), strict=False).run_decompositions({})
    except Exception as error:  # what an unknown module raises while it is exported can be anything
        return f"input_quantizer={quantizer} cannot be exported ({type(error).__name__}: {error})"
    last = [node for node in exported.graph.nodes if node.op == "output"][-1].args[0]
    if [node.target for node in last] == [torch.ops.onebit.sign.default]:
        return ""
    return f"input_quantizer={quantizer} does not end in onebit::sign when it is exported"
