"""EmulatedDevice: the Device of onebit.runtime.cuda on the CPU; its tensors are torch CPU tensors."""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch

from cuda_emulation import compile as compiling

# Shared memory that a block may have, in KiB, by compute capability (CUDA C++ Programming Guide, table of
# technical specifications).
_SHARED_KIB = {(7, 0): 96, (7, 5): 64, (8, 0): 163, (8, 6): 99, (8, 7): 163, (8, 9): 99, (9, 0): 227}
_MAGIC = 0x6F6E65626974544D


class EmulationError(Exception):
    """A kernel did something that a GPU would punish, or a launch did; says what, where, and the seed."""


@dataclass(frozen=True)
class EmulatedKernel:
    """A kernel compiled for the emulator."""

    file: str
    name: str
    library: Path
    number: int  # in the library


@dataclass(frozen=True)
class EmulatedTensorMap:
    """What TMA knows of a tensor."""

    fields: bytes
    tensor: torch.Tensor  # kept alive


class _Dim3(ctypes.Structure):
    _fields_ = (("x", ctypes.c_uint), ("y", ctypes.c_uint), ("z", ctypes.c_uint))


class _Kernel(ctypes.Structure):  # struct Kernel of core/interface.h
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("body", ctypes.c_void_p),
        ("parameters", ctypes.POINTER(ctypes.c_int)),
        ("cluster", _Dim3),
    )


class _Launch(ctypes.Structure):  # struct Launch of core/core.h
    _fields_ = (
        ("kernel", ctypes.c_uint32),
        ("grid", _Dim3),
        ("block", _Dim3),
        ("shared_bytes", ctypes.c_uint32),
        ("seed", ctypes.c_uint32),
        ("ranges", ctypes.c_uint32),
        ("strict", ctypes.c_uint32),
        ("range_begin", ctypes.POINTER(ctypes.c_uint64)),
        ("range_end", ctypes.POINTER(ctypes.c_uint64)),
        ("args", ctypes.POINTER(ctypes.c_void_p)),
    )


@cache
def _load(library: Path) -> ctypes.PyDLL:
    loaded = ctypes.PyDLL(str(library))  # keeps Python's lock: one launch at a time
    loaded.onebit_emulation_launch.restype = ctypes.c_char_p
    return loaded


@cache
def _parameters(kernel: EmulatedKernel) -> tuple[tuple[str, int], ...]:
    """Kind (p pointer, i 32-bit integer, f float, s other) and size of each parameter."""
    table = (_Kernel * (kernel.number + 1)).in_dll(_load(kernel.library), "onebit_emulation_kernels")
    numbers = itertools.takewhile(bool, (table[kernel.number].parameters[i] for i in itertools.count()))
    return tuple((chr(number >> 16), number & 0xFFFF) for number in numbers)


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    """The addresses that a tensor covers: [begin, end)."""
    begin = tensor.data_ptr()
    if tensor.numel() == 0:
        return begin, begin
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return begin, begin + (last + 1) * tensor.element_size()


def _as_bytes(value: object, kind: str, size: int) -> bytes:
    """One argument as the bytes of a parameter; ValueError if the two do not fit."""
    if isinstance(value, torch.Tensor) and kind == "p":
        return struct.pack("<Q", value.data_ptr())
    if value is None and kind == "p":
        return bytes(8)
    if isinstance(value, int) and not isinstance(value, bool) and kind == "i":
        return struct.pack("<i", value)
    if isinstance(value, float) and kind == "f":
        return struct.pack("<f", value)
    if isinstance(value, EmulatedTensorMap) and kind == "s" and size == 128:
        return value.fields
    if isinstance(value, ctypes._SimpleCData | ctypes.Structure) and ctypes.sizeof(value) == size:
        return bytes(value)
    what = {"p": "a pointer", "i": "a 32-bit integer", "f": "a float"}.get(kind, f"{size} bytes by value")
    raise ValueError(f"the parameter is {what}, the argument {type(value).__name__}")


