"""y = fma(x, scale, shift), rounded once to float32, from standard operators.

ONNX has no fused multiply-add. The product of two float32 numbers is exact in float64; its sum with the shift
is rounded to float64 and then to float32. Rounding twice gives another float32 than rounding once only where
the float64 sum lies exactly between two float32 numbers and is not exact itself: the true sum then lies on
the side of the error, and the tie was broken without knowing it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onebit.export.onnx.model_builder import ModelBuilder
from onebit.program.tensors import FloatArray

_MAX_TRIED = 2**22  # sums and channels; beyond, the tie is handled while the model runs


def never_ties(scale: FloatArray, shift: FloatArray, bound: int | None) -> bool:
    """Whether float64 and then float32 is fma for every integer |x| <= bound, found by trying them all."""
    if bound is None or (2 * bound + 1) * scale.size > _MAX_TRIED:
        return False
    x = np.arange(-bound, bound + 1, dtype=np.float64)
    for factor, term in zip(scale.astype(np.float64), shift.astype(np.float64), strict=True):
        product = x * factor
        if _halfway(product + term)[_errors(product, term) != 0].any():
            return False
    return True


def _errors(product: npt.NDArray[np.float64], term: np.float64) -> npt.NDArray[np.float64]:
    """What product + term loses (Knuth's two-sum)."""
    with np.errstate(all="ignore"):
        total = product + term
        back = total - product
        error: npt.NDArray[np.float64] = (product - (total - back)) + (term - back)
        return error


def _halfway(total: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Where a float64 lies exactly between two float32: as far beyond it as before it there is a float32."""
    with np.errstate(all="ignore"):
        rounded = total.astype(np.float32).astype(np.float64)
        mirrored = total + (total - rounded)
        other = mirrored.astype(np.float32).astype(np.float64)
        tie: npt.NDArray[np.bool_] = (other == mirrored) & (rounded != total)
        return tie


def write_fma(b: ModelBuilder, x: str, scale: str, shift: str, *, ties: bool, output: str) -> str:
    """Append fma(x, scale, shift) of float32 names; without `ties` what `never_ties` says is left out.

    total + error is the exact sum (two-sum). With f the float32 nearest to total and d = total − f, a tie is
    where total + d is a float32 too; the answer is that one instead where the error points away from f.
    """
    wide, factor = (b.cast(name, "DOUBLE") for name in (x, scale))
    term = b.cast(shift, "DOUBLE")
    product = b.node("Mul", [wide, factor])
    total = b.node("Add", [product, term])
    if not ties:
        return b.cast(total, "FLOAT", output)
    back = b.node("Sub", [total, product])
    lost = b.node("Sub", [product, b.node("Sub", [total, back])])
    error = b.node("Add", [lost, b.node("Sub", [term, back])])
    rounded = b.cast(total, "FLOAT")
    distance = b.node("Sub", [total, b.cast(rounded, "DOUBLE")])
    mirrored = b.node("Add", [total, distance])
    other = b.cast(mirrored, "FLOAT")
    tie = b.node("Equal", [b.cast(other, "DOUBLE"), mirrored])
    away = b.node("Mul", [error, distance])  # > 0 where both point the same way; infinite beyond float32
    zero, limit = b.constant(np.float64(0)), b.constant(np.float64(np.inf))
    same = b.node("And", [b.node("Greater", [away, zero]), b.node("Less", [away, limit])])
    return b.node("Where", [b.node("And", [tie, same]), other, rounded], output)
