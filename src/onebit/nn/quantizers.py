"""Quantizers: a real number in, +1 or -1 out, and a gradient that training can use.

Forward, deterministic (BNN, arXiv 1602.02830, eq. 1):   q = +1 if x >= 0 else -1
Forward, stochastic (BNN eq. 2; BinaryConnect, arXiv 1511.00363, eq. 2-3):
                                                         q = +1 with probability p, else -1,
                                                         p = clip((x + 1) / 2, 0, 1)
Backward of both (BNN eq. 4):                            dC/dx = dC/dq where |x| <= 1, else 0

Backward of ApproxSign (Bi-Real Net, arXiv 1808.00278):
                                                         dC/dx = dC/dq · (2 - 2|x|) where |x| < 1, else 0

The true derivative of sign is 0 almost everywhere. The straight-through estimator (STE) uses the derivative
of hard tanh instead: straight through inside [-1, 1], stopped outside ("saturating"). ApproxSign uses that
of a piecewise quadratic, which hugs the step more closely: 2 at 0, falling to 0 at ±1.

Which STE for weights? BinaryConnect (Algorithm 1) hands dC/dq straight to the latent weight, with no window,
and then clips the latent weight to [-1, 1]. Under that clipping every latent weight lies inside the window,
its two ends included, so both rules give the same numbers: one quantizer serves weights and activations.
They differ only for a latent weight outside [-1, 1], which exists only where `optim.clip_latent_weights_` is
not called (or before its first call): there the saturating rule freezes the weight and BinaryConnect's would
let it drift.

sign(0) = sign(-0.0) = +1. NaN compares false with everything, so a NaN becomes -1 and receives no gradient; a
quantizer cannot report it (looking would wait for the GPU, each step). Watch the loss while training; the
engine refuses NaN where it enters.

To add a quantizer, see docs/recipes/add-a-quantizer.md.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from onebit.nn.markers import emits_markers, sign_formula

__all__ = [
    "ApproxSign",
    "SteSign",
    "StochasticSign",
    "approx_sign",
    "create",
    "names",
    "register",
    "ste_sign",
    "stochastic_sign",
]

_registry: dict[str, Callable[..., nn.Module]] = {}
_M = TypeVar("_M", bound=nn.Module)


def register(name: str) -> Callable[[type[_M]], type[_M]]:
    """Make a quantizer module available as `create(name)`. A name that is taken raises ValueError."""

    def add(factory: type[_M]) -> type[_M]:
        if name in _registry:
            raise ValueError(f"quantizer {name!r} is already registered, by {_registry[name]!r}")
        _registry[name] = factory
        return factory

    return add


def names() -> list[str]:
    """The registered names, sorted."""
    return sorted(_registry)


def create(name: str, **options: Any) -> nn.Module:
    """A new quantizer by name; `options` go to its constructor. ValueError for an unknown name."""
    if name not in _registry:
        near = difflib.get_close_matches(name, _registry, n=3)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise ValueError(f"unknown quantizer {name!r}: {hint}Known are {', '.join(map(repr, names()))}.")
    return _registry[name](**options)


def resolve(quantizer: str | nn.Module | None, argument: str) -> nn.Module | None:
    """What a layer's `input_quantizer=` or `weight_quantizer=` stands for.

    A name is created, a module is taken as it is, None stays None; anything else raises TypeError naming
    `argument`.
    """
    if quantizer is None or isinstance(quantizer, nn.Module):
        return quantizer
    if isinstance(quantizer, str):
        return create(quantizer)
    raise TypeError(
        f"{argument} must be a name ({', '.join(map(repr, names()))}), a torch.nn.Module or None; "
        f"got {quantizer!r}"
    )


def _require_float(x: Tensor, who: str) -> None:
    if not x.is_floating_point():
        raise TypeError(
            f"{who} takes floating-point tensors, got {x.dtype}; for bytes put onebit.nn.ScalePixels() "
            "first, for other integers convert with .float()"
        )


class _SteSign(torch.autograd.Function):
    """sign with the saturating STE. Forward returns a fresh tensor, never an alias of its input: a compiled
    Function that returns an alias loses its gradient without a word (pytorch#180642)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, window: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.window = window
        return sign_formula(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        (x,) = ctx.saved_tensors
        return torch.where(x.abs() <= ctx.window, grad_outputs[0], 0), None


class _ApproxSign(torch.autograd.Function):
    """sign with the derivative of Bi-Real Net's piecewise quadratic."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return sign_formula(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        (x,) = ctx.saved_tensors
        size = x.abs()
        return torch.where(size < 1, (2 - 2 * size) * grad_outputs[0], 0)


class _StochasticSign(torch.autograd.Function):
    """+1 where noise < p(x), else -1; noise is uniform on [0, 1), float32, of x's shape."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, noise: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        p = ((x.to(noise.dtype) + 1) / 2).clamp(0, 1)
        return (noise < p).to(x.dtype) * 2 - 1

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        (x,) = ctx.saved_tensors
        return torch.where(x.abs() <= 1, grad_outputs[0], 0), None


def ste_sign(x: Tensor, window: float = 1.0) -> Tensor:
    """sign(x), differentiable by the saturating STE (BNN eq. 1 and 4): the gradient passes where |x| <=
    window.

    x: floating point, any shape. Returns ±1 in x's dtype and shape, a fresh tensor. TypeError for integers.
    """
    _require_float(x, "ste_sign")
    if emits_markers():
        return cast(Tensor, torch.ops.onebit.sign(x))
    return cast(Tensor, _SteSign.apply(x, window))  # type: ignore[no-untyped-call]


def approx_sign(x: Tensor) -> Tensor:
    """sign(x), with the gradient of Bi-Real Net: (2 - 2|x|)·g where |x| < 1, else 0.

    x: floating point, any shape. Returns ±1 in x's dtype and shape, a fresh tensor. TypeError for integers.
    """
    _require_float(x, "approx_sign")
    if emits_markers():
        return cast(Tensor, torch.ops.onebit.sign(x))
    return cast(Tensor, _ApproxSign.apply(x))  # type: ignore[no-untyped-call]


def stochastic_sign(x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """+1 with probability clip((x + 1)/2, 0, 1), else -1; saturating STE (BNN eq. 2 and 4).

    x: floating point, any shape. Returns ±1 in x's dtype and shape, a fresh tensor. TypeError for integers.
    x <= -1 is always -1, x >= 1 always +1. The noise is drawn in float32 whatever x's dtype: bfloat16 noise
    would have only 256 levels. `generator` defaults to the device's global one.
    """
    _require_float(x, "stochastic_sign")
    noise = torch.rand(x.shape, dtype=torch.float32, device=x.device, generator=generator)
    return cast(Tensor, _StochasticSign.apply(x, noise))  # type: ignore[no-untyped-call]


@register("ste_sign")
class SteSign(nn.Module):
    """`ste_sign` as a module: deterministic sign, saturating STE. Same in train and eval mode.

    window: the gradient passes where |x| <= window; 1 in BNN, 1.25 in QuickNet. ValueError unless positive.
    """

    def __init__(self, *, window: float = 1.0) -> None:
        super().__init__()
        if not window > 0:
            raise ValueError(f"window must be positive; got {window!r}")
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        return ste_sign(x, self.window)

    def extra_repr(self) -> str:
        return "" if self.window == 1 else f"window={self.window}"


@register("approx_sign")
class ApproxSign(nn.Module):
    """`approx_sign` as a module: deterministic sign, gradient of Bi-Real Net. Same in train and eval mode."""

    def forward(self, x: Tensor) -> Tensor:
        return approx_sign(x)


@register("stochastic_sign")
class StochasticSign(nn.Module):
    """`stochastic_sign` in training mode; in eval mode the deterministic sign, which is what gets packed.

    real_in_eval: for weights only. BinaryConnect's authors test a stochastically trained network with its
        real latent weights (their paper, section 2.6, and their code). True reproduces that: in eval mode the
        input comes back as it is. Such a layer is not one-bit and is converted as a real one.
    """

    def __init__(self, *, real_in_eval: bool = False) -> None:
        super().__init__()
        self.real_in_eval = real_in_eval

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return stochastic_sign(x)
        return x if self.real_in_eval else ste_sign(x)

    def extra_repr(self) -> str:
        return "real_in_eval=True" if self.real_in_eval else ""
