"""A recipe: everything that decides the outcome of a training, in one TOML file an experiment.

    recipe = load_recipe("bnn-mnist", ["epochs=20", "model.hidden=[1024, 1024]"])

The files of the recipes that come with the package stand in recipes/. Unknown fields and wrong types are
refused; `model` takes the options of the model it names.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, get_type_hints

from onebit import models
from onebit.train.errors import RecipeError
from onebit.train.evaluation import LOSS_FUNCTIONS

LOSSES = tuple(LOSS_FUNCTIONS)
OPTIMIZERS = ("adam", "sgd")


@dataclass(frozen=True)
class DataRecipe:
    """Which data set, and how many training images are held out to choose the best epoch."""

    name: str
    validation: int = 0
    image_size: int = 0  # pixels a side; 0: as they are
    channels: int = 0  # 1 or 3; 0: as they are


@dataclass(frozen=True)
class ModelRecipe:
    """A name that `onebit.models` knows and the options it is created with."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OptimizerRecipe:
    """`lr` falls exponentially, epoch by epoch, so that it would reach `lr_end` after the last one.

    Epoch e of E (from 0) uses lr · (lr_end / lr)^(e / E), as in the papers' code. `glorot` divides a latent
    weight's rate by its Glorot coefficient √(1.5 / (fan_in + fan_out)) (BinaryConnect, arXiv 1511.00363,
    section 2.5), squared for SGD; `clip` clips latent weights to [-1, 1] after each step. `betas` and `eps`
    are Adam's, `momentum` SGD's.
    """

    name: str = "adam"
    lr: float = 3e-3
    lr_end: float = 3e-7
    glorot: bool = True
    clip: bool = True
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum: float = 0.0
    weight_decay: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """One experiment. `batch_size` images a step; a last, smaller batch of an epoch is left out."""

    name: str
    data: DataRecipe
    model: ModelRecipe
    optimizer: OptimizerRecipe
    epochs: int
    batch_size: int = 100
    loss: str = "square_hinge"
    seed: int = 1
    threads: int = 0  # torch's on the CPU; the last bits depend on it; 0: as many as torch chooses
    compile: bool = False  # torch.compile; seldom faster on a CPU
    checkpoint_seconds: float = 30.0  # how much work a kill may cost; 0: every step
    summary: str = ""
    source: str = ""


def recipe_names() -> list[str]:
    """The recipes that come with the package, sorted."""
    folder = resources.files("onebit.train") / "recipes"
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))


def load_recipe(name: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """A recipe by name, or from a TOML file of the user's, with overrides such as "epochs=20" applied.

    Raises `RecipeError` for an unknown name, an unreadable file, an unknown field or a wrong value.
    """
    text, origin = _text_of(name)
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{origin}: not a TOML file: {error}") from error
    for override in overrides:
        _apply(tree, override)
    return recipe_from_tree(tree, origin)


def _text_of(name: str | Path) -> tuple[str, str]:
    path = Path(name)
    if isinstance(name, Path) or path.suffix == ".toml" or len(path.parts) > 1:
        try:
            return path.read_text(encoding="utf-8"), str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"cannot read the recipe {str(path)!r}: {error}") from error
    known = recipe_names()
    if name not in known:
        raise RecipeError(
            f"there is no recipe {name!r}: {_suggest(name, known)}known are {', '.join(known)};"
            " or give the path of a TOML file"
        )
    file = resources.files("onebit.train") / "recipes" / f"{name}.toml"
    return file.read_text(encoding="utf-8"), f"recipe {name}"


def _suggest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}? " if near else ""


def _apply(tree: dict[str, Any], override: str) -> None:
    """Write one "field.path=value" into the tree; a value that is no TOML literal is taken as a string."""
    key, equals, text = override.partition("=")
    path = [part.strip() for part in key.split(".")]
    if not equals or not all(path):
        raise RecipeError(f"--set {override!r}: write field=value, as in epochs=20 or data.validation=1000")
    try:
        parsed = tomllib.loads(f"value = {text.strip()}")
        value = parsed["value"] if len(parsed) == 1 else text.strip()
    except tomllib.TOMLDecodeError:
        value = text.strip()
    table = tree
    for part in path[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise RecipeError(f"--set {override!r}: {part!r} is a single value, it has no fields")
    table[path[-1]] = value


def recipe_from_tree(tree: Mapping[str, Any], origin: str) -> Recipe:
    """A checked `Recipe` from nested dictionaries as `tomllib` gives them. Raises `RecipeError`."""
    top = dict(tree)
    data = DataRecipe(**_checked(DataRecipe, _section(top, "data", origin), "data.", origin))
    optimizer = OptimizerRecipe(
        **_checked(OptimizerRecipe, _section(top, "optimizer", origin), "optimizer.", origin)
    )
    options = _section(top, "model", origin)
    model = ModelRecipe(_checked_value(options.pop("name", None), str, "model.name", origin), options)
    recipe = Recipe(**_checked(Recipe, top, "", origin), data=data, model=model, optimizer=optimizer)
    _check_ranges(recipe, origin)
    _check_model(recipe.model, origin)
    return recipe


def _section(top: dict[str, Any], name: str, origin: str) -> dict[str, Any]:
    section = top.pop(name, {})
    if not isinstance(section, dict):
        raise RecipeError(
            f"{origin}: {name} = {section!r}: {name} is a section; set its fields, as in {name}.name"
        )
    return dict(section)


def _checked(kind: type[Any], values: Mapping[str, Any], prefix: str, origin: str) -> dict[str, Any]:
    hints = get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind) if not dataclasses.is_dataclass(hints[f.name])}
    for key in values:
        if key not in fields:
            sections = ["data", "model", "optimizer"] if not prefix else []
            raise RecipeError(
                f"{origin}: there is no field {prefix + key!r}: {_suggest(key, [*fields, *sections])}"
                f"the fields are {', '.join(prefix + f for f in fields)}"
            )
    for name, spec in fields.items():
        if name not in values and spec.default is dataclasses.MISSING:
            raise RecipeError(f"{origin}: the field {prefix + name!r} is missing")
    return {k: _checked_value(v, hints[k], prefix + k, origin) for k, v in values.items()}


