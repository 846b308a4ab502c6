"""The emulator computes what the PTX ISA says, and finds each defect that it promises to find."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cuda_emulation import compile as compiling
from cuda_emulation.device import EmulatedDevice, EmulatedKernel, EmulationError
from support import require

SAMPLES = str(compiling.HERE / "samples.cu")
SEEDS = range(4)


@pytest.fixture
def device() -> EmulatedDevice:
    require(compiling.compiler(), "the emulator needs g++")
    return EmulatedDevice((9, 0))


def sample(device: EmulatedDevice, name: str) -> EmulatedKernel:
    return device.kernel(SAMPLES, name, {})


def random_bytes(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def popcount_product(a: torch.Tensor, b: torch.Tensor) -> NDArray[np.int64]:
    """popcount(a[m] and b[n]) of rows of bytes, through float64 matrices of single bits."""
    left, right = (np.unpackbits(x.numpy(), axis=1).astype(np.float64) for x in (a, b))
    return (left @ right.T).astype(np.int64)


# ---- threads, warps, memory ----


@pytest.mark.parametrize("seed", SEEDS)
def test_a_reduction_with_barriers(device: EmulatedDevice, seed: int) -> None:
    device.seed = seed
    x = torch.arange(1000, dtype=torch.int32)
    out = torch.zeros(5, dtype=torch.int32)
    device.launch(sample(device, "block_sum"), (5, 1, 1), 256, 1024, x, 1000, out, 0)
    assert out.tolist() == [int(part.sum()) for part in x.split(256)] + [0]
    assert device.launches == ["block_sum"]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_missing_barrier_is_a_race(device: EmulatedDevice, seed: int) -> None:
    device.seed = seed
    x, out = torch.ones(256, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    with pytest.raises(EmulationError, match=r"(?s)race on bytes.*samples.cu:\d+.*SEED"):
        device.launch(sample(device, "block_sum"), (1, 1, 1), 256, 1024, x, 256, out, 1)


def test_accesses_beyond_memory_are_found(device: EmulatedDevice) -> None:
    x, out = torch.ones(1000, dtype=torch.int32), torch.zeros(4, dtype=torch.int32)
    kernel = sample(device, "block_sum")
    with pytest.raises(
        EmulationError, match=r"out of bounds access of 4 bytes .* byte 40[0-9]+ of a tensor of 4000"
    ):
        device.launch(kernel, (4, 1, 1), 256, 1024, x[:1000], 1000, out, 2)
    with pytest.raises(EmulationError, match="byte 16 of a tensor of 16"):
        device.launch(kernel, (5, 1, 1), 256, 1024, x, 1000, out, 0)
    with pytest.raises(EmulationError, match="shared memory, which has 512"):
        device.launch(kernel, (4, 1, 1), 256, 512, x, 1000, out, 0)
    with pytest.raises(EmulationError, match=r"misaligned access to \d+ bytes beyond a multiple of 16"):
        device.launch(sample(device, "misaligned"), (1, 1, 1), 1, 0, x, out)


def test_warp_operations(device: EmulatedDevice) -> None:
    x = np.random.default_rng(1).integers(-1000, 1000, 32).astype(np.int32)
    out = torch.zeros(5, 32, dtype=torch.int32)
    device.launch(sample(device, "warp_operations"), (1, 1, 1), 32, 0, torch.from_numpy(x), out)
    lanes = np.arange(32)
    votes = sum(1 << lane for lane in range(32) if x[lane] > 0)
    assert out[0].tolist() == x[lanes ^ 1].tolist()
    assert out[1].tolist() == x[lanes // 8 * 8].tolist()
    assert out[2].tolist() == x[np.minimum(lanes + 1, 31)].tolist()
    assert out[3].tolist() == [int(np.uint32(votes).view(np.int32))] * 32
    assert out[4].tolist() == [(int(value) & 0xFFFFFFFF).bit_count() for value in x]


@pytest.mark.parametrize(
    ("kind", "report"),
    [
        (0, r"deadlock.*\n  named barrier at .*: threads 0-31\n  ended: 32 threads"),
        (1, r"mbarrier_wait for parity 0 \(1 arrivals and 0 bytes are missing\) at .*: threads 0-63"),
        (2, r"a shuffle at .*: threads 0-4 6-31\n"),
        (3, r"comes to a (vote|shuffle) at .* while others of its warp are in a (vote|shuffle)"),
    ],
)
def test_a_wait_without_end_is_reported(device: EmulatedDevice, kind: int, report: str) -> None:
    with pytest.raises(EmulationError, match=report):
        device.launch(sample(device, "deadlock"), (1, 1, 1), 64, 1024, kind)


# ---- cp.async, mma ----


@pytest.mark.parametrize("seed", SEEDS)
def test_cp_async(device: EmulatedDevice, seed: int) -> None:
    device.seed = seed
    x = random_bytes(3, 64, 16)
    out = torch.zeros_like(x)
    device.launch(sample(device, "copy_async"), (1, 1, 1), 64, 1024, x, out, 3, 0)
    assert torch.equal(out, x.flip(1))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("defect", [1, 2, 3])
def test_cp_async_without_its_waits(device: EmulatedDevice, defect: int, seed: int) -> None:
    device.seed = seed
    x = random_bytes(3, 64, 16)
    with pytest.raises(EmulationError, match="race on bytes"):
        device.launch(sample(device, "copy_async"), (1, 1, 1), 64, 1024, x, torch.zeros_like(x), 3, defect)


def test_mma_and_ldmatrix(device: EmulatedDevice) -> None:
    a, b = random_bytes(16, 32), random_bytes(8, 32).flip(1)
    bytes_product = a.numpy().astype(np.int64) @ b.numpy().view(np.int8).astype(np.int64).T
    for int8, expected in ((0, popcount_product(a, b)), (1, bytes_product)):
        out = torch.zeros(16, 8, dtype=torch.int32)
        device.launch(sample(device, "mma_product"), (1, 1, 1), 32, 768, a, b, out, int8)
        assert np.array_equal(out.numpy(), expected)


# ---- TMA, mbarriers, clusters ----


def swizzled(box: NDArray[np.uint8], swizzle: int) -> NDArray[np.uint8]:
    """A box as it lies in shared memory: in each row, 16-byte chunk c stands at c xor its 128-byte line."""
    rows, width = box.shape
    chunks = box.reshape(rows, width // 16, 16)
    if swizzle == 0:
        return box
    result = np.empty_like(chunks)
    for row in range(rows):
        for chunk in range(width // 16):
            result[row, chunk ^ (row * width // 128 % (swizzle // 16))] = chunks[row, chunk]
    return result.reshape(rows, width)


@pytest.mark.parametrize(("row", "byte"), [(0, 0), (-3, 32), (30, -16), (37, 112)])
@pytest.mark.parametrize("swizzle", [0, 32, 64, 128])
def test_tma_swizzles_and_fills_with_zeros(device: EmulatedDevice, swizzle: int, row: int, byte: int) -> None:
    x = random_bytes(40, 144)
    width = swizzle or 48
    box = np.zeros((16, width), np.uint8)
    for i in range(16):
        for j in range(width):
            if 0 <= row + i < 40 and 0 <= byte + j < 144:
                box[i, j] = x[row + i, byte + j]
    out = torch.zeros(16, width, dtype=torch.uint8)
    tensor_map = device.tensor_map(x, 16, width, swizzle)
    arguments = (tensor_map, row, byte, 16 * width, out, 0)
    device.launch(sample(device, "load_box"), (1, 1, 1), 32, 16 * width + 8, *arguments)
    assert np.array_equal(out.numpy(), swizzled(box, swizzle))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("defect", "report"),
    [
        (1, "deadlock|still waits for -16 bytes|race"),
        (2, "race on bytes"),
        (3, "no mbarrier_init_fence"),
        (4, "race on bytes"),
    ],
)
def test_misused_tma(device: EmulatedDevice, defect: int, report: str, seed: int) -> None:
    device.seed = seed
    tensor_map = device.tensor_map(random_bytes(40, 144), 16, 128, 128)
    out = torch.zeros(16 * 128, dtype=torch.uint8)
    with pytest.raises(EmulationError, match=report):
        device.launch(
            sample(device, "load_box"), (1, 1, 1), 32, 2048 + 8, tensor_map, 0, 0, 2048, out, defect
        )


@pytest.mark.parametrize("seed", SEEDS)
def test_multicast_in_a_cluster(device: EmulatedDevice, seed: int) -> None:
    device.seed = seed
    x = random_bytes(16, 64)
    out = torch.zeros(4, 8, 64, dtype=torch.uint8)
    tensor_map = device.tensor_map(x, 8, 64, 0)
    device.launch(sample(device, "multicast"), (4, 1, 1), 64, 512 + 16, tensor_map, 512, out, 0)
    assert torch.equal(out, x[8:].expand(4, 8, 64))
    with pytest.raises(EmulationError, match=r"deadlock|bytes"):
        device.launch(sample(device, "multicast"), (4, 1, 1), 64, 512 + 16, tensor_map, 512, out, 1)
    with pytest.raises(EmulationError, match="a block of the cluster may have ended"):
        device.launch(sample(device, "multicast"), (4, 1, 1), 64, 512 + 16, tensor_map, 512, out, 2)
    with pytest.raises(EmulationError, match="no multiple of the cluster"):
        device.launch(sample(device, "multicast"), (3, 1, 1), 64, 512 + 16, tensor_map, 512, out, 0)


# ---- wgmma ----


def launch_wgmma(device: EmulatedDevice, a: torch.Tensor, b: torch.Tensor, defect: int) -> torch.Tensor:
    out = torch.zeros(64, 64, dtype=torch.int32)
    maps = (device.tensor_map(a, 64, 128, 128), device.tensor_map(b, 64, 128, 128))
    device.launch(sample(device, "wgmma_product"), (1, 1, 1), 128, 2 * 8192 + 8, *maps, out, defect)
    return out


@pytest.mark.parametrize("defect", [0, 6])
@pytest.mark.parametrize("seed", SEEDS)
def test_wgmma(device: EmulatedDevice, seed: int, defect: int) -> None:
    device.seed = seed
    a, b = random_bytes(64, 128), random_bytes(64, 128).flip(0).contiguous()
    assert np.array_equal(launch_wgmma(device, a, b, defect).numpy(), popcount_product(a, b))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("defect", "report"),
    [
        (2, "no wgmma_fence"),
        (3, "without fence_async_proxy"),
        (4, "race on bytes"),
        (5, "no wgmma_fence"),
    ],
)
def test_misused_wgmma(device: EmulatedDevice, defect: int, report: str, seed: int) -> None:
    device.seed = seed
    x = random_bytes(64, 128)
    with pytest.raises(EmulationError, match=report):
        launch_wgmma(device, x, x, defect)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_result_of_wgmma_that_nobody_waited_for_is_noise(device: EmulatedDevice, seed: int) -> None:
    device.seed = seed
    x = random_bytes(64, 128)
    assert not np.array_equal(launch_wgmma(device, x, x, 1).numpy(), popcount_product(x, x))


# ---- launches ----


def test_a_seed_repeats_a_schedule(device: EmulatedDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    x, out = torch.ones(256, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    messages = set()
    for _ in range(2):
        device.seed = 7
        with pytest.raises(EmulationError) as caught:
            device.launch(sample(device, "block_sum"), (1, 1, 1), 256, 1024, x, 256, out, 1)
        messages.add(str(caught.value))
    assert len(messages) == 1
    monkeypatch.setenv("ONEBIT_EMULATION_SEED", "123")
    assert EmulatedDevice().seed == 123


def test_wrong_launches_are_refused(device: EmulatedDevice) -> None:
    x, out = torch.ones(256, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    kernel = sample(device, "block_sum")
    wrong = [
        ((1, 1, 1), 2048, 1024, (x, 256, out, 0), "2048 threads"),
        ((0, 1, 1), 256, 1024, (x, 256, out, 0), "a grid of"),
        ((1, 1, 1), 256, 300_000, (x, 256, out, 0), "300000 bytes of shared memory"),
        ((1, 1, 1), 256, 1024, (x, 256, out), "4 parameters, the launch 3"),
        ((1, 1, 1), 256, 1024, (x, 256.0, out, 0), "argument 1: the parameter is a 32-bit integer"),
        ((1, 1, 1), 256, 1024, (1, 256, out, 0), "argument 0: the parameter is a pointer"),
        ((1, 1, 1), 256, 1024, (x, 2**31, out, 0), "argument 1"),
    ]
    for grid, block, shared_bytes, arguments, report in wrong:
        with pytest.raises(EmulationError, match=report):
            device.launch(kernel, grid, block, shared_bytes, *arguments)
    with pytest.raises(EmulationError, match="no kernel"):
        sample(device, "missing")
    with pytest.raises(EmulationError, match="rows of a multiple of 16 bytes"):
        device.tensor_map(random_bytes(4, 24), 4, 16, 0)
    with pytest.raises(EmulationError, match=r"capability 9\.0"):
        EmulatedDevice((8, 0)).tensor_map(random_bytes(4, 32), 4, 16, 0)
