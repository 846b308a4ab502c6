"""Binary products on memory that the caller owns: what `onebit.ops` is made of. Addresses in, addresses out.

A product is a plan of one op with its weights prepacked. Where an `Engine` checks arrays and makes outputs, a
product trusts its addresses: the caller has checked that each is C-contiguous and as large as stated.

Threads. A process runs many small products one after another, so those of one Python thread share a pool for
each thread count; products of different Python threads run side by side. Weights are prepacked once for all.
"""

from __future__ import annotations

import threading
import weakref
from ctypes import byref, c_int32, c_uint64, c_void_p
from enum import IntEnum
from functools import cache
from math import prod
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from onebit.errors import EngineError
from onebit.program import words
from onebit.runtime.abi import Conv, ConvFamily, Dtype, EpilogueKind, Gemm, GemmFamily, Status, Window
from onebit.runtime.library import Library, ThreadPool, choose_isa, library

_MAX_MEMORY = 2**64 - 1
_PAIR = c_uint64 * 2
T = TypeVar("T")


class Source(IntEnum):
    """What x is: packed bits, float32 whose signs are multiplied, or float32 that is multiplied itself."""

    BITS = 0
    SIGNS = 1
    REAL = 2


class Epilogue(NamedTuple):
    """What happens to the sums. Addresses, of one number an output channel, read while a product is built.

    F32: `scale` and `bias`, float32; 0 stands for a scale of 1 and for no bias.
    BITS: `threshold`, int32, and `flip`, packed bits: (sum >= threshold) xor flip. 0 stands for no flip.
    """

    kind: EpilogueKind = EpilogueKind.I32
    scale: int = 0
    bias: int = 0
    threshold: int = 0
    flip: int = 0


class Matmul(NamedTuple):
    """out[m, n] = Σ x[m, k]·w[n, k]; weights (n, words(k)), x (batch, words(k)) or float32 (batch, k)."""

    n: int
    k: int

    def rows(self) -> tuple[int, int]:
        """Rows and channels of the input of one sample."""
        return 1, self.k


