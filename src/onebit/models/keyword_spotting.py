"""Spotting words in sound with one-bit convolutions over time: samples in, scores out.

A filter bank in the manner of LEAF (Zeghidour, Teboul, de Chaumont Quitry and Tagliasacchi, "LEAF: A
Learnable Frontend for Audio Classification", arXiv 2101.08596) in front of a ConvNet of BNN's kind (arXiv
1602.02830). The design is ours, made of what a Program has; no paper reports figures for it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from onebit.models.images import ImageModel, check_sizes
from onebit.models.registry import register
from onebit.nn import BinaryConv1d, quantizers

__all__ = ["FilterBank", "KeywordSpotter", "RandomShift", "gabor_filters"]

_SILENCE = 1e-5  # loudness that counts as none: a third of a step of 16-bit PCM
_HALF = 0.7  # where the compression starts: the median of what the filters give while a digit is spoken
_LOWEST_HZ = 60.0


def _mel(hz: float) -> float:
    return 2595 * math.log10(1 + hz / 700)


def _hertz(mel: float) -> float:
    return 700 * (10 ** (mel / 2595) - 1)


def gabor_filters(filters: int, taps: int, sample_rate: int) -> Tensor:
    """(filters, taps) float32: cosines under a Gaussian, of unit energy, their centres equally apart in mel.

    g[t] ∝ exp(−t²/2σ²)·cos(2π·f·t/rate + π/4), t from the middle. Between 60 Hz and half the rate there are
    `filters` centres f; σ makes the band, whose equivalent width is rate/(√(2π)·σ), as wide as its
    neighbours are apart, as far as the taps allow (σ <= taps/5). The phase of π/4, between a cosine and a
    sine, keeps rising and falling waves alike.
    """
    top = _mel(sample_rate / 2)
    step = (top - _mel(_LOWEST_HZ)) / (filters + 1)
    edges = [_hertz(_mel(_LOWEST_HZ) + step * i) for i in range(filters + 2)]
    t = torch.arange(taps) - (taps - 1) / 2
    bank = []
    for low, centre, high in zip(edges, edges[1:], edges[2:], strict=False):
        sigma = min(sample_rate / (math.sqrt(2 * math.pi) * (high - low)), taps / 5)
        wave = torch.exp(-(t**2) / (2 * sigma**2)) * torch.cos(
            2 * math.pi * centre / sample_rate * t + math.pi / 4
        )
        bank.append(wave / wave.norm())
    return torch.stack(bank)


class RandomShift(nn.Module):
    """Training only: every sound earlier or later by up to `most` samples, zeros behind it. (N, 1, L), kept.

    The shifts are whole numbers, drawn uniformly from torch's global generator of x's device, one a sound.
    """

    def __init__(self, max_shift: int) -> None:
        super().__init__()
        self.max_shift = max_shift

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.max_shift == 0:
            return x
        shift = torch.randint(-self.max_shift, self.max_shift + 1, (len(x), 1, 1), device=x.device)
        source = torch.arange(x.shape[2], device=x.device) + shift
        there = (source >= 0) & (source < x.shape[2])
        return torch.where(there, x.gather(2, source.clamp(0, x.shape[2] - 1)), 0)

    def extra_repr(self) -> str:
        return str(self.max_shift)


class FilterBank(nn.Module):
    """(N, 1, L) samples -> (N, filters, frames): how loud each band is in each frame, from 0 to 1.

    x / (mean |x| + 1e-5), so that the loudness of the recording does not matter; a real convolution with
    learned filters that start as `gabor_filters`; its size |y|, averaged over frames of 2·hop samples, a new
    frame every hop samples: e; and last e / (e + c), c > 0 learned for each filter. With s the logistic
    function that is s(ln e − ln c): it compresses as a logarithm does, with a division, which a Program has.
    """

    def __init__(self, filters: int, taps: int, stride: int, hop: int, sample_rate: int) -> None:
        super().__init__()
        self.filters = nn.Conv1d(1, filters, taps, stride=stride, bias=False)
        self.frames = nn.AvgPool1d(2 * hop // stride, hop // stride)
        self.log_half = nn.Parameter(torch.full((filters, 1), math.log(_HALF)))
        with torch.no_grad():
            self.filters.weight.copy_(gabor_filters(filters, taps, sample_rate)[:, None])

    def forward(self, x: Tensor) -> Tensor:
        # Flat, the samples are the channels of one pixel, of which a Program can take the mean.
        flat = x.flatten(1)
        level = flat / (flat.abs().mean(dim=1, keepdim=True) + _SILENCE)
        e: Tensor = self.frames(self.filters(level.unsqueeze(1)).abs())
        return e / (e + self.log_half.exp())


class Levels(nn.Module):
    """(N, C, T) -> (N, C·levels, T) of ±1: every channel against `levels` thresholds, learned by BatchNorm.

    A thermometer code: more bits of what one sign alone would lose. The thresholds start 0.7 standard
    deviations around the mean.
    """

    def __init__(self, channels: int, levels: int, activation: str) -> None:
        super().__init__()
        self.levels = levels
        self.norm = nn.BatchNorm1d(channels * levels)
        self.activation = quantizers.create(activation)
        with torch.no_grad():
            start = torch.linspace(-0.7, 0.7, levels) if levels > 1 else torch.zeros(1)
            self.norm.bias.copy_(start.repeat_interleave(channels))

    def forward(self, x: Tensor) -> Tensor:
        signs: Tensor = self.activation(self.norm(torch.cat([x] * self.levels, dim=1)))
        return signs


@register(
    "bnn_keyword_spotter",
    small={"input_shape": (1, 700), "classes": 3, "filters": 11, "taps": 16, "hidden": (33, 31, 65)},
)
class KeywordSpotter(ImageModel):
    """Filter bank → levels → 96C5-MP2-128C5-MP2-128C5 over time → mean → 10: 205,794 parameters.

    Input: (N, *input_shape) float32, samples in [-1, 1], of any loudness; input_shape is (1, samples), one
    second at 8 kHz by default. Output: (N, classes) float32.

    Real are the filter bank (see `FilterBank`), the thresholds of its `Levels`, and the dense layer behind
    the mean over time. The convolutions between them are one-bit on both sides: conv → max-pool (behind the
    first two) → BatchNorm → sign, padded with zeros, and sum integers.

    sample_rate: Hz, from which the filters' centres follow. taps: of a filter; stride: samples between its
    places; hop: samples between frames, a multiple of stride. levels: thresholds a filter. hidden: channels
    of the one-bit convolutions. shift: samples by which `RandomShift` moves the sounds in training.
    dropout: of the channels' means, in training. activation: name of a quantizer.
    ValueError for sizes or names that make no sense, or sounds too short for two frames after the pools.
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (1, 8000),
        classes: int = 10,
        hidden: Sequence[int] = (96, 128, 128),
        *,
        sample_rate: int = 8000,
        filters: int = 40,
        taps: int = 64,
        stride: int = 16,
        hop: int = 96,
        levels: int = 3,
        kernel_size: int = 5,
        shift: int = 800,
        dropout: float = 0.0,
        activation: str = "ste_sign",
    ) -> None:
        super().__init__()
        _check(input_shape, taps, stride, hop, kernel_size, len(hidden), shift)
        check_sizes("hidden", hidden)
        check_sizes("classes, sample_rate, filters, levels", [classes, sample_rate, filters, levels])
        self.input_shape, self.takes_bytes = tuple(input_shape), False
        self.shift = RandomShift(shift)
        self.bank = FilterBank(filters, taps, stride, hop, sample_rate)
        self.levels = Levels(filters, levels, activation)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        channels = filters * levels
        for i, width in enumerate(hidden, start=1):
            layers[f"conv{i}"] = BinaryConv1d(
                channels, width, kernel_size, padding=kernel_size // 2, input_quantizer=None
            )
            if i <= _POOLS:
                layers[f"pool{i}"] = nn.MaxPool1d(2)
            layers[f"norm{i}"] = nn.BatchNorm1d(width)
            layers[f"activation{i}"] = quantizers.create(activation)
            channels = width
        self.body = nn.Sequential(layers)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        signs = self.body(self.levels(self.bank(self.shift(x))))
        scores: Tensor = self.classifier(self.dropout(signs.mean(dim=2)))
        return scores


_POOLS = 2


def _check(
    input_shape: Sequence[int],
    taps: int,
    stride: int,
    hop: int,
    kernel_size: int,
    convolutions: int,
    shift: int,
) -> None:
    check_sizes("input_shape", input_shape)
    check_sizes("taps, stride, hop, kernel_size", [taps, stride, hop, kernel_size])
    if len(input_shape) != 2 or input_shape[0] != 1:
        raise ValueError(f"input_shape must be (1, samples); got {tuple(input_shape)!r}")
    if hop % stride:
        raise ValueError(f"hop must be a multiple of stride; got hop={hop}, stride={stride}")
    if kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd; got {kernel_size}")
    if shift < 0:
        raise ValueError(f"shift must be at least 0; got {shift}")
    frames = 2 ** min(convolutions, _POOLS)
    needed = taps + stride * ((frames + 1) * (hop // stride) - 1)
    if input_shape[1] < needed:
        raise ValueError(
            f"input_shape={tuple(input_shape)!r}: {needed} samples or more are needed for {frames} frames of"
            f" {2 * hop} samples"
        )
