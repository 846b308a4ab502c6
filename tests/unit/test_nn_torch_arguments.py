"""What users of torch.nn expect of a layer: `device=`, `dtype=`, and `padding="same"` or `"valid"`.

Such a layer trains with saved bits, converts and packs like any other.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import onebit
from onebit.nn import (
    EDE,
    BinaryConv1d,
    BinaryConv2d,
    BinaryLinear,
    RPReLU,
    RSign,
    ShiftBatchNorm1d,
    ShiftBatchNorm2d,
    save_bits_,
)

LAYERS: list[Callable[..., nn.Module]] = [
    lambda **how: BinaryLinear(5, 3, weight_scale="learned", bias=True, weight_quantizer="ede", **how),
    lambda **how: BinaryConv1d(5, 3, 4, padding="same", input_scale="xnor", bias=True, **how),
    lambda **how: BinaryConv2d(5, 3, 3, weight_scale="learned", input_quantizer="ede", **how),
    lambda **how: RSign(5, **how),
    lambda **how: RPReLU(5, **how),
    lambda **how: ShiftBatchNorm1d(5, **how),
    lambda **how: ShiftBatchNorm2d(5, **how),
]

# kernel, dilation, groups, size of the image
SAMES = [
    (1, 1, 1, (4, 5)),
    (2, 1, 1, (5, 4)),
    (3, 1, 1, (4, 7)),
    ((2, 3), 1, 1, (6, 5)),
    ((4, 2), (1, 3), 2, (7, 8)),
    (6, 1, 1, (3, 3)),
    (2, 2, 1, (6, 6)),
]


@pytest.mark.parametrize("make", LAYERS)
def test_device_and_dtype_reach_every_tensor(make: Callable[..., nn.Module]) -> None:
    """Those of quantizers that a layer makes by name too."""
    layer = make(device="meta", dtype=torch.float64)
    tensors = [*layer.parameters(), *layer.buffers()]
    assert tensors
    assert {(t.device.type, t.dtype) for t in tensors} == {("meta", torch.float64)}


@pytest.mark.parametrize("make", LAYERS)
def test_without_them_the_defaults_of_pytorch_hold(make: Callable[..., nn.Module]) -> None:
    with torch.device("meta"):
        layer = make()
    assert {(t.device.type, t.dtype) for t in layer.parameters()} == {("meta", torch.float32)}


def test_a_layer_draws_its_weights_in_its_dtype() -> None:
    layer = BinaryConv2d(31, 33, 3, dtype=torch.bfloat16)
    assert layer.weight.dtype == torch.bfloat16
    assert 0.5 < float(layer.weight.detach().abs().max()) <= 1
    assert layer(torch.ones(1, 31, 5, 5, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_a_quantizer_given_as_a_module_goes_along() -> None:
    assert BinaryLinear(5, 3, input_quantizer=EDE(), device="meta").input_quantizer.t.is_meta


def expected(layer: BinaryConv2d | BinaryConv1d, x: Tensor, value: int) -> Tensor:
    """PyTorch's own "same" of signs; zeros make room for the ±1 where the image ends."""
    convolve = F.conv2d if x.ndim == 4 else F.conv1d
    signs = [torch.where(t < 0, -1.0, 1.0).double() for t in (x, layer.weight.detach())]
    how = {"padding": "same", "dilation": layer.dilation, "groups": layer.groups}
    inside = convolve(signs[0], signs[1], **how)
    missing = convolve(torch.ones_like(signs[0]), signs[1], **how)
    whole = signs[1].flatten(1).sum(1).reshape(-1, *[1] * (x.ndim - 2))
    return (inside + value * (whole - missing)).float()


