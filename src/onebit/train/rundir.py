"""A run folder: recipe, classes, checkpoint, metrics, TensorBoard events, curves, result and model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from onebit import models
from onebit.errors import TrainError
from onebit.train import checked_archive
from onebit.train import checkpoint as checkpoints
from onebit.train.fields import Recipe
from onebit.train.files import write_atomically, write_text_atomically
from onebit.train.recipe import load_recipe, recipe_toml, recipe_tree
from onebit.user_files import open_regular

RECIPE_NAME = "recipe.toml"
MODEL_NAME = "model.pt"
RESULT_NAME = "result.json"
CLASSES_NAME = "classes.json"


def default_run_dir(name: str, *, resume: bool) -> Path:
    """runs/NAME, or the first free of runs/NAME-2, -3 …; to resume, the latest of them that exists."""
    candidate, number = Path("runs") / name, 1
    latest = candidate
    while candidate.exists():
        latest, number = candidate, number + 1
        candidate = Path("runs") / f"{name}-{number}"
    return latest if resume else candidate


def find_checkpoint(run_dir: Path, *, resume: bool) -> Path | None:
    """The path of the checkpoint to go on from, None to begin at the beginning.

    Raises `TrainError` if the folder holds a run that nobody asked to resume.
    """
    found = run_dir / checkpoints.FILE_NAME
    if not resume and (found.exists() or (run_dir / MODEL_NAME).exists()):
        raise TrainError(
            f"the folder {str(run_dir)!r} already holds a run: go on with it (--resume), or name another"
        )
    return found if found.exists() else None


def begin_run(run_dir: Path, recipe: Recipe, classes: Sequence[str] = ()) -> None:
    """Make the folder and keep the resolved recipe in it, and the names of the data set's classes.

    They are not kept where the recipe gives the model another number of classes than the data set has.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainError(f"cannot make the run folder {str(run_dir)!r}: {error}") from error
    if classes and recipe.model.options.get("classes") == len(classes):
        names = json.dumps([_printable(name) for name in classes], indent=0, ensure_ascii=False)
        write_text_atomically(run_dir / CLASSES_NAME, names + "\n")
    write_text_atomically(run_dir / RECIPE_NAME, recipe_toml(recipe))


def _printable(name: str) -> str:
    """The name as a Program takes it: 1 to 256 characters that can be shown."""
    return "".join(c if c.isprintable() else "_" for c in name[:256]) or "_"


def run_classes(run_dir: str | Path) -> list[str] | None:
    """The names of the classes that a run was trained on; None if it has kept none.

    Raises `TrainError` if the file is damaged.
    """
    path = Path(run_dir).expanduser() / CLASSES_NAME
    try:
        with open_regular(path) as file:
            names = json.loads(file.read().decode("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise TrainError(f"{path} cannot be read: {error}; remove it to go without names") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TrainError(f"{path}: a list of names is needed; remove it to go without names")
    return names


def write_result(run_dir: Path, state: dict[str, torch.Tensor], result: dict[str, Any]) -> None:
    """Write the best model and the run's numbers."""
    write_atomically(run_dir / MODEL_NAME, lambda file: checked_archive.save(state, file))
    write_text_atomically(run_dir / RESULT_NAME, json.dumps(result, indent=2) + "\n")


def is_run(path: str | Path) -> bool:
    """True if `path` is a folder that a run was begun in."""
    return (Path(path).expanduser() / RECIPE_NAME).is_file()


def run_recipe(run_dir: str | Path) -> Recipe:
    """The resolved recipe of a run. Raises `TrainError` if the folder holds no run."""
    path = Path(run_dir).expanduser() / RECIPE_NAME
    if not path.is_file():
        raise TrainError(f"{str(run_dir)!r} is no run folder: it has no {RECIPE_NAME}")
    return load_recipe(path)


def recorded_recipe(run_dir: Path) -> dict[str, Any] | None:
    """The tree of the recipe that a run was begun with, None if it was killed before it wrote that down."""
    return recipe_tree(run_recipe(run_dir)) if (run_dir / RECIPE_NAME).is_file() else None


def build_model(recipe: Recipe) -> nn.Module:
    """A new model as the recipe describes it. Raises `TrainError` for options that the model refuses."""
    try:
        return models.create(recipe.model.name, **recipe.model.options)
    except (TypeError, ValueError) as error:
        raise TrainError(f"cannot make the model {recipe.model.name!r} of {recipe.name}: {error}") from error


def load_model(run_dir: str | Path, device: torch.device | str = "cpu") -> nn.Module:
    """The best model of a run, in eval mode; of an unfinished run, the best so far.

    Raises `TrainError` if the folder holds no run, or none that has finished an epoch, and where its files
    are damaged or do not fit one another.
    """
    run_dir = Path(run_dir).expanduser()
    model = build_model(run_recipe(run_dir))
    if (run_dir / MODEL_NAME).exists():
        state = checkpoints.read(run_dir / MODEL_NAME, "model")
    elif (run_dir / checkpoints.FILE_NAME).exists():
        state = checkpoints.load(run_dir / checkpoints.FILE_NAME).best.model
    else:
        state = {}
    if not state:
        raise TrainError(
            f"the run {str(run_dir)!r} has no model yet: it has not finished an epoch (try --resume)"
        )
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise TrainError(
            f"the model in {str(run_dir)!r} does not fit its {RECIPE_NAME}: bring back the one that was "
            f"replaced ({error})"
        ) from error
    return model.to(device).eval()
