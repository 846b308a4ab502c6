"""Rules for matrix products and BatchNorm."""

from __future__ import annotations

import numpy as np
import torch

from onebit.lowering.captured import Call
from onebit.lowering.lower import Context, lowers
from onebit.lowering.rules_arithmetic import arithmetic
from onebit.lowering.values import Bytes, Floats, Known, Signs, Sums, Value, grid_of, is_sign_matrix
from onebit.program.numerics import fma

_INT32_MAX = 2**31 - 1


@lowers("aten.linear.default")
def linear(context: Context, call: Call, x: Value, weight: Value, bias: Value | None = None) -> Value:
    """x · weightᵀ (+ bias, as an op of its own)."""
    if not isinstance(weight, Known) or isinstance(x, Known):
        context.refuse(
            "it multiplies two values that both depend on the input",
            "a Program multiplies by stored weights only: make the second factor a parameter or buffer",
        )
    if weight.tensor.dim() != 2:
        context.refuse(f"its weights have shape {tuple(weight.tensor.shape)}", "use a matrix (out, in)")
    context.sample()
    product = _product(context, x, weight)
    if bias is None:
        return product
    return arithmetic(context, "add", product, bias)


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
    if not is_sign_matrix(weight.tensor):
        return Floats(context.node("f32_gemm", context.floats(x), _real_weights(context, weight)))
    bits = context.builder.signs((weight.tensor > 0).numpy(), weight.hint or "weight")
    if isinstance(x, Signs) and x.is_plus_minus:
        return Sums(context.node("binary_gemm", x.name, bits))
    if (
        isinstance(x, Bytes)
        and (product := _byte_product(context, x, bits, weight.tensor.shape[1])) is not None
    ):
        return product
    return Floats(context.node("f32_binary_gemm", context.floats(x), bits))


def _byte_product(context: Context, x: Bytes, bits: str, k: int) -> Value | None:
    """Bytes × signs as an integer sum, in units of a power of two.

    The sum is exact; so is its float32 form while |sum| < 2^24 (k up to 65,793 for ScalePixels), and there
    PyTorch's own float sum is exact too, whatever its order. Beyond, PyTorch rounds on the way and onebit once,
    at the end. Sums that may leave int32 are summed as floats instead (None).
    """
    grid = grid_of(x.table)
    if grid is None or k * (255 * abs(grid.multiplier) + abs(grid.offset)) > _INT32_MAX:
        return None
    name = context.node("u8_gemm", x.name, bits, multiplier=grid.multiplier, offset=grid.offset)
    if grid.unit == 1.0:
        return Sums(name)
    unit = context.builder.floats(np.array([grid.unit]), "unit")
    return Floats(context.node("mul", context.node("to_float", name), unit))


def _real_weights(context: Context, weight: Known) -> str:
    array = weight.tensor.numpy()
    if not np.isfinite(array).all():
        context.refuse("its weights hold NaN or infinity", "train again or repair them; a NaN has no sign")
    return context.builder.floats(array, weight.hint or "weight")


@lowers("aten._native_batch_norm_legit_no_training.default")
def batch_norm(
    context: Context, call: Call, x: Value, gamma: Value | None, beta: Value | None, mean: Value, var: Value,
    momentum: float, eps: float,
) -> Value:  # fmt: skip
    """BatchNorm in eval mode as one fma: α = γ·(1/sqrt(var + ε)), β′ = fma(−mean, α, β), all float32."""
    sample = context.shape(x)
    if len(sample) != 1:
        context.refuse(
            f"BatchNorm over one sample of shape {sample}, whose channels are not the last axis",
            "flatten before BatchNorm1d, so that it sees (batch, channels)",
        )
    statistics = [_channel_vector(context, v, sample[0]) for v in (mean, var)]
    scale, shift = fold_batch_norm(
        *statistics,
        None if gamma is None else _channel_vector(context, gamma, sample[0]),
        None if beta is None else _channel_vector(context, beta, sample[0]),
        eps,
    )
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        context.refuse(
            "its scale γ/sqrt(var + ε) or its shift is not finite",
            "look for a variance of 0 with ε = 0, or for NaN in its parameters and statistics",
        )
    names = (context.builder.floats(scale, "scale"), context.builder.floats(shift, "shift"))
    return Floats(context.node("affine", context.floats(x), *names))


def fold_batch_norm(
    mean: np.ndarray, var: np.ndarray, gamma: np.ndarray | None, beta: np.ndarray | None, eps: float
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """(α, β′) in float32, step by step as PyTorch's eager CPU kernel computes them."""
    with np.errstate(all="ignore"):
        inverse = np.float32(1) / np.sqrt(var + np.float32(eps))
        scale = inverse if gamma is None else inverse * gamma
        shift = fma(-mean, scale, np.zeros_like(mean) if beta is None else beta)
    return scale, shift


def _channel_vector(context: Context, value: Value, channels: int) -> np.ndarray:
    if not isinstance(value, Known):
        context.refuse("its parameters depend on the input", "use stored parameters")
    if value.tensor.dtype is not torch.float32 or tuple(value.tensor.shape) != (channels,):
        context.refuse(f"a parameter of dtype {value.tensor.dtype} and shape {tuple(value.tensor.shape)}",
                       f"use float32 of shape ({channels},)")  # fmt: skip
    return value.tensor.detach().numpy()
