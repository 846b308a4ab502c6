"""AlexNet as in "XNOR-Net" (arXiv 1603.05279), in the block orders of BNN, BWN and XNOR-Net."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

from torch import nn

from onebit.models.images import ImageSequential, check_image, check_sizes
from onebit.models.registry import register
from onebit.nn import BinaryConv2d, BinaryLinear, NormalizePixels, SteSign
from onebit.nn.binary_layer import InputScale, check_choice

__all__ = ["AlexNet"]

Variant = Literal["bnn", "bwn", "xnor"]
_SMALL = {"input_shape": (3, 67, 70), "classes": 3, "widths": (17, 33, 31, 32, 65), "hidden": (33, 63)}
# (kernel, padding, pool behind it) of the five convolutions; the first has stride 4.
_CONVOLUTIONS = ((11, 2, True), (5, 2, True), (3, 1, False), (3, 1, False), (3, 1, True))


@register("alexnet_bnn", small=_SMALL, preset={"variant": "bnn"})
@register("alexnet_bwn", small=_SMALL, preset={"variant": "bwn"})
@register("alexnet_xnor", small=_SMALL, preset={"variant": "xnor"})
class AlexNet(ImageSequential):
    """96C11/4-MP3/2-256C5-MP3/2-384C3-384C3-256C3-MP3/2-4096FC-4096FC-1000, without groups.

    Input: (N, 3, H, W) uint8, normalized inside (NormalizePixels, ImageNet's mean and std), or floating
    point with normalize=False. Output: (N, classes) float32.

    variant:
        "bnn"  convolution → pool → BatchNorm → sign (BNN, arXiv 1602.02830), no scales; the last layer sees
        signs. "bwn"  one-bit weights times α, real activations: convolution → BatchNorm → ReLU → pool.
        "xnor" BatchNorm → sign → convolution (·α·K) → pool; BatchNorm → ReLU before the last layer. That is
               the authors' Torch network (github.com/allenai/XNOR-Net, models/alexnetxnor.lua); their
               published code drops K: input_scale=None.
    In all three the first convolution (without bias, a BatchNorm follows) and the last dense layer (with
    bias) are real, everything between is one-bit. (BNN's own AlexNet is another, three times as wide and
    one-bit throughout; this one takes XNOR-Net's sizes for all, so that the three can be compared.)

    62,388,104 parameters ("xnor") or 62,387,912 (the others). The authors' 6×6 convolution on 6×6 pixels is
    a dense layer here: the same sum.

    widths: channels of the five convolutions. hidden: widths of the two hidden dense layers.
    input_scale: for "xnor" only: "xnor" or None.
    ValueError for sizes or names that make no sense.
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (3, 224, 224),
        classes: int = 1000,
        widths: Sequence[int] = (96, 256, 384, 384, 256),
        hidden: Sequence[int] = (4096, 4096),
        *,
        variant: Variant = "xnor",
        input_scale: InputScale | None = "xnor",
        normalize: bool = True,
    ) -> None:
        _, height, width = check_image(input_shape, classes, min_size=63)
        check_sizes("widths", widths)
        check_sizes("hidden", hidden)
        check_choice("variant", variant, get_args(Variant))
        check_choice("input_scale", input_scale, (None, *get_args(InputScale)))
        if len(widths) != 5:
            raise ValueError(f"widths must be the channels of five convolutions; got {widths!r}")
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if normalize:
            layers["pixels"] = NormalizePixels()
        fan_in = input_shape[0]
        for i, (fan_out, (kernel, padding, pools)) in enumerate(
            zip(widths, _CONVOLUTIONS, strict=True), start=1
        ):
            layers.update(
                _first(variant, fan_in, fan_out)
                if i == 1
                else _convolution(variant, input_scale, i, fan_in, fan_out, kernel, padding, pools)
            )
            height, width = (_size(n, kernel, 4 if i == 1 else 1, padding, pools) for n in (height, width))
            fan_in = fan_out
        if variant == "xnor":
            layers["norm6"] = nn.BatchNorm2d(fan_in, eps=1e-4)  # a channel, as before a convolution
        layers["flatten"] = nn.Flatten()
        fan_in *= height * width
        for i, fan_out in enumerate(hidden, start=6):
            layers.update(_dense(variant, input_scale, i, fan_in, fan_out))
            fan_in = fan_out
        last = 6 + len(hidden)
        if variant == "xnor":
            if hidden:
                layers[f"norm{last}"] = nn.BatchNorm1d(fan_in, eps=1e-3)
            layers[f"relu{last}"] = nn.ReLU()
        layers[f"linear{last}"] = nn.Linear(fan_in, classes)
        super().__init__(layers, input_shape, takes_bytes=normalize)


def _size(pixels: int, kernel: int, stride: int, padding: int, pools: bool) -> int:
    """The height or width behind a convolution and its pool."""
    pixels = (pixels + 2 * padding - kernel) // stride + 1
    return (pixels - 3) // 2 + 1 if pools else pixels


def _options(variant: Variant, input_scale: InputScale | None) -> dict[str, Any]:
    """What the one-bit layers of a variant have in common."""
    if variant == "bnn":
        return {"input_quantizer": None}
    if variant == "bwn":
        return {"input_quantizer": None, "weight_scale": "channel_mean", "init": "glorot"}
    return {"weight_scale": "channel_mean", "input_scale": input_scale, "init": "glorot"}


def _first(variant: Variant, fan_in: int, fan_out: int) -> Iterator[tuple[str, nn.Module]]:
    yield "conv1", nn.Conv2d(fan_in, fan_out, 11, stride=4, padding=2, bias=False)
    if variant == "bnn":
        yield "pool1", nn.MaxPool2d(3, 2)
        yield "norm1", nn.BatchNorm2d(fan_out)
        yield "activation1", SteSign()
    else:
        yield "norm1", nn.BatchNorm2d(fan_out)
        yield "relu1", nn.ReLU()
        yield "pool1", nn.MaxPool2d(3, 2)


def _convolution(
    variant: Variant,
    input_scale: InputScale | None,
    i: int,
    fan_in: int,
    fan_out: int,
    kernel: int,
    padding: int,
    pools: bool,
) -> Iterator[tuple[str, nn.Module]]:
    if variant == "xnor":
        yield f"norm{i}", nn.BatchNorm2d(fan_in, eps=1e-4)
    yield (
        f"conv{i}",
        BinaryConv2d(fan_in, fan_out, kernel, padding=padding, **_options(variant, input_scale)),
    )
    if variant == "bwn":
        yield f"norm{i}", nn.BatchNorm2d(fan_out)
        yield f"relu{i}", nn.ReLU()
    if pools:
        yield f"pool{i}", nn.MaxPool2d(3, 2)
    if variant == "bnn":
        yield f"norm{i}", nn.BatchNorm2d(fan_out)
        yield f"activation{i}", SteSign()


def _dense(
    variant: Variant, input_scale: InputScale | None, i: int, fan_in: int, fan_out: int
) -> Iterator[tuple[str, nn.Module]]:
    if variant == "xnor" and i > 6:  # norm6 stands before the flatten
        yield f"norm{i}", nn.BatchNorm1d(fan_in, eps=1e-4)
    yield f"linear{i}", BinaryLinear(fan_in, fan_out, **_options(variant, input_scale))
    if variant != "xnor":
        yield f"norm{i}", nn.BatchNorm1d(fan_out)
        yield (f"relu{i}", nn.ReLU()) if variant == "bwn" else (f"activation{i}", SteSign())
