"""ReActNet-A (arXiv 2003.03488): a MobileNet of one-bit convolutions with learned shifts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from onebit.models.images import ImageSequential, check_image, check_sizes
from onebit.models.registry import register
from onebit.nn import BinaryConv2d, NormalizePixels, RPReLU, RSign

__all__ = ["ReActNetA"]


def _conv(
    channels: int, kernel: int, stride: int, input_quantizer: nn.Module | None, binary_weights: bool
) -> BinaryConv2d:
    return BinaryConv2d(
        channels,
        channels,
        kernel,
        stride=stride,
        padding=kernel // 2,
        input_quantizer=input_quantizer,
        weight_quantizer="ste_sign" if binary_weights else None,
        weight_scale="channel_mean_detached" if binary_weights else None,
        init="glorot",
    )


class ReActBlock(nn.Module):
    """RSign → 3×3 → BatchNorm, + shortcut, → RPReLU; then the same with 1×1 convolutions.

    x: (N, fan_in, H, W) -> (N, fan_out, H', W'); fan_out is fan_in or its double, stride 1 or 2. One-bit
    convolutions never change the channel count: to double it, two 1×1 convolutions see the same signs, each
    with the same shortcut, and their results stand side by side. With stride 2 the shortcut is an average
    pool 2×2.
    """

    def __init__(self, fan_in: int, fan_out: int, stride: int, binary_weights: bool) -> None:
        super().__init__()
        self.conv3 = _conv(fan_in, 3, stride, RSign(fan_in), binary_weights)
        self.norm3 = nn.BatchNorm2d(fan_in)
        # ceil_mode: an odd image keeps its last row, as the 3×3 convolution of stride 2 does
        self.pool = (
            nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False) if stride == 2 else nn.Identity()
        )
        self.activation3 = RPReLU(fan_in)
        self.sign1 = RSign(fan_in)
        self.conv1 = nn.ModuleList(
            _conv(fan_in, 1, 1, None, binary_weights) for _ in range(fan_out // fan_in)
        )
        self.norm1 = nn.ModuleList(nn.BatchNorm2d(fan_in) for _ in self.conv1)
        self.activation1 = RPReLU(fan_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation3(self.norm3(self.conv3(x)) + self.pool(x))
        signs = self.sign1(x)
        parts = [norm(conv(signs)) + x for conv, norm in zip(self.conv1, self.norm1, strict=True)]
        y: Tensor = self.activation1(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1))
        return y


@register("reactnet_a", small={"input_shape": (3, 23, 18), "classes": 3, "widths": (17, 34, 34, 68)})
class ReActNetA(ImageSequential):
    """ReActNet-A, MobileNet-V1's widths 32-64-128×2-256×2-512×6-1024×2: 29,343,592 parameters.

    Input: (N, 3, H, W) uint8, normalized inside (NormalizePixels, ImageNet's mean and std), or floating
    point with normalize=False. Output: (N, classes) float32.

    As the authors' code (github.com/liuzechun/ReActNet, mobilenet/2_step2): the 3×3 stem of stride 2 (with
    BatchNorm) and the last dense layer are real, every other convolution is one-bit (·α, a constant in the
    gradient) behind an RSign. Channels double by two parallel convolutions; the image halves with them,
    except from 32 to 64. RPReLU's shifts stand before and after the PReLU, the following RSign has its own.

    widths: channels of the stem and of each block; each is the one before it or its double.
    binary_weights: False leaves the weights real, as in the first of the paper's two training steps;
        parameters have the same names and shapes, so that the second step starts from them.
    ValueError for sizes that make no sense.
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (3, 224, 224),
        classes: int = 1000,
        widths: Sequence[int] = (32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024),
        *,
        binary_weights: bool = True,
        normalize: bool = True,
    ) -> None:
        channels, _, _ = check_image(input_shape, classes, min_size=2)
        check_sizes("widths", widths)
        if not widths or any(b not in (a, 2 * a) for a, b in pairwise(widths)):
            raise ValueError(f"each of widths must be the one before it or its double; got {widths!r}")
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if normalize:
            layers["pixels"] = NormalizePixels()
        layers["conv"] = nn.Conv2d(channels, widths[0], 3, stride=2, padding=1, bias=False)
        layers["norm"] = nn.BatchNorm2d(widths[0])
        for i in range(1, len(widths)):
            stride = 2 if i > 1 and widths[i] != widths[i - 1] else 1
            layers[f"block{i}"] = ReActBlock(widths[i - 1], widths[i], stride, binary_weights)
        layers["average"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["linear"] = nn.Linear(widths[-1], classes)
        super().__init__(layers, input_shape, takes_bytes=normalize)
