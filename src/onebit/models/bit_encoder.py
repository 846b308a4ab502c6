"""A small transformer encoder with one-bit dense layers, in the manner of BiT (Liu et al., "BiT: Robustly
Binarized Multi-distilled Transformer", arXiv 2205.13016)."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from onebit.models.images import ImageModel, check_sizes
from onebit.models.registry import register
from onebit.nn import BinaryLinear, ScalePixels

__all__ = ["BinaryAttention", "BitEncoder", "EncoderBlock"]


def _binary(fan_in: int, fan_out: int, activation: str) -> nn.Sequential:
    """LayerNorm → sign → one-bit dense layer · α. LayerNorm's shift is the threshold of each feature."""
    return nn.Sequential(
        OrderedDict(
            norm=nn.LayerNorm(fan_in),
            linear=BinaryLinear(
                fan_in, fan_out, input_quantizer=activation, weight_scale="channel_mean", init="glorot"
            ),
        )
    )


class BinaryAttention(nn.Module):
    """Self-attention of which the four projections are one-bit on both sides; (N, tokens, width), shape kept.

    q, k, v share one LayerNorm and sign; softmax(q·kᵀ/√d)·v is real; then LayerNorm → sign → projection.
    """

    def __init__(self, width: int, heads: int, activation: str) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = _binary(width, 3 * width, activation)
        self.out = _binary(width, width, activation)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        by_head = self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = by_head[0], by_head[1], by_head[2]
        attention = (q @ k.transpose(-2, -1) / math.sqrt(width // self.heads)).softmax(dim=-1)
        y: Tensor = self.out((attention @ v).transpose(1, 2).reshape(batch, tokens, width))
        return y


class EncoderBlock(nn.Module):
    """x + attention(x), then x + one-bit feed-forward(x). (N, tokens, width), shape kept."""

    def __init__(self, width: int, heads: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.attention = BinaryAttention(width, heads, activation)
        self.feed_forward = nn.Sequential(
            OrderedDict(up=_binary(width, hidden, activation), down=_binary(hidden, width, activation))
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        y: Tensor = x + self.feed_forward(x)
        return y


@register(
    "bit_encoder",
    small={"input_shape": (1, 5, 7), "classes": 3, "width": 36, "heads": 3, "hidden": (65,)},
    unconvertible="attention multiplies activations by activations and takes a softmax, for which a Program "
    "has no op; its dense layers can be packed one by one",
)
class BitEncoder(ImageModel):
    """Transformer encoder with one-bit dense layers: 68,682 parameters, 65,536 of them one-bit.

    Input: (N, channels, H, W) uint8, scaled inside (ScalePixels), or floating point with scale_pixels=False;
    each of the H rows is a token of channels·W numbers: scikit-learn's digits are 8 tokens of 8 pixels.
    Output: (N, classes), the input's floating dtype or float32.

    Real embedding of the tokens + learned positions; pre-norm blocks; LayerNorm, mean over the
    tokens, real dense layer. The six projections of a block (q, k, v, output, up, down) have one-bit weights
    times α = mean |W| and one-bit inputs. Departures from BiT: activations are ±1 behind a LayerNorm instead
    of {0, 1} and ±1 with learned scales, softmax, values and the products of the attention stay real, and
    there is no distillation.

    width: features of a token, a multiple of heads. hidden: width of the feed-forward layer of each block, so
    its length is the number of blocks. activation: a quantizer's name. ValueError for sizes or names that
    make no sense.
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (1, 8, 8),
        classes: int = 10,
        width: int = 64,
        heads: int = 4,
        hidden: Sequence[int] = (128, 128),
        *,
        activation: str = "ste_sign",
        scale_pixels: bool = True,
    ) -> None:
        super().__init__()
        check_sizes("input_shape", input_shape)
        if len(input_shape) != 3:
            raise ValueError(f"input_shape must be (channels, height, width); got {tuple(input_shape)!r}")
        check_sizes("hidden", hidden)
        for name, size in {"classes": classes, "width": width, "heads": heads}.items():
            check_sizes(name, [size])
        if width % heads:
            raise ValueError(f"width must be a multiple of heads; got width={width}, heads={heads}")
        channels, tokens, columns = input_shape
        self.input_shape = tuple(input_shape)
        self.takes_bytes = scale_pixels
        self.pixels = ScalePixels() if scale_pixels else nn.Identity()
        self.embedding = nn.Linear(channels * columns, width)
        self.positions = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads, h, activation) for h in hidden))
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.pixels(x).transpose(1, 2).flatten(2)
        y: Tensor = self.norm(self.blocks(self.embedding(tokens) + self.positions))
        scores: Tensor = self.linear(y.mean(dim=1))
        return scores
