"""Random networks for the parity tests: a Hypothesis strategy, and the layers that users write themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from onebit import nn as bnn

WIDTHS = (1, 31, 32, 33, 63, 64, 65, 511)


class Lambda(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor], name: str) -> None:
        super().__init__()
        self.function = function
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def extra_repr(self) -> str:
        return self.name


class Affine(nn.Module):
    """x · scale + shift with vectors, as two operations."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(width))
        self.register_buffer("shift", torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


class Residual(nn.Module):
    """x + body(x)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def random_batch_norm(width: int, *, affine: bool = True) -> nn.BatchNorm1d:
    """A BatchNorm with everything that hurts: γ of both signs and 0, variances from 1e-12 to 1e9, means near
    and far. Draws from torch's global generator."""
    norm = nn.BatchNorm1d(width, affine=affine, eps=float(10 ** -torch.randint(3, 8, ()).item()))
    with torch.no_grad():
        norm.running_mean.copy_(torch.randn(width) * 10 ** (torch.rand(width) * 3 - 1))
        norm.running_var.copy_(torch.where(torch.rand(width) < 0.3, 10 ** (torch.rand(width) * 21 - 12),
                                           torch.rand(width) * 100))  # fmt: skip
        if affine:
            norm.weight.copy_(torch.randn(width) * (torch.rand(width) > 0.15))
            norm.bias.copy_(torch.randn(width) * (torch.rand(width) > 0.1))
    return norm


@dataclass
class Case:
    """A network in eval mode, an input for it, and the line that makes both again."""

    model: nn.Module
    x: Tensor
    recipe: str


_TAILS = (
    *("batch_norm", "batch_norm_plain", "affine", "relu", "hardtanh", "prelu", "prelu_one", "prelu_negative"),
    *("leaky", "dropout", "identity", "negate", "divide", "shift", "clamp", "scale_shift"),
)


def _tail(kind: str, width: int) -> nn.Module:
    match kind:
        case "batch_norm" | "batch_norm_plain":
            return random_batch_norm(width, affine=kind == "batch_norm")
        case "affine":
            return Affine(width)
        case "relu":
            return nn.ReLU()
        case "hardtanh":
            return nn.Hardtanh(-3.5, 4.25)
        case "prelu" | "prelu_one" | "prelu_negative":
            layer = nn.PReLU(1 if kind == "prelu_one" else width)
            with torch.no_grad():
                layer.weight.copy_(torch.rand(layer.weight.shape) * (-1 if kind == "prelu_negative" else 1))
            return layer
        case "leaky":
            return nn.LeakyReLU(0.1)
        case "dropout":
            return nn.Dropout(0.5)
        case "identity":
            return nn.Identity()
        case "negate":
            return Lambda(lambda x: -x, "-x")
        case "divide":
            return Lambda(lambda x: x / 3.7, "x / 3.7")
        case "shift":
            return Lambda(lambda x: 1.25 - x, "1.25 - x")
        case "clamp":
            return Lambda(lambda x: x.clamp(min=-2.0), "clamp(min=-2)")
        case "scale_shift":
            return Lambda(lambda x: 0.1 * x + 0.7, "0.1 x + 0.7")
    raise NotImplementedError(kind)


_HAND_WRITTEN = (
    Lambda(lambda x: torch.where(x >= 0, 1.0, -1.0), "where"),
    Lambda(lambda x: (x >= 0).float() * 2 - 1, "ge, float"),
    Lambda(lambda x: ((x >= 0) * 2 - 1).to(x.dtype), "ge, int"),
    Lambda(lambda x: 1 - 2 * (x < 0).float(), "lt"),
)


@st.composite
def exact_networks(draw: st.DrawFn, max_layers: int = 3) -> Case:
    """Networks whose path to every sign is integer: bytes or signs times signs, then anything elementwise."""
    seed = draw(st.integers(0, 2**31 - 1))
    torch.manual_seed(seed)
    start = draw(st.sampled_from(("pixels", "image", "raw_bytes", "floats")))
    width = draw(st.sampled_from(WIDTHS))
    layers: list[nn.Module] = []
    if start == "image":
        layers += [bnn.ScalePixels(), nn.Flatten()]
    elif start == "pixels":
        layers += [nn.Identity(), bnn.ScalePixels(), nn.Dropout(0.2)]
    elif start == "raw_bytes":
        layers += [Lambda(lambda x: x.float() * 0.5 - 7, "bytes / 2 - 7")]
    shape = (1, width, 1) if start == "image" else (width,)
    for position in range(draw(st.integers(1, max_layers))):
        quantized = position > 0 or start == "floats"
        by_hand = quantized and draw(st.booleans()) and draw(st.booleans())
        if by_hand:
            layers.append(draw(st.sampled_from(_HAND_WRITTEN)))
        following = draw(st.sampled_from(WIDTHS))
        linear = bnn.BinaryLinear(
            width,
            following,
            input_quantizer="ste_sign" if quantized and not by_hand else None,
            weight_scale=draw(st.sampled_from((None, None, "channel_mean", "learned"))),
            bias=draw(st.booleans()),
        )
        if linear.bias is not None:
            nn.init.normal_(linear.bias)
        layers.append(linear)
        layers += [_tail(kind, following) for kind in draw(st.lists(st.sampled_from(_TAILS), max_size=3))]
        if draw(st.integers(0, 3)) == 0:
            inner = [bnn.BinaryLinear(following, following), random_batch_norm(following)]
            layers.append(Residual(nn.Sequential(*inner)))
        width = following
    batch = draw(st.sampled_from((1, 3)))
    if start == "floats":
        x = torch.randn(batch, *shape) * (torch.rand(batch, *shape) > 0.1)
    else:
        x = torch.randint(0, 256, (batch, *shape), dtype=torch.uint8)
    model = nn.Sequential(*layers).eval()
    return Case(model, x, f"seed {seed}, input {start}\n{model}")


def _dyadic(shape: tuple[int, ...], low: int, high: int, unit: float) -> Tensor:
    return torch.randint(low, high + 1, shape) * unit


@st.composite
def dyadic_networks(draw: st.DrawFn) -> Case:
    """Real weights and activations drawn so that every float sum is exact in any order.

    Inputs are quarters up to 2, weights halves up to 1, BatchNorm is a scale of 1/2, 1 or 2 and a shift in
    quarters: two layers of width 65 stay below 2^21 units of 1/32, far inside float32's 2^24.
    """
    seed = draw(st.integers(0, 2**31 - 1))
    torch.manual_seed(seed)
    widths = [draw(st.sampled_from((1, 31, 32, 33, 64, 65))) for _ in range(3)]
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        kind = draw(st.sampled_from(("real", "real_bias", "binary")))
        linear: nn.Module
        if kind == "binary":
            linear = bnn.BinaryLinear(fan_in, fan_out, input_quantizer=None)
        else:
            linear = nn.Linear(fan_in, fan_out, bias=kind == "real_bias")
            with torch.no_grad():
                linear.weight.copy_(_dyadic((fan_out, fan_in), -2, 2, 0.5))
                if linear.bias is not None:
                    linear.bias.copy_(_dyadic((fan_out,), -8, 8, 0.25))
        norm = nn.BatchNorm1d(fan_out, eps=2.0**-10)
        with torch.no_grad():
            norm.running_var.copy_(4.0 ** torch.randint(-1, 2, (fan_out,)) - 2.0**-10)
            norm.running_mean.copy_(_dyadic((fan_out,), -8, 8, 0.25))
            norm.bias.copy_(_dyadic((fan_out,), -8, 8, 0.25))
        layers += [linear, norm, draw(st.sampled_from((nn.ReLU(), nn.Hardtanh(), nn.Identity())))]
    layers.append(bnn.BinaryLinear(widths[-1], 5))
    batch = draw(st.sampled_from((1, 3)))
    model = nn.Sequential(*layers).eval()
    return Case(model, _dyadic((batch, widths[0]), -8, 8, 0.25), f"seed {seed}\n{model}")


@torch.no_grad()
def make_dyadic(model: nn.Module) -> nn.Module:
    """Draw every real parameter and statistic anew, as small dyadic numbers; latent weights become ±1/2.

    Then α = mean |W| is 1/2, the scale of a BatchNorm a power of two, and sums over moderate fan-ins stay
    inside float32's 24 bits.
    """
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            width = (module.num_features,)
            # 1/sqrt(var + ε) is a power of two if var + ε is one of 4, in float32 too.
            module.eps = 2.0**-10
            module.running_var.copy_(4.0 ** torch.randint(1, 3, width) - 2.0**-10)
            module.running_mean.copy_(_dyadic(width, -4, 4, 1.0))
            if module.affine:
                module.weight.copy_(torch.randint(0, 2, width) * 2.0 - 1)
                module.bias.copy_(_dyadic(width, -4, 4, 0.25))
        elif hasattr(module, "latent_parameters"):
            module.weight.copy_(torch.where(module.weight >= 0, 0.5, -0.5))
            if module.bias is not None:
                module.bias.copy_(_dyadic(tuple(module.bias.shape), -4, 4, 0.25))
        elif isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear)):
            module.weight.copy_(_dyadic(tuple(module.weight.shape), -2, 2, 0.5))
            if module.bias is not None:
                module.bias.copy_(_dyadic(tuple(module.bias.shape), -4, 4, 0.25))
        else:  # shifts and slopes
            for parameter in module.parameters(recurse=False):
                parameter.copy_(_dyadic(tuple(parameter.shape), -4, 4, 0.25))
    return model
