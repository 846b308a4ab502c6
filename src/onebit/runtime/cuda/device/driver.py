"""Device on an NVIDIA GPU: the driver's own calls by cuda.bindings, launches on torch's current stream."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any

import torch

from onebit.errors import EngineError
from onebit.runtime.cuda.device.compiler import cubin, cuda_core
from onebit.runtime.cuda.device.interface import Argument, Kernel, target

_STATIC_SHARED = 48 * 1024  # dynamic shared memory beyond this has to be asked for, once a kernel
_MAX_BOX = 256
_SWIZZLES = {0: 0, 32: 1, 64: 2, 128: 3}  # bytes → CUtensorMapSwizzle
_UINT8 = 0  # CU_TENSOR_MAP_DATA_TYPE_UINT8
_PROMOTE_256 = 3  # CU_TENSOR_MAP_L2_PROMOTION_L2_256B: fetch whole 256-byte pieces into the L2
_MAP_BYTES, _MAP_ALIGNMENT = 128, 64


class CudaTensorMap(ctypes.Structure):
    """A CUtensorMap: 128 opaque bytes that the driver encodes."""

    _fields_ = (("opaque", ctypes.c_uint64 * (_MAP_BYTES // 8)),)


@dataclass(eq=False)
class CudaKernel:
    """A kernel of a library that the driver has loaded, and keeps to the end of the process."""

    file: str
    name: str
    function: Any  # CUfunction, as launches want it
    handle: Any  # CUkernel, as attributes want it
    shared_bytes: int = field(default=_STATIC_SHARED)  # what it may use so far


class CudaDevice:
    """One NVIDIA GPU as torch numbers them. Use `cuda_device`, which opens each once."""

    def __init__(self, index: int) -> None:
        cuda_core()
        self._driver = driver = import_module("cuda.bindings.driver")
        self._index = index
        properties = torch.cuda.get_device_properties(index)
        self._capability = (properties.major, properties.minor)
        self._multiprocessors = int(properties.multi_processor_count)
        self._torch_device = torch.device("cuda", index)
        torch.cuda.init()  # type: ignore[no-untyped-call]
        self._check(driver.cuInit(0), "the driver does not start")
        # torch works in the primary context of each device; so do we.
        (self._context,) = self._check(driver.cuDevicePrimaryCtxRetain(index), "no context")
        self._kernels: dict[tuple[object, ...], CudaKernel] = {}
        self._lock = threading.Lock()

    @property
    def capability(self) -> tuple[int, int]:
        """The compute capability, e.g. (9, 0)."""
        return self._capability

    @property
    def multiprocessors(self) -> int:
        """Streaming multiprocessors."""
        return self._multiprocessors

    @property
    def torch_device(self) -> torch.device:
        """Where tensors must lie."""
        return self._torch_device

    def kernel(self, file: str, name: str, defines: Mapping[str, int | str]) -> CudaKernel:
        """See `Device.kernel`."""
        key = (file, name, tuple(sorted(defines.items())))
        with self._lock:
            if key not in self._kernels:
                self._kernels[key] = self._load(file, name, defines)
            return self._kernels[key]

    def _load(self, file: str, name: str, defines: Mapping[str, int | str]) -> CudaKernel:
        code = cubin(file, defines, target(self._capability))
        driver = self._driver
        what = (
            f"the driver does not load {name} of csrc/cuda/{file}. Is the NVIDIA driver older than the CUDA "
            "version of cuda-core? Update it, or install cuda-core[cu12]"
        )
        with _Current(driver, self._context):
            (library,) = self._check(driver.cuLibraryLoadData(code, [], [], 0, [], [], 0), what)
            (handle,) = self._check(driver.cuLibraryGetKernel(library, name.encode()), what)
        return CudaKernel(file, name, driver.CUfunction(int(handle)), handle)

    def tensor_map(self, tensor: torch.Tensor, box_rows: int, box_bytes: int, swizzle: int) -> CudaTensorMap:
        """See `Device.tensor_map`."""
        if self._capability < (9, 0):
            raise EngineError(f"TMA needs compute capability 9.0; this device has {self._capability}")
        check_map_arguments(tensor, box_rows, box_bytes, swizzle)
        rows, row_bytes = tensor.shape
        # The driver wants the map aligned to 64 bytes.
        buffer = ctypes.create_string_buffer(_MAP_BYTES + _MAP_ALIGNMENT)
        begin = -(-ctypes.addressof(buffer) // _MAP_ALIGNMENT) * _MAP_ALIGNMENT
        with _Current(self._driver, self._context):
            status = _encode_function()(
                ctypes.c_void_p(begin),
                _UINT8,
                2,
                ctypes.c_void_p(tensor.data_ptr()),
                (ctypes.c_uint64 * 2)(row_bytes, rows),
                (ctypes.c_uint64 * 1)(row_bytes),
                (ctypes.c_uint32 * 2)(box_bytes, box_rows),
                (ctypes.c_uint32 * 2)(1, 1),
                0,  # not interleaved
                _SWIZZLES[swizzle],
                _PROMOTE_256,
                0,  # outside is zero
            )
        if status != 0:
            raise EngineError(
                f"the driver refuses a tensor map (error {status}) of {tuple(tensor.shape)} bytes with boxes "
                f"of {box_rows} × {box_bytes}, swizzle {swizzle}"
            )
        return CudaTensorMap.from_buffer_copy(ctypes.string_at(begin, _MAP_BYTES))

    def launch(
        self,
        kernel: Kernel,
        grid: tuple[int, int, int],
        block: int,
        shared_bytes: int,
        *args: Argument,
    ) -> None:
        """See `Device.launch`."""
        if not isinstance(kernel, CudaKernel):
            raise EngineError(f"kernel {kernel.name} is not of this device")
        values = marshal(args, self._torch_device)
        addresses = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        stream = torch.cuda.current_stream(self._torch_device).cuda_stream
        driver = self._driver
        with _Current(driver, self._context):
            if shared_bytes > kernel.shared_bytes:
                self._allow_shared(kernel, shared_bytes)
            status = driver.cuLaunchKernel(
                kernel.function, *grid, block, 1, 1, shared_bytes, stream, ctypes.addressof(addresses), 0
            )
        what = f"{kernel.name}: grid {grid}, block {block}, {shared_bytes} bytes of shared memory"
        self._check(status, what)

    def _allow_shared(self, kernel: CudaKernel, shared_bytes: int) -> None:
        attribute = self._driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        status = self._driver.cuKernelSetAttribute(attribute, shared_bytes, kernel.handle, self._index)
        self._check(status, f"{kernel.name} cannot have {shared_bytes} bytes of shared memory a block")
        kernel.shared_bytes = shared_bytes

    def _check(self, returned: tuple[Any, ...], what: str) -> tuple[Any, ...]:
        """What a call of the driver returned besides its status; EngineError unless that is success."""
        status, *values = returned
        if int(status) != 0:
            raise EngineError(f"CUDA device {self._index}: {what}: {_describe(status)}")
        return tuple(values)


class _Current:
    """Makes a context the calling thread's current one for a while, if it is not yet.

    A launch on the default stream goes to the current context: that of another device, or none at all in a
    thread that has not used CUDA.
    """

    def __init__(self, driver: Any, context: Any) -> None:
        self._driver = driver
        self._context = context
        self._pushed = False

    def __enter__(self) -> None:
        status, current = self._driver.cuCtxGetCurrent()
        if int(status) != 0 or int(current) != int(self._context):
            (status,) = self._driver.cuCtxPushCurrent(self._context)
            if int(status) != 0:
                raise EngineError(f"CUDA: the device's context cannot be used: {_describe(status)}")
            self._pushed = True

    def __exit__(self, *_: object) -> None:
        if self._pushed:
            self._driver.cuCtxPopCurrent()


def _describe(status: Any) -> str:
    """A CUresult in words, and what to do where that is known."""
    name = str(getattr(status, "name", status))
    if name == "CUDA_ERROR_OUT_OF_MEMORY":
        return f"{name}; other programs may use the GPU's memory, or pass a smaller max_memory="
    if name == "CUDA_ERROR_ILLEGAL_ADDRESS":
        return f"{name}; a kernel read or wrote outside its tensors, and this process must be started again"
    return name


@cache
def _encode_function() -> Any:
    """cuTensorMapEncodeTiled of the driver that torch has loaded.

    Not the one of cuda.bindings, which encodes into an object of its own whose alignment is not assured.
    """
    function = ctypes.CDLL("libcuda.so.1").cuTensorMapEncodeTiled
    function.restype = ctypes.c_int
    return function


def check_map_arguments(tensor: torch.Tensor, box_rows: int, box_bytes: int, swizzle: int) -> None:
    """Raise EngineError unless `Device.tensor_map` takes these."""
    problem = None
    if tensor.dtype != torch.uint8 or tensor.ndim != 2 or not tensor.is_contiguous() or 0 in tensor.shape:
        problem = f"a tensor {tensor.dtype} {tuple(tensor.shape)}; it must be uint8 [rows, bytes], contiguous"
    elif tensor.shape[1] % 16 or tensor.data_ptr() % 16:
        problem = f"rows of {tensor.shape[1]} bytes at {tensor.data_ptr():#x}; both must be multiples of 16"
    elif not 1 <= box_rows <= _MAX_BOX or not 16 <= box_bytes <= _MAX_BOX or box_bytes % 16:
        problem = f"boxes of {box_rows} × {box_bytes}; at most 256 × 256, the latter a multiple of 16"
    elif swizzle not in _SWIZZLES or (swizzle and box_bytes > swizzle):
        problem = f"swizzle {swizzle} for boxes of {box_bytes} bytes; it is 0, or 32, 64 or 128 and no less"
    if problem:
        raise EngineError(f"tensor map of {problem}")


def marshal(args: tuple[Argument, ...], device: torch.device) -> list[Any]:
    """The arguments of a launch as ctypes values of the types that the kernel declares (see `Argument`).

    Raises EngineError for a tensor elsewhere, an int beyond int32, and anything else that is no argument.
    """
    return [_marshal(index, arg, device) for index, arg in enumerate(args)]


def _marshal(index: int, arg: Argument, device: torch.device) -> Any:
    if isinstance(arg, torch.Tensor):
        if arg.device != device:
            raise EngineError(f"kernel argument {index}: a tensor on {arg.device}, expected {device}")
        return ctypes.c_void_p(arg.data_ptr())
    if isinstance(arg, int):
        if not -(2**31) <= arg < 2**31:
            raise EngineError(f"kernel argument {index}: {arg} does not fit an int32; pass a ctypes value")
        return ctypes.c_int32(arg)
    if isinstance(arg, float):
        return ctypes.c_float(arg)
    if arg is None:
        return ctypes.c_void_p(0)
    if isinstance(arg, (ctypes.Structure, ctypes._SimpleCData)):
        return arg
    raise EngineError(f"kernel argument {index}: {type(arg).__qualname__} is no kernel argument")


_OPEN: dict[int, CudaDevice] = {}
_OPEN_LOCK = threading.Lock()


def cuda_device(device: str | torch.device) -> CudaDevice:
    """Open a GPU: "cuda" (torch's current one) or "cuda:1". The same one gives the same object.

    Raises EngineError, saying what to do, where PyTorch has no CUDA, no GPU is seen, there is no such one,
    or the package cuda-core is missing.
    """
    wanted = torch.device(device)
    if torch.version.cuda is None:
        raise EngineError(
            f"device {device!s}: this PyTorch ({torch.__version__}) is built without CUDA; install one "
            "with it (https://pytorch.org/get-started), and the rest with `pip install 'onebit[cuda]'`"
        )
    if not torch.cuda.is_available():
        raise EngineError(f"device {device!s}: no NVIDIA GPU or driver found; look at `nvidia-smi`")
    index = torch.cuda.current_device() if wanted.index is None else wanted.index
    if index >= torch.cuda.device_count():
        raise EngineError(f"device {device!s}: this machine has {torch.cuda.device_count()} GPUs")
    cuda_core()
    with _OPEN_LOCK:
        if index not in _OPEN:
            _OPEN[index] = CudaDevice(index)
        return _OPEN[index]