@pytest.mark.parametrize("value", [0, 1, -1])
@pytest.mark.parametrize(("kernel", "dilation", "groups", "size"), SAMES)
def test_same_is_that_of_pytorch(
    kernel: int | tuple[int, int],
    dilation: int | tuple[int, int],
    groups: int,
    size: tuple[int, int],
    value: int,
) -> None:
    """In eager mode, as a Program and packed."""
    torch.manual_seed(len(str(kernel)) + value)
    layer = BinaryConv2d(34, 6, kernel, 1, "same", dilation, groups, padding_value=value).eval()
    x = torch.randn(2, 34, *size)
    y = expected(layer, x, value)
    assert torch.equal(layer(x), y)
    packed = onebit.pack(layer)(x)
    assert torch.equal(packed, y)
    assert packed.is_contiguous()
    engine = onebit.Engine(onebit.convert(layer, x))
    assert torch.equal(torch.from_numpy(engine(x.numpy())), y)


@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_same_of_one_axis(kernel: int) -> None:
    layer = BinaryConv1d(33, 5, kernel, padding="same").eval()
    x = torch.randn(2, 33, 9)
    y = expected(layer, x, 0)
    assert torch.equal(layer(x), y)
    assert torch.equal(onebit.pack(layer)(x), y)
    engine = onebit.Engine(onebit.convert(layer, x))
    assert torch.equal(torch.from_numpy(engine(x.numpy())), y)


def test_packed_same_keeps_channels_last() -> None:
    layer = BinaryConv2d(32, 8, 2, padding="same").eval()
    x = torch.randn(2, 32, 5, 6).contiguous(memory_format=torch.channels_last)
    packed = onebit.pack(layer)(x)
    assert packed.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(packed, expected(layer, x, 0))


def test_real_input_and_input_scale_see_the_same_image() -> None:
    torch.manual_seed(0)
    real = BinaryConv2d(3, 4, 2, padding="same", input_quantizer=None).eval()
    x = torch.randint(-16, 17, (2, 3, 5, 5)) / 8  # sums are exact in any order
    signs = torch.where(real.weight < 0, -1.0, 1.0)
    assert torch.equal(real(x), F.conv2d(x, signs, padding="same"))
    assert torch.equal(onebit.pack(real, real_inputs="pack")(x), real(x))
    scaled = BinaryConv2d(4, 2, 2, padding="same", input_scale="xnor").eval()
    x = torch.randint(-16, 17, (2, 4, 5, 5)) / 8
    k = F.conv2d(x.abs().mean(1, keepdim=True), torch.full((1, 1, 2, 2), 0.25), padding="same")
    assert torch.equal(scaled(x), expected(scaled, x, 0) * k)
    assert torch.equal(onebit.pack(scaled)(x), scaled(x))
    engine = onebit.Engine(onebit.convert(scaled, x))
    assert torch.equal(torch.from_numpy(engine(x.numpy())), scaled(x))


@pytest.mark.parametrize("value", [0, 1])
def test_saved_bits_give_the_gradients_of_same(value: int) -> None:
    torch.manual_seed(0)
    layer = BinaryConv2d(33, 4, (2, 3), padding="same", padding_value=value)
    results = []
    for saves in (False, True):
        if saves:
            save_bits_(layer, torch.zeros(1, 33, 5, 4))
        x = torch.linspace(-2, 2, 2 * 33 * 5 * 4).reshape(2, 33, 5, 4).requires_grad_()
        layer.zero_grad()
        y = layer(x)
        (y * torch.arange(y.numel()).reshape(y.shape).remainder(7)).sum().backward()
        results.append((y.detach(), x.grad, layer.weight.grad.clone()))
    assert type(layer).__name__ == "SavedBinaryConv2d"
    for plain, saved in zip(*results, strict=True):
        assert torch.equal(plain, saved)
        assert plain.count_nonzero() > 0


def test_valid_and_repr() -> None:
    assert repr(BinaryConv2d(4, 4, 3, padding="valid")) == repr(BinaryConv2d(4, 4, 3))
    assert repr(BinaryConv2d(4, 4, 3, padding="same")) == repr(BinaryConv2d(4, 4, 3, padding=1))
    assert "padding='same'" in repr(BinaryConv2d(4, 4, 2, padding="same"))
