"""The ConvNets of "Binarized Neural Networks" (arXiv 1602.02830): one-bit weights and activations."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from onebit.models.images import ImageSequential, check_image, check_sizes
from onebit.models.registry import register
from onebit.nn import BinaryConv2d, BinaryLinear, ScalePixels, quantizers

__all__ = ["BnnConvNet"]

_SMALL = {"input_shape": (3, 9, 10), "classes": 3, "widths": (33, 31, 65), "hidden": (33,)}


@register("bnn_convnet_cifar10", small=_SMALL)
@register("bnn_convnet_svhn", small=_SMALL, preset={"widths": (64, 128, 256)})
class BnnConvNet(ImageSequential):
    """2×128C3-MP2-2×256C3-MP2-2×512C3-MP2-1024FC-1024FC-10: 14,029,716 parameters.

    That is `bnn_convnet_cifar10`; `bnn_convnet_svhn`, the paper's SVHN network, has half the convolutions'
    widths (64, 128, 256) and 6,403,540 parameters.

    Input: (N, *input_shape), uint8 (scale_pixels=True) or floating point. Output: (N, classes) float32.

    A layer is conv (3×3, padding 1) → max-pool where there is one → BatchNorm → sign, in this order; the
    dense layers likewise; after the last one only BatchNorm (scores). *Every* layer has one-bit weights, the
    first and the last included; the first sees the 8-bit image, all others see signs.

    The defaults are the paper's CIFAR-10 network as in the authors' Theano code (BatchNorm ε 1e-4, momentum
    0.1). They gave it pixels in [-1, 1]; ScalePixels gives (2x - 255)/256 instead of (2x - 255)/255, which
    is exact.

    widths: channels of each pair of convolutions; each pair ends in a 2×2 max-pool.
    hidden: widths of the hidden dense layers.
    activation, weight_quantizer: names of quantizers; "stochastic_sign" is stochastic in training mode only.
    padding_value: 0 as in the paper, 1 or -1; the first convolution, whose input is real, always pads with 0.
    ValueError for sizes or names that make no sense.
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (3, 32, 32),
        classes: int = 10,
        widths: Sequence[int] = (128, 256, 512),
        hidden: Sequence[int] = (1024, 1024),
        *,
        activation: str = "ste_sign",
        weight_quantizer: str = "ste_sign",
        padding_value: int = 0,
        bn_eps: float = 1e-4,
        bn_momentum: float = 0.1,
        scale_pixels: bool = True,
    ) -> None:
        channels, height, width = check_image(input_shape, classes, min_size=2 ** len(widths))
        check_sizes("widths", widths)
        check_sizes("hidden", hidden)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if scale_pixels:
            layers["pixels"] = ScalePixels()
        for i, fan_out in enumerate((w for w in widths for _ in (0, 1)), start=1):
            layers[f"conv{i}"] = BinaryConv2d(
                channels,
                fan_out,
                3,
                padding=1,
                padding_value=0 if i == 1 else padding_value,  # type: ignore[arg-type]
                input_quantizer=None,
                weight_quantizer=quantizers.create(weight_quantizer),
            )
            if i % 2 == 0:
                layers[f"pool{i}"] = nn.MaxPool2d(2)
                height, width = height // 2, width // 2
            layers[f"norm{i}"] = nn.BatchNorm2d(fan_out, eps=bn_eps, momentum=bn_momentum)
            layers[f"activation{i}"] = quantizers.create(activation)
            channels = fan_out
        layers["flatten"] = nn.Flatten()
        fan_in, first = channels * height * width, 2 * len(widths) + 1
        for i, fan_out in enumerate((*hidden, classes), start=first):
            layers[f"linear{i}"] = BinaryLinear(
                fan_in, fan_out, input_quantizer=None, weight_quantizer=quantizers.create(weight_quantizer)
            )
            layers[f"norm{i}"] = nn.BatchNorm1d(fan_out, eps=bn_eps, momentum=bn_momentum)
            if i < first + len(hidden):
                layers[f"activation{i}"] = quantizers.create(activation)
            fan_in = fan_out
        super().__init__(layers, input_shape, takes_bytes=scale_pixels)
