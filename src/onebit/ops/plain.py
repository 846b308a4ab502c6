"""Packing and unpacking in plain PyTorch, for every device: what has no kernel of its own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from onebit.ops.operators import WORD_BITS, packed_result, unpacked_result


def pack_bits(x: Tensor) -> Tensor:
    """See operators.py. A NaN becomes −1: to look for one would wait for the device."""
    result = packed_result(x)
    ones = (x >= 0).to(torch.int32)
    ones = F.pad(ones, (0, result.shape[-1] * WORD_BITS - x.shape[-1]))
    by_word = ones.reshape(*result.shape, WORD_BITS) << _places(x.device)
    return by_word.sum(-1, dtype=torch.int32)  # no two have a bit in common


def unpack_bits(bits: Tensor, k: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """See operators.py."""
    unpacked_result(bits, k, dtype)
    ones = (bits.unsqueeze(-1) >> _places(bits.device)) & 1
    return ones.flatten(-2)[..., :k].to(dtype) * 2 - 1


def _places(device: torch.device) -> Tensor:
    return torch.arange(WORD_BITS, dtype=torch.int32, device=device)
