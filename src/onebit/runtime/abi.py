"""What the compiled library and Python say alike: the headers in csrc/include once more, for ctypes.

Nothing else in Python repeats a number, a structure or a prototype of the library. A test reads the headers
beside this file and fails on whatever one has and the other lacks or says otherwise.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, c_char_p, c_int, c_int32, c_uint32, c_uint64, c_void_p
from enum import IntEnum
from typing import Any

ABI = 4
MAX_PARTS = 8  # values that one call of concat joins
MAX_THREADS = 256
MAX_AXES = 8
MAX_PARAMETERS = 2  # of a unary op


class Status(IntEnum):
    """onebit_status."""

    OK = 0
    ERROR_ARGUMENT = 1
    ERROR_ORDER = 2
    ERROR_LIMIT = 3
    ERROR_MEMORY = 4
    ERROR_ISA = 5
    ERROR_INPUT = 6


class Dtype(IntEnum):
    """onebit_dtype."""

    BITS = 0
    U8 = 1
    I32 = 2
    F32 = 3
    I8 = 4


class GemmFamily(IntEnum):
    """onebit_gemm_family: the op of a Program in capitals."""

    BINARY_GEMM = 0
    U8_GEMM = 1
    F32_BINARY_GEMM = 2
    F32_GEMM = 3


class ConvFamily(IntEnum):
    """onebit_conv_family: the op of a Program in capitals, without "2D"."""

    BINARY_CONV = 0
    U8_CONV = 1
    F32_BINARY_CONV = 2
    F32_CONV = 3


class EpilogueKind(IntEnum):
    """onebit_epilogue_kind. The sums: int32 as they are, fma(float32(sum), scale, bias), or packed bits."""

    I32 = 0
    F32 = 1
    BITS = 2


class Pooling(IntEnum):
    """onebit_pooling."""

    MAX = 0
    MEAN = 1
    PADDED = 2


class Unary(IntEnum):
    """onebit_unary: the op of a Program in capitals."""

    ABS = 0
    RELU = 1
    HARDTANH = 2
    HARDSWISH = 3


class Binary(IntEnum):
    """onebit_binary: the op of a Program in capitals."""

    ADD = 0
    SUB = 1
    MUL = 2
    DIV = 3
    PRELU = 4


class Sharing(IntEnum):
    """onebit_sharing: of which ops a pool's threads get shares."""

    LARGE = 0
    ALWAYS = 1


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
        ("epilogue", c_int32),
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
        ("epilogue", c_int32),
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


_PLAN, _POOL, _ENGINE, _VALUE = c_void_p, c_void_p, c_void_p, c_int32
_OUT, _VALUE_OUT = POINTER(c_void_p), POINTER(c_int32)  # where a handle, a value is to be put
_ARRAY = c_void_p  # addresses: quicker to pass

STATUS_FUNCTIONS: dict[str, Sequence[Any]] = {
    "onebit_isa_at": (c_uint32, POINTER(IsaInfo)),
    "onebit_plan_create": (c_char_p, c_uint64, _OUT),
    "onebit_plan_input": (_PLAN, c_int, c_uint64, c_uint64, _VALUE_OUT),
    "onebit_plan_packed_input": (_PLAN, c_uint64, c_uint64, _VALUE_OUT),
    "onebit_plan_output": (_PLAN, _VALUE),
    "onebit_plan_packed_output": (_PLAN, _VALUE),
    "onebit_plan_finish": (_PLAN,),
    "onebit_plan_gemm": (_PLAN, POINTER(Gemm), _VALUE_OUT),
    "onebit_plan_conv": (_PLAN, POINTER(Conv), _VALUE_OUT),
    "onebit_plan_pool": (_PLAN, c_int, _VALUE, POINTER(Window), _ARRAY, _VALUE_OUT),
    "onebit_plan_channel_mean": (_PLAN, _VALUE, _VALUE_OUT),
    "onebit_plan_concat": (_PLAN, POINTER(c_int32), c_uint64, _VALUE_OUT),
    "onebit_plan_permute": (_PLAN, _VALUE, c_uint64, POINTER(c_uint64), POINTER(c_uint64), _VALUE_OUT),
    "onebit_plan_sign": (_PLAN, _VALUE, _VALUE_OUT),
    "onebit_plan_threshold": (_PLAN, _VALUE, _ARRAY, _ARRAY, c_uint64, _VALUE_OUT),
    "onebit_plan_to_float": (_PLAN, _VALUE, _VALUE_OUT),
    "onebit_plan_scale_pixels": (_PLAN, _VALUE, _VALUE_OUT),
    "onebit_plan_affine": (_PLAN, _VALUE, _ARRAY, _ARRAY, c_uint64, _VALUE_OUT),
    "onebit_plan_unary": (_PLAN, c_int, _VALUE, _ARRAY, c_uint64, _VALUE_OUT),
    "onebit_plan_binary": (_PLAN, c_int, _VALUE, _VALUE, _VALUE_OUT),
    "onebit_plan_binary_constant": (_PLAN, c_int, _VALUE, _ARRAY, c_uint64, c_int32, _VALUE_OUT),
    "onebit_plan_reshape": (_PLAN, _VALUE, c_uint64, c_uint64, _VALUE_OUT),
    "onebit_plan_op": (_PLAN, c_uint64, POINTER(OpInfo)),
    "onebit_thread_pool_create": (c_uint32, c_int, _OUT),
    "onebit_thread_pool_shares": (_POOL, POINTER(c_uint64)),
    "onebit_engine_create": (_PLAN, _POOL, _OUT),
    "onebit_engine_clone": (_ENGINE, _OUT),
    "onebit_engine_memory": (_ENGINE, POINTER(MemoryInfo)),
    "onebit_engine_run": (_ENGINE, c_uint64, _ARRAY, _ARRAY, _ARRAY),
    "onebit_binary_matmul": (c_char_p, _POOL, c_uint64, c_uint64, c_uint64, _ARRAY, _ARRAY, _ARRAY),
    "onebit_pack_sign": (c_char_p, c_uint64, c_uint64, _ARRAY, _ARRAY),
    "onebit_pack_sign_planes": (c_char_p, c_uint64, c_uint64, c_uint64, _ARRAY, _ARRAY),
}
"""Functions that return a status, and their arguments."""

OTHER_FUNCTIONS: dict[str, tuple[Any, Sequence[Any]]] = {
    "onebit_abi": (c_int32, ()),
    "onebit_last_error": (c_char_p, ()),
    "onebit_plan_release": (None, (_PLAN,)),
    "onebit_plan_ops": (c_uint64, (_PLAN,)),
    "onebit_thread_pool_release": (None, (_POOL,)),
    "onebit_engine_destroy": (None, (_ENGINE,)),
}
"""The others: what they return, and their arguments."""
