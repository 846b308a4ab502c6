"""What `convert`, `eval` and `demo` share: a run's model, its Program, and both of them on a data set."""

from __future__ import annotations

import dataclasses
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onebit.cli.errors import UserError, existing_file

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

    from onebit.program import Program
    from onebit.runtime import Engine

RECIPE = "recipe.toml"
PREPARATION = (
    "image_size",
    "channels",
    "sample_rate",
    "samples",
    "whiten",
    "stream",
)  # fields of a recipe's data, and of a file
_BATCH = 1000  # images a call: enough to be fast, small beside the data set


def existing_run(text: str) -> Path:
    """The run folder `text`, or a UserError that names the nearest run beside it."""
    folder = Path(text)
    if (folder / RECIPE).is_file():
        return folder
    if folder.is_dir():
        raise UserError(f"the folder {text!r} holds no run (no {RECIPE}); `onebit train` makes one")
    if folder.is_file():
        raise UserError(f"{text!r} is a file; a run is the folder that `onebit train` makes")
    beside = (
        [p.name for p in folder.parent.iterdir() if (p / RECIPE).is_file()] if folder.parent.is_dir() else []
    )
    near = get_close_matches(folder.name, beside, n=1)
    hint = f"did you mean {str(folder.parent / near[0])!r}?" if near else "`onebit train RECIPE` makes one"
    raise UserError(f"no run folder {text!r}; {hint}")


def convert_run(run: Path) -> tuple[torch.nn.Module, Program]:
    """A run's best model and its Program, which remembers the recipe, the classes' names and how to get the
    data set."""
    import torch

    from onebit import lowering, models
    from onebit.train import load_model, run_classes, run_recipe

    recipe = run_recipe(run)
    model = load_model(run)
    example = torch.zeros_like(models.example_input(model))
    program = lowering.convert(model, example, name=recipe.name, classes=run_classes(run))
    metadata = {**program.metadata, "recipe": recipe.name, "data": recipe.data.name}
    for field in PREPARATION:  # 0: as the data set comes
        if value := getattr(recipe.data, field):
            metadata[field] = str(int(value))
    return model, dataclasses.replace(program, metadata=metadata)


def read_program(what: str) -> Program:
    """The Program of a .onebit file, or of a run folder, packed on the fly."""
    if Path(what).is_dir():
        return convert_run(existing_run(what))[1]
    path = existing_file(what, what="a .onebit file", suffix=".onebit")
    from onebit.program import load

    return load(path)


def prepared_as(program: Program, field: str) -> int | None:
    """The number that a file's metadata keeps for a field of `PREPARATION`; None where it keeps none."""
    text = program.text(field)
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise UserError(f"the file's metadata says {field} = {text[:40]!r}, which is no number of that kind")
    return int(text)


def torch_scores(model: torch.nn.Module, images: torch.Tensor) -> npt.NDArray[Any]:
    """The model's outputs, eager and in order."""
    import torch

    with torch.inference_mode():
        parts = [model(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH)]
        scores: npt.NDArray[Any] = torch.cat(parts).numpy()
    return scores


def packed_scores(engine: Engine, images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The engine's outputs in order."""
    import numpy as np

    return np.concatenate([engine(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH)])
