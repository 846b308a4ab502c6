"""Shift-based batch normalization: BatchNorm whose every multiplication is by a power of two.

BNN (arXiv 1602.02830), algorithm 3, for one channel of m values; AP2(x) = sign(x)·2^round(log2 |x|):

    c_i = x_i - mean(x)
    v   = 1/m · Σ c_i·AP2(c_i)               the variance, with shifts for squares
    r   = 1/sqrt(v + ε),   r̃ = AP2(r)
    y_i = AP2(γ)·r̃·c_i + β                    (β stands in the algorithm's list, not in its last line)

In hardware each product is a shift. PyTorch has no shifts of floats: here they are multiplications by powers
of two, which round nothing, so the numbers are those of the algorithm, not its speed.

Backward, as the authors' Torch7 code has it (BatchNormalizationShiftPow2.lua): the formula of BatchNorm with
the same powers of two, g_i = ∂C/∂y_i, x̂_i = r̃·c_i,

    ∂C/∂x_i = AP2(γ)·r̃·( g_i - mean(g) - AP2(c_i)·r̃²·mean(AP2(c)·g) )
    ∂C/∂γ   = Σ g_i·AP2(x̂_i)                 ∂C/∂β = Σ g_i

In eval mode, y = (x - running mean)·p + β with p = AP2(running r)·AP2(γ): as in the authors' code, r itself
is averaged, unrounded. Three float operations, the middle one exact; a Program has them as they are, and
makes one integer threshold of them where a sign follows.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from onebit.nn.binary_layer import check_count
from onebit.nn.power_of_two import ap2
from onebit.nn.tracing import is_traced, one_node

__all__ = ["ShiftBatchNorm1d", "ShiftBatchNorm2d"]


class _ShiftNorm(torch.autograd.Function):
    """(y, mean, r, what the backward pass needs) of one batch; x (N, C, ...), gamma and beta (C,), all of one
    dtype."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, ...]:
        axes = (0, *range(2, x.ndim))
        wide = (-1, *[1] * (x.ndim - 2))
        mean = x.mean(dim=axes)
        centred = x - mean.reshape(wide)
        r = (centred * ap2(centred)).mean(dim=axes).add(eps).rsqrt()
        shift, factor = ap2(r), ap2(gamma)
        y = centred * (shift * factor).reshape(wide) + beta.reshape(wide)
        return y, mean, r, centred, shift, factor

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*output[3:])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        centred, shift, factor = ctx.saved_tensors
        g = grad_outputs[0]
        axes = (0, *range(2, g.ndim))
        wide = (-1, *[1] * (g.ndim - 2))
        rounded, r = ap2(centred), shift.reshape(wide)
        along = (rounded * g).mean(dim=axes, keepdim=True)
        inner = g - g.mean(dim=axes, keepdim=True) - rounded * r.square() * along
        grad_x = inner * r * factor.reshape(wide)
        grad_gamma = (g * ap2(centred * r)).sum(dim=axes)
        return grad_x, grad_gamma, g.sum(dim=axes), None


class _ShiftBatchNorm(nn.Module):
    """The body of ShiftBatchNorm1d and ShiftBatchNorm2d."""

    ranks: tuple[int, ...]
    shapes: str
    running_mean: Tensor
    running_inverse_std: Tensor

    def __init__(
        self,
        num_features: int,
        *,
        eps: float = 1e-5,
        momentum: float = 0.125,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_count("num_features", num_features)
        if not eps > 0:
            raise ValueError(f"eps must be positive; got {eps!r}")
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum must lie in (0, 1]; got {momentum!r}")
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.weight = nn.Parameter(torch.ones(num_features, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(num_features, device=device, dtype=dtype))
        self.register_buffer("running_mean", torch.zeros(num_features, device=device, dtype=dtype))
        self.register_buffer("running_inverse_std", torch.ones(num_features, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        if is_traced(x):
            return one_node(self, x)
        if x.ndim not in self.ranks or x.shape[1] != self.num_features:
            raise ValueError(
                f"{type(self).__name__}({self.num_features}) takes inputs of shape {self.shapes} with "
                f"{self.num_features} channels; got {tuple(x.shape)}"
            )
        wide = x.to(self.weight.dtype)  # statistics of half-precision inputs in float32, as PyTorch's norms
        return (self._batch(wide) if self.training else self._stored(wide)).to(x.dtype)

    def _batch(self, x: Tensor) -> Tensor:
        if x.numel() < 2 * self.num_features:
            raise ValueError(
                f"{type(self).__name__} needs more than one value per channel in training mode; "
                f"got an input of shape {tuple(x.shape)}"
            )
        y, mean, r, *_ = cast(
            tuple[Tensor, ...],
            _ShiftNorm.apply(x, self.weight, self.bias, self.eps),  # type: ignore[no-untyped-call]
        )
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_inverse_std.lerp_(r, self.momentum)
        return y

    def _stored(self, x: Tensor) -> Tensor:
        shape = (-1, *[1] * (x.ndim - 2))
        factor = ap2(self.running_inverse_std) * ap2(self.weight)
        return (x - self.running_mean.reshape(shape)) * factor.reshape(shape) + self.bias.reshape(shape)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"


class ShiftBatchNorm1d(_ShiftBatchNorm):
    """Shift-based batch normalization (BNN, arXiv 1602.02830, algorithm 3); formulas at the top of its file.

    x: (N, C) or (N, C, L), floating point -> the same dtype and shape.

    num_features: C, a positive count.
    eps: ε, positive.
    momentum: of the running averages, running = (1 - momentum)·running + momentum·batch; 2^-3 as in the
        authors' code, a shift too.

    `weight` (γ, starts at 1) and `bias` (β, starts at 0) are latent real numbers; of γ its AP2 is used.
    `running_mean` and `running_inverse_std` are buffers, (C,), float32.

    ValueError for arguments outside the above, for an input of another shape, and in training mode for an
    input with fewer than two values a channel.
    """

    ranks = (2, 3)
    shapes = "(N, C) or (N, C, L)"


class ShiftBatchNorm2d(_ShiftBatchNorm):
    """Shift-based batch normalization of images, statistics over batch and pixels; as `ShiftBatchNorm1d`.

    x: (N, C, H, W), floating point -> the same dtype and shape.
    """

    ranks = (4,)
    shapes = "(N, C, H, W)"
