"""Bytes times a number: the packed integers and PyTorch in eval mode have the same sums, however large."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import onebit
from onebit import nn as bnn
from onebit.nn.exact_sums import needs_float64
from onebit.program import execute

GRIDS: dict[str, Callable[[Tensor], Tensor]] = {
    "8191/2^18": lambda x: x.float() * (8191 / 2**18),
    "falling": lambda x: x.float() * (-8191 / 2**18),
    "shifted": lambda x: x.float() * (8191 / 2**18) - 0.5,
    "far away": lambda x: x.float() - 100000.125,
    "pixels": lambda x: (2 * x.float() - 255) / 256,
    "257": lambda x: x.float() * 257.0,
}

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: bnn.BinaryLinear(784, 96, input_quantizer=None), (784,)),
    "few terms": (lambda: bnn.BinaryLinear(100, 96, input_quantizer=None), (100,)),
    "scale": (
        lambda: bnn.BinaryLinear(784, 96, input_quantizer=None, weight_scale="channel_mean"),
        (784,),
    ),
    "bias": (lambda: bnn.BinaryLinear(784, 96, input_quantizer=None, bias=True), (784,)),
    "groups": (
        lambda: bnn.BinaryConv2d(64, 16, 7, padding=3, groups=8, input_quantizer=None),
        (64, 8, 8),
    ),
    "stride": (
        lambda: bnn.BinaryConv2d(32, 16, 5, stride=2, dilation=2, input_quantizer=None),
        (32, 16, 16),
    ),
    "length": (lambda: bnn.BinaryConv1d(64, 16, 9, padding="same", input_quantizer=None), (64, 32)),
}


class _Net(nn.Module):
    """A grid, a binary layer, and a sign at a level that one of the sums reaches exactly."""

    def __init__(self, grid: Callable[[Tensor], Tensor], layer: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.grid = grid
        self.layer = layer.eval()
        with torch.no_grad():
            y = self.layer(grid(x)).transpose(0, 1).flatten(1)
            level = y.median(1).values
        self.level = nn.Parameter(level.reshape(-1, *[1] * (x.ndim - 2)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(self.layer(self.grid(x)) >= self.level, 1.0, -1.0)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("grid", GRIDS)
def test_signs_of_sums_of_bytes_are_pytorchs(grid: str, layer: str) -> None:
    make, shape = LAYERS[layer]
    torch.manual_seed(3)
    x = torch.randint(0, 256, (24, *shape), dtype=torch.uint8)
    model = _Net(GRIDS[grid], make(), x).eval()
    program = onebit.convert(model, x[:2])
    assert {"u8_gemm", "u8_conv2d"} & {node.op for node in program.nodes}
    want = model(x).detach().numpy()
    assert np.array_equal(onebit.Engine(program)(x.numpy()), want)
    assert np.array_equal(execute(program, x[:3].numpy())[program.outputs[0]], want[:3])
    assert np.array_equal(model(x[5:6]).detach().numpy(), want[5:6])  # whatever the batch


def test_a_sum_is_that_of_python_integers() -> None:
    """Rounded once: Python's own integers, then the nearest float32."""
    torch.manual_seed(4)
    layer = bnn.BinaryLinear(784, 4, input_quantizer=None).eval()
    x = torch.randint(0, 256, (3, 784))
    signs = np.where(layer.weight.detach().numpy() >= 0, 1, -1)
    sums = [
        [sum(int(s) * int(n) * 8191 for s, n in zip(row, sample, strict=True)) for row in signs]
        for sample in x
    ]
    want = np.array([[np.float32(total / 2**18) for total in row] for row in sums])
    assert np.array_equal(layer(x.float() * (8191 / 2**18)).detach().numpy(), want)


def test_float64_is_taken_where_it_is_exact_and_float32_may_not_be() -> None:
    grid = torch.arange(256.0) * 8191 / 2**18
    assert needs_float64(grid, 784)
    assert not needs_float64(grid, 8)  # 8·255·8191 < 2^24
    assert not needs_float64((2 * torch.arange(256.0) - 255) / 256, 65793)
    assert needs_float64((2 * torch.arange(256.0) - 255) / 256, 65794)
    assert not needs_float64(torch.randn(4096, generator=torch.Generator().manual_seed(0)), 784)
    for few in ([1.1, 1.7, 1.3], [0.0, 0.0, 3.14159, 2.71828], [5.3]):
        assert not needs_float64(torch.tensor(few), 784) or len(few) == 1  # one value is a grid of one
    assert needs_float64(grid[torch.tensor([0, 255, 255, 3])], 784)
    late = torch.cat([grid.repeat(8), torch.tensor([2.0**-30])])  # the last value leaves the grid
    assert not needs_float64(late, 784)
    for other in (grid.double(), grid[:0], torch.zeros(9), torch.full((9,), torch.inf), grid * torch.nan):
        assert not needs_float64(other, 784)


def test_training_and_compilation_sum_in_float32() -> None:
    layer = bnn.BinaryLinear(784, 4, input_quantizer=None)
    x = torch.arange(784.0) % 256 * (8191 / 2**18)
    signs = torch.where(layer.weight >= 0, 1.0, -1.0)
    assert torch.equal(layer(x), nn.functional.linear(x, signs))
    layer.eval()
    exported = torch.export.export(layer, (x,), strict=False)
    assert all("float64" not in str(node.meta.get("val", "")) for node in exported.graph.nodes)
