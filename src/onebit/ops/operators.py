"""The operators `torch.ops.onebit.*`: signatures, shapes, checks; prepared.py, cpu.py, cuda.py compute them.

    pack_bits(x)                                x (..., C) → int32 (..., words(C)): bit 1 where x >= 0
    unpack_bits(bits, k, *, dtype)              int32 (..., words(k)) → ±1 of dtype, (..., k)
    binary_matmul(a, b, k, *, epilogue)         a (..., words(k)), b (N, words(k)) → (..., N)
    binary_conv2d(x, weight, channels, *, …, epilogue)
                                                x (B, H, W, words(C)), weight (N, h, w, words(C / groups))
                                                → (B, H', W', N)
                                                a and x may be float32 (..., k) and (B, H, W, C) as well: then
                                                their signs are packed on the way
    f32_binary_matmul(x, b, *, epilogue)        x float32 (..., K), multiplied as it is
    f32_binary_conv2d(x, weight, *, …, epilogue)
                                                x float32 (B, H, W, C), multiplied as it is

words(k) = ceil(k / 32). Channel c is bit c mod 32 of word c div 32, and the bits beyond k are zero: the
layout of docs/numerics.md, in int32 because PyTorch computes little with uint32. Images are channels last.

The sum of k products of ±1 is an integer, k − 2·popcount(a xor b). The epilogue says what becomes of it, by
keyword:

    nothing                                     int32 as it is
    to_float=True, scale=, bias=                fma(float32(sum), scale[n], bias[n]), one rounding
                                                (a scale or a bias implies to_float)
    threshold=, flip=                           bits (sum >= threshold[n]) xor flip bit n, (..., words(N))

scale and bias are float32 (N), threshold int32 (N), flip int32 (words(N)). The f32_ operators have the second
form only. Their sums are within K·2^-24·Σ|x| of the exact sum, and equal to it where no partial sum rounds.

Convolutions with channels_first=True give (B, N, H', W') instead, except of bits.

All are for inference: they have no gradients, and say so when one is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

WORD_BITS = 32

_ORDER = "bool channels_first=False"
_EPILOGUE = (
    "Tensor? scale=None, Tensor? bias=None, Tensor? threshold=None, Tensor? flip=None, bool to_float=False"
)
_WINDOW = "int[2] stride=[1, 1], int[2] padding=[0, 0], int[2] dilation=[1, 1], int groups=1"
_FLOAT_EPILOGUE = "Tensor? scale=None, Tensor? bias=None"
SCHEMAS = {
    "pack_bits": "(Tensor x) -> Tensor",
    "unpack_bits": "(Tensor bits, int k, *, ScalarType dtype=float) -> Tensor",
    "binary_matmul": f"(Tensor a, Tensor b, int k, *, {_EPILOGUE}) -> Tensor",
    "binary_conv2d": f"(Tensor x, Tensor weight, int channels, *, {_WINDOW}, int padding_value=0, "
    f"{_EPILOGUE}, {_ORDER}) -> Tensor",
    "f32_binary_matmul": f"(Tensor x, Tensor b, *, {_FLOAT_EPILOGUE}) -> Tensor",
    "f32_binary_conv2d": f"(Tensor x, Tensor weight, *, {_WINDOW}, {_FLOAT_EPILOGUE}, {_ORDER}) -> Tensor",
}
PRODUCTS = tuple(name for name in SCHEMAS if name not in ("pack_bits", "unpack_bits"))

_LIBRARY = torch.library.Library("onebit", "FRAGMENT")  # type: ignore[no-untyped-call]


def register(name: str, function: Callable[..., Tensor], key: str) -> None:
    """Make a function what runs for an operator on tensors of a device: "CPU" or "CUDA"."""
    _LIBRARY.impl(name, function, key)  # type: ignore[no-untyped-call]


def words(k: int) -> int:
    """int32 words that hold k bits."""
    return (k + WORD_BITS - 1) // WORD_BITS


class Options(NamedTuple):
    """The keywords of the products: where the windows of a convolution lie, and the epilogue."""

    stride: Sequence[int] = (1, 1)
    padding: Sequence[int] = (0, 0)
    dilation: Sequence[int] = (1, 1)
    groups: int = 1
    padding_value: int = 0
    scale: Tensor | None = None
    bias: Tensor | None = None
    threshold: Tensor | None = None
    flip: Tensor | None = None
    to_float: bool = False
    channels_first: bool = False

    @property
    def constants(self) -> tuple[Tensor | None, ...]:
        """The tensors of the epilogue."""
        return self[5:9]

    @property
    def stores_floats(self) -> bool:
        """Whether the result is float32."""
        return self.to_float or self.scale is not None or self.bias is not None


class OutputSpec(NamedTuple):
    """The shape and dtype of a result."""

    shape: tuple[int, ...]
    dtype: torch.dtype


# ---- checks: each returns what the operator gives ----


def refuse_gradients(op: str, *tensors: Tensor | None) -> None:
    """RuntimeError if autograd is on and one of the tensors wants a gradient."""
    if not torch.is_grad_enabled():
        return
    if any(t is not None and t.requires_grad for t in tensors):
        raise RuntimeError(
            f"onebit::{op} is for inference and has no gradient, but an input requires one: call the model "
            "under torch.inference_mode() or torch.no_grad(), or train the model that is not packed"
        )


def _require(op: str, name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int | None, ...]) -> None:
    """dtype and shape as stated; a None is any size, and a first axis of ... is written as none at all."""
    if tensor.dtype != dtype:
        hint = "; onebit::pack_bits makes such a tensor" if dtype == torch.int32 else ""
        raise TypeError(f"onebit::{op}: {name} must be {dtype}, not {tensor.dtype}{hint}")
    if tensor.ndim != len(shape) or any(
        want is not None and have != want for want, have in zip(shape, tensor.shape, strict=True)
    ):
        sizes = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"onebit::{op}: {name} must have the shape ({sizes}), not {tuple(tensor.shape)}")


def _require_operand(op: str, name: str, tensor: Tensor, shape: tuple[int | None, ...]) -> None:
    """Bits, packed along the last axis of `shape`, or as many float32."""
    if tensor.dtype == torch.float32:
        _require(op, name, tensor, torch.float32, shape)
    else:
        _require(op, name, tensor, torch.int32, (*shape[:-1], words(shape[-1] or 0)))


def _check_device(op: str, *tensors: Tensor | None) -> None:
    devices = {t.device for t in tensors if t is not None}
    if len(devices) > 1:
        names = " and ".join(sorted(map(str, devices)))
        raise ValueError(f"onebit::{op}: its tensors are on {names}; move them to one device")


def _stored(op: str, lead: tuple[int, ...], n: int, options: Options) -> OutputSpec:
    """The result of n sums a row, its leading axes being `lead`."""
    if options.flip is not None and options.threshold is None:
        raise ValueError(f"onebit::{op}: flip goes with threshold, which is None")
    if options.threshold is not None and options.stores_floats:
        raise ValueError(f"onebit::{op}: threshold makes bits, so there is no scale, bias or to_float")
    for name, tensor in (("scale", options.scale), ("bias", options.bias)):
        if tensor is not None:
            _require(op, name, tensor, torch.float32, (n,))
    if options.threshold is None:
        return OutputSpec((*lead, n), torch.float32 if options.stores_floats else torch.int32)
    _require(op, "threshold", options.threshold, torch.int32, (n,))
    if options.flip is not None:
        _require(op, "flip", options.flip, torch.int32, (words(n),))
    return OutputSpec((*lead, words(n)), torch.int32)


def packed_result(x: Tensor) -> OutputSpec:
    """pack_bits."""
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"onebit::pack_bits takes tensors of shape (..., C), C >= 1, not {tuple(x.shape)}")
    if x.is_complex() or x.dtype in (torch.bool, torch.uint8):
        raise TypeError(f"onebit::pack_bits packs signs, and {x.dtype} has none: pass ±1 as int8 or float32")
    refuse_gradients("pack_bits", x)
    return OutputSpec((*x.shape[:-1], words(x.shape[-1])), torch.int32)


def unpacked_result(bits: Tensor, k: int, dtype: torch.dtype) -> OutputSpec:
    """unpack_bits."""
    if k < 1:
        raise ValueError(f"onebit::unpack_bits: k is {k}; it must be 1 or more")
    _require("unpack_bits", "bits", bits, torch.int32, (*[None] * (bits.ndim - 1), words(k)))
    return OutputSpec((*bits.shape[:-1], k), dtype)


def matmul_result(a: Tensor, b: Tensor, k: int, options: Options) -> OutputSpec:
    """binary_matmul."""
    op = "binary_matmul"
    if k < 1:
        raise ValueError(f"onebit::{op}: k is {k}; it must be 1 or more")
    _require_operand(op, "a", a, (*[None] * (a.ndim - 1), k))
    _require(op, "b", b, torch.int32, (None, words(k)))
    refuse_gradients(op, a, options.scale, options.bias)
    _check_device(op, a, b, *options.constants)
    return _stored(op, a.shape[:-1], b.shape[0], options)


def real_matmul_result(x: Tensor, b: Tensor, options: Options) -> OutputSpec:
    """f32_binary_matmul."""
    op = "f32_binary_matmul"
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"onebit::{op}: x must have the shape (..., K), K >= 1, not {tuple(x.shape)}")
    _require(op, "x", x, torch.float32, (None,) * x.ndim)
    _require(op, "b", b, torch.int32, (None, words(x.shape[-1])))
    refuse_gradients(op, x, options.scale, options.bias)
    _check_device(op, x, b, *options.constants)
    return _stored(op, x.shape[:-1], b.shape[0], options)


def conv_result(op: str, x: Tensor, weight: Tensor, channels: int, options: Options) -> OutputSpec:
    """binary_conv2d, and f32_binary_conv2d, whose x holds the channels themselves."""
    real, groups = op.startswith("f32_"), options.groups
    if channels < 1 or groups < 1 or channels % groups:
        raise ValueError(f"onebit::{op}: groups ({groups}) must divide channels ({channels}), both >= 1")
    if real:
        _require(op, "x", x, torch.float32, (None, None, None, channels))
    else:
        _require_operand(op, "x", x, (None, None, None, channels))
    _require(op, "weight", weight, torch.int32, (None, None, None, words(channels // groups)))
    if weight.shape[0] % groups:
        raise ValueError(f"onebit::{op}: groups ({groups}) must divide the {weight.shape[0]} outputs")
    if options.padding_value not in (0, 1, -1):
        raise ValueError(f"onebit::{op}: padding_value must be 0, 1 or -1, not {options.padding_value}")
    refuse_gradients(op, x, options.scale, options.bias)
    _check_device(op, x, weight, *options.constants)
    size = _output_size(op, x.shape[1:3], weight.shape[1:3], options)
    result = _stored(op, (x.shape[0], *size), weight.shape[0], options)
    if not options.channels_first:
        return result
    if options.threshold is not None:
        raise ValueError(f"onebit::{op}: packed bits are channels last: threshold excludes channels_first")
    return OutputSpec((x.shape[0], weight.shape[0], *size), result.dtype)


def _output_size(op: str, size: Sequence[int], kernel: Sequence[int], options: Options) -> list[int]:
    for name, least in (("stride", 1), ("padding", 0), ("dilation", 1)):
        numbers = getattr(options, name)
        if len(numbers) != 2 or min(numbers) < least:
            raise ValueError(f"onebit::{op}: {name} must be two integers of at least {least}, not {numbers}")
    outputs = [
        (size[i] + 2 * options.padding[i] - options.dilation[i] * (kernel[i] - 1) - 1) // options.stride[i]
        + 1
        for i in (0, 1)
    ]
    if min(kernel) < 1 or min(outputs) < 1:
        raise ValueError(
            f"onebit::{op}: a kernel of {tuple(kernel)} with dilation {tuple(options.dilation)} does not fit "
            f"an image of {tuple(size)} with padding {tuple(options.padding)}"
        )
    return outputs


# ---- what torch.compile and meta tensors see ----


def _empty(like: Tensor, result: OutputSpec) -> Tensor:
    return like.new_empty(result.shape, dtype=result.dtype)


def _fake_pack_bits(x: Tensor) -> Tensor:
    return _empty(x, packed_result(x))


def _fake_unpack_bits(bits: Tensor, k: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    return _empty(bits, unpacked_result(bits, k, dtype))


def _fake_binary_matmul(a: Tensor, b: Tensor, k: int, **options: Any) -> Tensor:
    return _empty(a, matmul_result(a, b, k, Options(**options)))


def _fake_binary_conv2d(x: Tensor, weight: Tensor, channels: int, **options: Any) -> Tensor:
    return _empty(x, conv_result("binary_conv2d", x, weight, channels, Options(**options)))


def _fake_f32_binary_matmul(x: Tensor, b: Tensor, **options: Any) -> Tensor:
    return _empty(x, real_matmul_result(x, b, Options(to_float=True, **options)))


def _fake_f32_binary_conv2d(x: Tensor, weight: Tensor, **options: Any) -> Tensor:
    real = Options(to_float=True, **options)
    return _empty(x, conv_result("f32_binary_conv2d", x, weight, x.shape[-1], real))


_TAGS = (torch.Tag.pt2_compliant_tag,)
_FAKES: dict[str, Callable[..., Tensor]] = {
    "pack_bits": _fake_pack_bits,
    "unpack_bits": _fake_unpack_bits,
    "binary_matmul": _fake_binary_matmul,
    "binary_conv2d": _fake_binary_conv2d,
    "f32_binary_matmul": _fake_f32_binary_matmul,
    "f32_binary_conv2d": _fake_f32_binary_conv2d,
}
for _name, _schema in SCHEMAS.items():
    _LIBRARY.define(_name + _schema, tags=_TAGS)  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"onebit::{_name}", _FAKES[_name], lib=_LIBRARY)
