"""`pack`: the binary layers of any PyTorch model → packed ones; the rest stays PyTorch's.

`onebit.convert` makes a whole network a Program, and is faster where it can: nothing but bits between the
layers. `pack` is for the models that it does not cover: control flow that depends on data, layers that a
Program has no op for, code of one's own around the binary layers.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from onebit.nn import BinaryConv1d, BinaryLinear
from onebit.nn.wrappers import inner_wrappers, without_parallel
from onebit.ops.eligible import BINARY_LAYERS, LayerParts, PackableLayer, parts_of
from onebit.ops.layers import PackedConv1d, PackedConv2d, PackedLayer, PackedLinear
from onebit.program.float_environment import default_float_environment, in_fresh_thread

RealInputs = Literal["leave", "pack"]


@default_float_environment()
def pack(model: nn.Module, *, inplace: bool = False, real_inputs: RealInputs = "leave") -> nn.Module:
    """Put packed layers in the place of the binary ones; everything else stays as it is.

    Args:
        model: any torch.nn.Module with BinaryLinear, BinaryConv1d or BinaryConv2d layers, in eval mode. Not
            one that torch.compile made: pack first, then compile. Of DistributedDataParallel and
            DataParallel the module inside is packed.
        inplace: change the model itself instead of a copy.
        real_inputs: what becomes of layers with input_quantizer=None, which multiply one-bit weights by real
            numbers. "leave": they stay, so that every result is PyTorch's bit for bit. "pack": their
            weights become bits too, a 32nd of the memory; sums are then equal to PyTorch's where no partial
            sum rounds (inputs of ±1, or of ScalePixels), else close: rule F1 of docs/numerics.md.

    Returns:
        The packed model, in eval mode, for inference: its remaining parameters do not require gradients any
        more. float32 results on the CPU equal those of `model` bit for bit (but see `real_inputs`). It runs
        under torch.compile, is copied, pickled and moved as any module; its state dict loads into another
        packed model of the same architecture. `onebit.ops.report` says what was packed and what was not.
        A module that is used in several places stays one module. If `model` is a binary layer by itself,
        the packed layer is returned, whatever `inplace`.

    Raises:
        TypeError: `model` is no module, or is compiled.
        ValueError: training mode, a NaN in a latent weight, a model that cannot be copied, or nothing to
            pack; then the message says why for each layer.
    """
    if isinstance(model, nn.Module):
        model = without_parallel(model)
    _check(model, real_inputs)
    if not inplace:
        model = _copied(model)
    chosen: dict[PackableLayer, LayerParts] = {}
    left: list[str] = []
    for name, layer in binary_layers(model):
        parts = _parts(layer, real_inputs=real_inputs == "pack")
        if isinstance(parts, str):
            left.append(f"  {name or 'the model itself'}: {parts}")
        else:
            chosen[layer] = parts
    if not chosen:
        raise ValueError(_nothing(left))
    packed = {layer: _packed(layer, parts) for layer, parts in chosen.items()}
    for module in [*model.modules()]:
        for name, child in module._modules.items():
            if isinstance(child, BINARY_LAYERS) and child in packed:
                module._modules[name] = packed[child]
    result = packed.get(model, model) if isinstance(model, BINARY_LAYERS) else model
    return result.requires_grad_(False)


def _parts(layer: PackableLayer, *, real_inputs: bool) -> LayerParts | str:
    if layer.weight.device.type != "cpu":
        return parts_of(layer, real_inputs=real_inputs)
    return in_fresh_thread(lambda: parts_of(layer, real_inputs=real_inputs))  # sign and α are computed there


def binary_layers(model: nn.Module) -> list[tuple[str, PackableLayer]]:
    """Each binary layer that is not packed, once, with the first of its names."""
    return [(name, m) for name, m in model.named_modules() if isinstance(m, BINARY_LAYERS)]


def _check(model: nn.Module, real_inputs: str) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"onebit.pack takes a torch.nn.Module, not {type(model).__name__}")
    if real_inputs not in ("leave", "pack"):
        raise ValueError(f"real_inputs must be 'leave' or 'pack'; got {real_inputs!r}")
    for name, fix in inner_wrappers(model):
        raise TypeError(f"onebit.pack: layer {name!r} is a DistributedDataParallel: {fix}")
    for name, module in model.named_modules():
        if type(module).__name__ == "OptimizedModule":
            raise TypeError(
                "onebit.pack takes the model before torch.compile: pack first, compile the result"
            )
        inside = isinstance(module, BINARY_LAYERS) and any(part.training for part in module.modules())
        if inside or (module is model and module.training):
            where = f"layer {name!r}" if name else "the model"
            raise ValueError(f"onebit.pack: {where} is in training mode; call model.eval() first")
    for name, layer in binary_layers(model):
        if not layer.weight.is_meta and layer.weight.isnan().any():
            raise ValueError(f"onebit.pack: the weight of layer {name!r} has a NaN, which has no sign")


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:  # whatever the model's own attributes raise
        raise ValueError(
            f"onebit.pack cannot copy the model ({type(error).__name__}: {error}); pass inplace=True to pack "
            "the model itself"
        ) from error


def _nothing(left: list[str]) -> str:
    if left:
        return "\n".join(["onebit.pack found nothing that it can pack:", *left])
    return (
        "onebit.pack found nothing to pack: the model has no onebit.nn.BinaryLinear, BinaryConv1d or "
        "BinaryConv2d (or is packed already)"
    )


@torch.no_grad()
def _packed(layer: PackableLayer, parts: LayerParts) -> PackedLayer:
    with torch.inference_mode(False):  # tensors of inference mode could not be prepared once for all
        weight = _pack_rows(parts.signs)
        alpha = None if parts.alpha is None else parts.alpha.detach().clone()
        if isinstance(layer, BinaryLinear):
            return PackedLinear(layer, weight, alpha, parts.before, real=parts.real)
        if isinstance(layer, BinaryConv1d):
            return PackedConv1d(layer, weight.unsqueeze(1), alpha, parts.before, real=parts.real)
        return PackedConv2d(layer, weight, alpha, parts.before, real=parts.real)


def _pack_rows(signs: Tensor) -> Tensor:
    """(out, in, *kernel) of ±1 → int32 (out, *kernel, words(in)), where they were."""
    rows: Tensor = torch.ops.onebit.pack_bits(signs.detach().cpu().movedim(1, -1).contiguous())
    return rows.to(signs.device)
