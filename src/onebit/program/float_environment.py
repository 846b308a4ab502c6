"""The default floating-point environment: round to nearest, keep subnormals, mask exceptions.

How a thread rounds and whether it flushes subnormals to zero are state of that thread (MXCSR on x86-64, FPCR
on AArch64). `torch.set_flush_denormal`, `fesetround` and libraries built with -ffast-math change it, and all
NumPy and PyTorch operations of the thread then compute other numbers. What this package computes may not
depend on that: its public functions enter the default environment and leave with their caller's.

The C library does it: fegetenv saves, fesetenv(FE_DFL_ENV) resets, flushing included, in glibc, musl and
Apple's. Where there is no such library, arithmetic itself is asked what the environment is, and one that is
not the default is an error: no number is ever computed in it in silence.

Threads of a pool keep the environment in which they were made. NumPy's matter to nothing here: the reference
executor's products are integers that float64 holds, or float64 sums that contract line F1 allows to round
otherwise. PyTorch's matter; `in_fresh_thread` gives the operations that it runs a pool of its own.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

_T = TypeVar("_T")
_LARGEST_FENV = 256  # bytes; fenv_t takes 32 on x86-64, 16 or fewer elsewhere


@contextmanager
def default_float_environment() -> Iterator[None]:
    """A context, or a decorator, in which the calling thread computes as IEEE 754 says by default.

    Raises RuntimeError where the environment is another one and this platform has no way to set it.
    """
    if _FUNCTIONS is None:
        if not is_default():
            raise RuntimeError(
                "this thread rounds otherwise than to nearest or flushes subnormal numbers, and onebit "
                "cannot change that on this platform: undo it, e.g. with torch.set_flush_denormal(False)"
            )
        yield
        return
    save, restore, default = _FUNCTIONS
    before = ctypes.create_string_buffer(_LARGEST_FENV)
    save(before)
    restore(default)
    try:
        yield
    finally:
        restore(before)


def in_fresh_thread(function: Callable[..., _T], *args: Any) -> _T:
    """function(*args) in a new thread in the default environment; its result, or what it raises.

    PyTorch's OpenMP gives a new thread a pool of its own, made when first used and hence in the environment
    of that thread. The caller's pool may have been made while it flushed subnormals, and then always does.
    """
    results: list[_T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            with default_float_environment():
                results.append(function(*args))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="onebit-default-float-environment")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def is_default() -> bool:
    """Does this thread round to nearest, and keep subnormals both as operands and as results?"""
    one, tiny = np.array([1.0, -1.0]), 2.0**-54  # a quarter of the last bit of 1
    nearest = bool((one + one * tiny == one).all() and (one + one * (3 * tiny) == one * (1 + 4 * tiny)).all())
    smallest_normal, smallest = np.array([1 << 23, 1], np.uint32).view(np.float32)[:, None]
    half = (smallest_normal * np.float32(0.5)).view(np.uint32)
    double = (smallest * np.float32(2)).view(np.uint32)
    return nearest and bool(half == 1 << 22) and bool(double == 2)


def _find() -> tuple[Callable[..., Any], Callable[..., Any], Any] | None:
    """(fegetenv, fesetenv, FE_DFL_ENV) of the C library, or None."""
    if sys.platform == "win32":
        return None
    try:
        library = ctypes.CDLL(None)
        save, restore = library.fegetenv, library.fesetenv
        if sys.platform == "darwin":
            return save, restore, ctypes.byref(ctypes.c_char.in_dll(library, "_FE_DFL_ENV"))
    except (AttributeError, OSError, ValueError):
        return None
    return save, restore, ctypes.c_void_p(-1)


_FUNCTIONS = _find()
