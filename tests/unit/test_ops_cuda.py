"""The torch operators on a GPU, its kernels run by the emulator: equal to those on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import onebit.ops
from cuda_emulation.compile import compiler
from cuda_emulation.device import EmulatedDevice
from onebit.ops import cuda, prepared
from support import require

OPS = torch.ops.onebit
GPU = prepared.Products(cuda)
assert onebit.ops.pack  # the import registers the operators


@pytest.fixture(autouse=True, params=[(9, 0), pytest.param((7, 5), marks=pytest.mark.targets)], ids=str)
def _gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    require(compiler(), "g++, which compiles kernels for the emulator")
    device = EmulatedDevice(capability=request.param)
    monkeypatch.setattr(cuda, "device_of", lambda tensor: device)
    torch.manual_seed(3)
    prepared._prepared.clear()  # what was prepared for the CPU has the same keys: the tensors are the same
    yield
    prepared._prepared.clear()


def both(name: str, *arguments: Any, **options: Any) -> Tensor:
    """The operator on the GPU, checked against the CPU's."""
    expected = getattr(OPS, name)(*arguments, **options)
    prepared._prepared.clear()
    found = getattr(GPU, name)(*arguments, **options)
    prepared._prepared.clear()
    assert (found.dtype, found.shape, found.stride()) == (expected.dtype, expected.shape, expected.stride())
    assert torch.equal(found, expected)
    return found


def signs(*shape: int) -> Tensor:
    return torch.randint(0, 2, shape).float() * 2 - 1


def epilogues(n: int) -> list[dict[str, Any]]:
    threshold = torch.randint(-3, 4, (n,), dtype=torch.int32)
    flip = OPS.pack_bits(signs(n))
    return [
        {},
        {"to_float": True},
        {"scale": torch.randn(n), "bias": torch.randn(n)},
        {"threshold": threshold, "flip": flip},
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.float64])
def test_pack_bits(dtype: torch.dtype) -> None:
    for k in (1, 33, 128, 511):
        x = torch.randint(-2, 3, (3, 2, k)).to(dtype)
        for view in (x.transpose(0, 1), x[:0], x[0, 0]):
            assert torch.equal(cuda.pack_bits(view), OPS.pack_bits(view))


@pytest.mark.parametrize("k", [33, 128])
def test_binary_matmul(k: int) -> None:
    b = OPS.pack_bits(signs(34, k))
    for options in epilogues(34):
        both("binary_matmul", OPS.pack_bits(signs(2, 2, k)), b, k, **options)
    both("binary_matmul", signs(20, k), b, k, scale=torch.randn(34))
    both("binary_matmul", signs(k), b, k, threshold=torch.zeros(34, dtype=torch.int32))
    assert GPU.binary_matmul(signs(0, k), b, k).shape == (0, 34)


def test_words_that_begin_anywhere() -> None:
    """A row that fills 16 bytes is used where it lies, unless it begins between them."""
    words = torch.zeros(1 + 3 * 4, dtype=torch.int32)[1:].view(3, 4)
    words.copy_(OPS.pack_bits(signs(3, 128)))
    assert words.data_ptr() % 16 == 4
    both("binary_matmul", words, OPS.pack_bits(signs(9, 128)), 128)


def test_binary_conv2d() -> None:
    x, w = signs(2, 4, 5, 33), OPS.pack_bits(signs(34, 3, 2, 33))
    planes = x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    for options in epilogues(34):
        both("binary_conv2d", OPS.pack_bits(x), w, 33, padding=(1, 1), padding_value=-1, **options)
    both("binary_conv2d", x, w, 33, padding=(2, 0), stride=(2, 1), dilation=(1, 2))
    both("binary_conv2d", planes, w, 33, channels_first=True)
    grouped = OPS.pack_bits(signs(4, 3, 2, 31))
    both("binary_conv2d", signs(2, 4, 5, 62), grouped, 62, groups=2, to_float=True)


def test_real_inputs_whose_sums_are_exact() -> None:
    x = torch.randint(-63, 64, (2, 4, 3, 10)) / 16
    w, b = OPS.pack_bits(signs(6, 3, 2, 5)), OPS.pack_bits(signs(33, 10))
    scale, bias = torch.randn(33), torch.randn(33)
    both("f32_binary_matmul", x, b)
    both("f32_binary_matmul", x, b, scale=scale, bias=bias)
    both("f32_binary_conv2d", x, w, groups=2, padding=(1, 1), scale=scale[:6])
    both("f32_binary_conv2d", x, w, groups=2, channels_first=True)


def test_weights_written_in_place_are_seen() -> None:
    a, b = signs(3, 40), signs(5, 40)
    words = OPS.pack_bits(b)
    assert torch.equal(GPU.binary_matmul(a, words, 40), (a @ b.T).int())
    words.copy_(OPS.pack_bits(-b))
    assert torch.equal(GPU.binary_matmul(a, words, 40), (a @ -b.T).int())


def test_more_than_kernels_count_is_refused() -> None:
    a, b = torch.zeros(1, 1, dtype=torch.int32), torch.zeros(1, 1, dtype=torch.int32)
    with pytest.raises(ValueError, match="more elements than kernels count"):
        GPU.binary_matmul(a.expand(1, 1).repeat(2**24, 1)[:, :1], b.repeat(128, 1), 1)


def test_a_gradient_is_refused() -> None:
    x = torch.randn(3, 40, requires_grad=True)
    with pytest.raises(RuntimeError, match="inference_mode"):
        GPU.binary_matmul(x, OPS.pack_bits(signs(5, 40)), 40)
    with torch.no_grad():
        assert not GPU.binary_matmul(x, OPS.pack_bits(signs(5, 40)), 40, to_float=True).requires_grad
