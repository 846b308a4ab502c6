"""torch.compile on training steps: no graph breaks, the same numbers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from onebit import models
from onebit.nn import square_hinge
from onebit.train import load_recipe, train
from onebit.train.precision import autocast, mixed
from support import require


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Compiled code of one test says nothing about another."""
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("bnn_convnet_cifar10", "float32"),
        ("bnn_convnet_cifar10", "bf16"),
        ("reactnet_a", "bf16"),
        ("resnet18_xnor", "float32"),
    ],
)
def test_forward_and_backward_are_one_graph_each_and_equal_eager(name: str, precision: str) -> None:
    """fullgraph raises at a graph break. aot_eager runs the captured graphs with eager kernels: == holds."""
    torch.manual_seed(1)
    model = models.create_small(name).train()
    x = models.example_input(model, 4)
    labels = torch.tensor([0, 1, 2, 1])
    state = {key: value.clone() for key, value in model.state_dict().items()}
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    found = []
    with mixed(model, precision, x):
        for forward in (model, compiled):
            model.load_state_dict(state)
            model.zero_grad()
            with autocast(precision, x.device):
                scores = forward(x)
            square_hinge(scores.float(), labels).backward()
            found.append([scores.detach(), *(p.grad.clone() for p in model.parameters())])
    assert any(gradient.abs().max() > 0 for gradient in found[0][1:])
    for eager, other in zip(*found, strict=True):
        assert torch.equal(eager, other)


@pytest.mark.slow  # inductor compiles C++
def test_a_recipe_with_compile_learns(tmp_path: Path) -> None:
    require(shutil.which("c++") or shutil.which("g++"), "a C++ compiler")
    recipe = load_recipe("bnn-digits", ["compile=true", "epochs=2", "model.hidden=[65]", "threads=1"])
    result = train(recipe, run_dir=tmp_path / "run", tensorboard=False)
    assert result.history[1]["train_loss"] < result.history[0]["train_loss"]
    assert result.test_accuracy > 60
