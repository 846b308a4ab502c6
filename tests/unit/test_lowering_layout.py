"""Where PyTorch's elements stand in a Program: constants, columns, and values that are moved to and fro."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from onebit import nn as bnn
from onebit.lowering import convert
from onebit.lowering.values.image_layout import ImageLayout

LAYOUTS = [
    ImageLayout(3, (4, 5)), ImageLayout(3, (4, 5), flat=True),
    ImageLayout(3, (5,)), ImageLayout(3, (5,), flat=True),
    ImageLayout(1, (4, 5)), ImageLayout(3, (1, 1)),
]  # fmt: skip


def _in_program(layout: ImageLayout, sample: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """A sample in PyTorch's shape, as the Program holds it, element by element."""
    image = sample.reshape(layout.channels, *layout.sizes)
    found = np.empty((*layout.sizes, layout.channels), sample.dtype)
    for index in np.ndindex(image.shape):
        found[(*index[1:], index[0])] = image[index]
    return found.reshape(layout.program_shape)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_constants_and_columns_follow_the_elements(layout: ImageLayout) -> None:
    rng = np.random.default_rng(1)
    x = rng.integers(-99, 99, layout.torch_shape)
    shapes = {layout.torch_shape, (1, *layout.torch_shape[1:]), layout.torch_shape[-1:], (1,), ()}
    shapes |= {(layout.torch_shape[0], *[1] * (len(layout.torch_shape) - 1))}
    for shape in shapes:
        constant = rng.integers(-99, 99, shape)
        found = _in_program(layout, x) * layout.constant(constant)
        assert np.array_equal(found, _in_program(layout, x * constant)), shape
    if layout.flat:
        weights = rng.integers(-9, 9, (7, x.size))
        assert np.array_equal(layout.columns(weights) @ _in_program(layout, x), weights @ x)
    same = layout.channels == 1 or int(np.prod(layout.sizes)) == 1
    assert layout.keeps_order == same
    if same:
        assert np.array_equal(_in_program(layout, x).reshape(-1), x.reshape(-1))


def _ops(model: nn.Module, x: Tensor) -> list[str]:
    program = convert(model.eval(), x)
    found = program.run(x.numpy())[program.outputs[0]]
    with torch.no_grad():
        assert np.array_equal(found, model(x).numpy())
    return [node.op for node in program.nodes]


class Do(nn.Module):
    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function
        self.conv = bnn.BinaryConv2d(4, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x))  # type: ignore[operator, no-any-return]


@pytest.mark.parametrize(
    ("function", "permutes"),
    [
        (lambda y: y.flatten(1), 2),  # an output stands in PyTorch's order
        (lambda y: y.flatten(2).mean(2), 1),
        (lambda y: y.flatten(1).view(-1, 6, 3, 5).mean((2, 3)), 1),
        (lambda y: y.flatten(1).view(-1, 6, 15).abs().mean(1), 1),
        (lambda y: y.flatten(1).view(-1, 3, 30) + 1, 2),  # channels are torn apart
        (lambda y: y.permute(0, 2, 3, 1) * 2, 3),
        (lambda y: y.view(-1, 2, 3, 3, 5).transpose(1, 2).reshape(-1, 6, 3, 5).mean((2, 3)), 4),  # shuffle
        (lambda y: torch.cat([y, bnn.quantizers.ste_sign(y)], 1).mean((2, 3)), 1),
        (lambda y: y * y.abs().mean(1, keepdim=True) + torch.arange(15.0).view(3, 5), 2),
        (lambda y: y.flatten(1) * torch.arange(90.0), 2),
        (lambda y: y[..., None].squeeze(-1).mean(3).mean(2), 1),
    ],
)
def test_views_of_images(function: object, permutes: int) -> None:
    torch.manual_seed(3)
    found = _ops(Do(function), torch.randn(2, 4, 3, 5))
    assert found.count("permute") == permutes


def test_images_that_arise_inside_are_turned_there() -> None:
    torch.manual_seed(4)
    model = nn.Sequential(
        bnn.BinaryLinear(7, 60), nn.Unflatten(1, (3, 4, 5)), nn.BatchNorm2d(3), bnn.BinaryConv2d(3, 2, 3),
        nn.Flatten(),
    )  # fmt: skip
    assert _ops(model, torch.randn(2, 7)).count("permute") == 2
    assert _ops(nn.BatchNorm1d(3), torch.randn(2, 3, 5)).count("permute") == 2
    assert "permute" not in _ops(
        nn.Sequential(nn.Flatten(), bnn.BinaryLinear(60, 3)), torch.randn(2, 3, 4, 5)
    )
