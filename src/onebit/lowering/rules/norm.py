"""The rule for BatchNorm."""

from __future__ import annotations

import numpy as np
import torch

from onebit.lowering.capture.captured import TorchCall
from onebit.lowering.emit.context import Context, lowers
from onebit.lowering.values.kinds import Floats, Known, Value
from onebit.program import fma
from onebit.program.tensors import Array


@lowers("aten._native_batch_norm_legit_no_training.default")
def batch_norm(
    context: Context,
    call: TorchCall,
    x: Value,
    gamma: Value | None,
    beta: Value | None,
    mean: Value,
    var: Value,
    momentum: float,
    eps: float,
) -> Value:
    """BatchNorm in eval mode as one fma a number; see `fold_batch_norm`."""
    if isinstance(x, Known):
        context.refuse("BatchNorm of a constant", "normalize what the input decides")
    channels = context.shape(x)[0]
    x, in_order = context.channels_last(x)
    scale, shift = fold_batch_norm(
        _vector(context, mean, channels),
        _vector(context, var, channels),
        None if gamma is None else _vector(context, gamma, channels),
        None if beta is None else _vector(context, beta, channels),
        eps,
    )
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        context.refuse(
            "its scale γ/sqrt(var + ε) or its shift is not finite",
            "look for a variance below 0, or 0 with ε = 0, and for NaN in its parameters and statistics",
        )
    names = (
        context.builder.floats(in_order(scale), "scale"),
        context.builder.floats(in_order(shift), "shift"),
    )
    return Floats(context.node("affine", context.floats(x), *names))


def fold_batch_norm(
    mean: Array, var: Array, gamma: Array | None, beta: Array | None, eps: float
) -> tuple[Array, Array]:
    """(α, β′) of BatchNorm in eval mode, y = fma(x, α, β′), step by step as PyTorch's CPU kernel has them.

    α = (1/sqrt(var + ε))·γ and β′ = fma(−mean, α, β), every step rounded to float32; γ = 1 and β = 0 where
    None. mean, var, gamma, beta: float32, shape (channels,).
    """
    with np.errstate(all="ignore"):
        inverse = np.float32(1) / np.sqrt(var + np.float32(eps))
        scale = inverse if gamma is None else inverse * gamma
        shift = fma(-mean, scale, np.zeros_like(mean) if beta is None else beta)
    return scale, shift


def _vector(context: Context, value: Value, channels: int) -> Array:
    if not isinstance(value, Known):
        context.refuse("its parameters depend on the input", "use stored parameters")
    tensor = value.tensor.detach()
    if tensor.dtype is not torch.float32 or tuple(tensor.shape) != (channels,):
        context.refuse(
            f"a parameter of dtype {tensor.dtype} and shape {tuple(tensor.shape)}",
            f"use float32 of shape ({channels},)",
        )
    return tensor.numpy()
