"""Quantizers made for weights: they look at a whole filter, weight[i], before they take signs.

weight: (out, ...), at least 2 axes; n numbers a filter; means and variances are over a filter unless said.

Magnitude-aware sign (Bi-Real Net, arXiv 1808.00278, section 3.3):

    q = α·sign(w),  α = mean |w|            dC/dw = α·dC/dq where |w| <= 1, else 0       (α held constant)

Libra (IR-Net, arXiv 1909.10788, section 3.2: Libra-PB):

    v = (w - mean(w)) / sqrt(var(w) + ε)    q = 2^s·sign(v),  s = round(log2(mean |v|))
    dC/dv = 2^s·dC/dq · k·t·(1 - tanh²(t·v))   (EDE),  dC/dw by the chain rule through v; s held constant

ReCU (arXiv 2103.12369, section 3):

    v = 2·sqrt(2)·(w - mean(w)) / sqrt(var(w) + ε)
    q = sign(clamp(v, Q(1 - τ), Q(τ))),  Q(τ) = -b·ln(2 - 2τ),  b = mean |v| over the layer
    dC/dv = dC/dq where |v| <= Q(τ), else 0,   dC/dw by the chain rule through v; Q held constant

Q(τ) is the τ-quantile of a Laplace distribution with the scale b, which standardisation puts near 2; Q(1 - τ)
= -Q(τ). The sign of v is that of its clamped form: the clamp acts on the gradient alone. Weights far outside
would hardly ever change sign ("dead"); the mean over a filter, whose gradient all its weights share, and the
shared variance bring them back.

Standardising takes the mean of each filter away, so that about half of its signs are +1, where a sign carries
most information. var is Σ(w - mean)²/n; the authors' code divides by n - 1, which a filter of one weight
does not survive. ε = 1e-5 is ReCU's; IR-Net has none, and a filter of equal weights would be NaN.

The latent weights of Libra and ReCU need no clipping: only their place within the filter counts.

A quantizer that brings its own factor has a method `factors(weight)` -> (signs, α), α (out,), beside its
forward, α·signs. One-bit layers call it and multiply the *finished* sum by α: that sum stays an integer.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from onebit.nn.markers import emits_markers
from onebit.nn.power_of_two import ap2
from onebit.nn.quantizers import EDE, ede_sign, register, require_float, ste_sign
from onebit.nn.scales import channel_mean
from onebit.nn.tracing import is_traced, one_node

__all__ = ["LibraSign", "MagnitudeAwareSign", "ReCU", "standardized"]

_EPSILON = 1e-5


def _require_filters(weight: Tensor, who: str) -> None:
    require_float(weight, who)
    if weight.ndim < 2:
        raise ValueError(
            f"{who} takes weights of at least 2 axes, (out, in, ...), and works filter by filter; "
            f"got shape {tuple(weight.shape)}"
        )


def standardized(weight: Tensor) -> Tensor:
    """(w - mean) / sqrt(var + 1e-5), filter by filter. (out, ...) -> the same shape; differentiable."""
    axes = tuple(range(1, weight.ndim))
    centred = weight - weight.mean(dim=axes, keepdim=True)
    return centred / (centred.square().mean(dim=axes, keepdim=True) + _EPSILON).sqrt()


def _held_constant(factor: Tensor) -> Tensor:
    return factor if emits_markers() else factor.detach()  # an exported graph has no gradients to stop


class _ScaledSign(nn.Module):
    """What quantizers with a factor of their own share: the forward from `factors`."""

    only_for = "weights"

    def factors(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def forward(self, weight: Tensor) -> Tensor:
        if is_traced(weight):
            return one_node(self, weight)
        signs, alpha = self.factors(weight)
        return signs * alpha.reshape(-1, *[1] * (weight.ndim - 1))


@register("magnitude_aware_sign")
class MagnitudeAwareSign(_ScaledSign):
    """Bi-Real Net's weights in training: α·sign(w), the gradient scaled by the same α = mean |w| a filter.

    weight: (out, ...), floating point, at least 2 axes -> ±α in its dtype and shape, a fresh tensor.

    The paper's argument: sign(w) gives no gradient that knows how large w is, α·sign(w) does. Exactly: α is
    held constant, and dC/dw = α·dC/dq inside |w| <= 1. In a one-bit layer this is
    `weight_scale="channel_mean_detached"` with "ste_sign", number for number. In front of a BatchNorm, which
    undoes any factor of a channel, dC/dq is proportional to 1/α, so that (its ε aside) the gradient of w is
    that of the plain sign.
    """

    wants_clipping = True

    def factors(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """(±1, α (out,))."""
        _require_filters(weight, "magnitude_aware_sign")
        return ste_sign(weight), _held_constant(channel_mean(weight))


@register("libra")
class LibraSign(_ScaledSign):
    """IR-Net's weights: standardised, binarized with EDE's gradient, scaled by a power of two a filter.

    weight: (out, ...), floating point, at least 2 axes -> ±2^s in its dtype and shape, a fresh tensor.

    t_min, t_max: EDE's schedule, see `onebit.nn.EDE`, which also belongs on the inputs of such a layer.
    """

    def __init__(self, *, t_min: float = 0.1, t_max: float = 10.0) -> None:
        super().__init__()
        self.ede = EDE(t_min=t_min, t_max=t_max)

    def factors(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """(±1, 2^s (out,))."""
        _require_filters(weight, "libra")
        v = standardized(weight)
        return ede_sign(v, self.ede.t), _held_constant(ap2(channel_mean(v)))


@register("recu")
class ReCU(nn.Module):
    """ReCU's weights: standardised, then signs whose gradient stops outside the quantile Q(τ).

    weight: (out, ...), floating point, at least 2 axes -> ±1 in its dtype and shape, a fresh tensor.

    tau_min, tau_max: τ at the start and at the end of training, 0.85 and 0.99 in the authors' code, which
        has τ(p) = tau_min + (tau_max - tau_min)·(e^p - 1)/(e - 1). ValueError unless 0.5 < tau_min <=
        tau_max <= 1; with τ = 1 nothing is clamped.

    `onebit.nn.set_progress_(model, p)` moves τ on; without it τ stays at tau_min. τ is a buffer, `tau`. The
    authors multiply the sums by a learned α, `weight_scale="learned"` here, and binarize the inputs with
    "approx_sign".
    """

    only_for = "weights"
    tau: Tensor

    def __init__(self, *, tau_min: float = 0.85, tau_max: float = 0.99) -> None:
        super().__init__()
        if not 0.5 < tau_min <= tau_max <= 1:
            raise ValueError(
                f"tau must rise within 0.5 < tau_min <= tau_max <= 1; got {tau_min!r}, {tau_max!r}"
            )
        self.tau_min, self.tau_max = tau_min, tau_max
        self.register_buffer("tau", torch.tensor(tau_min, dtype=torch.float32))

    def set_progress_(self, fraction: float) -> None:
        """Set τ for the part of the training that is done, 0 to 1, in place."""
        self.tau.fill_(self.tau_min + (self.tau_max - self.tau_min) * math.expm1(fraction) / math.expm1(1))

    def forward(self, weight: Tensor) -> Tensor:
        if is_traced(weight):
            return one_node(self, weight)
        _require_filters(weight, "recu")
        v = standardized(weight) * (2 * math.sqrt(2))
        if emits_markers():
            return ste_sign(v)
        quantile = (v.abs().mean() * -torch.log(2 - 2 * self.tau)).detach().to(v.dtype)
        return ste_sign(torch.clamp(v, -quantile, quantile), math.inf)

    def extra_repr(self) -> str:
        return f"tau_min={self.tau_min}, tau_max={self.tau_max}"