class Conv2d(NamedTuple):
    """A convolution, channels last: x (batch, height, width, words(channels)), or as many float32; weights
    (n, *kernel, words(channels / groups)); padding is zero where x is float32, else `padding_value`."""

    n: int
    channels: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    padding_value: int = 0

    def rows(self) -> tuple[int, int]:
        """Rows and channels of the input of one sample."""
        return self.size[0] * self.size[1], self.channels

    def out_size(self) -> tuple[int, int]:
        """Height and width of the result."""
        axes = zip(self.size, self.padding, self.dilation, self.kernel, self.stride, strict=True)
        height, width = ((n + 2 * pad - dil * (k - 1) - 1) // step + 1 for n, pad, dil, k, step in axes)
        return height, width


class ProductEngine:
    """A binary product with prepacked weights.

    Args:
        shape: a Matmul or a Conv2d.
        weights: address of the packed weights. They, and what `epilogue` names, are copied.
        source: what x is; float32 has as many elements as bits stand for.
        channels_first: the result of a convolution is (batch, n, *size) instead of (batch, *size, n); not of
            bits.

    Raises:
        EngineError: sizes that the library refuses, padding bits that are not zero, no memory.
    """

    def __init__(
        self,
        shape: Matmul | Conv2d,
        weights: int,
        epilogue: Epilogue,
        *,
        source: Source = Source.BITS,
        channels_first: bool = False,
    ) -> None:
        self._library = library()
        self._run = self._library.functions.onebit_engine_run
        self._plan = _Handle(self._library, "onebit_plan_release", c_void_p())
        self._engines = _PerThread[_Handle]()
        plan = self._plan.value
        self._library.call("onebit_plan_create", _isa(), _MAX_MEMORY, byref(plan))
        value = c_int32()
        if source == Source.BITS:
            self._library.call("onebit_plan_packed_input", plan, *shape.rows(), byref(value))
        else:
            self._library.call("onebit_plan_input", plan, Dtype.F32, *shape.rows(), byref(value))
        if source == Source.SIGNS:
            self._library.call("onebit_plan_sign", plan, value, byref(value))
        call = _gemm(shape, source) if isinstance(shape, Matmul) else _conv(shape, source)
        call.input, call.weights = value.value, weights
        keep = _set_epilogue(call, epilogue)
        name = "gemm" if isinstance(shape, Matmul) else "conv"
        self._library.call(f"onebit_plan_{name}", plan, byref(call), byref(value))
        del keep
        if channels_first and isinstance(shape, Conv2d):
            sizes, axes = _PAIR(prod(shape.out_size()), shape.n), _PAIR(1, 0)
            self._library.call("onebit_plan_permute", plan, value, 2, sizes, axes, byref(value))
        form = "packed_output" if epilogue.kind == EpilogueKind.BITS else "output"
        self._library.call(f"onebit_plan_{form}", plan, value)
        self._library.call("onebit_plan_finish", plan)

    def run(self, batch: int, x: int, out: int, threads: int) -> None:
        """Compute `batch` samples from address x to address out, without the GIL.

        Raises EngineError for a NaN, a padding bit that is not zero, or memory that the system refuses.
        """
        engine = self._engines.by_count.get(threads) or self._engine(threads)
        status = self._run(engine.value, batch, byref(c_void_p(x)), byref(c_void_p(out)), None)
        if status != Status.OK:
            raise EngineError(self._library.last_error().removeprefix("input 0").lstrip(": "))

    def _engine(self, threads: int) -> _Handle:
        """This Python thread's engine of `threads` threads."""
        pools = _POOLS.by_count
        if threads not in pools:
            pools[threads] = ThreadPool(self._library, threads)
        made = _Handle(self._library, "onebit_engine_destroy", c_void_p())
        self._library.call("onebit_engine_create", self._plan.value, pools[threads].handle, byref(made.value))
        self._engines.by_count[threads] = made
        return made


def pack_sign_planes(images: int, channels: int, pixels: int, x: int, out: int) -> None:
    """Signs of float32 [images, channels, pixels] at address x, packed, to [images, pixels, words] at out.

    Raises EngineError for a NaN.
    """
    status = library().functions.onebit_pack_sign_planes(_isa(), images, channels, pixels, x, out)
    if status == Status.ERROR_INPUT:
        raise EngineError("the input has a NaN, which has no sign")
    if status != Status.OK:
        raise EngineError(library().last_error())


class _Handle:
    """What the library made and must destroy."""

    def __init__(self, lib: Library, destroy: str, value: c_void_p) -> None:
        self.value = value
        weakref.finalize(self, getattr(lib.functions, destroy), value)


class _PerThread(threading.local, Generic[T]):
    """What each Python thread has for each thread count."""

    def __init__(self) -> None:
        self.by_count: dict[int, T] = {}


_POOLS = _PerThread[ThreadPool]()


@cache
def _isa() -> bytes:
    """The instruction set of all products: the environment is asked once."""
    return choose_isa().encode()


def _gemm(shape: Matmul, source: Source) -> Gemm:
    family = GemmFamily.F32_BINARY_GEMM if source == Source.REAL else GemmFamily.BINARY_GEMM
    return Gemm(family=family, n=shape.n, k=shape.k, weights_bytes=4 * shape.n * words(shape.k))


def _conv(shape: Conv2d, source: Source) -> Conv:
    (top, left), kernel = shape.padding, shape.kernel
    window = Window(*shape.size, *kernel, *shape.stride, *shape.dilation, top, top, left, left)
    row = words(shape.channels // shape.groups)
    return Conv(
        family=ConvFamily.F32_BINARY_CONV if source == Source.REAL else ConvFamily.BINARY_CONV,
        window=window,
        n=shape.n,
        groups=shape.groups,
        weights_bytes=4 * shape.n * kernel[0] * kernel[1] * row,
        padding_value=shape.padding_value,
    )


def _set_epilogue(call: Gemm | Conv, epilogue: Epilogue) -> list[npt.NDArray[np.generic]]:
    """Fills in the epilogue; returns the arrays that must live until the library has copied them."""
    ones = np.ones(call.n, np.float32)
    nothing = np.full(call.n, -0.0, np.float32)  # the neutral element of IEEE addition
    no_flip = np.zeros(words(call.n), np.uint32)
    call.epilogue = epilogue.kind
    if epilogue.kind == EpilogueKind.F32:
        call.scale = epilogue.scale or ones.ctypes.data
        call.bias = epilogue.bias or nothing.ctypes.data
    if epilogue.kind == EpilogueKind.BITS:
        call.threshold = epilogue.threshold
        call.flip = epilogue.flip or no_flip.ctypes.data
    return [ones, nothing, no_flip]
