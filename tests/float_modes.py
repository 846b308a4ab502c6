"""Floating-point modes that a calling thread may be in: rounding otherwise, and flushing subnormals."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

LIBRARY = ctypes.CDLL(None)
# fesetround's arguments, up, down and towards zero: <fenv.h> of x86-64 and of AArch64.
_X86 = (0x800, 0x400, 0xC00)
_ARM = (0x400000, 0x800000, 0xC00000)


@contextmanager
def mode(name: str) -> Iterator[None]:
    """The calling thread rounds or flushes otherwise."""
    directions = _X86 if platform.machine() in ("x86_64", "AMD64") else _ARM
    before = ctypes.create_string_buffer(256)
    LIBRARY.fegetenv(before)
    if name == "flush":
        assert torch.set_flush_denormal(True)
    else:
        assert LIBRARY.fesetround(directions[("up", "down", "to zero").index(name)]) == 0
    try:
        yield
    finally:
        LIBRARY.fesetenv(before)


MODES = ("up", "down", "to zero", "flush")
