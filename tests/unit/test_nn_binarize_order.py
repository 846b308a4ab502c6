"""binarize: what it learns from nn.Sequential and from an example of what runs before and after a layer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onebit.nn import binarize, binarize_report


def reasons(model: nn.Module) -> dict[str, str]:
    return {layer.name: layer.reason for layer in binarize_report(model).layers}


def test_no_batch_norm_where_a_normalization_stands_already() -> None:
    def sequence(*layers: nn.Module) -> str:
        model = nn.Sequential(nn.Linear(64, 64), *layers, nn.Linear(64, 64), nn.Linear(64, 2))
        return reasons(binarize(model))[str(len(layers) + 1)]

    with_norm = "weights and inputs, BatchNorm in front"
    assert sequence(nn.LayerNorm(64)) == "weights and inputs"
    assert sequence(nn.BatchNorm1d(64), nn.Dropout(), nn.Identity()) == "weights and inputs"
    assert sequence(nn.Sequential(nn.ReLU(), nn.LayerNorm(64))) == "weights and inputs"
    assert sequence(nn.LayerNorm(64), nn.ReLU()) == with_norm
    assert sequence(nn.RMSNorm(64)) == with_norm
    assert sequence(nn.Tanh()) == with_norm


class Block(nn.Module):
    """Layers registered in another order than they run, one of them never, in-place between."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 64)
        self.unused = nn.Linear(64, 64)
        self.middle = nn.Linear(64, 64)
        self.after_relu = nn.Linear(64, 64)
        self.norm = nn.LayerNorm(64)
        self.norm2 = nn.LayerNorm(64)
        self.stem = nn.Linear(64, 64)

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        x = self.middle(self.norm(self.stem(x)))
        return self.head(self.after_relu(F.relu_(self.norm2(x)))) * scale


@pytest.mark.parametrize(
    "example", [torch.ones(2, 64), (torch.ones(2, 64),), {"x": torch.ones(2, 64), "scale": 2}]
)
def test_an_example_shows_the_order_and_what_is_called(example: object) -> None:
    model = Block()
    found = reasons(binarize(model, example=example))
    assert found["stem"] == "first layer"
    assert found["head"] == "last layer"
    assert found["unused"] == "never called with the example"
    assert found["middle"] == "weights and inputs"
    assert found["after_relu"] == "weights and inputs, BatchNorm in front"
    assert all(m.training and not m._forward_hooks for m in model.modules())
    assert reasons(binarize(model))["head"] == "first layer"  # by registration, without one


class Walker(nn.Module):
    """A parent that walks through a Sequential and keeps what lies between, as perceptual losses do."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.Linear(64, 64))

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x := layer(x) for layer in self.features]


def test_a_sequential_that_is_walked_through_is_not_reordered() -> None:
    seen = binarize(Walker(), reorder=True, example=torch.ones(2, 64))
    assert isinstance(seen.features[1], nn.ReLU)


def test_dropout_before_a_sign_is_noted() -> None:
    model = nn.Sequential(
        nn.Linear(64, 64), nn.Dropout(0.3), nn.Linear(64, 64), nn.Dropout(), nn.Linear(64, 2)
    )
    notes = binarize_report(binarize(model)).notes
    assert len(notes) == 1
    assert notes[0].startswith("1: dropout before the sign in 2")
