"""What comes in and goes out of an engine on a device: torch tensors there, or NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from onebit.program import DType, Program, ProgramError, check_inputs
from onebit.runtime.cuda.device.interface import Device
from onebit.runtime.cuda.kernels.buffers import TORCH_DTYPES


@dataclass(frozen=True)
class CheckedInputs:
    """The inputs of a run as contiguous tensors on the device, all with one batch.

    `trusted` says that their content has been checked; `numpy`, that the caller gave arrays and gets some.
    """

    tensors: list[torch.Tensor]
    batch: int
    trusted: bool
    numpy: bool


def check_batch(signature: Program, inputs: Sequence[Any], device: Device) -> CheckedInputs:
    """Check the inputs of a run but for NaN and bits that are not ±1 in tensors, which the device looks for.

    Raises ProgramError as `check_inputs` does, and for a tensor elsewhere.
    """
    if inputs and any(isinstance(x, torch.Tensor) for x in inputs):
        tensors = _tensors(signature, inputs, device)
        return CheckedInputs(tensors, len(tensors[0]), trusted=False, numpy=False)
    arrays = check_inputs(signature, inputs)
    tensors = [torch.from_numpy(_writable(array)).to(device.torch_device) for array in arrays]
    return CheckedInputs(tensors, len(arrays[0]), trusted=True, numpy=True)


def _writable(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """torch wraps only memory that may be written, in the byte order of the machine."""
    return np.require(array, array.dtype.newbyteorder("="), ("C", "A", "W", "O"))


def _tensors(signature: Program, inputs: Sequence[Any], device: Device) -> list[torch.Tensor]:
    names = signature.inputs
    if len(inputs) != len(names):
        expected = ", ".join(f"{name} {signature.values[name]}" for name in names)
        raise ProgramError(f"number of inputs: found {len(inputs)}, expected {len(names)} ({expected})")
    tensors = [_tensor(signature, name, x, device) for name, x in zip(names, inputs, strict=True)]
    for name, x in zip(names, tensors, strict=True):
        if len(x) != len(tensors[0]):
            raise ProgramError(
                f"input {name!r}: batch: found {len(x)}, expected {len(tensors[0])} as in input {names[0]!r}"
            )
    return tensors


def _tensor(signature: Program, name: str, x: Any, device: Device) -> torch.Tensor:
    type_ = signature.values[name]
    if not isinstance(x, torch.Tensor):
        kind = f"{type(x).__module__}.{type(x).__qualname__}"
        raise ProgramError(f"input {name!r}: type: found {kind}, expected a tensor as the other inputs are")
    if x.device != device.torch_device:
        raise ProgramError(
            f"input {name!r}: device: found {x.device}, expected {device.torch_device}; "
            f"move it, e.g. x.to({str(device.torch_device)!r})"
        )
    expected = TORCH_DTYPES[type_.dtype]
    if x.dtype != expected:
        raise ProgramError(
            f"input {name!r}: dtype: found {x.dtype}, expected {expected} for {type_}; "
            f"convert it, e.g. x.to({expected})"
        )
    if x.ndim != len(type_.shape) + 1 or tuple(x.shape[1:]) != type_.shape:
        text = ", ".join(["batch", *map(str, type_.shape)])
        hint = "; add the batch axis: x[None]" if tuple(x.shape) == type_.shape else ""
        raise ProgramError(f"input {name!r}: shape: found {tuple(x.shape)}, expected ({text}){hint}")
    return aligned(x.detach())


def aligned(x: torch.Tensor) -> torch.Tensor:
    """The tensor, contiguous and beginning at a multiple of 16 bytes, as kernels ask; a copy if need be."""
    x = x.contiguous()
    return x.clone() if x.data_ptr() % 16 else x


def needs_look(signature: Program, name: str) -> bool:
    """Whether an input can hold what has no meaning: a NaN, or bits other than ±1."""
    return signature.values[name].dtype in (DType.F32, DType.BITS)


def refuse(signature: Program, tensors: Sequence[torch.Tensor]) -> None:
    """Raise the ProgramError that names the element which the device has found."""
    check_inputs(signature, [x.cpu().numpy() for x in tensors])
