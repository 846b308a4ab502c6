"""LeNet-5 in the form of "XNOR-Net" (arXiv 1603.05279)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from onebit.models.images import ImageSequential, check_image, check_sizes
from onebit.models.registry import register
from onebit.nn import BinaryConv2d, BinaryLinear, ScalePixels
from onebit.nn.binary_layer import InputScale

__all__ = ["LeNet5Xnor"]


@register("lenet5_xnor", small={"input_shape": (1, 17, 19), "classes": 3, "widths": (5, 33), "hidden": 65})
class LeNet5Xnor(ImageSequential):
    """LeNet-5 for MNIST, 20C5-MP2-50C5-MP2-500FC-10: 432,720 parameters.

    Input: (N, *input_shape), uint8 (scale_pixels=True) or floating point. Output: (N, classes) float32.

    The first convolution and the last dense layer are real, with bias; the two between are one-bit on both
    sides, in XNOR-Net's order BatchNorm → sign → layer (·α) → ReLU, the pool last. Sizes, BatchNorm (ε
    1e-4, momentum 0.1, the first one without scale and shift) and the place of the ReLUs are those of the
    widely used PyTorch code of XNOR-Net (github.com/jiecaoyu/XNOR-Net-PyTorch), which drops K;
    input_scale="xnor" brings it back. That code normalizes by MNIST's mean; here ScalePixels feeds the
    first layer.

    widths: channels of the two convolutions. hidden: width of the hidden dense layer.
    ValueError for sizes that make no sense.
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (1, 28, 28),
        classes: int = 10,
        widths: Sequence[int] = (20, 50),
        hidden: int = 500,
        *,
        input_scale: InputScale | None = None,
        scale_pixels: bool = True,
    ) -> None:
        channels, height, width = check_image(input_shape, classes, min_size=16)
        check_sizes("widths", widths)
        check_sizes("hidden", [hidden])
        if len(widths) != 2:
            raise ValueError(f"widths must be the channels of the two convolutions; got {widths!r}")
        first, second = widths
        features = second * (((height - 4) // 2 - 4) // 2) * (((width - 4) // 2 - 4) // 2)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if scale_pixels:
            layers["pixels"] = ScalePixels()
        layers["conv1"] = nn.Conv2d(channels, first, 5)
        layers["norm1"] = nn.BatchNorm2d(first, eps=1e-4, affine=False)
        layers["relu1"] = nn.ReLU()
        layers["pool1"] = nn.MaxPool2d(2)
        layers["norm2"] = nn.BatchNorm2d(first, eps=1e-4)
        layers["conv2"] = BinaryConv2d(
            first, second, 5, weight_scale="channel_mean", input_scale=input_scale, bias=True, init="glorot"
        )
        layers["relu2"] = nn.ReLU()
        layers["pool2"] = nn.MaxPool2d(2)
        layers["flatten"] = nn.Flatten()
        layers["norm3"] = nn.BatchNorm1d(features, eps=1e-4)
        layers["linear3"] = BinaryLinear(
            features, hidden, weight_scale="channel_mean", input_scale=input_scale, bias=True, init="glorot"
        )
        layers["relu3"] = nn.ReLU()
        layers["linear4"] = nn.Linear(hidden, classes)
        super().__init__(layers, input_shape, takes_bytes=scale_pixels)
