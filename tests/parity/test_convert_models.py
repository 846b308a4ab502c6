"""Every model of the registry, in its small form, converted: against PyTorch as docs/numerics.md says."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from onebit import models
from onebit.lowering import ConversionError, convert
from onebit.program import DType, Program
from parity.agreement import (
    EXECUTORS,
    assert_equal,
    assert_hidden_bits_equal,
    assert_within_tolerance,
    eager,
)
from parity.networks import make_dyadic

_INTEGER = ("bnn_mlp", "bnn_convnet_cifar10", "bnn_convnet_svhn")  # no float before any sign
# QuickNet's names differ by depth and width only, which the small form overrides.
_FLOAT = tuple(
    n for n in models.convertible_names() if n not in (*_INTEGER, "quicknet_small", "quicknet_large")
)


def _trained_looking(name: str, **options: Any) -> nn.Module:
    """A small model of that name whose BatchNorms have seen something."""
    torch.manual_seed(11)
    model = models.create_small(name, **options)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.running_mean.normal_(std=4)
                module.running_var.uniform_(0.5, 40)
                if module.affine:
                    module.weight.normal_()
                    module.bias.normal_()
            elif hasattr(module, "shift_in"):  # RPReLU
                for parameter in module.parameters():
                    parameter.normal_()
    return model.eval()


@cache
def _converted(name: str) -> tuple[nn.Module, Program]:
    model = _trained_looking(name)
    return model, convert(model, models.example_input(model, 1))


def test_the_registry_holds_the_papers_networks() -> None:
    assert {*_INTEGER, "binaryconnect_mlp"} <= set(models.names())
    assert len(models.names()) >= 17


def test_what_the_registry_calls_unconvertible_is_refused_by_name() -> None:
    names = set(models.names()) - set(models.convertible_names())
    assert names == {"bit_encoder"}
    for name in names:
        model, x = _small(name)
        with pytest.raises(ConversionError, match=r"(?s)cannot convert.*LayerNorm is not an operation"):
            convert(model, x)


_INTEGER_OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("bnn_mlp", {}),
    ("bnn_mlp", {"hidden": ()}),
    ("bnn_mlp", {"hidden": (511,), "classes": 1}),
    ("bnn_mlp", {"hidden": (1, 63, 64, 65), "input_shape": (1,)}),
    ("bnn_mlp", {"dropout_input": 0.2, "dropout_hidden": 0.5, "weight_quantizer": "stochastic_sign"}),
    ("bnn_mlp", {"activation": "stochastic_sign", "bn_eps": 1e-2}),
    ("bnn_convnet_cifar10", {}),
    ("bnn_convnet_svhn", {"padding_value": -1, "input_shape": (1, 13, 8)}),
    ("bnn_convnet_cifar10", {"padding_value": 1, "hidden": (), "widths": (65, 32)}),
)


@pytest.mark.parametrize(("name", "options"), _INTEGER_OPTIONS, ids=str)
def test_integer_networks_equal_pytorch_bit_for_bit(name: str, options: dict[str, Any]) -> None:
    model = _trained_looking(name, **options)
    x = models.example_input(model, 65 if name == "bnn_mlp" else 17)
    program = convert(model, x[:1])
    assert not [node.op for node in program.nodes if node.op.startswith("f32")]
    assert_equal(model, program, x)
    if "activation" not in options:
        assert assert_hidden_bits_equal(model, program, x) > 0 or not options.get("hidden", True)


def _hidden_floats(program: Program) -> list[str]:
    return [n.op for n in program.nodes[:-2] if program.values[n.output].dtype is DType.F32]


@pytest.mark.parametrize(
    ("name", "signs"), [("bnn_mlp", 3), ("bnn_convnet_cifar10", 7)]
)  # one threshold a hidden layer
def test_integer_networks_have_no_float_between_their_layers(name: str, signs: int) -> None:
    model = _trained_looking(name, **({"hidden": (64, 64, 64)} if name == "bnn_mlp" else {}))
    program = convert(model, models.example_input(model, 1))
    assert _hidden_floats(program) == []
    assert sum(node.op == "threshold" for node in program.nodes) == signs


@pytest.mark.parametrize("name", _FLOAT)
def test_networks_with_float_paths_agree_by_the_second_rule(name: str) -> None:
    model, program = _converted(name)
    x = models.example_input(model, 256 if name.endswith("_mlp") else 8)
    _assert_rule_2(model, program, x)


def _assert_rule_2(model: nn.Module, program: Program, x: Tensor) -> None:
    (expected,) = eager(model, x)
    for executor_name, executor in EXECUTORS.items():
        flips = assert_within_tolerance(program, executor, x.numpy())
        (found,) = executor(program, x.numpy())
        same = float((found.argmax(1) == expected.argmax(1)).mean())
        assert same >= 0.99, (executor_name, same, flips)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("bnn_mlp", {"scale_pixels": False}),
        ("binaryconnect_mlp", {"scale_pixels": False, "hidden": (511, 64, 65)}),
        ("binaryconnect_mlp", {"weight_quantizer": "stochastic_sign"}),
        ("binaryconnect_mlp", {"weight_quantizer": "stochastic_sign", "test_weights": "real"}),
        ("bnn_convnet_cifar10", {"scale_pixels": False}),
        ("lenet5_xnor", {"input_scale": "xnor"}),
        ("nin_xnor", {"dropout": 0.5}),
    ],
    ids=str,
)
def test_options_with_float_paths_agree_by_the_second_rule(name: str, options: dict[str, Any]) -> None:
    model = _trained_looking(name, **options)
    x = models.example_input(model, 64)
    _assert_rule_2(model, convert(model, x[:1]), x)


def test_real_test_weights_are_stored_as_real() -> None:
    options = {"weight_quantizer": "stochastic_sign", "test_weights": "real"}
    model = _trained_looking("binaryconnect_mlp", **options)
    program = convert(model, models.example_input(model, 1))
    assert [node.op for node in program.nodes if node.op.endswith("gemm")] == ["f32_gemm"] * 3


# The last average of some divides by a number of pixels that is no power of two: there the sum behind it
# rounds, and all before it, every sign included, is exact.
_DYADIC = {
    **dict.fromkeys(("alexnet_bnn", "lenet5_xnor", "nin_xnor"), True),
    **dict.fromkeys(("birealnet18", "googlenet_bnn", "quicknet", "reactnet_a"), False),
}


@pytest.mark.parametrize("name", _DYADIC)
def test_dyadic_networks_equal_pytorch(name: str) -> None:
    """Real parameters drawn so that every float sum is exact: then no order of summation differs."""
    torch.manual_seed(5)
    floats = "scale_pixels" if name in ("lenet5_xnor", "nin_xnor") else "normalize"
    model = make_dyadic(models.create_small(name, **{floats: False})).eval()
    x = torch.randint(-4, 5, (8, *model.input_shape)) / 4
    program = convert(model, x[:1])
    assert assert_hidden_bits_equal(model, program, x) > 1000
    if _DYADIC[name]:
        assert_equal(model, program, x)
        return
    (expected,) = eager(model, x)
    for executor_name, executor in EXECUTORS.items():
        (found,) = executor(program, x.numpy())
        assert np.allclose(found, expected, rtol=1e-5, atol=1e-5), executor_name


_CONVOLUTIONS = ("binary_conv2d", "u8_conv2d", "f32_binary_conv2d", "f32_conv2d")


@pytest.mark.parametrize("name", models.convertible_names())
def test_images_are_turned_once_as_they_come_in(name: str) -> None:
    program = _converted(name)[1] if name in _FLOAT else convert(*_small(name))
    moves = [node.op for node in program.nodes if node.op == "permute"]
    shape = program.values[program.inputs[0]].shape
    convolves = any(node.op in _CONVOLUTIONS for node in program.nodes)
    assert len(moves) == (convolves and shape[0] > 1)


def _small(name: str) -> tuple[nn.Module, Tensor]:
    model = models.create_small(name).eval()
    return model, models.example_input(model, 1)
