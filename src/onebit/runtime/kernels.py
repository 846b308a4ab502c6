"""The kernels without a network: for benchmarks, and for packed operands of one's own."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onebit.errors import EngineError
from onebit.program import words
from onebit.runtime.library import ThreadPool, check_threads, choose_isa, library

Words = npt.NDArray[np.uint32]


def binary_matmul(
    a_packed: Words, w_packed: Words, k: int, *, threads: int = 1, isa: str | None = None
) -> npt.NDArray[np.int32]:
    """Products of packed ±1 matrices: out[m, n] = k − 2·popcount(a[m] xor w[n]).

    Args:
        a_packed: uint32 (M, ceil(k/32)), bit 1 meaning +1, padding bits zero; see `onebit.program.pack_bits`.
        w_packed: uint32 (N, ceil(k/32)).
        k: true channels.
        threads: threads of the product, 1 to 256. isa: as for `Engine`.

    Returns:
        int32 (M, N). The weights are packed for the kernel on every call; an `Engine` does that once.

    Raises:
        EngineError: wrong dtype or shape, padding bits that are not zero, a wrong `threads`, an instruction
            set not here.
    """
    if type(k) is not int or not 1 <= k < 2**31:
        raise EngineError(f"k is {k!r}; it must be an int from 1 to 2^31 − 1")
    a, w = _packed("a_packed", a_packed, k), _packed("w_packed", w_packed, k)
    check_threads(threads)
    chosen = choose_isa(isa)
    out = np.empty((len(a), len(w)), np.int32)
    if out.size:
        pool = ThreadPool(library(), threads)
        library().call(
            "onebit_binary_matmul",
            chosen.encode(),
            pool.handle,
            len(a),
            len(w),
            k,
            a.ctypes.data,
            w.ctypes.data,
            out.ctypes.data,
        )
    return out


def pack_sign(x: npt.NDArray[np.float32], *, isa: str | None = None) -> Words:
    """Pack the signs of float32 (..., C) into uint32 (..., ceil(C/32)): bit 1 where x >= 0.

    Raises EngineError for another dtype, no axis, or a NaN.
    """
    if not isinstance(x, np.ndarray) or x.dtype != np.float32 or x.ndim == 0 or x.shape[-1] == 0:
        found = f"{x.dtype} {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
        raise EngineError(f"pack_sign takes a float32 array of shape (..., C), not {found}")
    x = np.require(x, np.float32, ("C", "A"))
    out = np.empty((*x.shape[:-1], words(x.shape[-1])), np.uint32)
    rows = x.size // x.shape[-1]
    library().call(
        "onebit_pack_sign", choose_isa(isa).encode(), rows, x.shape[-1], x.ctypes.data, out.ctypes.data
    )
    return out


def _packed(name: str, array: Words, k: int) -> Words:
    if not isinstance(array, np.ndarray) or array.dtype != np.uint32 or array.ndim != 2:
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise EngineError(f"{name} must be a uint32 array of two axes, not {found}")
    if array.shape[1] != words(k):
        raise EngineError(f"{name} has shape {array.shape}; k = {k} needs {words(k)} words a row")
    return np.require(array, np.uint32, ("C", "A"))