@dataclass
class EmulatedDevice:
    """A Device that runs kernels on the CPU and checks what they do.

    Args:
        capability: which GPU to be: sets the macros that sources look at and the limits of a launch.
        multiprocessors: few, so that a persistent kernel loops.
        seed: of the first launch; each further launch adds 1. ONEBIT_EMULATION_SEED overrides it.
        strict: refuse accesses to global memory outside the tensors of a launch. A launch with a ctypes
            structure, which may hold addresses, is not strict.
    """

    capability: tuple[int, int] = (9, 0)
    multiprocessors: int = 3
    seed: int = 1
    strict: bool = True
    torch_device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    launches: list[str] = field(default_factory=list)  # names of the kernels launched, for tests

    def __post_init__(self) -> None:
        self.seed = int(os.environ.get("ONEBIT_EMULATION_SEED", self.seed))

    def kernel(self, file: str, name: str, defines: Mapping[str, int | str]) -> EmulatedKernel:
        """Compile `name` of csrc/cuda/`file` (an absolute path is taken as it is); see Device.kernel."""
        key = (self.capability, file, tuple(sorted(defines.items())))
        if key not in _built:
            _built[key] = compiling.build(compiling.CUDA / file, defines, self.capability)
        library, numbers = _built[key]
        if name not in numbers:
            raise EmulationError(f"{file} has no kernel {name}, only {', '.join(numbers)}")
        return EmulatedKernel(file, name, library, numbers[name])

    def tensor_map(
        self, tensor: torch.Tensor, box_rows: int, box_bytes: int, swizzle: int
    ) -> EmulatedTensorMap:
        """See Device.tensor_map."""
        if self.capability < (9, 0):
            raise EmulationError(f"TMA needs compute capability 9.0, not {self.capability}")
        problems = {
            "uint8 [rows, bytes], contiguous": tensor.dtype == torch.uint8
            and tensor.dim() == 2
            and tensor.is_contiguous()
            and tensor.numel() > 0,
            "an address that is a multiple of 16": tensor.data_ptr() % 16 == 0,
            "rows of a multiple of 16 bytes": tensor.shape[-1] % 16 == 0,
            "box_rows from 1 to 256": 1 <= box_rows <= 256,
            "box_bytes a multiple of 16 up to 256": 16 <= box_bytes <= 256 and box_bytes % 16 == 0,
            "swizzle 0, 32, 64 or 128": swizzle in (0, 32, 64, 128),
            "box_bytes at most swizzle": swizzle == 0 or box_bytes <= swizzle,
        }
        for rule, holds in problems.items():
            if not holds:
                raise EmulationError(
                    f"tensor_map needs {rule}; got {tuple(tensor.shape)} {tensor.dtype}, "
                    f"box {box_rows} × {box_bytes}, swizzle {swizzle}"
                )
        if swizzle and box_bytes != swizzle:
            raise EmulationError(
                f"the emulator knows swizzled boxes as wide as the swizzle only, not {box_bytes}"
            )
        fields = struct.pack(
            "<8Q",
            _MAGIC,
            tensor.data_ptr(),
            tensor.shape[0],
            tensor.shape[1],
            box_rows,
            box_bytes,
            swizzle,
            0,
        )
        return EmulatedTensorMap(fields.ljust(128, b"\0"), tensor)

    def launch(
        self,
        kernel: EmulatedKernel,
        grid: tuple[int, int, int],
        block: int,
        shared_bytes: int,
        *args: object,
    ) -> None:
        """Run a kernel to its end; see Device.launch.

        Raises:
            EmulationError: the kernel or the launch is wrong.
        """
        where = f"{kernel.file}: {kernel.name}"
        self.launches.append(kernel.name)
        self._check_launch(where, kernel, grid, block, shared_bytes)
        parameters = _parameters(kernel)
        if len(parameters) != len(args):
            raise EmulationError(
                f"{where} has {len(parameters)} parameters, the launch {len(args)} arguments"
            )
        slot = 128  # every argument begins at a multiple of it
        slots = [slot * (1 + (size - 1) // slot) for _, size in parameters]
        memory = ctypes.create_string_buffer(sum(slots) + slot)
        address = (ctypes.addressof(memory) + slot - 1) // slot * slot
        pointers = (ctypes.c_void_p * max(1, len(args)))()
        for i, ((kind, size), value) in enumerate(zip(parameters, args, strict=True)):
            try:
                data = _as_bytes(value, kind, size)
            except (ValueError, struct.error) as error:
                raise EmulationError(f"{where}, argument {i}: {error}") from None
            pointers[i] = address
            ctypes.memmove(address, data, len(data))
            address += slots[i]
        tensors = [value for value in args if isinstance(value, torch.Tensor)]
        extents = [_extent(tensor) for tensor in tensors] or [(0, 0)]
        numbers = ctypes.c_uint64 * len(extents)
        opaque = any(isinstance(value, ctypes.Structure) for value in args)
        launch = _Launch(
            kernel=kernel.number,
            grid=_Dim3(*grid),
            block=_Dim3(block, 1, 1),
            shared_bytes=shared_bytes,
            seed=self.seed & 0xFFFFFFFF,
            ranges=len(extents),
            strict=int(self.strict and not opaque),
            range_begin=numbers(*(begin for begin, _ in extents)),
            range_end=numbers(*(end for _, end in extents)),
            args=pointers,
        )
        message = _load(kernel.library).onebit_emulation_launch(ctypes.byref(launch))
        self.seed += 1
        if message is not None:
            text = _with_lines(message.decode(), kernel.library)
            raise EmulationError(
                f"{where}: {text}\n(replay: ONEBIT_EMULATION_SEED={self.seed - 1}, one launch)"
            )

    def _check_launch(
        self, where: str, kernel: EmulatedKernel, grid: tuple[int, int, int], block: int, shared_bytes: int
    ) -> None:
        most = _SHARED_KIB.get(self.capability, 48) * 1024
        if not 1 <= block <= 1024:
            raise EmulationError(f"{where}: {block} threads a block, from 1 to 1024 are possible")
        if min(grid) < 1 or grid[0] >= 2**31 or max(grid[1:]) > 65535:
            raise EmulationError(f"{where}: a grid of {grid}")
        if not 0 <= shared_bytes <= most:
            raise EmulationError(f"{where}: {shared_bytes} bytes of shared memory, at most {most}")


_built: dict[object, tuple[Path, dict[str, int]]] = {}  # by capability, source and macros


def _with_lines(message: str, library: Path) -> str:
    """Replace the code addresses <+0x...> of a report by file and line."""
    tool = shutil.which("addr2line")
    if tool is None:
        return message

    def line(found: re.Match[str]) -> str:
        address = hex(int(found.group(1), 16) - 1)  # the call, not what follows it
        done = subprocess.run(
            [tool, "-e", str(library), address], capture_output=True, text=True, check=False
        )
        parts = done.stdout.strip().split(" ")[0].split("/")
        return "/".join(parts[-2:]) if "?" not in done.stdout else found.group(0)

    return re.sub(r"<\+(0x[0-9a-f]+)>", line, message)


@dataclass
class Spy(EmulatedDevice):
    """An emulated device that remembers what it was asked to compile."""

    asked: list[tuple[str, str, dict[str, int | str]]] = field(default_factory=list)

    def kernel(self, file: str, name: str, defines: Mapping[str, int | str]) -> EmulatedKernel:
        self.asked.append((file, name, dict(defines)))
        return super().kernel(file, name, defines)
