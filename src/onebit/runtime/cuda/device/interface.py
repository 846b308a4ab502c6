"""Device: what a GPU offers the host side of a kernel family: compile, describe a tensor for TMA, launch.

`driver.py` implements it with `cuda-core`; the tests implement it on the CPU and run the same kernels there.
Everything else in this room sees only this protocol, so it can be tested without a GPU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch

CODE_ROOT = "csrc/cuda"  # where the kernels' sources lie, seen from the package or the source tree


@runtime_checkable
class Kernel(Protocol):
    """A compiled kernel, ready to launch on the device that made it."""

    @property
    def file(self) -> str:
        """Its source, relative to csrc/cuda."""

    @property
    def name(self) -> str:
        """The `extern "C"` name."""


@runtime_checkable
class TensorMap(Protocol):
    """A tensor as TMA sees it: a kernel argument of 128 bytes, passed by value (`__grid_constant__ const`).

    It holds the tensor's address, so the tensor must outlive every launch that takes the map.
    """


# A tensor is passed as the address of its first element, an int as int32, a float as float32, None as a null
# pointer, a TensorMap and a ctypes value (a number or a Structure) by value.
Argument = torch.Tensor | TensorMap | int | float | None | ctypes._SimpleCData | ctypes.Structure  # type: ignore[type-arg]


class Device(Protocol):
    """One GPU."""

    @property
    def capability(self) -> tuple[int, int]:
        """The compute capability, e.g. (9, 0)."""

    @property
    def multiprocessors(self) -> int:
        """Streaming multiprocessors, which is how many blocks a persistent kernel launches."""

    @property
    def torch_device(self) -> torch.device:
        """Where tensors must lie to be passed to `launch`."""

    def kernel(self, file: str, name: str, defines: Mapping[str, int | str]) -> Kernel:
        """The kernel `name` of the source `file`, compiled for this device; compiled once and kept.

        Args:
            file: a path relative to csrc/cuda, e.g. "binary_gemm/mma.cu".
            name: the kernel's `extern "C"` name.
            defines: macros and their values, e.g. {"EPILOGUE": 2}.

        Raises:
            EngineError: the source does not compile (a defect of onebit), or no compiler is installed.
        """

    def tensor_map(self, tensor: torch.Tensor, box_rows: int, box_bytes: int, swizzle: int) -> TensorMap:
        """Describe a tensor, as rows of bytes, for TMA loads of a box; what lies outside reads as zero.

        Args:
            tensor: uint8 [rows, bytes], row-major and contiguous; bytes a multiple of 16, 16-byte aligned.
            box_rows: rows of the box, 1 to 256.
            box_bytes: bytes a row of the box, a multiple of 16 up to 256; at most `swizzle` if that is not 0.
            swizzle: how the box lies in shared memory: 0, 32, 64 or 128 (bytes).

        Raises:
            EngineError: a device below capability 9.0, or arguments beyond these.
        """

    def launch(
        self,
        kernel: Kernel,
        grid: tuple[int, int, int],
        block: int,
        shared_bytes: int,
        *args: Argument,
    ) -> None:
        """Launch a kernel on torch's current stream of this device; it runs later, in stream order.

        Args:
            kernel: from `kernel` of the same device.
            grid: blocks along x, y and z, each 1 or more.
            block: threads a block.
            shared_bytes: dynamic shared memory a block; beyond 48 KiB it is asked for on the way.
            args: the kernel's parameters, in order (see `Argument`).

        Raises:
            EngineError: the driver refuses the launch.
        """


def target(capability: tuple[int, int]) -> str:
    """The architecture to compile for: "sm_90a" for (9, 0), since wgmma and setmaxnreg need the a."""
    major, minor = capability
    return "sm_90a" if capability == (9, 0) else f"sm_{major}{minor}"
