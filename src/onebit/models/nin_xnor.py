"""Network in Network in the form of "XNOR-Net" (arXiv 1603.05279)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

from torch import nn

from onebit.models.images import ImageSequential, check_image, check_sizes
from onebit.models.registry import register
from onebit.nn import BinaryConv2d, ScalePixels, SteSign
from onebit.nn.binary_layer import InputScale

__all__ = ["NinXnor"]

# (kernel, pool after it, dropout before it) of the one-bit convolutions.
_PoolKind = Literal["max", "average"] | None
_LAYERS: tuple[tuple[int, _PoolKind, bool], ...] = (
    (1, None, False),
    (1, "max", False),
    (5, None, True),
    (1, None, False),
    (1, "average", False),
    (3, None, True),
    (1, None, False),
)


@register(
    "nin_xnor",
    small={
        "input_shape": (3, 9, 10),
        "classes": 7,
        "widths": (33, 31, 17, 32, 33, 8, 9, 65),
        "dropout": 0.0,
    },
)
class NinXnor(ImageSequential):
    """Network in Network for CIFAR-10: 969,418 parameters.

    192C5-160C1-96C1-MP3/2-192C5-192C1-192C1-AP3/2-192C3-192C1-10C1-global average.

    Input: (N, *input_shape), uint8 (scale_pixels=True) or floating point. Output: (N, classes) float32.

    The first and the last convolution are real, with bias; the seven between are one-bit on both sides, in
    XNOR-Net's order BatchNorm → sign → dropout → convolution (·α, + bias) → ReLU, the pool last. Sizes,
    BatchNorm (ε 1e-4, momentum 0.1; the first and the last without scale and shift), dropout and the ReLU
    before the last average are those of the widely used PyTorch code of XNOR-Net
    (github.com/jiecaoyu/XNOR-Net-PyTorch), which drops K; input_scale="xnor" brings it back. That code's
    input is a whitened CIFAR-10; here ScalePixels feeds the first layer. The last average is over whatever
    image is left (8×8 for 32×32).

    widths: channels of the eight convolutions before the last. dropout: before the 5×5 and the 3×3 one-bit
    convolution, behind the sign, so that a dropped unit adds 0; K cannot be had with it, since the sign is
    then a module of its own.
    ValueError for sizes that make no sense.
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (3, 32, 32),
        classes: int = 10,
        widths: Sequence[int] = (192, 160, 96, 192, 192, 192, 192, 192),
        *,
        dropout: float = 0.5,
        input_scale: InputScale | None = None,
        scale_pixels: bool = True,
    ) -> None:
        channels, _, _ = check_image(input_shape, classes, min_size=1)
        check_sizes("widths", widths)
        if len(widths) != 8:
            raise ValueError(f"widths must be the channels of eight convolutions; got {widths!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1; got {dropout!r}")
        if dropout and input_scale is not None:
            raise ValueError(f"input_scale={input_scale!r} needs dropout=0; got dropout={dropout!r}")
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if scale_pixels:
            layers["pixels"] = ScalePixels()
        layers["conv1"] = nn.Conv2d(channels, widths[0], 5, padding=2)
        layers["norm1"] = nn.BatchNorm2d(widths[0], eps=1e-4, affine=False)
        layers["relu1"] = nn.ReLU()
        for i, (kernel, pool, drops) in enumerate(_LAYERS, start=2):
            fan_in, fan_out = widths[i - 2], widths[i - 1]
            layers[f"norm{i}"] = nn.BatchNorm2d(fan_in, eps=1e-4)
            separate = drops and dropout > 0
            if separate:
                layers[f"activation{i}"] = SteSign()
                layers[f"dropout{i}"] = nn.Dropout(dropout)
            layers[f"conv{i}"] = BinaryConv2d(
                fan_in,
                fan_out,
                kernel,
                padding=kernel // 2,
                input_quantizer=None if separate else "ste_sign",
                weight_scale="channel_mean",
                input_scale=input_scale,
                bias=True,
                init="glorot",
            )
            layers[f"relu{i}"] = nn.ReLU()
            if pool == "max":
                layers[f"pool{i}"] = nn.MaxPool2d(3, 2, padding=1)
            elif pool == "average":
                layers[f"pool{i}"] = nn.AvgPool2d(3, 2, padding=1)
        layers["norm9"] = nn.BatchNorm2d(widths[-1], eps=1e-4, affine=False)
        layers["conv9"] = nn.Conv2d(widths[-1], classes, 1)
        layers["relu9"] = nn.ReLU()
        layers["average"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        super().__init__(layers, input_shape, takes_bytes=scale_pixels)
