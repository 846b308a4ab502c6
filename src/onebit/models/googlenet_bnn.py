"""GoogLeNet in the form of "Binarized Neural Networks" (arXiv 1602.02830)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from onebit.models.images import ImageSequential, check_image, check_sizes
from onebit.models.registry import register
from onebit.nn import BinaryConv2d, NormalizePixels, SteSign

__all__ = ["GoogLeNetBnn"]

# GoogLeNet (arXiv 1409.4842), table 1: 1×1; 3×3 reduce, 3×3; 5×5 reduce, 5×5; pool projection. None: a pool.
_INCEPTIONS: tuple[tuple[int, int, int, int, int, int] | None, ...] = (
    (64, 96, 128, 16, 32, 32),
    (128, 128, 192, 32, 96, 64),
    None,
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
    None,
    (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
)


def _unit(fan_in: int, fan_out: int, kernel: int, pool: nn.Module | None = None) -> nn.Sequential:
    """One-bit convolution → pool, if any → BatchNorm → sign: BNN's order. The input is ±1 already."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv"] = BinaryConv2d(fan_in, fan_out, kernel, padding=kernel // 2, input_quantizer=None)
    if pool is not None:
        layers["pool"] = pool
    layers["norm"] = nn.BatchNorm2d(fan_out)
    layers["activation"] = SteSign()
    return nn.Sequential(layers)


class Inception(nn.Module):
    """Four branches over the same ±1 input, their ±1 outputs side by side: 1×1, 1×1→3×3, 1×1→5×5, 1×1→pool.

    x: (N, fan_in, H, W) -> (N, sum of the four branches' widths, H, W). GoogLeNet's last branch pools
    first; a 3×3 max-pool over ±1 is +1 nearly everywhere, so here the pool follows its convolution, as in
    BNN's order.
    """

    def __init__(self, fan_in: int, widths: Sequence[int]) -> None:
        super().__init__()
        one, reduce3, three, reduce5, five, projection = widths
        self.branch1 = _unit(fan_in, one, 1)
        self.branch3 = nn.Sequential(
            OrderedDict(reduce=_unit(fan_in, reduce3, 1), unit=_unit(reduce3, three, 3))
        )
        self.branch5 = nn.Sequential(
            OrderedDict(reduce=_unit(fan_in, reduce5, 1), unit=_unit(reduce5, five, 5))
        )
        self.branch_pool = _unit(fan_in, projection, 1, nn.MaxPool2d(3, 1, padding=1))
        self.channels = one + three + five + projection

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch3(x), self.branch5(x), self.branch_pool(x)], dim=1)


@register(
    "googlenet_bnn",
    small={
        "input_shape": (3, 33, 38),
        "classes": 3,
        "stem": (17, 31, 33),
        "inceptions": ((7, 5, 9, 3, 11, 6), None, (31, 8, 5, 4, 1, 2)),
    },
)
class GoogLeNetBnn(ImageSequential):
    """GoogLeNet's sizes (arXiv 1409.4842, table 1) with one-bit layers in BNN's order: 7,005,832 parameters.

    Input: (N, 3, H, W) uint8, normalized inside (NormalizePixels, ImageNet's mean and std), or floating
    point with normalize=False. Output: (N, classes) float32.

    BNN reports a GoogLeNet on ImageNet (47.1 % top-1) without describing it; this network is *in its
    style*, not its published form. Stem: real 7×7 convolution of stride 2 → max-pool → BatchNorm → sign,
    one-bit 1×1 → BatchNorm → sign, one-bit 3×3 → max-pool → BatchNorm → sign. Every convolution of the
    inception blocks is one-bit, then BatchNorm → sign; blocks concatenate signs, and the pools between them
    take signs. Last: average of the signs, real dense layer with bias. So the first convolution and the
    last layer are real, all others see and hold ±1. No dropout and no auxiliary classifiers.

    stem: widths of the three stem convolutions. inceptions: the six widths of each block in the table's
    order, or None for a max-pool 3×3 of stride 2.
    ValueError for sizes that make no sense.
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (3, 224, 224),
        classes: int = 1000,
        stem: Sequence[int] = (64, 64, 192),
        inceptions: Sequence[Sequence[int] | None] = _INCEPTIONS,
        *,
        normalize: bool = True,
    ) -> None:
        channels, _, _ = check_image(input_shape, classes, min_size=2)
        check_sizes("stem", stem)
        if len(stem) != 3:
            raise ValueError(f"stem must be the widths of three convolutions; got {stem!r}")
        for widths in inceptions:
            if widths is not None:
                check_sizes("inceptions", widths)
                if len(widths) != 6:
                    raise ValueError(f"an inception block has six widths; got {widths!r}")
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if normalize:
            layers["pixels"] = NormalizePixels()
        layers["conv"] = nn.Conv2d(channels, stem[0], 7, stride=2, padding=3, bias=False)
        layers["pool"] = nn.MaxPool2d(3, 2, padding=1)
        layers["norm"] = nn.BatchNorm2d(stem[0])
        layers["activation"] = SteSign()
        layers["reduce"] = _unit(stem[0], stem[1], 1)
        layers["unit"] = _unit(stem[1], stem[2], 3, nn.MaxPool2d(3, 2, padding=1))
        fan_in = stem[2]
        for i, widths in enumerate(inceptions, start=1):
            if widths is None:
                layers[f"pool{i}"] = nn.MaxPool2d(3, 2, padding=1)
            else:
                block = Inception(fan_in, widths)
                layers[f"inception{i}"] = block
                fan_in = block.channels
        layers["average"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["linear"] = nn.Linear(fan_in, classes)
        super().__init__(layers, input_shape, takes_bytes=normalize)
