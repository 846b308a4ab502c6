"""The float network in PyTorch, eager, float32, no gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from onebit.bench.float_network import FloatOp

if TYPE_CHECKING:
    import torch


def torch_peer(ops: list[FloatOp], inputs: tuple[str, ...], output: str) -> Callable[..., npt.NDArray[Any]]:
    """A function of float32 NumPy arrays (batch first) that returns the array `output`."""
    import torch

    steps = [(op, {name: torch.from_numpy(array) for name, array in op.arrays.items()}) for op in ops]

    def run(*arrays: npt.NDArray[Any]) -> npt.NDArray[Any]:
        with torch.inference_mode():
            values = {name: torch.from_numpy(a) for name, a in zip(inputs, arrays, strict=True)}
            for op, tensors in steps:
                values[op.output] = _apply(op, tensors, [values[name] for name in op.inputs])
            result: npt.NDArray[Any] = values[output].numpy()
            return result

    return run


def _apply(op: FloatOp, own: dict[str, torch.Tensor], values: list[torch.Tensor]) -> torch.Tensor:
    import torch
    from torch.nn import functional

    x = values[0]
    if op.kind == "linear":
        return functional.linear(x, own["weight"], own.get("bias"))
    if op.kind == "affine":
        return torch.addcmul(own["shift"], x, own["scale"])
    if op.kind == "signum":
        return torch.sign(torch.addcmul(own["shift"], x, own["scale"]) if own else x)
    if op.kind == "sign":
        return (x >= 0).to(x.dtype).mul_(2).sub_(1)
    if op.kind == "relu":
        return functional.relu(x)
    if op.kind == "prelu":
        return functional.prelu(x, own["slope"])
    if op.kind == "hardtanh":
        return functional.hardtanh(x, op.attrs["min"], op.attrs["max"])
    if op.kind == "reshape":
        return x.reshape(x.shape[0], *op.attrs["shape"])
    pair = (x, own["other"] if own else values[1])
    left, right = pair[::-1] if op.attrs.get("swapped") else pair
    arithmetic: dict[str, Callable[..., torch.Tensor]] = {
        "add": torch.add,
        "sub": torch.sub,
        "mul": torch.mul,
        "div": torch.div,
    }
    return arithmetic[op.kind](left, right)
