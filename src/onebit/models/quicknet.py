"""QuickNet (Larq: "Larq Compute Engine", arXiv 2011.09398), as in Larq Zoo 1.0."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onebit.models.images import ImageSequential, check_image, check_sizes
from onebit.models.registry import register
from onebit.nn import BinaryConv2d, NormalizePixels, SteSign

__all__ = ["QuickNet"]

_SMALL = {"input_shape": (3, 33, 42), "classes": 3, "widths": (20, 33, 65), "blocks": (1, 2, 1)}


class BlurPool(nn.Module):
    """A fixed 3×3 binomial filter (1 2 1)ᵀ(1 2 1)/16 a channel, of stride 2 (arXiv 1904.11486).

    x: (N, channels, H, W) -> (N, channels, ceil(H/2), ceil(W/2)); outside the image is 0.
    """

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0])
        kernel = (row[:, None] * row / 16).expand(channels, 1, 3, 3).contiguous()
        self.register_buffer("kernel", kernel, persistent=False)  # never trained: no state

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, stride=2, padding=1, groups=self.kernel.shape[0])


class QuickBlock(nn.Module):
    """sign → 3×3 one-bit convolution → ReLU → BatchNorm, + its input. (N, channels, H, W), shape kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = BinaryConv2d(
            channels,
            channels,
            3,
            padding=1,
            padding_value=1,
            input_quantizer=SteSign(window=1.25),
            weight_quantizer=SteSign(window=1.25),
            init="glorot",
        )
        self.relu = nn.ReLU()
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.relu(self.conv(x))) + x
        return y


def _stem(channels: int, width: int) -> nn.Sequential:
    """Real: 3×3 of stride 2 → BatchNorm → ReLU → depthwise 3×3 of stride 2 → BatchNorm → 1×1 → BatchNorm."""
    narrow = width // 4

    def norm(channels: int, affine: bool = True) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01, affine=affine)

    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(channels, narrow, 3, stride=2, padding=1, bias=False),
            norm1=norm(narrow),
            relu=nn.ReLU(),
            depthwise=nn.Conv2d(narrow, narrow, 3, stride=2, padding=1, groups=narrow, bias=False),
            norm2=norm(narrow, affine=False),
            pointwise=nn.Conv2d(narrow, width, 1, bias=False),
            norm3=norm(width),
        )
    )


def _transition(fan_in: int, fan_out: int) -> nn.Sequential:
    """Real: ReLU → max-pool 2×2 of stride 1 → blur of stride 2 → 1×1 → BatchNorm."""
    return nn.Sequential(
        OrderedDict(
            relu=nn.ReLU(),
            pool=nn.MaxPool2d(2, 1),
            blur=BlurPool(fan_in),
            pointwise=nn.Conv2d(fan_in, fan_out, 1, bias=False),
            norm=nn.BatchNorm2d(fan_out),
        )
    )


@register("quicknet_small", small=_SMALL, preset={"widths": (32, 64, 256, 512)})
@register("quicknet", small=_SMALL)
@register("quicknet_large", small=_SMALL, preset={"blocks": (6, 8, 12, 6)})
class QuickNet(ImageSequential):
    """QuickNet: 13,230,024 parameters; quicknet_small 12,652,504, quicknet_large 23,338,184.

    Input: (N, 3, H, W) uint8, scaled to [-1, 1] inside (NormalizePixels with mean and std 0.5, as Larq Zoo
    does), or floating point with normalize=False. Output: (N, classes) float32.

    Stem, sections of residual blocks with a transition wherever the width changes, ReLU, global average,
    dense layer (see the functions above). Stem, transitions and the last dense layer are real; every other
    convolution is one-bit on both sides, 3×3, padded with +1, without any scale.

    Read off Larq Zoo's source (larq_zoo/sota/quicknet.py, v1.0). Our counts are the published ones
    (13,234,088, 12,655,688, 23,342,248) less the fixed blur kernels and two numbers a channel of the stem's
    BatchNorm without scale and shift. Departures: padding of a real convolution of stride 2 is 1 on each side
    (TensorFlow's "same" puts it all at the bottom right where the size is even), and latent weights are
    clipped to ±1 by `onebit.optim`, to ±1.25 there; the gradient's window is 1.25 in both.

    widths: channels of the sections, the first a multiple of 4. blocks: residual blocks a section.
    ValueError for sizes that make no sense.
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (3, 224, 224),
        classes: int = 1000,
        widths: Sequence[int] = (64, 128, 256, 512),
        blocks: Sequence[int] = (4, 4, 4, 4),
        *,
        normalize: bool = True,
    ) -> None:
        check_sizes("widths", widths)
        check_sizes("blocks", blocks)
        if len(widths) != len(blocks) or not widths or widths[0] % 4:
            raise ValueError(
                "widths and blocks must be equally many, the first width a multiple of 4; "
                f"got widths={widths!r}, blocks={blocks!r}"
            )
        # The stem turns s pixels into ceil(s/4), a transition m >= 2 into ceil((m - 1)/2).
        channels, _, _ = check_image(input_shape, classes, min_size=2 ** (len(widths) + 1) - 3)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if normalize:
            layers["pixels"] = NormalizePixels((0.5,) * channels, (0.5,) * channels)
        layers["stem"] = _stem(channels, widths[0])
        fan_in = widths[0]
        for section, (width, count) in enumerate(zip(widths, blocks, strict=True), start=1):
            if width != fan_in:
                layers[f"transition{section}"] = _transition(fan_in, width)
            fan_in = width
            for i in range(1, count + 1):
                layers[f"block{section}_{i}"] = QuickBlock(width)
        layers["relu"] = nn.ReLU()
        layers["average"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["linear"] = nn.Linear(fan_in, classes)
        super().__init__(layers, input_shape, takes_bytes=normalize)
