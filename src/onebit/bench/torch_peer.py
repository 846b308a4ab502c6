"""The float network in PyTorch, eager, float32, no gradients."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, cast

import numpy.typing as npt

from onebit.export.float_ops import FloatNetwork, FloatOp, spread

if TYPE_CHECKING:
    import torch

Peer = Callable[..., npt.NDArray[Any]]
PER_CHANNEL = ("scale", "shift", "slope")


def torch_peer(network: FloatNetwork, *, channels_last: bool = False) -> Peer:
    """A function of float32 NumPy arrays (batch first) that returns the network's first output."""
    import torch

    def tensor(op: FloatOp, name: str, array: npt.NDArray[Any]) -> torch.Tensor:
        if name in PER_CHANNEL:
            array = spread(array, op, network.shapes)
        made = torch.tensor(array)  # a copy: PyTorch warns of arrays that cannot be written
        last = channels_last and made.dim() == 4
        return made.contiguous(memory_format=torch.channels_last) if last else made

    steps = [(op, {name: tensor(op, name, array) for name, array in op.arrays.items()}) for op in network.ops]

    def start(array: npt.NDArray[Any]) -> torch.Tensor:
        made = torch.from_numpy(array)
        last = channels_last and made.dim() == 4
        return made.contiguous(memory_format=torch.channels_last) if last else made

    def run(*arrays: npt.NDArray[Any]) -> npt.NDArray[Any]:
        with torch.inference_mode():
            values = {name: start(a) for name, a in zip(network.inputs, arrays, strict=True)}
            for op, tensors in steps:
                values[op.output] = apply_op(op, tensors, [values[name] for name in op.inputs])
            result: npt.NDArray[Any] = values[network.outputs[0]].numpy()
            return result

    return run


def torch_peers(network: FloatNetwork) -> dict[str, Peer]:
    """Memory format → peer; one alone where there are no images."""
    peers = {"": torch_peer(network)}
    if any(op.kind == "conv" for op in network.ops):
        peers["channels last"] = torch_peer(network, channels_last=True)
    return peers


def apply_op(op: FloatOp, own: dict[str, torch.Tensor], values: list[torch.Tensor]) -> torch.Tensor:
    """What an op makes of `values`; `own` are its arrays as tensors, those of PER_CHANNEL spread."""
    import torch
    from torch.nn import functional

    x, attrs = values[0], op.attrs
    if op.kind in _WINDOWS:
        return _WINDOWS[op.kind](x, own, attrs)
    if op.kind == "linear":
        return functional.linear(x, own["weight"], own.get("bias"))
    if op.kind == "affine":
        return torch.addcmul(own["shift"], x, own["scale"])
    if op.kind == "signum":
        return x.clamp(-1, 1)
    if op.kind == "sign":
        return (x >= 0).to(x.dtype).mul_(2).sub_(1)
    if op.form is not None and op.kind == "function":
        return cast(torch.Tensor, attrgetter(op.form.torch)(torch)(x, *attrs.values()))
    if op.kind == "prelu":
        one_axis = attrs["axis"] == 0  # where PyTorch's own PReLU has its channels
        return functional.prelu(x, own["slope"].flatten()) if one_axis else x.where(x >= 0, x * own["slope"])
    if op.kind == "mean":
        return x.mean(attrs["axis"] + 1, keepdim=True)
    if op.kind == "concat":
        return torch.cat(values, attrs["axis"] + 1)
    if op.kind == "transpose":
        return x.permute(0, *(axis + 1 for axis in attrs["axes"])).contiguous()
    if op.kind == "take":
        return x[:, own["index"]]
    if op.kind == "reshape":
        return x.reshape(x.shape[0], *attrs["shape"])
    assert op.form is not None
    pair = (x, own["other"] if own else values[1])
    left, right = pair[::-1] if attrs.get("swapped") else pair
    return cast(torch.Tensor, attrgetter(op.form.torch)(torch)(left, right))


def _conv(x: torch.Tensor, own: dict[str, torch.Tensor], attrs: dict[str, Any]) -> torch.Tensor:
    from torch.nn import functional

    x, padding = _padded(x, attrs["padding"], float(attrs["padding_value"]))
    weight, bias = own["weight"], own.get("bias")
    return functional.conv2d(x, weight, bias, attrs["stride"], padding, attrs["dilation"], attrs["groups"])


def _max_pool(x: torch.Tensor, own: dict[str, torch.Tensor], attrs: dict[str, Any]) -> torch.Tensor:
    from torch.nn import functional

    del own
    kernel, dilation = attrs["kernel"], attrs["dilation"]
    # PyTorch pads a pool by half a window at most
    if all(2 * before <= k for before, k in zip(attrs["padding"][::2], kernel, strict=True)):
        x, padding = _padded(x, attrs["padding"], -float("inf"), even=0.0)
    else:
        x, padding = _padded(x, attrs["padding"], -float("inf"), even=None)
    return functional.max_pool2d(x, kernel, attrs["stride"], padding, dilation)


def _avg_pool(x: torch.Tensor, own: dict[str, torch.Tensor], attrs: dict[str, Any]) -> torch.Tensor:
    import torch
    from torch.nn import functional

    del own
    kernel, stride, (top, bottom, left, right) = attrs["kernel"], attrs["stride"], attrs["padding"]
    include = bool(attrs["count_include_pad"])
    fits = 2 * top <= kernel[0] and 2 * left <= kernel[1]
    if top == bottom and left == right and fits:
        return functional.avg_pool2d(x, kernel, stride, (top, left), count_include_pad=include)
    padded = functional.pad(x, (left, right, top, bottom))
    if include:
        return functional.avg_pool2d(padded, kernel, stride)
    ones = functional.pad(torch.ones_like(x[:1, :1]), (left, right, top, bottom))
    return functional.avg_pool2d(padded, kernel, stride) / functional.avg_pool2d(ones, kernel, stride)


def _padded(
    x: torch.Tensor, padding: tuple[int, int, int, int], value: float, *, even: float | None = 0.0
) -> tuple[torch.Tensor, tuple[int, int]]:
    """(x, padding left to the op): even padding of `even` is the op's own business, other is done here."""
    from torch.nn import functional

    top, bottom, left, right = padding
    if top == bottom and left == right and even is not None and value in (even, -float("inf")):
        return x, (top, left)
    return functional.pad(x, (left, right, top, bottom), value=value), (0, 0)


_WINDOWS = {"conv": _conv, "max_pool": _max_pool, "avg_pool": _avg_pool}
