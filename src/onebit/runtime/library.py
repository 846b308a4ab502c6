"""The compiled library: finding it, its C declarations (csrc/include/onebit.h), and its errors."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from ctypes import POINTER, c_char_p, c_float, c_int, c_int32, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from typing import Any

from onebit.errors import EngineError

ABI = 3  # ONEBIT_ABI of the header that this file declares
ISA_VARIABLE = "ONEBIT_ISA"
_NAMES = ("libonebit.so", "libonebit.dylib", "onebit.dll")

MAX_THREADS = 256  # ONEBIT_MAX_THREADS
OK = 0
ERROR_INPUT = 6


class Gemm(ctypes.Structure):
    """onebit_gemm."""

    _fields_ = (
        ("family", c_int32),
        ("input", c_int32),
        ("n", c_uint64),
        ("k", c_uint64),
        ("weights", c_void_p),
        ("weights_bytes", c_uint64),
        ("multiplier", c_int32),
        ("offset", c_int32),
        ("store", c_int32),
        ("scale", c_void_p),
        ("bias", c_void_p),
        ("threshold", c_void_p),
        ("flip", c_void_p),
    )


class Window(ctypes.Structure):
    """onebit_window."""

    _fields_ = tuple(
        (name, c_uint64)
        for name in (
            *("height", "width", "kernel_h", "kernel_w", "stride_h", "stride_w", "dilation_h", "dilation_w"),
            *("pad_top", "pad_bottom", "pad_left", "pad_right"),
        )
    )


class Conv(ctypes.Structure):
    """onebit_conv."""

    _fields_ = (
        ("family", c_int32),
        ("input", c_int32),
        ("window", Window),
        ("n", c_uint64),
        ("groups", c_uint64),
        ("weights", c_void_p),
        ("weights_bytes", c_uint64),
        ("padding_value", c_int32),
        ("multiplier", c_int32),
        ("offset", c_int32),
        ("store", c_int32),
        ("scale", c_void_p),
        ("bias", c_void_p),
        ("threshold", c_void_p),
        ("flip", c_void_p),
    )


class OpInfo(ctypes.Structure):
    """onebit_op_info."""

    _fields_ = (("variant", c_char_p), ("macs", c_uint64))


class MemoryInfo(ctypes.Structure):
    """onebit_memory."""

    _fields_ = tuple((name, c_uint64) for name in ("weights", "constants", "arena", "scratch", "chunk"))


class IsaInfo(ctypes.Structure):
    """onebit_isa_info."""

    _fields_ = (
        ("name", c_char_p),
        ("architecture", c_char_p),
        ("features", c_char_p),
        ("native", c_int32),
        ("available", c_int32),
    )


@dataclass(frozen=True)
class Isa:
    """An instruction set that kernels are written for.

    Attributes:
        name: what `Engine(isa=...)` and ONEBIT_ISA take, e.g. "avx2".
        architecture: "x86-64", "AArch64", or "any".
        features: what the CPU must have, as Linux's /proc/cpuinfo calls it.
        native: whether it is of the architecture that the library is built for.
        available: whether this machine runs it.
    """

    name: str
    architecture: str
    features: tuple[str, ...]
    native: bool
    available: bool


_PLAN, _VALUE = c_void_p, c_int32
_VALUE_OUT = POINTER(c_int32)
_STATUS_FUNCTIONS: dict[str, Sequence[Any]] = {
    "onebit_isa_at": (c_uint32, POINTER(IsaInfo)),
    "onebit_plan_create": (c_char_p, c_uint64, POINTER(c_void_p)),
    "onebit_plan_input": (_PLAN, c_int, c_uint64, c_uint64, _VALUE_OUT),
    "onebit_plan_packed_input": (_PLAN, c_uint64, c_uint64, _VALUE_OUT),
    "onebit_plan_output": (_PLAN, _VALUE),
    "onebit_plan_packed_output": (_PLAN, _VALUE),
    "onebit_plan_finish": (_PLAN,),
    "onebit_plan_gemm": (_PLAN, POINTER(Gemm), _VALUE_OUT),
    "onebit_plan_conv": (_PLAN, POINTER(Conv), _VALUE_OUT),
    "onebit_plan_pool": (_PLAN, c_int, _VALUE, POINTER(Window), c_void_p, _VALUE_OUT),
    "onebit_plan_channel_mean": (_PLAN, _VALUE, _VALUE_OUT),
    "onebit_plan_concat": (_PLAN, POINTER(c_int32), c_uint64, _VALUE_OUT),
    "onebit_plan_permute": (_PLAN, _VALUE, c_uint64, POINTER(c_uint64), POINTER(c_uint64), _VALUE_OUT),
    "onebit_plan_abs": (_PLAN, _VALUE, _VALUE_OUT),
    "onebit_plan_sign": (_PLAN, _VALUE, _VALUE_OUT),
    "onebit_plan_threshold": (_PLAN, _VALUE, c_void_p, c_void_p, c_uint64, _VALUE_OUT),
    "onebit_plan_to_float": (_PLAN, _VALUE, _VALUE_OUT),
    "onebit_plan_scale_pixels": (_PLAN, _VALUE, _VALUE_OUT),
    "onebit_plan_affine": (_PLAN, _VALUE, c_void_p, c_void_p, c_uint64, _VALUE_OUT),
    "onebit_plan_relu": (_PLAN, _VALUE, _VALUE_OUT),
    "onebit_plan_prelu": (_PLAN, _VALUE, c_void_p, c_uint64, _VALUE_OUT),
    "onebit_plan_clamp": (_PLAN, _VALUE, c_float, c_float, _VALUE_OUT),
    "onebit_plan_combine": (_PLAN, c_int, _VALUE, _VALUE, _VALUE_OUT),
    "onebit_plan_combine_constant": (_PLAN, c_int, _VALUE, c_void_p, c_uint64, c_int32, _VALUE_OUT),
    "onebit_plan_reshape": (_PLAN, _VALUE, c_uint64, c_uint64, _VALUE_OUT),
    "onebit_plan_op": (_PLAN, c_uint64, POINTER(OpInfo)),
    "onebit_engine_create": (_PLAN, c_uint32, POINTER(c_void_p)),
    "onebit_engine_create_beside": (_PLAN, c_void_p, POINTER(c_void_p)),
    "onebit_engine_clone": (c_void_p, POINTER(c_void_p)),
    "onebit_engine_memory": (c_void_p, POINTER(MemoryInfo)),
    "onebit_engine_run": (c_void_p, c_uint64, c_void_p, c_void_p, c_void_p),  # addresses: quicker to pass
    "onebit_binary_matmul": (c_char_p, c_uint32, c_uint64, c_uint64, c_uint64, c_void_p, c_void_p, c_void_p),
    "onebit_pack_sign": (c_char_p, c_uint64, c_uint64, c_void_p, c_void_p),
    "onebit_pack_sign_planes": (c_char_p, c_uint64, c_uint64, c_uint64, c_void_p, c_void_p),
}


class Library:
    """The loaded library. `call` turns a status into an EngineError; the functions stand in `functions`."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self.functions = ctypes.CDLL(path)
        except OSError as error:
            raise EngineError(f"the compiled library {path} does not load: {error}") from error
        self._declare()
        found = self.functions.onebit_abi()
        if found != ABI:
            raise EngineError(
                f"the compiled library {path} has interface {found}, this package needs {ABI}: "
                "install the package again (pip install .)"
            )

    def _declare(self) -> None:
        try:
            for name, arguments in _STATUS_FUNCTIONS.items():
                function = getattr(self.functions, name)
                function.restype = c_int
                function.argtypes = arguments
            self.functions.onebit_abi.restype = c_int32
            self.functions.onebit_last_error.restype = c_char_p
            self.functions.onebit_plan_release.argtypes = (c_void_p,)
            self.functions.onebit_plan_release.restype = None
            self.functions.onebit_engine_destroy.argtypes = (c_void_p,)
            self.functions.onebit_engine_destroy.restype = None
            self.functions.onebit_plan_ops.argtypes = (c_void_p,)
            self.functions.onebit_plan_ops.restype = c_uint64
        except AttributeError as error:
            raise EngineError(
                f"the compiled library {self.path} is of another version ({error}): "
                "install the package again (pip install .)"
            ) from error

    @cached_property
    def isas(self) -> tuple[Isa, ...]:
        """Every instruction set that kernels are written for; of one architecture the best comes first."""
        found: list[Isa] = []
        info = IsaInfo()
        while self.functions.onebit_isa_at(len(found), ctypes.byref(info)) == OK:
            name, architecture = info.name.decode(), info.architecture.decode()
            features = tuple(info.features.decode().split())
            found.append(Isa(name, architecture, features, bool(info.native), bool(info.available)))
        return tuple(found)

    def last_error(self) -> str:
        """The sentence that this thread's latest failed call left."""
        return str(self.functions.onebit_last_error().decode(errors="replace"))

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function that returns a status; raise EngineError with its message if it failed."""
        if getattr(self.functions, name)(*arguments) != OK:
            raise EngineError(self.last_error())


@cache
def library() -> Library:
    """The compiled library, loaded once. Raises EngineError if it is missing or of another version."""
    package = resources.files("onebit.runtime")
    for name in _NAMES:
        path = package.joinpath(name)
        if path.is_file():
            return Library(str(path))
    raise EngineError(
        f"the compiled library ({_NAMES[0]}) is missing from {package}: the package was not built; "
        "install it with `pip install .` (a C compiler is needed)"
    )


def available_isas() -> tuple[str, ...]:
    """The names of the instruction sets that this machine can run, the best first."""
    return tuple(isa.name for isa in library().isas if isa.available)


def check_threads(threads: object) -> None:
    """Raise EngineError unless `threads` is an int from 1 to MAX_THREADS."""
    if type(threads) is not int or not 1 <= threads <= MAX_THREADS:
        raise EngineError(f"threads is {threads!r}; it must be an int from 1 to {MAX_THREADS}")


def choose_isa(isa: str | None = None) -> str:
    """The instruction set to use: `isa`, else the environment variable ONEBIT_ISA, else the best.

    Raises EngineError for a name that is unknown, or that this machine cannot run.
    """
    source, name = "isa", isa
    if name is None:
        source, name = ISA_VARIABLE, os.environ.get(ISA_VARIABLE) or None
    available = available_isas()
    if name is None:
        return available[0]
    if name not in available:
        known = {isa.name: isa.architecture for isa in library().isas}
        why = "there is no such instruction set"
        if name in known:
            why = f"an instruction set of {known[name]} that is not here"
        raise EngineError(f"{source} is {name!r}: {why}; this machine has {', '.join(available)}")
    return name
