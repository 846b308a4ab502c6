"""Quantizers: a real number in, +1 or -1 out, and a gradient that training can use.

Forward, deterministic (BNN, arXiv 1602.02830, eq. 1):   q = +1 if x >= 0 else -1
Forward, stochastic (BNN eq. 2; BinaryConnect, arXiv 1511.00363, eq. 2-3):
                                                         q = +1 with probability p, else -1,
                                                         p = clip((x + 1) / 2, 0, 1)
Backward of both (BNN eq. 4):                            dC/dx = dC/dq where |x| <= 1, else 0

Backward of ApproxSign (Bi-Real Net, arXiv 1808.00278):
                                                         dC/dx = dC/dq · (2 - 2|x|) where |x| < 1, else 0
Backward of SwishSign (BNN+, arXiv 1812.11800):          dC/dx = dC/dq · β·(2 - βx·tanh(βx/2)) / (1 + cosh βx)
Backward of EDE (IR-Net, arXiv 1909.10788, section 3.3): dC/dx = dC/dq · k·t·(1 - tanh²(t·x))

The true derivative of sign is 0 almost everywhere. The straight-through estimator (STE) uses the derivative
of hard tanh instead: straight through inside [-1, 1], stopped outside ("saturating"). ApproxSign uses that
of a piecewise quadratic, which hugs the step more closely: 2 at 0, falling to 0 at ±1. SwishSign uses that
of 2σ(βx)·(1 + βx·(1 - σ(βx))) - 1: β at 0, slightly negative beyond |βx| = 2.4. EDE uses that of k·tanh(t·x),
almost the identity when training starts, almost the step when it ends. Heaviside is sign with 0 for -1.

Quantizers that look at a whole filter of weights stand in quantizers_weight.py. docs/quantizers.md has plots.

Which STE for weights? BinaryConnect (Algorithm 1) hands dC/dq straight to the latent weight, with no window,
and then clips the latent weight to [-1, 1]. Under that clipping every latent weight lies inside the window,
its two ends included, so both rules give the same numbers: one quantizer serves weights and activations.
They differ only for a latent weight outside [-1, 1], which exists only where `optim.clip_latent_weights_` is
not called (or before its first call): there the saturating rule freezes the weight and BinaryConnect's would
let it drift. Quantizers of that kind have `wants_clipping = True`, and a layer warns (unclipped.py).

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
from onebit.nn.tracing import is_traced, one_call, one_node

__all__ = [
    "EDE",
    "ApproxSign",
    "Heaviside",
    "SteSign",
    "StochasticSign",
    "SwishSign",
    "approx_sign",
    "create",
    "ede_sign",
    "heaviside",
    "names",
    "register",
    "ste_sign",
    "stochastic_sign",
    "swish_sign",
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
    `argument`. A module may say by an attribute `only_for`, "weights" or "inputs", what it is made for;
    ValueError where `argument` is the other one.
    """
    if quantizer is None:
        return None
    if not isinstance(quantizer, (str, nn.Module)):
        raise TypeError(
            f"{argument} must be a name ({', '.join(map(repr, names()))}), a torch.nn.Module or None; "
            f"got {quantizer!r}"
        )
    module = create(quantizer) if isinstance(quantizer, str) else quantizer
    role = "weights" if argument == "weight_quantizer" else "inputs"
    only = getattr(module, "only_for", role)
    if only != role:
        fix = "weight_quantizer" if only == "weights" else "input_quantizer"
        raise ValueError(f"{argument}={quantizer!r} is a quantizer for {only} only; give it as {fix}")
    return module


def require_float(x: Tensor, who: str) -> None:
    """TypeError, naming `who`, unless x is floating point."""
    if not x.is_floating_point():
        raise TypeError(
            f"{who} takes floating-point tensors, got {x.dtype}; for bytes put onebit.nn.ScalePixels() "
            "first, for other integers convert with .float()"
        )


