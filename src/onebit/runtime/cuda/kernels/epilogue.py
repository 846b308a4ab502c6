"""What becomes of an exact ±1 sum, and the constants that kernels take for it (see base/epilogue.cuh)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from onebit.runtime.abi import EpilogueKind

PADDING = 256  # constants reach up to a multiple of this many columns, the widest tile
_NEVER = 2**31 - 1


@dataclass(frozen=True)
class Raw:
    """The sum itself, as int32."""


@dataclass(frozen=True)
class ScaleBias:
    """fma(float32(sum), scale[n], bias[n]), float32.

    Attributes:
        scale: float32 [columns].
        bias: float32 [columns]; −0.0 adds nothing.
    """

    scale: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True)
class Threshold:
    """(sum >= thresholds[n]) xor flip[n], as bits: the op `threshold` of a Program.

    Attributes:
        thresholds: int32 [columns]; −2^31 is always reached.
        flip: uint32 [⌈columns/32⌉] packed bits.
    """

    thresholds: NDArray[np.int32]
    flip: NDArray[np.uint32]


@dataclass(frozen=True)
class Residual:
    """x = fma(fma(float32(sum), scale[n], bias[n]), scale2[n], bias2[n]) + residual, float32, and its signs.

    The end of a residual block in one pass; a kernel writes the floats, the signs, or both.

    Attributes:
        scale: float32 [columns].
        bias: float32 [columns]; −0.0 adds nothing.
        scale2: float32 [columns]; 1.0 with a bias2 of −0.0 changes nothing.
        bias2: float32 [columns].
    """

    scale: NDArray[np.float32]
    bias: NDArray[np.float32]
    scale2: NDArray[np.float32]
    bias2: NDArray[np.float32]


Epilogue = Raw | ScaleBias | Threshold | Residual
# The values of EPILOGUE of every family.
MACROS: dict[type, int] = {
    Raw: EpilogueKind.I32,
    ScaleBias: EpilogueKind.F32,
    Threshold: EpilogueKind.BITS,
}
RESIDUAL = 3  # that of Residual, which only convolutions of bits have


def constants(
    epilogue: Epilogue, offset: NDArray[np.int64], bound: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The kernels' arguments `column` and `more`.

    A kernel finds v, and v + offset[n] is the sum, which lies within ±bound. A threshold t is compared as
    v >= t − offset[n]. Any t below −bound is always reached and any above bound never, so t is first brought
    into −bound … bound + 1, and the difference fits int32, also for t = −2^31.

    Args:
        epilogue: which, with its constants.
        offset: int64 [columns].
        bound: the largest |sum|.
        device: where the constants are put.

    Raises:
        ValueError: arrays of another length than offset's.
    """
    columns = len(offset)
    padded = -(-columns // PADDING) * PADDING
    column = np.zeros(padded, np.int32)
    more: NDArray[np.float32] | NDArray[np.uint32]
    if isinstance(epilogue, Threshold):
        _check(epilogue.thresholds, "thresholds", columns)
        _check(epilogue.flip, "flip", -(-columns // 32))
        column[:] = _NEVER
        column[:columns] = np.clip(epilogue.thresholds.astype(np.int64), -bound, bound + 1) - offset
        more = np.zeros(padded // 32, np.uint32)
        more[: len(epilogue.flip)] = epilogue.flip
        return _put(column, device), _put(more.view(np.int32), device)
    column[:columns] = offset
    if isinstance(epilogue, Raw):
        return _put(column, device), None
    factors = ("scale", "bias", "scale2", "bias2")[: 4 if isinstance(epilogue, Residual) else 2]
    more = np.zeros((padded, len(factors)), np.float32)
    for i, name in enumerate(factors):
        array = getattr(epilogue, name)
        _check(array, name, columns)
        more[:columns, i] = array
    return _put(column, device), _put(more, device)


def _check(array: NDArray[np.generic], name: str, length: int) -> None:
    if array.shape != (length,):
        raise ValueError(f"{name} has shape {array.shape}, expected ({length},)")


def _put(array: NDArray[np.generic], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(array).to(device)
