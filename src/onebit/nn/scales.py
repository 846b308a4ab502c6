"""The real factors that XNOR-Net puts beside ±1 numbers: α for the weights, K for the inputs.

XNOR-Net (arXiv 1603.05279) approximates a filter W of n weights by α·sign(W) with α = mean |W| (section 3.1,
eq. 6) and the input I of a convolution by K ⊙ sign(I) (section 3.2, eq. 9-11): A = mean over channels of |I|,
K = A box-filtered by 1/(kh·kw). Both multiply the *finished* ±1 sum, channel by channel and pixel by pixel.

Gradient of the weights. Let W̃ = α·sign(W) and G = ∂C/∂W̃. Then

    exact     ∂C/∂w_i = sign(w_i)/n · Σ_j G_j·sign(w_j) + α·G_i·1[|w_i| <= 1]
    loose     ∂C/∂w_i = (1/n + α·1[|w_i| <= 1])·G_i
    detached  ∂C/∂w_i = α·G_i·1[|w_i| <= 1]

The loose one is the paper's (end of section 3.1); detached holds α constant, as Bi-Real Net's and ReActNet's
code does. The exact one is what automatic differentiation gives for α = mean |W|, the STE standing for sign.
The loose one drops, from the first sum, every term but j = i. (The paper's window is open, |w| < 1; ours is
the quantizer's.)
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from onebit.nn.markers import emits_markers

__all__ = ["channel_mean", "with_loose_gradient"]


def channel_mean(weight: Tensor) -> Tensor:
    """α: the mean of |weight| over everything but its first axis. (out, ...) -> (out,)."""
    return weight.abs().mean(dim=tuple(range(1, weight.ndim)))


class _LooseGradient(torch.autograd.Function):
    """binary unchanged, as a fresh tensor; backward hands g/(α·n) to the latent weight beside g to binary.

    g arrives as α·G, because α is multiplied in after the sum: g/α is the paper's G.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(binary: Tensor, weight: Tensor) -> Tensor:
        return binary.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        (weight,) = ctx.saved_tensors
        (g,) = grad_outputs
        alpha = channel_mean(weight).clamp(min=torch.finfo(weight.dtype).tiny)  # all weights 0: g is 0 too
        count = weight[0].numel()
        return g, g / (alpha.reshape(-1, *[1] * (weight.ndim - 1)) * count)


def with_loose_gradient(binary: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """(binary, α) whose joint gradient is the paper's loose one, if the sum is multiplied by this α.

    binary: the quantized weight, weight: the latent one, both (out, ...). α, (out,), has no gradient of its
    own.
    """
    if emits_markers():
        return binary, channel_mean(weight)
    loose = cast(Tensor, _LooseGradient.apply(binary, weight))  # type: ignore[no-untyped-call]
    return loose, channel_mean(weight.detach())
