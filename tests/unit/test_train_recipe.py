"""Recipes: what they say, how a field is overridden, and which mistakes are refused with which words."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from pathlib import Path

import pytest
import torch

from onebit import models, optim
from onebit.train import RecipeError, load_recipe, recipe_names, recipe_toml
from onebit.train.optimizers import learning_rate, make_optimizer, set_learning_rate
from onebit.train.recipe import recipe_from_tree, recipe_tree
from onebit.train.rundir import build_model

EXPECTED = {
    "binaryconnect-mnist-det",
    "binaryconnect-mnist-stoch",
    "bnn-digits",
    "bnn-mnist",
    "bnn-mnist-small",
}


def test_the_expected_recipes_are_there() -> None:
    assert set(recipe_names()) >= EXPECTED


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_builds_its_model_and_survives_a_round_trip(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.summary
    assert recipe.source
    with torch.device("meta"):  # without memory for weights
        assert sum(p.numel() for p in build_model(recipe).parameters()) > 0
    path = tmp_path / "copy.toml"
    path.write_text(recipe_toml(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe


def test_bnn_mnist_is_the_papers() -> None:
    recipe = load_recipe("bnn-mnist")
    assert (recipe.epochs, recipe.batch_size, recipe.loss) == (1000, 100, "square_hinge")
    assert (recipe.data.name, recipe.data.validation) == ("mnist", 10000)
    assert (recipe.optimizer.name, recipe.optimizer.lr, recipe.optimizer.lr_end) == ("adam", 3e-3, 3e-7)
    assert recipe.optimizer.glorot
    assert recipe.optimizer.clip
    with torch.device("meta"):
        model = models.create(recipe.model.name, **recipe.model.options)
    linear = [m for m in model.modules() if hasattr(m, "latent_parameters")]
    assert [tuple(m.weight.shape) for m in linear] == [(4096, 784), (4096, 4096), (4096, 4096), (10, 4096)]
    assert [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)] == [0.2, 0.5, 0.5, 0.5]
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm1d)]
    assert {(m.eps, m.momentum) for m in norms} == {(1e-4, 0.1)}


def test_overrides_reach_every_level() -> None:
    recipe = load_recipe(
        "bnn-digits",
        [
            "epochs=3",
            "data.validation = 100",
            "model.hidden=[33, 31]",
            "optimizer.lr=1",
            "loss=cross_entropy",
        ],
    )
    assert recipe.epochs == 3
    assert recipe.data.validation == 100
    assert recipe.model.options["hidden"] == [33, 31]
    assert recipe.optimizer.lr == 1.0
    assert type(recipe.optimizer.lr) is float
    assert recipe.loss == "cross_entropy"
    plain = load_recipe("bnn-digits")
    changed = dataclasses.replace(recipe, epochs=plain.epochs, data=plain.data, model=plain.model)
    assert changed == dataclasses.replace(plain, optimizer=recipe.optimizer, loss="cross_entropy")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("epoch=3", ["'epoch'", "did you mean 'epochs'?"]),
        ("datas.name=x", ["'datas'", "did you mean 'data'?"]),
        ("data.validaton=3", ["'data.validaton'", "did you mean 'validation'?"]),
        ("model.hiden=[3]", ["'hiden'", "did you mean 'hidden'?"]),
        ("model.name=bnn_mpl", ["'bnn_mpl'", "bnn_mlp"]),
        ("epochs=three", ["epochs = 'three'", "whole number"]),
        ("epochs=3.5", ["epochs = 3.5", "whole number"]),
        ("epochs=true", ["epochs = True", "whole number"]),
        ("epochs=0", ["epochs = 0", "1 or more"]),
        ("batch_size=1", ["batch_size = 1", "2 or more"]),
        ("compile=1", ["compile = 1", "true or false"]),
        ("loss=hinge", ["loss = 'hinge'", "square_hinge"]),
        ("optimizer.lr=-1", ["optimizer.lr = -1.0", "above 0"]),
        ("optimizer.lr=nan", ["optimizer.lr = nan", "above 0"]),
        ("optimizer.lr_end=inf", ["optimizer.lr_end = inf"]),
        ("optimizer.betas=0.9", ["optimizer.betas = 0.9", "pair"]),
        ("optimizer.betas=[0.9, 1]", ["optimizer.betas", "below 1"]),
        ("data=mnist", ["data = 'mnist'", "data.name"]),
        ("epochs.x=3", ["'epochs.x=3'", "single value"]),
        ("epochs", ["'epochs'", "field=value"]),
        ("=3", ["'=3'", "field=value"]),
        ("data.channels=2", ["data.channels = 2", "0, 1 or 3"]),
    ],
)
def test_a_wrong_override_is_refused_in_the_users_words(override: str, words: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("bnn-digits", [override])
    for word in words:
        assert word in str(caught.value)


def test_a_value_cannot_smuggle_in_a_second_field() -> None:
    with pytest.raises(RecipeError, match="epochs ="):
        load_recipe("bnn-digits", ["epochs=3\nseed=9"])


def test_unknown_names_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"'bnn-mnits': did you mean 'bnn-mnist'\?"):
        load_recipe("bnn-mnits")
    with pytest.raises(RecipeError, match=r"cannot read the recipe '.*none\.toml'"):
        load_recipe(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("epochs = = 3")
    with pytest.raises(RecipeError, match=r"broken\.toml: not a TOML file"):
        load_recipe(str(broken))
    broken.write_text('name = "x"\nepochs = 3\n[data]\nname = "digits"\n')
    with pytest.raises(RecipeError, match=r"broken\.toml: model\.name = None"):
        load_recipe(broken)
    broken.write_text('name = "x"\n[data]\nname = "digits"\n[model]\nname = "bnn_mlp"\n')
    with pytest.raises(RecipeError, match="field 'epochs' is missing"):
        load_recipe(broken)


def test_written_recipe_is_toml_whatever_its_text() -> None:
    recipe = dataclasses.replace(load_recipe("bnn-digits"), summary='quote " slash \\ tab \t 8×8 \n line')
    tree = tomllib.loads(recipe_toml(recipe))
    assert tree == recipe_tree(recipe)
    assert recipe_from_tree(tree, "copy") == recipe


def test_learning_rate_falls_exponentially_and_glorot_scales_each_layer() -> None:
    recipe = load_recipe("bnn-digits", ["optimizer.lr=1e-2", "optimizer.lr_end=1e-4", "model.hidden=[33]"])
    model = models.create("bnn_mlp", input_shape=(1, 8, 8), hidden=(33,))
    assert learning_rate(recipe.optimizer, 0, 10) == 1e-2
    assert math.isclose(learning_rate(recipe.optimizer, 5, 10), 1e-3)
    optimizer = make_optimizer(model, recipe.optimizer)
    set_learning_rate(optimizer, recipe.optimizer, 5, 10)
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    latent = dict(optim.latent_parameters(model))
    assert len(latent) == 2
    for name, parameter in model.named_parameters():
        fans = sum(parameter.shape)
        expected = 1e-3 / math.sqrt(1.5 / fans) if name in latent else 1e-3
        assert math.isclose(rates[id(parameter)], expected), name
    flat = make_optimizer(
        model, dataclasses.replace(recipe.optimizer, name="sgd", glorot=False, momentum=0.9)
    )
    assert [g["lr"] for g in flat.param_groups] == [1e-2]
    assert flat.defaults["momentum"] == 0.9
