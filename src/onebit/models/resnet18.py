"""ResNet-18 with one-bit convolutions: as BWN and XNOR-Net (arXiv 1603.05279) and Bi-Real Net
(1808.00278)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Literal, get_args

from torch import Tensor, nn

from onebit.models.images import ImageSequential, check_image, check_sizes
from onebit.models.registry import register
from onebit.nn import BinaryConv2d, NormalizePixels
from onebit.nn.binary_layer import InputScale, check_choice

__all__ = ["ResNet18"]

Variant = Literal["bwn", "xnor", "birealnet"]
_SMALL = {
    "input_shape": (3, 37, 50),
    "classes": 3,
    "widths": (17, 33, 32, 65),
    "blocks": (1, 1, 1, 1),
}


class BwnBlock(nn.Module):
    """conv → BatchNorm → ReLU → conv → BatchNorm, + shortcut, → ReLU; one-bit weights, real activations."""

    def __init__(self, fan_in: int, fan_out: int, stride: int, input_scale: InputScale | None) -> None:
        super().__init__()

        def conv(channels: int, step: int) -> BinaryConv2d:
            return BinaryConv2d(
                channels,
                fan_out,
                3,
                stride=step,
                padding=1,
                input_quantizer=None,
                weight_scale="channel_mean",
                init="glorot",
            )

        self.conv1 = conv(fan_in, stride)
        self.norm1 = nn.BatchNorm2d(fan_out)
        self.relu1 = nn.ReLU()
        self.conv2 = conv(fan_out, 1)
        self.norm2 = nn.BatchNorm2d(fan_out)
        self.shortcut = _strided_shortcut(fan_in, fan_out, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        total: Tensor = self.relu2(y + self.shortcut(x))
        return total


class XnorBlock(nn.Module):
    """(BatchNorm → sign → conv ·α·K) twice, + shortcut: XNOR-Net's block order in a residual block."""

    def __init__(self, fan_in: int, fan_out: int, stride: int, input_scale: InputScale | None) -> None:
        super().__init__()

        def conv(channels: int, step: int) -> BinaryConv2d:
            return BinaryConv2d(
                channels,
                fan_out,
                3,
                stride=step,
                padding=1,
                weight_scale="channel_mean",
                input_scale=input_scale,
                init="glorot",
            )

        self.norm1 = nn.BatchNorm2d(fan_in)
        self.conv1 = conv(fan_in, stride)
        self.norm2 = nn.BatchNorm2d(fan_out)
        self.conv2 = conv(fan_out, 1)
        self.shortcut = _strided_shortcut(fan_in, fan_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(self.norm2(self.conv1(self.norm1(x)))) + self.shortcut(x)
        return y


class BiRealBlock(nn.Module):
    """Two times: sign → conv (·α) → BatchNorm, + shortcut around this one convolution; no ReLU anywhere."""

    def __init__(self, fan_in: int, fan_out: int, stride: int, input_scale: InputScale | None) -> None:
        super().__init__()

        def conv(channels: int, step: int) -> BinaryConv2d:
            return BinaryConv2d(
                channels,
                fan_out,
                3,
                stride=step,
                padding=1,
                input_quantizer="approx_sign",
                weight_scale="channel_mean_detached",
                init="glorot",
            )

        self.conv1 = conv(fan_in, stride)
        self.norm1 = nn.BatchNorm2d(fan_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or fan_in != fan_out:
            self.shortcut = nn.Sequential(
                OrderedDict(
                    # ceil_mode: an odd image keeps its last row, as the 3×3 convolution of stride 2 does
                    pool=nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False)
                    if stride != 1
                    else nn.Identity(),
                    conv=nn.Conv2d(fan_in, fan_out, 1, bias=False),
                    norm=nn.BatchNorm2d(fan_out),
                )
            )
        self.conv2 = conv(fan_out, 1)
        self.norm2 = nn.BatchNorm2d(fan_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.conv1(x)) + self.shortcut(x)
        y: Tensor = self.norm2(self.conv2(x)) + x
        return y


def _strided_shortcut(fan_in: int, fan_out: int, stride: int) -> nn.Module:
    """The identity, or a real 1×1 convolution and a BatchNorm where the shape changes (ResNet's type B)."""
    if stride == 1 and fan_in == fan_out:
        return nn.Identity()
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(fan_in, fan_out, 1, stride=stride, bias=False), norm=nn.BatchNorm2d(fan_out)
        )
    )