def _checked_value(value: Any, kind: Any, where: str, origin: str) -> Any:
    """`value` if it is of the field's type; an int may stand for a float, but a bool never for an int."""
    if kind is float and type(value) is int:
        return float(value)
    if kind in (bool, int, float, str):
        if type(value) is kind:
            return value
        names = {bool: "true or false", int: "a whole number", float: "a number", str: "a word or text"}
        raise RecipeError(f"{origin}: {where} = {value!r}: {names[kind]} is needed")
    if isinstance(value, list | tuple) and len(value) == 2:  # the one pair: betas
        return tuple(_checked_value(v, float, where, origin) for v in value)
    raise RecipeError(f"{origin}: {where} = {value!r}: a pair of numbers is needed, as in [0.9, 0.999]")


def _check_ranges(recipe: Recipe, origin: str) -> None:
    opt = recipe.optimizer
    rules = [
        (recipe.epochs >= 1, "epochs", recipe.epochs, "1 or more"),
        (recipe.batch_size >= 2, "batch_size", recipe.batch_size, "2 or more (BatchNorm needs two images)"),
        (recipe.loss in LOSSES, "loss", recipe.loss, " or ".join(LOSSES)),
        (0 <= recipe.seed < 2**63, "seed", recipe.seed, "0 or more"),
        (recipe.threads >= 0, "threads", recipe.threads, "0 or more"),
        (recipe.checkpoint_seconds >= 0, "checkpoint_seconds", recipe.checkpoint_seconds, "0 or more"),
        (recipe.data.validation >= 0, "data.validation", recipe.data.validation, "0 or more"),
        (recipe.data.image_size >= 0, "data.image_size", recipe.data.image_size, "0 or more"),
        (recipe.data.channels in (0, 1, 3), "data.channels", recipe.data.channels, "0, 1 or 3"),
        (opt.name in OPTIMIZERS, "optimizer.name", opt.name, " or ".join(OPTIMIZERS)),
        (0 < opt.lr < float("inf"), "optimizer.lr", opt.lr, "above 0"),
        (0 < opt.lr_end < float("inf"), "optimizer.lr_end", opt.lr_end, "above 0"),
        (all(0 <= b < 1 for b in opt.betas), "optimizer.betas", list(opt.betas), "from 0 to below 1"),
        (opt.eps > 0, "optimizer.eps", opt.eps, "above 0"),
        (0 <= opt.momentum < 1, "optimizer.momentum", opt.momentum, "from 0 to below 1"),
        (0 <= opt.weight_decay < float("inf"), "optimizer.weight_decay", opt.weight_decay, "0 or more"),
    ]
    for holds, where, value, need in rules:
        if not holds:
            raise RecipeError(f"{origin}: {where} = {value!r}: {need} is needed")


def _check_model(model: ModelRecipe, origin: str) -> None:
    try:
        factory = models.entry(model.name).factory
    except ValueError as error:
        raise RecipeError(f"{origin}: model.name: {error}") from error
    known = list(inspect.signature(factory).parameters)
    for option in model.options:
        if option not in known:
            raise RecipeError(
                f"{origin}: the model {model.name!r} has no option {option!r}: {_suggest(option, known)}"
                f"it has {', '.join(known)}"
            )


def with_model_options(recipe: Recipe, **options: Any) -> Recipe:
    """The recipe with model options filled in where it leaves them open (the data set decides these)."""
    merged = {**options, **recipe.model.options}
    return dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, options=merged))


def recipe_tree(recipe: Recipe) -> dict[str, Any]:
    """The recipe as nested dictionaries of plain TOML values, every field written out."""
    tree = dataclasses.asdict(recipe)
    tree["model"] = {"name": recipe.model.name, **recipe.model.options}
    plain: dict[str, Any] = json.loads(json.dumps(tree))  # tuples become lists
    return plain


def recipe_toml(recipe: Recipe) -> str:
    """The recipe as the text of a TOML file that `load_recipe` reads back to the same recipe."""
    tree = recipe_tree(recipe)
    lines = [f"{key} = {_toml(value)}" for key, value in tree.items() if not isinstance(value, dict)]
    for name, table in tree.items():
        if isinstance(table, dict):
            lines += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    # JSON writes strings, booleans and numbers as TOML does.
    return json.dumps(value, ensure_ascii=False)
