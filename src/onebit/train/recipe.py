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
from importlib import resources
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from onebit import models
from onebit.errors import RecipeError
from onebit.train.fields import (
    AugmentRecipe,
    DataRecipe,
    DistillRecipe,
    ModelRecipe,
    OptimizerRecipe,
    Recipe,
)
from onebit.user_files import open_regular

SECTIONS: dict[str, type[Any]] = {
    "data": DataRecipe,
    "optimizer": OptimizerRecipe,
    "augment": AugmentRecipe,
    "distill": DistillRecipe,
}


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
            with open_regular(path) as opened:
                return opened.read().decode("utf-8"), str(path)
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
    sections = {
        name: kind(**_checked(kind, _section(top, name, origin), f"{name}.", origin))
        for name, kind in SECTIONS.items()
    }
    options = _section(top, "model", origin)
    model = ModelRecipe(_checked_value(options.pop("name", None), str, "model.name", origin), options)
    recipe = Recipe(**_checked(Recipe, top, "", origin), model=model, **sections)
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
            sections = [*SECTIONS, "model"] if not prefix else []
            raise RecipeError(
                f"{origin}: there is no field {prefix + key!r}: {_suggest(key, [*fields, *sections])}"
                f"the fields are {', '.join(prefix + f for f in fields)}"
            )
    for name, spec in fields.items():
        if name not in values and spec.default is spec.default_factory is dataclasses.MISSING:
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
    if get_origin(kind) is Mapping:
        if isinstance(value, dict):
            return value
        raise RecipeError(f"{origin}: {where} = {value!r}: a table is needed, as in {{ widths = [64, 128] }}")
    if isinstance(value, list | tuple) and len(value) == 2:  # the one pair: betas
        return tuple(_checked_value(v, float, where, origin) for v in value)
    raise RecipeError(f"{origin}: {where} = {value!r}: a pair of numbers is needed, as in [0.9, 0.999]")


def _check_ranges(recipe: Recipe, origin: str) -> None:
    parts = [(f"{name}.", getattr(recipe, name)) for name in SECTIONS]
    for prefix, part in [*parts, ("", recipe)]:
        for where, value, holds, need in part.rules():
            if not holds:
                raise RecipeError(f"{origin}: {prefix}{where} = {value!r}: {need} is needed")


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
    if isinstance(value, dict):  # a table inside a section
        return f"{{ {', '.join(f'{key} = {_toml(part)}' for key, part in value.items())} }}"
    # JSON writes strings, booleans and numbers as TOML does.
    return json.dumps(value, ensure_ascii=False)
