"""Random convolutional networks for the parity tests, exact in PyTorch: every path to a sign is integer, or
sums dyadic numbers that float32 holds in any order. What is known of a value decides what may follow it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from onebit import nn as bnn
from parity.networks import Case, Lambda, Residual, random_batch_norm

_CHANNELS = (1, 2, 3, 8, 31, 32, 33, 65)
_SIZES = (1, 3, 4, 5, 7, 8, 9)
_LARGEST = 2.0**24


class Beside(nn.Module):
    """The outputs of several modules of one input, side by side along the channels."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(x) for part in self.parts], dim=1)


class Heads(nn.Module):
    """What the trunk gives, and what a head makes of it."""

    def __init__(self, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.trunk(x)
        return y, self.head(y)


@dataclass
class _State:
    """What is known of the current value: its shape (C, *sizes); `places` and `bound` where it consists of
    multiples of 2^-places within ±bound; `signs` if it is ±1."""

    shape: tuple[int, ...]
    places: float | None = None
    bound: float = 0.0
    signs: bool = False

    def sums(self, count: int, factor: float = 1.0) -> bool:
        """Whether `count` of these numbers times `factor` sum exactly in float32."""
        return self.places is not None and count * self.bound * factor * 2.0**self.places <= _LARGEST


class _Maker:
    def __init__(self, draw: st.DrawFn, axes: int) -> None:
        self.draw = draw
        self.axes = axes
        self.layers: list[nn.Module] = []
        self.state = _State(())

    def one_of(self, *items: Any) -> Any:
        return self.draw(st.sampled_from(items))

    def start(self) -> Tensor:
        """The input, and the layers that take it in."""
        shape = (self.one_of(*_CHANNELS[:-2]), *(self.one_of(*_SIZES) for _ in range(self.axes)))
        batch = self.one_of(1, 3)
        if self.draw(st.booleans()):
            self.layers.append(bnn.ScalePixels())
            self.state = _State(shape, 8, 1.0)
            return torch.randint(0, 256, (batch, *shape), dtype=torch.uint8)
        self.state = _State(shape, 2, 2.0)
        return torch.randint(-8, 9, (batch, *shape)) / 4

    def add(
        self, layer: nn.Module, places: float | None = None, bound: float = 0.0, signs: bool = False
    ) -> None:
        """Append a layer; its output's shape is found by running it."""
        shape = layer.eval()(torch.zeros(2, *self.state.shape)).shape[1:]
        self.layers.append(layer)
        self.state = _State(tuple(shape), places, bound, signs)

    def windows(self) -> dict[str, Any] | None:
        """Kernel, stride, padding, dilation that fit the image; None where the draw does not."""
        axes, sizes = range(self.axes), self.state.shape[1:]
        kernel = [self.one_of(1, 2, 3, 3, 5) for _ in axes]
        dilation = [self.one_of(1, 1, 2) for _ in axes]
        padding = [self.one_of(0, 1, 2) for _ in axes]
        if any(
            n + 2 * p < d * (k - 1) + 1 for n, p, d, k in zip(sizes, padding, dilation, kernel, strict=True)
        ):
            return None
        stride = [self.one_of(1, 1, 2, 3) for _ in axes]
        return {"kernel_size": kernel, "stride": stride, "padding": padding, "dilation": dilation}

    def binary_conv(self, same: bool = False) -> None:
        """One-bit weights; over signs, or over an input whose sums are exact."""
        state, channels = self.state, self.state.shape[0]
        windows: dict[str, Any] | None = {"kernel_size": 3, "padding": 1} if same else self.windows()
        if windows is None:
            return
        out = channels if same else self.one_of(*_CHANNELS)
        groups = self.one_of(*(g for g in (1, 1, 2, 3, channels) if channels % g == 0 and out % g == 0))
        first = isinstance(self.layers[-1] if self.layers else None, bnn.ScalePixels)
        quantized = not state.sums(4096) or (not first and self.one_of(True, True, False))
        quantizer = bnn.RSign(channels) if self.one_of(True, False, False) else "ste_sign"
        if isinstance(quantizer, bnn.RSign):
            nn.init.normal_(quantizer.shift)
        scale_input = state.signs and groups == 1 and quantized and self.one_of(True, False)
        kind = bnn.BinaryConv1d if self.axes == 1 else bnn.BinaryConv2d
        conv = kind(
            channels,
            out,
            **windows,
            groups=groups,
            padding_value=self.one_of(0, 0, 1, -1) if quantized else 0,
            input_quantizer=quantizer if quantized else None,
            weight_scale=self.one_of(None, None, "channel_mean", "learned"),
            input_scale="xnor" if scale_input else None,
            bias=self.one_of(True, False),
        )
        if conv.bias is not None:
            nn.init.normal_(conv.bias)
        plain = conv.weight_scale is None and conv.bias is None and not scale_input
        taps = conv.weight[0].numel()
        places, bound = (0.0, 1.0) if quantized else (state.places or 0.0, state.bound)
        self.add(conv, places if plain else None, taps * bound)

    def real_conv(self) -> None:
        """Real weights, in halves up to 1, where every order of summation gives the same float."""
        windows, channels = self.windows(), self.state.shape[0]
        out = self.one_of(1, 3, 33)
        depthwise = self.one_of(True, False, False)
        if windows is None or not self.state.sums(channels * 25 + 1, 2.0):
            return
        kind = nn.Conv1d if self.axes == 1 else nn.Conv2d
        groups, out = (channels, channels) if depthwise else (1, out)
        conv = kind(channels, out, **windows, groups=groups, bias=self.one_of(True, False))
        with torch.no_grad():
            conv.weight.copy_(torch.randint(-2, 3, conv.weight.shape) / 2)
            if conv.bias is not None:
                conv.bias.copy_(torch.randint(-8, 9, conv.bias.shape) / 4)
        taps = conv.weight[0].numel()
        self.add(conv, max(self.state.places or 0.0, 1.0) + 1, taps * self.state.bound + 2)

    def pool(self) -> None:
        """A max-pool of anything, or an average of what sums exactly."""
        kernel = [self.one_of(1, 2, 3) for _ in range(self.axes)]
        padding = [self.one_of(*range(k // 2 + 1)) for k in kernel]
        stride = [self.one_of(1, 2, 2, 3) for _ in kernel]
        sizes = self.state.shape[1:]
        if any(n + 2 * p < k for n, p, k in zip(sizes, padding, kernel, strict=True)):
            return
        ceil_mode = self.one_of(True, False)
        if self.state.sums(prod(kernel)) and self.one_of(True, False):
            average = nn.AvgPool1d if self.axes == 1 else nn.AvgPool2d
            include = not (ceil_mode and any(padding)) and self.one_of(True, False)
            if ceil_mode and any(padding) and self.axes == 1:
                return  # AvgPool1d(ceil_mode=True, padding=…) has count_include_pad only
            self.add(average(kernel, stride, padding, ceil_mode, include))
            return
        largest = nn.MaxPool1d if self.axes == 1 else nn.MaxPool2d
        dilation = self.one_of(1, 1, 2) if min(sizes) >= 5 else 1
        self.add(
            largest(kernel, stride, padding, dilation, ceil_mode=ceil_mode),
            self.state.places,
            self.state.bound,
            self.state.signs,
        )

    def tail(self) -> None:
        """An elementwise layer over channels, or a sign."""
        channels = self.state.shape[0]
        kind = self.one_of("norm", "norm", "prelu", "relu", "rprelu", "sign", "scale", "abs", "leaky", "mean")
        if kind == "norm":
            norm = nn.BatchNorm1d(channels) if self.axes == 1 else nn.BatchNorm2d(channels)
            vectors = random_batch_norm(channels)
            norm.load_state_dict(vectors.state_dict())
            norm.eps = vectors.eps
            self.add(norm)
        elif kind == "prelu":
            layer = nn.PReLU(self.one_of(1, channels))
            nn.init.uniform_(layer.weight, self.one_of(0.0, -1.0), 1.0)
            self.add(layer)
        elif kind == "rprelu":
            layer = bnn.RPReLU(channels)
            for parameter in layer.parameters():
                nn.init.normal_(parameter)
            self.add(layer)
        elif kind == "sign":
            self.add(bnn.quantizers.SteSign(), 0.0, 1.0, signs=True)
        elif kind == "relu":
            self.add(nn.ReLU(), self.state.places, self.state.bound)
        elif kind == "abs":
            self.add(Lambda(torch.abs, "abs"), self.state.places, self.state.bound)
        elif kind == "mean":
            if self.state.sums(channels):
                self.add(Lambda(lambda x: x * x.abs().mean(1, keepdim=True), "x * mean |x|"))
        elif kind == "leaky":
            self.add(nn.LeakyReLU(0.1))
        else:
            shape = (channels, *[1] * self.axes)
            scale, shift = torch.randn(shape), torch.randn(1, *shape)
            self.add(Lambda(lambda x: shift - x * scale, "shift - x * scale"))

    def padding(self) -> None:
        """Padding of its own before a convolution of signs."""
        if self.state.shape[0] > 33:
            return
        pads = [self.one_of(0, 1, 2) for _ in range(2 * self.axes)]
        fill = self.one_of(0.0, 1.0, -1.0)
        channels = self.state.shape[0]
        if not self.state.signs:
            self.add(bnn.quantizers.SteSign(), 0.0, 1.0, signs=True)
        kind = bnn.BinaryConv1d if self.axes == 1 else bnn.BinaryConv2d
        conv = kind(channels, self.one_of(1, 33), 1, stride=self.one_of(1, 2), input_quantizer=None)
        self.add(
            nn.Sequential(Lambda(lambda x: F.pad(x, pads, value=fill), f"pad {pads} {fill}"), conv),
            0.0,
            channels,
        )

    def branches(self) -> None:
        """A residual sum, or two convolutions side by side."""
        state, before = self.state, len(self.layers)
        self.binary_conv(same=True)
        if self.state.shape != state.shape:
            return
        body = self.layers[before:]
        del self.layers[before:]
        if not body:
            return
        if self.one_of(True, False):
            self.add(Residual(nn.Sequential(*body)))
            return
        self.state = state
        other = self.one_of(nn.Identity(), bnn.quantizers.SteSign())
        self.add(Beside(nn.Sequential(*body), other, nn.Sequential(*body)))

    def head(self) -> nn.Module:
        """From an image to numbers: flatten or average, then dense layers."""
        shape = self.state.shape
        if self.state.sums(prod(shape[1:])) and self.one_of(True, False):
            over = tuple(range(2, 2 + self.axes))
            pool = nn.AdaptiveAvgPool1d(1) if self.axes == 1 else nn.AdaptiveAvgPool2d(1)
            mean = Lambda(lambda x: x.mean(over), "mean")
            first = self.one_of(nn.Sequential(pool, nn.Flatten()), mean)
            return nn.Sequential(first, bnn.BinaryLinear(shape[0], 5))
        width = prod(shape)
        if self.state.sums(width) and self.one_of(True, False):
            real = nn.Linear(width, 3, bias=False)
            with torch.no_grad():
                real.weight.copy_(torch.randint(-1, 2, real.weight.shape))
            return nn.Sequential(nn.Flatten(), real)
        tails = self.one_of((), (random_batch_norm(width),), (nn.PReLU(width), bnn.quantizers.SteSign()))
        scale = "xnor" if self.state.signs and not tails and self.one_of(True, False) else None
        last = bnn.BinaryLinear(width, 33, input_scale=scale)
        return nn.Sequential(nn.Flatten(), *tails, last)


@st.composite
def image_networks(draw: st.DrawFn, max_layers: int = 6) -> Case:
    """Networks over images of one or two axes; half of them return an image, or an image and numbers."""
    seed = draw(st.integers(0, 2**31 - 1))
    torch.manual_seed(seed)
    maker = _Maker(draw, draw(st.sampled_from((1, 2, 2, 2))))
    x = maker.start()
    steps = (
        *(maker.binary_conv, maker.binary_conv, maker.binary_conv, maker.real_conv, maker.pool, maker.pool),
        *(maker.tail, maker.tail, maker.tail, maker.padding, maker.branches),
    )
    for step in draw(st.lists(st.sampled_from(range(len(steps))), min_size=2, max_size=max_layers)):
        if prod(maker.state.shape) < 12_000:
            steps[step]()
    if len(maker.layers) < 2:
        maker.binary_conv(same=True)
    trunk = nn.Sequential(*maker.layers)
    kind = draw(st.sampled_from(("image", "head", "head", "both")))
    if kind == "image":
        model: nn.Module = trunk
    elif kind == "head":
        model = nn.Sequential(trunk, maker.head())
    else:
        model = Heads(trunk, maker.head())
    return Case(model.eval(), x, f"seed {seed}, input {tuple(x.shape)} {x.dtype}\n{model}")
