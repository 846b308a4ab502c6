"""Marker operators: how binarization shows itself in an exported graph.

`torch.export` would write a quantizer out as `ge`, `to`, `mul`, `sub`; a converter would have to guess what
those four mean. While exporting, the layers call one operator instead:

* `onebit::sign(x)`         +1 where x >= 0, else -1, in x's dtype
* `onebit::scale_pixels(x)` uint8 -> float32, (2x - 255) / 256

Both have real kernels, so an exported program runs as it stands. Neither has a gradient: they appear only in
inference graphs.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["emits_markers", "pixels_formula", "sign_formula"]


def emits_markers() -> bool:
    """True while `torch.export` traces in Python (strict=False), and at no other time.

    The second condition is needed: on torch 2.11 `is_exporting` alone also holds under a plain
    `torch.compile`, where a marker would cut the gradient.
    """
    return torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()


def sign_formula(x: Tensor) -> Tensor:
    """+1 where x >= 0 (so also at -0.0), else -1 (so also at NaN); a fresh tensor of x's dtype and shape."""
    return (x >= 0).to(x.dtype) * 2 - 1


def pixels_formula(x: Tensor) -> Tensor:
    """(2x - 255) / 256 in float32. Every result is an odd multiple of 1/256 below 1: nothing rounds."""
    return (x.to(torch.float32) * 2 - 255) / 256


@torch.library.custom_op("onebit::sign", mutates_args=())
def _sign(x: Tensor) -> Tensor:
    return sign_formula(x)


@_sign.register_fake
def _sign_fake(x: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("onebit::scale_pixels", mutates_args=())
def _scale_pixels(x: Tensor) -> Tensor:
    return pixels_formula(x)


@_scale_pixels.register_fake
def _scale_pixels_fake(x: Tensor) -> Tensor:
    return torch.empty_like(x, dtype=torch.float32)