_BLOCKS: dict[str, Callable[[int, int, int, InputScale | None], nn.Module]] = {
    "bwn": BwnBlock,
    "xnor": XnorBlock,
    "birealnet": BiRealBlock,
}


@register("resnet18_bwn", small=_SMALL, preset={"variant": "bwn"})
@register("resnet18_xnor", small=_SMALL, preset={"variant": "xnor"})
@register("birealnet18", small=_SMALL, preset={"variant": "birealnet"})
class ResNet18(ImageSequential):
    """64C7/2-MP3/2, four stages of two blocks of 64, 128, 256, 512 channels, global average, 1000 classes.

    Input: (N, 3, H, W) uint8, normalized inside (NormalizePixels, ImageNet's mean and std), or floating point
    with normalize=False. Output: (N, classes) float32. 11,689,512 parameters ("bwn", "birealnet"), 11,689,640
    ("xnor").

    variant:
        "bwn"       one-bit weights times α, real activations, ResNet's own block (post-activation).
        "xnor"      BatchNorm → sign → convolution (·α·K), twice a block. The papers' authors did not publish
                    their ResNet; the order is the paper's figure, the stem and the shortcuts are ResNet's
                    type B, and a BatchNorm → ReLU stands before the last average (as before the last layer
                    of their AlexNet).
        "birealnet" sign → convolution (·α) → BatchNorm with a shortcut around *every* convolution, no ReLU;
                    downsampling shortcuts are average pool 2×2 → real 1×1 convolution → BatchNorm
                    (github.com/liuzechun/Bi-Real-net). α is held constant in the gradient, as there.
    In all three the 7×7 stem, the 1×1 downsampling shortcuts and the last dense layer are real; every 3×3
    convolution is one-bit. Activations are padded with 0.

    widths: channels of the stages. blocks: blocks a stage; one block is two 3×3 convolutions.
    input_scale: for "xnor" only: "xnor" (K) or None.
    ValueError for sizes or names that make no sense.
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (3, 224, 224),
        classes: int = 1000,
        widths: Sequence[int] = (64, 128, 256, 512),
        blocks: Sequence[int] = (2, 2, 2, 2),
        *,
        variant: Variant = "birealnet",
        input_scale: InputScale | None = "xnor",
        normalize: bool = True,
    ) -> None:
        channels, _, _ = check_image(input_shape, classes, min_size=2)
        check_sizes("widths", widths)
        check_sizes("blocks", blocks)
        check_choice("variant", variant, get_args(Variant))
        check_choice("input_scale", input_scale, (None, *get_args(InputScale)))
        if len(widths) != len(blocks) or not widths:
            raise ValueError(
                f"widths and blocks must be equally many; got widths={widths!r}, blocks={blocks!r}"
            )
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if normalize:
            layers["pixels"] = NormalizePixels()
        layers["conv"] = nn.Conv2d(channels, widths[0], 7, stride=2, padding=3, bias=False)
        layers["norm"] = nn.BatchNorm2d(widths[0])
        if variant != "birealnet":
            layers["relu"] = nn.ReLU()
        layers["pool"] = nn.MaxPool2d(3, 2, padding=1)
        fan_in = widths[0]
        for stage, (fan_out, count) in enumerate(zip(widths, blocks, strict=True), start=1):
            for i in range(1, count + 1):
                stride = 2 if stage > 1 and i == 1 else 1
                layers[f"block{stage}_{i}"] = _BLOCKS[variant](fan_in, fan_out, stride, input_scale)
                fan_in = fan_out
        if variant == "xnor":
            layers["last_norm"] = nn.BatchNorm2d(fan_in)
            layers["last_relu"] = nn.ReLU()
        layers["average"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["linear"] = nn.Linear(fan_in, classes)
        super().__init__(layers, input_shape, takes_bytes=normalize)
