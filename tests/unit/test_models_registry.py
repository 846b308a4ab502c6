"""Every registered model: forward, backward, compiled, exported with its markers, saved and loaded."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.export import Dim

import onebit
from onebit import models
from onebit.nn import ApproxSign, BinaryLinear, ScalePixels, SteSign, StochasticSign, square_hinge

MLPS = ["binaryconnect_mlp", "bnn_mlp"]
MLP_VARIANTS = [
    {"scale_pixels": False},
    {"hidden": ()},
    {"hidden": (1, 31, 32, 64)},
    {"weight_quantizer": "stochastic_sign", "dropout_input": 0.2, "dropout_hidden": 0.5},
]
VARIANTS = {
    "binaryconnect_mlp": MLP_VARIANTS,
    "bnn_mlp": [*MLP_VARIANTS, {"norm": "shift"}],
    "binaryconnect_convnet_cifar10": [
        {"scale_pixels": False, "weight_quantizer": "stochastic_sign"},
        {"form": "modern", "hidden": ()},
    ],
    "xnor_convnet_cifar10": [{"input_scale": None, "hidden": ()}],
    "bnn_convnet_cifar10": [
        {"scale_pixels": False, "padding_value": 1, "widths": (1, 64), "hidden": ()},
        {"padding_value": -1, "activation": "stochastic_sign", "weight_quantizer": "stochastic_sign"},
    ],
    "lenet5_xnor": [{"input_scale": "xnor"}],
    "nin_xnor": [{"input_scale": "xnor", "scale_pixels": False}, {"dropout": 0.5}],
    "alexnet_xnor": [{"input_scale": None, "normalize": False}],
    "resnet18_xnor": [{"input_scale": None, "input_shape": (3, 32, 32)}],
    "birealnet18": [{"blocks": (2, 1), "widths": (31, 31), "input_shape": (3, 9, 30)}],
    "quicknet": [{"widths": (12, 12), "blocks": (1, 1), "normalize": False}],
}


def different_when_small() -> list[str]:
    """The names, less those whose small variant is that of a name before (they differ in a preset only)."""
    seen: dict[str, str] = {}
    for name in models.names():
        entry = models.entry(name)
        seen.setdefault(repr((entry.factory, sorted({**entry.preset, **entry.small}.items()))), name)
    return list(seen.values())


CASES = [pytest.param(name, {}, id=name) for name in different_when_small()] + [
    pytest.param(name, options, id=f"{name}-{i}")
    for name, variants in VARIANTS.items()
    for i, options in enumerate(variants)
]
# Compiling a deep network takes seconds; these hold every layer and quantizer that the others are made of.
COMPILED = [*MLPS, "bnn_convnet_cifar10", "lenet5_xnor", "reactnet_a", "quicknet"]


_BUILT: dict[tuple[str, str, int], tuple[nn.Module, torch.Tensor]] = {}


def build(name: str, options: dict, seed: int = 0) -> tuple[nn.Module, torch.Tensor]:
    """A small model whose BatchNorms have seen data, and a batch for it: a copy, for the test to change."""
    key = (name, repr(options), seed)
    if key not in _BUILT:
        torch.manual_seed(seed)
        model = models.create_small(name, **options)
        for _ in range(3):
            model(models.example_input(model, 17))
        _BUILT[key] = (model, models.example_input(model, 9))
    torch.manual_seed(seed)
    return copy.deepcopy(_BUILT[key])


def test_the_registry_holds_the_papers() -> None:
    assert {models.entry(c.values[0]).factory for c in CASES} == {
        models.entry(name).factory for name in models.names()
    }
    assert set(VARIANTS) <= set(models.names())
    assert set(COMPILED) <= set(models.names())


@pytest.mark.parametrize(("name", "options"), CASES)
def test_every_parameter_gets_a_gradient(name: str, options: dict) -> None:
    model, x = build(name, options)
    scores = model(x)
    assert scores.shape[0] == 9
    square_hinge(scores, torch.arange(9) % scores.shape[1]).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.count_nonzero() > 0, parameter_name


@pytest.mark.parametrize(("name", "options"), CASES)
def test_eval_mode_repeats_itself(name: str, options: dict) -> None:
    model, x = build(name, options)
    model.eval()
    first = model(x)
    assert torch.equal(model(x), first)
    assert first.unique().numel() > 1


@pytest.mark.parametrize(("name", "options"), [c for c in CASES if c.values[0] in COMPILED])
def test_compiled_training_step_equals_eager(name: str, options: dict) -> None:
    torch.compiler.reset()
    model, x = build(name, options)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    results = []
    for function in (model, torch.compile(model, backend="aot_eager", fullgraph=True)):
        model.load_state_dict(state)
        model.zero_grad()
        torch.manual_seed(1)
        scores = function(x)
        square_hinge(scores, torch.arange(9) % scores.shape[1]).backward()
        results.append([scores.detach(), *(p.grad.clone() for p in model.parameters())])
    for eager, fast in zip(*results, strict=True):
        assert torch.equal(eager, fast)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_export_keeps_the_markers_and_the_numbers(name: str, options: dict) -> None:
    model, x = build(name, options)
    model.eval()
    exported = torch.export.export(model, (x[:2],), dynamic_shapes=({0: Dim.DYNAMIC},), strict=False)
    exported = exported.run_decompositions({})
    targets = [node.target for node in exported.graph.nodes]
    calls: list[type[nn.Module]] = []
    for module in model.modules():
        if isinstance(module, (ApproxSign, SteSign, StochasticSign, ScalePixels)):
            module.register_forward_hook(lambda module, inputs, output: calls.append(type(module)))
    model(x)
    pixels = calls.count(ScalePixels)
    assert targets.count(torch.ops.onebit.sign.default) == len(calls) - pixels > 0
    assert targets.count(torch.ops.onebit.scale_pixels.default) == pixels
    assert not {torch.ops.aten.ge.Scalar, torch.ops.aten.where.self} & set(targets)
    for batch in (1, 2, 9):
        assert torch.equal(exported.module()(x[:batch]), model(x[:batch]))


@pytest.mark.parametrize(("name", "options"), CASES)
def test_state_dict_round_trip(name: str, options: dict, tmp_path) -> None:
    model, x = build(name, options)
    torch.save(model.state_dict(), tmp_path / "state.pt")
    other, _ = build(name, options, seed=1)
    assert not torch.equal(other.eval()(x), model.eval()(x))
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(other(x), model(x))


@pytest.mark.parametrize("name", MLPS)
def test_example_input_has_the_dtype_the_model_takes(name: str) -> None:
    model = models.create_small(name)
    x = models.example_input(model, 5)
    assert x.dtype == torch.uint8
    assert x.shape == (5, 1, 5, 7)
    assert models.example_input(models.create_small(name, scale_pixels=False)).dtype == torch.float32


def test_defaults_are_the_papers_networks() -> None:
    with torch.device("meta"):
        bnn, connect = models.create("bnn_mlp"), models.create("binaryconnect_mlp")

    def widths(model: nn.Module) -> list[tuple[int, int]]:
        return [(m.in_features, m.out_features) for m in model.modules() if isinstance(m, BinaryLinear)]

    def norms(model: nn.Module) -> set[tuple[float, float]]:
        return {(m.eps, m.momentum) for m in model.modules() if isinstance(m, nn.BatchNorm1d)}

    assert widths(bnn) == [(784, 4096), (4096, 4096), (4096, 4096), (4096, 10)]
    assert widths(connect) == [(784, 1024), (1024, 1024), (1024, 1024), (1024, 10)]
    assert norms(bnn) == {(1e-4, 0.1)}
    assert norms(connect) == {(1e-4, 0.15)}


def test_dropout_drops_pixels_and_activations_not_signs() -> None:
    """A dropped unit must add 0 to the next sum; dropped before the sign it would add ±1."""
    model, x = build("bnn_mlp", {"hidden": (511,), "dropout_input": 0.4, "dropout_hidden": 0.5})
    seen: dict[str, torch.Tensor] = {}

    def keep(key: str):
        return lambda module, inputs: seen.__setitem__(key, inputs[0])

    model.linear1.register_forward_pre_hook(keep("pixels"))
    model.linear2.register_forward_pre_hook(keep("hidden"))
    model.train()
    model(x)
    scaled = (x.float() * 2 - 255) / 256 / 0.6
    dropped = seen["pixels"] == 0
    assert 0.3 < dropped.float().mean() < 0.5
    torch.testing.assert_close(seen["pixels"], torch.where(dropped, 0.0, scaled.flatten(1)))
    assert seen["hidden"].unique().tolist() == [-2.0, 0.0, 2.0]
    model.eval()(x)
    assert seen["hidden"].unique().tolist() == [-1.0, 1.0]


def test_stochastic_activations_are_drawn_in_training_only() -> None:
    model, x = build("bnn_mlp", {"activation": "stochastic_sign"})
    model.train()
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_binaryconnect_may_be_tested_with_its_real_weights() -> None:
    model, x = build("binaryconnect_mlp", {"weight_quantizer": "stochastic_sign", "test_weights": "real"})
    model.eval()
    seen = []
    model.linear1.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
    model(x)
    torch.testing.assert_close(seen[0][1], seen[0][0] @ model.linear1.weight.T)
    with pytest.raises(ValueError, match="test_weights='real' belongs to weight_quantizer='stochastic_sign'"):
        models.create_small("binaryconnect_mlp", test_weights="real")


def test_unknown_names_and_options_are_answered_with_the_near_ones() -> None:
    with pytest.raises(
        ValueError, match=r"unknown model 'bnn-mlp': did you mean 'bnn_mlp'.*'binaryconnect_mlp'"
    ):
        models.create("bnn-mlp")
    with pytest.raises(TypeError, match=r"'bnn_mlp' has no option 'width'; it has 'input_shape', 'classes'"):
        models.create("bnn_mlp", width=3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hidden": (33, 0)}, r"hidden must be a sequence of positive integers; got \(33, 0\)"),
        ({"hidden": "33"}, "hidden must be"),
        ({"hidden": 33}, "hidden must be a sequence of positive integers; got 33"),
        ({"classes": 0}, "classes must be a positive integer; got 0"),
        ({"input_shape": (1, -2)}, "input_shape must be"),
        ({"dropout_input": 1.0}, "dropout_input must be at least 0 and below 1; got 1.0"),
        ({"dropout_hidden": -0.1}, "dropout_hidden must be"),
        ({"weight_quantizer": "sign"}, "unknown quantizer 'sign'"),
    ],
)
@pytest.mark.parametrize("name", MLPS)
def test_bad_options_are_named(name: str, options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        models.create_small(name, **options)


def test_registering_needs_a_free_name_and_an_example_input() -> None:
    with pytest.raises(ValueError, match="'bnn_mlp' is already registered"):
        models.register("bnn_mlp", small={})(models.BnnMlp)
    with pytest.raises(TypeError, match="'linear' needs a method example_input"):
        models.register("linear", small={})(nn.Linear)
    assert "linear" not in models.names()


def test_models_is_reached_from_the_package() -> None:
    assert onebit.models.create is models.create


def test_convnets_whose_weights_are_real_in_the_end_have_no_sign_left() -> None:
    for options in ({"form": "float"}, {"weight_quantizer": "stochastic_sign", "test_weights": "real"}):
        model = models.create_small("binaryconnect_convnet_cifar10", **options).eval()
        x = models.example_input(model, 2)
        exported = torch.export.export(model, (x,), strict=False).run_decompositions({})
        assert torch.ops.onebit.sign.default not in [node.target for node in exported.graph.nodes]
        assert torch.equal(exported.module()(x), model(x))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"form": "ternary"}, "form must be one of 'binaryconnect', 'bwn', .*; got 'ternary'"),
        ({"test_weights": "latent"}, "test_weights must be 'binary' or 'real'; got 'latent'"),
        ({"test_weights": "real"}, "belongs to weight_quantizer='stochastic_sign'; got 'ste_sign'"),
    ],
)
def test_convnets_refuse_what_makes_no_sense(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        models.create_small("binaryconnect_convnet_cifar10", **options)


def test_the_bnn_mlp_knows_two_norms() -> None:
    with pytest.raises(ValueError, match="norm must be one of 'batch', 'shift'; got 'layer'"):
        models.create_small("bnn_mlp", norm="layer")
