"""Precision and layout of a training's arithmetic: TF32, mixed bf16, channels-last.

Mixed precision rounds to bf16 what a layer receives and returns; parameters, gradients and the optimizer's
state stay float32. A one-bit layer's factors, ±1, are exact in bf16, and its sum, an integer, up to ±256.
Two kinds of layer stay in float32 altogether: what stands before the first sign (its inputs are data, and a
rounded sum there flips signs that nothing later can mend) and every BatchNorm (its sums over the batch, and
the thresholds they become). Evaluation is always done in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from onebit.nn.modes import modes_kept


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """Products of float32 on CUDA in TF32 (10 bits of fraction, sums in float32), or not, inside the block.

    ±1 and scaled pixels, (2x - 255)/256, fit TF32 exactly, so one-bit layers lose nothing.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = on
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """The context of a training step's forward pass."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


@contextmanager
def mixed(model: nn.Module, precision: str, example: Tensor) -> Iterator[None]:
    """Inside the block, `model` keeps to float32 what `autocast` must not touch; see the top of the file.

    example: a few of the model's inputs; one forward pass of them, in eval mode, shows what comes before the
    first sign. With precision "float32" nothing happens.
    """
    kept: list[nn.Module] = []
    if precision != "float32":
        norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        kept = list(dict.fromkeys([*before_the_first_sign(model, example), *norms]))
    for module in kept:
        module.forward = _float32_forward(module.forward, example.device.type)
    try:
        yield
    finally:
        for module in kept:
            del module.forward  # the instance's own; the class's is found again


def _float32_forward(forward: Callable[..., Any], device_type: str) -> Callable[..., Any]:
    def run(*inputs: Tensor) -> Any:
        with torch.autocast(device_type, enabled=False):
            return forward(*(x.float() if x.is_floating_point() else x for x in inputs))

    return run


@torch.no_grad()
def before_the_first_sign(model: nn.Module, inputs: Tensor) -> list[nn.Module]:
    """The layers with parameters of their own that run before the model's first sign, in order.

    Found by one forward pass of `inputs`, in eval mode so that nothing changes. The first sign is a one-bit
    layer's input quantizer, or any other module (not a weight's quantizer) that returns nothing but ±1, or
    nothing but 0 and 1. A model without one gives all its layers.
    """
    weights = {id(getattr(module, "weight_quantizer", None)) for module in model.modules()}
    found: list[nn.Module] = []
    reached = False

    def enter(module: nn.Module, _: Any) -> None:
        nonlocal reached
        if not reached and getattr(module, "input_quantizer", None) is not None:
            reached = True

    def leave(module: nn.Module, _: Any, output: Any) -> None:
        nonlocal reached
        if reached or id(module) in weights:
            return
        if isinstance(output, Tensor) and _is_binary(output):
            reached = True
        elif next(module.parameters(recurse=False), None) is not None:
            found.append(module)

    handles = [module.register_forward_pre_hook(enter) for module in model.modules()]
    handles += [module.register_forward_hook(leave) for module in model.modules()]
    try:
        with modes_kept(model):
            model.eval()(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _is_binary(output: Tensor) -> bool:
    is_one = output == 1
    return bool((is_one | (output == -1)).all() or (is_one | (output == 0)).all())
