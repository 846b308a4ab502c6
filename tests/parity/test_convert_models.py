"""Every MLP of the registry, converted, against PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from onebit import models
from onebit.lowering import convert
from onebit.program import DType, Program
from parity.agreement import (
    EXECUTORS,
    assert_equal,
    assert_hidden_bits_equal,
    assert_within_tolerance,
    eager,
)


def _is_mlp(name: str) -> bool:
    return name.endswith("_mlp")


def _trained_looking(name: str, **options: Any) -> nn.Module:
    """A small model of that name whose BatchNorms have seen something."""
    torch.manual_seed(11)
    model = models.create_small(name, **options)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean.normal_(std=4)
                module.running_var.uniform_(0.5, 40)
                module.weight.normal_()
                module.bias.normal_()
    return model.eval()


def test_the_registry_holds_mlps() -> None:
    assert {"bnn_mlp", "binaryconnect_mlp"} <= set(filter(_is_mlp, models.names()))


_BNN = (
    {},
    {"hidden": ()},
    {"hidden": (511,), "classes": 1},
    {"hidden": (1, 63, 64, 65), "input_shape": (1,)},
    {"dropout_input": 0.2, "dropout_hidden": 0.5, "weight_quantizer": "stochastic_sign"},
    {"activation": "stochastic_sign", "bn_eps": 1e-2},
)


@pytest.mark.parametrize("options", _BNN, ids=str)
def test_bnn_mlp_equals_pytorch_bit_for_bit(options: dict[str, Any]) -> None:
    model = _trained_looking("bnn_mlp", **options)
    x = models.example_input(model, 65)
    program = convert(model, x[:1])
    assert not [node.op for node in program.nodes if node.op.startswith("f32")]
    assert_equal(model, program, x)
    if "activation" not in options:
        assert assert_hidden_bits_equal(model, program, x) > 0 or not options.get("hidden", True)


def _hidden_floats(program: Program) -> list[str]:
    return [n.op for n in program.nodes[:-2] if program.values[n.output].dtype is DType.F32]


def test_bnn_mlp_has_no_float_between_its_hidden_layers() -> None:
    model = _trained_looking("bnn_mlp", hidden=(64, 64, 64))
    program = convert(model, models.example_input(model, 1))
    assert _hidden_floats(program) == []
    assert sum(node.op == "threshold" for node in program.nodes) == 3


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("bnn_mlp", {"scale_pixels": False}),
        ("binaryconnect_mlp", {}),
        ("binaryconnect_mlp", {"scale_pixels": False, "hidden": (511, 64, 65)}),
        ("binaryconnect_mlp", {"weight_quantizer": "stochastic_sign"}),
        ("binaryconnect_mlp", {"weight_quantizer": "stochastic_sign", "test_weights": "real"}),
    ],
    ids=str,
)
def test_networks_with_float_paths_agree_by_the_second_rule(name: str, options: dict[str, Any]) -> None:
    model = _trained_looking(name, **options)
    x = models.example_input(model, 256)
    program = convert(model, x[:1])
    (expected,) = eager(model, x)
    for executor_name, executor in EXECUTORS.items():
        flips = assert_within_tolerance(program, executor, x.numpy())
        (found,) = executor(program, x.numpy())
        same = float((found.argmax(1) == expected.argmax(1)).mean())
        assert same >= 0.99, (executor_name, same, flips)


def test_real_test_weights_are_stored_as_real() -> None:
    options = {"weight_quantizer": "stochastic_sign", "test_weights": "real"}
    model = _trained_looking("binaryconnect_mlp", **options)
    program = convert(model, models.example_input(model, 1))
    assert [node.op for node in program.nodes if node.op.endswith("gemm")] == ["f32_gemm"] * 3
