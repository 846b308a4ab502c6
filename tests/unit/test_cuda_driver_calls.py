"""What runtime/cuda/driver.py asks of the NVIDIA driver, seen by a stub that takes the driver's place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import require, require_tool

STUB = Path(__file__).with_name("driver_stub.c")

# Only the GPU is pretended: its properties, its stream, and that its tensors are those of the CPU.
SCRIPT = """
import ctypes
from types import SimpleNamespace
import torch
from onebit.runtime.cuda.device import driver
torch.cuda.init = lambda: None
torch.cuda.get_device_properties = lambda _: SimpleNamespace(major=9, minor=0, multi_processor_count=132)
torch.cuda.current_stream = lambda _: SimpleNamespace(cuda_stream=0x777)
driver.cubin = lambda *_: b"\\x7fELF and so on"
device = driver.CudaDevice(1)
device._torch_device = torch.device("cpu")
expect = ctypes.CDLL("libcuda.so.1").stub_expect
kernel = device.kernel("family/file.cu", "name_of_kernel", {})
assert device.kernel("family/file.cu", "name_of_kernel", {}) is kernel
x = torch.zeros(100, 48, dtype=torch.uint8)
print("x", x.data_ptr().to_bytes(8, "little").hex(), flush=True)
tensor_map = device.tensor_map(x, 64, 128, 128)
expect(4, (ctypes.c_int * 4)(128, 8, 4, 8))
device.launch(kernel, (6, 2, 1), 384, 196672, tensor_map, x, -2, None)
expect(3, (ctypes.c_int * 3)(4, 8, 8))
device.launch(kernel, (7, 1, 1), 256, 0, 1.0, ctypes.c_uint64(2**40), x)
"""


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the stub prints."""
    require_tool("gcc")
    try:
        import cuda.bindings  # noqa: F401
    except ImportError:
        require(False, "the package cuda-bindings")
    folder = tmp_path_factory.mktemp("stub")
    library = folder / "libcuda.so.1"
    command = [
        "gcc",
        "-shared",
        "-fPIC",
        "-w",
        "-Wl,-soname,libcuda.so.1",
        "-o",
        str(library),
        str(STUB),
        "-ldl",
    ]
    subprocess.run(command, check=True)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_a_kernel_is_loaded_once_in_the_context_of_its_device(calls: list[str]) -> None:
    assert [line for line in calls if line.startswith(("load", "kernel"))] == [
        "load ELF , 0 and 0 options",
        "kernel name_of_kernel of 0x200",
    ]
    assert {line for line in calls if line.startswith("push")} == {"push 0x101"}
    assert sum(line.startswith("push") for line in calls) == calls.count("pop") == 4


def test_a_tensor_map_is_what_the_driver_documents(calls: list[str]) -> None:
    """cuTensorMapEncodeTiled: bytes are type 0, 128-byte swizzle is 3, fetching 256 bytes to L2 is 3."""
    (found,) = (line for line in calls if line.startswith("map"))
    assert found == (
        "map at % 64 = 0 type 0 rank 2 size 48 100 stride 48 box 128 64 step 1 1 interleave 0 swizzle 3 "
        "promotion 3 outside 0"
    )


def test_a_launch_hands_over_each_argument_by_value(calls: list[str]) -> None:
    address = next(line.split()[1] for line in calls if line.startswith("x "))
    first, second = (index for index, line in enumerate(calls) if line.startswith("launch"))
    # 8 is CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: asked for above 48 KiB, and only then.
    assert [line for line in calls if line.startswith("attribute")] == ["attribute 8 = 196672 of 0x300 on 1"]
    assert calls[first : first + 5] == [
        "launch 0x300 grid 6 2 1 block 384 1 1 shared 196672 stream 0x777 extra 0",
        address + "ab" * 120,
        address,
        "feffffff",
        "00" * 8,
    ]
    assert calls[second : second + 4] == [
        "launch 0x300 grid 7 1 1 block 256 1 1 shared 0 stream 0x777 extra 0",
        "0000803f",
        (2**40).to_bytes(8, "little").hex(),
        address,
    ]
