"""Rules for matrix products and BatchNorm."""

from __future__ import annotations

import numpy as np
import torch

from onebit.lowering.captured import Call
from onebit.lowering.context import Context, lowers
from onebit.lowering.rules_arithmetic import arithmetic
from onebit.lowering.values import Bytes, Floats, Known, Signs, Sums, Value, grid_of
from onebit.program import fma
from onebit.program.tensors import Array

_INT32_MAX = 2**31 - 1


@lowers("aten.linear.default")
def linear(context: Context, call: Call, x: Value, weight: Value, bias: Value | None = None) -> Value:
    """x · weightᵀ (+ bias, as an op of its own)."""
    if not isinstance(weight, Known):
        context.refuse(
            "it multiplies by a matrix that depends on the input",
            "a Program multiplies by stored weights only: make the matrix a parameter or buffer",
        )
    if isinstance(x, Known) or weight.tensor.dim() != 2:
        context.refuse(
            "it is not a product of a value with a stored matrix",
            "write it as torch.nn.functional.linear(x, weight), weight of shape (out, in)",
        )
    context.sample()
    product = _product(context, x, weight)
    return product if bias is None else arithmetic(context, "add", product, bias)


@lowers("aten.mm.default", "aten.matmul.default")
def matmul(context: Context, call: Call, x: Value, weight: Value) -> Value:
    """x · weight, for a constant matrix."""
    return linear(context, call, x, _transposed(weight))


@lowers("aten.addmm.default")
def addmm(
    context: Context, call: Call, bias: Value, x: Value, weight: Value, *, beta: float = 1, alpha: float = 1
) -> Value:
    """bias + x · weight, for a constant matrix."""
    if beta != 1 or alpha != 1:
        context.refuse(f"addmm with beta={beta} and alpha={alpha}", "multiply in a step of its own")
    return linear(context, call, x, _transposed(weight), bias)


def _transposed(weight: Value) -> Value:
    if isinstance(weight, Known) and weight.tensor.dim() == 2:
        return Known(weight.tensor.t(), weight.hint)
    return weight


def _product(context: Context, x: Value, weight: Known) -> Value:
    """The product in the narrowest form: bits, bytes or floats, times one-bit or real weights."""
    array = weight.tensor.detach().to(torch.float32).numpy()
    if not np.isfinite(array).all():
        context.refuse("its weights hold NaN or infinity", "train again or repair them; a NaN has no sign")
    hint = weight.hint or "weight"
    magnitude = np.abs(array[:, :1])
    if not (magnitude > 0).all() or not (np.abs(array) == magnitude).all():
        return Floats(context.node("f32_gemm", context.floats(x), context.builder.floats(array, hint)))
    product = _sign_product(context, x, context.builder.signs(array > 0, hint), array.shape[1])
    if (magnitude == 1).all():
        return product
    # Rows α·(±1), the scale multiplied in by hand: taken out again, the sum is exact and α rounds once.
    scale = context.builder.floats(magnitude[:, 0], "scale")
    return Floats(context.node("mul", context.floats(product), scale))


def _sign_product(context: Context, x: Value, bits: str, k: int) -> Value:
    if isinstance(x, Signs) and x.is_plus_minus:
        return Sums(context.node("binary_gemm", x.name, bits))
    if isinstance(x, Bytes) and (product := _byte_product(context, x, bits, k)) is not None:
        return product
    return Floats(context.node("f32_binary_gemm", context.floats(x), bits))


def _byte_product(context: Context, x: Bytes, bits: str, k: int) -> Value | None:
    """Bytes × signs as an integer sum, in units of a power of two.

    The sum is exact; so is its float32 form while |sum| <= 2^24 (k up to 65,793 for ScalePixels), and there
    PyTorch's own float sum is exact too, whatever its order. Beyond, PyTorch rounds on the way, the Program
    once, at the end. Sums that may leave int32 are summed as floats instead (None).
    """
    grid = grid_of(x.table)
    if grid is None or k * (255 * abs(grid.multiplier) + abs(grid.offset)) > _INT32_MAX:
        return None
    name = context.node("u8_gemm", x.name, bits, multiplier=grid.multiplier, offset=grid.offset)
    if grid.unit == 1.0:
        return Sums(name)
    unit = context.builder.floats(np.array([grid.unit]), "unit")
    return Floats(context.node("mul", context.node("to_float", name), unit))


@lowers("aten._native_batch_norm_legit_no_training.default")
def batch_norm(
    context: Context,
    call: Call,
    x: Value,
    gamma: Value | None,
    beta: Value | None,
    mean: Value,
    var: Value,
    momentum: float,
    eps: float,
) -> Value:
    """BatchNorm in eval mode as one fma a number; see `fold_batch_norm`."""
    sample = context.shape(x)
    if len(sample) != 1:
        context.refuse(
            f"BatchNorm over one sample of shape {sample}, whose channels are not the last axis",
            "flatten before BatchNorm1d, so that it sees (batch, channels)",
        )
    channels = sample[0]
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
    names = (context.builder.floats(scale, "scale"), context.builder.floats(shift, "shift"))
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
