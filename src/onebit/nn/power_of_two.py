"""AP2: the nearest power of two, which turns a multiplication into a shift."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from onebit.nn.markers import emits_markers

__all__ = ["ap2"]


def _power_of_two(x: Tensor) -> Tensor:
    # log2 rounds, which moves the result only where |x| is within an ulp or so of 2^(n + 1/2), a tie in all
    # but name. exp2 of an integer is exact, and exp2(-inf) is 0.
    return torch.copysign(torch.exp2(torch.round(torch.log2(x.abs()))), x)


class _AP2(torch.autograd.Function):
    """Forward the power of two, backward the identity: rounding a logarithm has no useful slope."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return _power_of_two(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        return grad_outputs[0].clone()


def ap2(x: Tensor) -> Tensor:
    """AP2(x) = sign(x)·2^round(log2 |x|), BNN's approximate power of two (arXiv 1602.02830, algorithm 3).

    x: floating point, any shape. Returns powers of two (of either sign; 0 for 0) in x's dtype and shape, a
    fresh tensor; half-precision types are computed in float32. The gradient passes straight through.
    """
    wide = x if x.dtype in (torch.float32, torch.float64) else x.float()
    if emits_markers():
        return _power_of_two(wide).to(x.dtype)
    return cast(Tensor, _AP2.apply(wide)).to(x.dtype)  # type: ignore[no-untyped-call]
