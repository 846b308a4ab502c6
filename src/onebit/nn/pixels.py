"""Bytes in, exactly representable floats out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from onebit.nn.markers import emits_markers, pixels_formula
from onebit.nn.tracing import is_traced, one_node

__all__ = ["NormalizePixels", "ScalePixels"]


class ScalePixels(nn.Module):
    """uint8 pixels of any shape -> float32 of that shape: (2x - 255) / 256.

    The values are the odd multiples of 1/256 from -255/256 to +255/256, symmetric about 0. In float32
    every product with ±1 and every sum of up to 65,793 of them is exact, whatever the order: that is why a
    first layer fed by ScalePixels can run on integers and still equal PyTorch bit for bit. (Division by
    127.5, or mean/std normalization, rounds; different summation orders then flip some signs.)

    TypeError for any other dtype: pixels already divided by 255 would be scaled twice, in silence.
    """

    def forward(self, x: Tensor) -> Tensor:
        if is_traced(x):
            return one_node(self, x)
        if x.dtype != torch.uint8:
            raise TypeError(
                f"ScalePixels takes torch.uint8 pixels (0..255), got {x.dtype}; pass the bytes as they come "
                "from the image, or leave ScalePixels out of the model if its input is already scaled"
            )
        if emits_markers():
            return cast(Tensor, torch.ops.onebit.scale_pixels(x))
        return pixels_formula(x)


class NormalizePixels(nn.Module):
    """uint8 images (N, C, H, W) -> float32 of that shape: (x/255 - mean[c]) / std[c], as x·a[c] + b[c].

    mean, std: one number a channel, of pixels in 0..1; the defaults are those of ImageNet's training set.
    a = 1/(255·std) and b = -mean/std are rounded to float32 once, and so are the product and the sum: unlike
    ScalePixels this is *not* exact, and two summation orders of a layer behind it differ in the last bits.
    It is for networks whose first layer is real; there is no integer path to lose.

    ValueError for counts that differ or a std that is not positive; TypeError for any other dtype than uint8;
    ValueError for an image of other channels.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        super().__init__()
        if len(mean) != len(std) or not all(s > 0 for s in std):
            raise ValueError(
                f"mean and std must be equally many, every std positive; got mean={mean!r}, std={std!r}"
            )
        self.mean, self.std = tuple(mean), tuple(std)
        scale = torch.tensor([1 / (255 * s) for s in std]).reshape(-1, 1, 1)
        shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]).reshape(-1, 1, 1)
        self.register_buffer("scale", scale, persistent=False)  # follows from mean and std: no state
        self.register_buffer("shift", shift, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if is_traced(x):
            return one_node(self, x)
        if x.dtype != torch.uint8:
            raise TypeError(
                f"NormalizePixels takes torch.uint8 pixels (0..255), got {x.dtype}; pass the bytes as they "
                "come from the image, or leave NormalizePixels out of the model if its input is normalized"
            )
        if x.ndim != 4 or x.shape[1] != len(self.mean):
            raise ValueError(
                f"NormalizePixels with {len(self.mean)} means takes images of shape "
                f"(batch, {len(self.mean)}, height, width); got {tuple(x.shape)}"
            )
        return x.to(torch.float32) * self.scale + self.shift

    def extra_repr(self) -> str:
        return f"mean={self.mean}, std={self.std}"
