"""Bytes in, exactly representable floats out."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from onebit.nn.markers import emits_markers, pixels_formula

__all__ = ["ScalePixels"]


class ScalePixels(nn.Module):
    """uint8 pixels of any shape -> float32 of that shape: (2x - 255) / 256.

    The values are the odd multiples of 1/256 from -255/256 to +255/256, symmetric about 0. In float32
    every product with ±1 and every sum of up to 65,793 of them is exact, whatever the order: that is why a
    first layer fed by ScalePixels can run on integers and still equal PyTorch bit for bit. (Division by
    127.5, or mean/std normalization, rounds; different summation orders then flip some signs.)

    TypeError for any other dtype: pixels already divided by 255 would be scaled twice, in silence.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.uint8:
            raise TypeError(
                f"ScalePixels takes torch.uint8 pixels (0..255), got {x.dtype}; pass the bytes as they come "
                "from the image, or leave ScalePixels out of the model if its input is already scaled"
            )
        if emits_markers():
            return cast(Tensor, torch.ops.onebit.scale_pixels(x))
        return pixels_formula(x)
