"""What a Program accepts: the one check that the reference executor and every engine make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onebit.errors import ProgramError
from onebit.program.graph import Graph
from onebit.program.tensors import Array, DType, TensorType

# The NumPy dtype of each type, as inputs and outputs of a run have it.
ARRAY_DTYPES: dict[DType, np.dtype[Any]] = {
    DType.BITS: np.dtype(np.int8),  # ±1, one byte each: bits are packed inside
    DType.U8: np.dtype(np.uint8),
    DType.I8: np.dtype(np.int8),
    DType.I32: np.dtype(np.int32),
    DType.F32: np.dtype(np.float32),
}


def check_inputs(program: Graph, inputs: Sequence[Any]) -> list[Array]:
    """The inputs as C-contiguous arrays of shape (batch, *shape), all with the same batch (0 is allowed).

    Expects one NumPy array an input of the program, of exactly its dtype (int8 holding ±1 for bits).
    Raises ProgramError for a wrong count, type, dtype, shape or batch, for a NaN in an f32 input and for a
    bits input that holds anything but ±1.
    """
    if len(inputs) != len(program.inputs):
        names = ", ".join(f"{name} {program.values[name]}" for name in program.inputs)
        raise ProgramError(f"number of inputs: found {len(inputs)}, expected {len(program.inputs)} ({names})")
    arrays = [_check(name, program.values[name], x) for name, x in zip(program.inputs, inputs, strict=True)]
    for name, array in zip(program.inputs, arrays, strict=True):
        if len(array) != len(arrays[0]):
            raise ProgramError(
                f"input {name!r}: batch: found {len(array)}, "
                f"expected {len(arrays[0])} as in input {program.inputs[0]!r}"
            )
    return arrays


def _check(name: str, type_: TensorType, x: Any) -> Array:
    if not isinstance(x, np.ndarray):
        hint = "; call .numpy() on a tensor, np.asarray on a list"
        kind = f"{type(x).__module__}.{type(x).__qualname__}"
        raise ProgramError(f"input {name!r}: type: found {kind}, expected a NumPy array{hint}")
    expected = ARRAY_DTYPES[type_.dtype]
    if x.dtype != expected:
        raise ProgramError(
            f"input {name!r}: dtype: found {x.dtype}, expected {expected} for {type_}; "
            f"convert it, e.g. x.astype('{expected}')"
        )
    if x.ndim != len(type_.shape) + 1 or x.shape[1:] != type_.shape:
        text = ", ".join(["batch", *map(str, type_.shape)])
        hint = "; add the batch axis: x[None]" if x.shape == type_.shape else ""
        raise ProgramError(f"input {name!r}: shape: found {x.shape}, expected ({text}){hint}")
    contiguous: Array = np.ascontiguousarray(x)
    _check_content(name, type_, contiguous)
    return contiguous


def _check_content(name: str, type_: TensorType, x: Array) -> None:
    if not x.size:
        return
    # min() is NaN if and only if one element is, and needs no temporary array.
    if type_.dtype is DType.F32 and np.isnan(x.min()):
        where = tuple(int(i[0]) for i in np.nonzero(np.isnan(x)))
        raise ProgramError(
            f"input {name!r}: NaN: found one at index {where}, expected numbers; "
            "the sign of NaN is not defined, so clean the data first"
        )
    if type_.dtype is DType.BITS and not np.all((x == 1) | (x == -1)):
        where = tuple(int(i[0]) for i in np.nonzero((x != 1) & (x != -1)))
        raise ProgramError(f"input {name!r}: values: found {x[where]} at index {where}, expected −1 or +1")
