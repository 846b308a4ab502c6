"""Rules for matrix products."""

from __future__ import annotations

from dataclasses import replace

from onebit.lowering.capture.captured import TorchCall
from onebit.lowering.emit.context import Context, lowers
from onebit.lowering.rules.arithmetic import arithmetic
from onebit.lowering.rules.weighted_sums import Ops, checked_weights, weighted
from onebit.lowering.values.kinds import Known, Value

_GEMMS = Ops("binary_gemm", "u8_gemm", "f32_binary_gemm", "f32_gemm")


@lowers("aten.linear.default")
def linear(context: Context, call: TorchCall, x: Value, weight: Value, bias: Value | None = None) -> Value:
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
    layout = context.layout(x)
    if layout is not None and not layout.flat:  # the product is over PyTorch's last axis
        x, layout = context.plain(x), None
    weights = checked_weights(context, weight)
    if layout is not None:
        weights = layout.columns(weights)
    product = weighted(context, x, weights, weight, _GEMMS, context.node)
    return product if bias is None else arithmetic(context, "add", product, bias)


@lowers("aten.mm.default", "aten.matmul.default")
def matmul(context: Context, call: TorchCall, x: Value, weight: Value) -> Value:
    """x · weight, for a constant matrix."""
    return linear(context, call, x, _transposed(weight))


@lowers("aten.addmm.default")
def addmm(
    context: Context,
    call: TorchCall,
    bias: Value,
    x: Value,
    weight: Value,
    *,
    beta: float = 1,
    alpha: float = 1,
) -> Value:
    """bias + x · weight, for a constant matrix."""
    if beta != 1 or alpha != 1:
        context.refuse(f"addmm with beta={beta} and alpha={alpha}", "multiply in a step of its own")
    return linear(context, call, x, _transposed(weight), bias)


def _transposed(weight: Value) -> Value:
    if isinstance(weight, Known) and weight.tensor.dim() == 2:
        return replace(weight, tensor=weight.tensor.t())
    return weight
