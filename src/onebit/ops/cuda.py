"""The operators on a CUDA device. Products need the kernels of onebit.runtime.cuda."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import Tensor

from onebit.ops.plain import pack_bits, unpack_bits

__all__ = [
    "binary_conv2d",
    "binary_matmul",
    "f32_binary_conv2d",
    "f32_binary_matmul",
    "pack_bits",
    "unpack_bits",
]


def _missing(op: str) -> NoReturn:
    raise NotImplementedError(
        f"onebit::{op} has no CUDA kernel in this version: run the packed model on the CPU (model.cpu()), or "
        "leave it unpacked on this device"
    )


def binary_matmul(a: Tensor, b: Tensor, k: int, **options: Any) -> Tensor:
    """See operators.py."""
    _missing("binary_matmul")


def binary_conv2d(x: Tensor, weight: Tensor, channels: int, **options: Any) -> Tensor:
    """See operators.py."""
    _missing("binary_conv2d")


def f32_binary_matmul(x: Tensor, b: Tensor, **options: Any) -> Tensor:
    """See operators.py."""
    _missing("f32_binary_matmul")


def f32_binary_conv2d(x: Tensor, weight: Tensor, **options: Any) -> Tensor:
    """See operators.py."""
    _missing("f32_binary_conv2d")