class _SteSign(torch.autograd.Function):
    """sign with the saturating STE. Forward returns a fresh tensor, never an alias of its input: a compiled
    Function that returns an alias loses its gradient without a word (pytorch#180642). As all of this package
    it has `setup_context` apart from `forward`, and a rule for vmap, which torch.func asks for."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, window: float) -> Tensor:
        return sign_formula(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.window = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        (x,) = ctx.saved_tensors
        return torch.where(x.abs() <= ctx.window, grad_outputs[0], 0), None


class _ApproxSign(torch.autograd.Function):
    """sign with the derivative of Bi-Real Net's piecewise quadratic."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return sign_formula(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        (x,) = ctx.saved_tensors
        size = x.abs()
        return torch.where(size < 1, (2 - 2 * size) * grad_outputs[0], 0)


def _wide(x: Tensor) -> Tensor:
    """x in at least float32: the slopes below lose their tails in the 8 bits of a bfloat16."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


class _SwishSign(torch.autograd.Function):
    """sign with the derivative of BNN+'s SignSwish."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, beta: float) -> Tensor:
        return sign_formula(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.beta = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        (x,) = ctx.saved_tensors
        # 1/(1 + cosh z) = 2·σ(z)·(1 - σ(z)) = 2·σ(z)·σ(-z), which does not overflow; beyond |z| = 700 it is
        # 0 in float32 and below 1e-300 in float64, and z itself must not be infinite: 0·inf is NaN.
        z = (_wide(x) * ctx.beta).clamp(-700, 700)
        slope = 2 * ctx.beta * (2 - z * torch.tanh(z / 2)) * torch.sigmoid(z) * torch.sigmoid(-z)
        return (slope * grad_outputs[0]).to(x.dtype), None


class _EDE(torch.autograd.Function):
    """sign with the derivative of k·tanh(t·x), k = max(1/t, 1); t is a tensor of one number."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, t: Tensor) -> Tensor:
        return sign_formula(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        x, t = ctx.saved_tensors
        # k·t = max(1/t, 1)·t = max(1, t), and 1 - tanh²(z) = 4·σ(2z)·σ(-2z), which keeps its digits far out.
        z = 2 * t * _wide(x)
        slope = 4 * t.clamp(min=1) * torch.sigmoid(z) * torch.sigmoid(-z)
        return (slope * grad_outputs[0]).to(x.dtype), None


class _Heaviside(torch.autograd.Function):
    """1 where x >= 0, else 0, with the saturating STE."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, window: float) -> Tensor:
        return (x >= 0).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.window = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        (x,) = ctx.saved_tensors
        return torch.where(x.abs() <= ctx.window, grad_outputs[0], 0), None


class _StochasticSign(torch.autograd.Function):
    """+1 where noise < p(x), else -1; noise is uniform on [0, 1), float32, of x's shape."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, noise: Tensor) -> Tensor:
        p = ((x.to(noise.dtype) + 1) / 2).clamp(0, 1)
        return (noise < p).to(x.dtype) * 2 - 1

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        (x,) = ctx.saved_tensors
        return torch.where(x.abs() <= 1, grad_outputs[0], 0), None


def ste_sign(x: Tensor, window: float = 1.0) -> Tensor:
    """sign(x), differentiable by the saturating STE (BNN eq. 1 and 4): the gradient passes where |x| <=
    window.

    x: floating point, any shape. Returns ±1 in x's dtype and shape, a fresh tensor. TypeError for integers.
    """
    if is_traced(x):
        return one_call(ste_sign, x, window)
    require_float(x, "ste_sign")
    if emits_markers():
        return cast(Tensor, torch.ops.onebit.sign(x))
    return cast(Tensor, _SteSign.apply(x, window))  # type: ignore[no-untyped-call]


def approx_sign(x: Tensor) -> Tensor:
    """sign(x), with the gradient of Bi-Real Net: (2 - 2|x|)·g where |x| < 1, else 0.

    x: floating point, any shape. Returns ±1 in x's dtype and shape, a fresh tensor. TypeError for integers.
    """
    if is_traced(x):
        return one_call(approx_sign, x)
    require_float(x, "approx_sign")
    if emits_markers():
        return cast(Tensor, torch.ops.onebit.sign(x))
    return cast(Tensor, _ApproxSign.apply(x))  # type: ignore[no-untyped-call]


def swish_sign(x: Tensor, beta: float = 5.0) -> Tensor:
    """sign(x), with the gradient of BNN+ (arXiv 1812.11800): g·β·(2 - βx·tanh(βx/2)) / (1 + cosh βx).

    x: floating point, any shape. Returns ±1 in x's dtype and shape, a fresh tensor. TypeError for integers.
    The slope is β at x = 0, 0 at |βx| = 2.4, slightly negative beyond, and its integral from 0 to infinity
    is 1, so that sign is its limit for a large β. In a NaN's place the gradient is NaN.
    """
    if is_traced(x):
        return one_call(swish_sign, x, beta)
    require_float(x, "swish_sign")
    if emits_markers():
        return cast(Tensor, torch.ops.onebit.sign(x))
    return cast(Tensor, _SwishSign.apply(x, beta))  # type: ignore[no-untyped-call]


def ede_sign(x: Tensor, t: Tensor) -> Tensor:
    """sign(x), with IR-Net's error decay estimator as gradient: g·k·t·(1 - tanh²(t·x)), k = max(1/t, 1).

    x: floating point, any shape; t: a positive number as a tensor of no axes (a tensor, so that a compiled
    step follows its schedule). Returns ±1 in x's dtype and shape, a fresh tensor. TypeError for integers.
    arXiv 1909.10788, section 3.3. In a NaN's place the gradient is NaN.
    """
    if is_traced(x):
        return one_call(ede_sign, x, t)
    require_float(x, "ede_sign")
    if emits_markers():
        return cast(Tensor, torch.ops.onebit.sign(x))
    return cast(Tensor, _EDE.apply(x, t))  # type: ignore[no-untyped-call]


def heaviside(x: Tensor, window: float = 1.0) -> Tensor:
    """1 where x >= 0, else 0; the gradient passes where |x| <= window (saturating STE).

    x: floating point, any shape. Returns 0 or 1 in x's dtype and shape, a fresh tensor. TypeError for
    integers. It is (sign(x) + 1)/2 with the gradient of sign, not half of it (Larq's `SteHeaviside`, which
    however has 0 at x = 0). A NaN becomes 0, without gradient.
    """
    if is_traced(x):
        return one_call(heaviside, x, window)
    require_float(x, "heaviside")
    if emits_markers():
        return cast(Tensor, (torch.ops.onebit.sign(x) + 1) / 2)
    return cast(Tensor, _Heaviside.apply(x, window))  # type: ignore[no-untyped-call]


def stochastic_sign(x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """+1 with probability clip((x + 1)/2, 0, 1), else -1; saturating STE (BNN eq. 2 and 4).

    x: floating point, any shape. Returns ±1 in x's dtype and shape, a fresh tensor. TypeError for integers.
    x <= -1 is always -1, x >= 1 always +1. The noise is drawn in float32 whatever x's dtype: bfloat16 noise
    would have only 256 levels. `generator` defaults to the device's global one.
    """
    if is_traced(x):
        return one_call(stochastic_sign, x)
    require_float(x, "stochastic_sign")
    noise = torch.rand(x.shape, dtype=torch.float32, device=x.device, generator=generator)
    return cast(Tensor, _StochasticSign.apply(x, noise))  # type: ignore[no-untyped-call]


def _require_positive(argument: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{argument} must be positive; got {value!r}")


@register("ste_sign")
class SteSign(nn.Module):
    """`ste_sign` as a module: deterministic sign, saturating STE. Same in train and eval mode.

    window: the gradient passes where |x| <= window; 1 in BNN, 1.25 in QuickNet. ValueError unless positive.
    """

    wants_clipping = True

    def __init__(self, *, window: float = 1.0) -> None:
        super().__init__()
        _require_positive("window", window)
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        return ste_sign(x, self.window)

    def extra_repr(self) -> str:
        return "" if self.window == 1 else f"window={self.window}"


@register("approx_sign")
class ApproxSign(nn.Module):
    """`approx_sign` as a module: deterministic sign, gradient of Bi-Real Net. Same in train and eval mode."""

    wants_clipping = True

    def forward(self, x: Tensor) -> Tensor:
        return approx_sign(x)


@register("stochastic_sign")
class StochasticSign(nn.Module):
    """`stochastic_sign` in training mode; in eval mode the deterministic sign, which is what gets packed.

    real_in_eval: for weights only. BinaryConnect's authors test a stochastically trained network with its
        real latent weights (their paper, section 2.6, and their code). True reproduces that: in eval mode the
        input comes back as it is. Such a layer is not one-bit and is converted as a real one.
    """

    wants_clipping = True

    def __init__(self, *, real_in_eval: bool = False) -> None:
        super().__init__()
        self.real_in_eval = real_in_eval

    def forward(self, x: Tensor) -> Tensor:
        if is_traced(x):
            return one_node(self, x)
        if self.training:
            return stochastic_sign(x)
        return x if self.real_in_eval else ste_sign(x)

    def extra_repr(self) -> str:
        return "real_in_eval=True" if self.real_in_eval else ""


@register("swish_sign")
class SwishSign(nn.Module):
    """`swish_sign` as a module: deterministic sign, gradient of BNN+. For inputs and weights.

    beta: how closely the estimator hugs the step; 5 as in Larq. ValueError unless positive. At |x| = 1,
        where clipped latent weights sit, the slope for β = 5 is -0.2.
    """

    def __init__(self, *, beta: float = 5.0) -> None:
        super().__init__()
        _require_positive("beta", beta)
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        return swish_sign(x, self.beta)

    def extra_repr(self) -> str:
        return f"beta={self.beta}"


@register("ede")
class EDE(nn.Module):
    """`ede_sign` as a module, with IR-Net's schedule (arXiv 1909.10788, section 3.3). For inputs and weights.

        t(p) = t_min · (t_max / t_min)^p        p: the part of the training that is done, from 0 to 1

    At the start (t = t_min = 0.1) the slope is almost 1 everywhere, so every weight can still move; at the
    end (t = 10) it is 10 at 0 and below 0.01 beyond |x| = 0.45, close to the derivative of the sign itself.

    t_min, t_max: 0.1 and 10 in the paper (its code for CIFAR's ResNet-20 has t_min = 0.001). ValueError
        unless 0 < t_min <= t_max.

    `onebit.nn.set_progress_(model, p)` moves t on; without it t stays at t_min. t is a buffer.
    """

    t: Tensor

    def __init__(self, *, t_min: float = 0.1, t_max: float = 10.0) -> None:
        super().__init__()
        _require_positive("t_min", t_min)
        if not t_max >= t_min:
            raise ValueError(f"t_max must be at least t_min, {t_min!r}; got {t_max!r}")
        self.t_min, self.t_max = t_min, t_max
        self.register_buffer("t", torch.tensor(t_min, dtype=torch.float32))

    def set_progress_(self, fraction: float) -> None:
        """Set t for the part of the training that is done, 0 to 1, in place."""
        self.t.fill_(self.t_min * (self.t_max / self.t_min) ** fraction)

    def forward(self, x: Tensor) -> Tensor:
        return ede_sign(x, self.t)

    def extra_repr(self) -> str:
        return f"t_min={self.t_min}, t_max={self.t_max}"


@register("heaviside")
class Heaviside(nn.Module):
    """`heaviside` as a module: inputs become 0 or 1. Same in train and eval mode. For inputs only.

    A sum of {0, 1} times ±1 products is (Σ ±1·±1 products + Σ weights)/2, which is how it runs packed: the
    same XNOR-popcount, the rest folded into the next threshold. Zero padding then stands for "off".

    window: the gradient passes where |x| <= window. ValueError unless positive.
    """

    only_for = "inputs"

    def __init__(self, *, window: float = 1.0) -> None:
        super().__init__()
        _require_positive("window", window)
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        return heaviside(x, self.window)

    def extra_repr(self) -> str:
        return "" if self.window == 1 else f"window={self.window}"
