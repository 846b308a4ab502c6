"""Training: recipes, the loop, checkpoints that survive a kill, and what a run leaves behind."""

from onebit.needs_torch import torch  # noqa: F401

# isort: split
from onebit.errors import CheckpointError, RecipeError, TrainError
from onebit.train.batches import Batches, BatchSource
from onebit.train.distributed import is_main_process
from onebit.train.evaluation import Evaluation, evaluate
from onebit.train.fields import Recipe
from onebit.train.loop import RunResult, train
from onebit.train.recipe import load_recipe, recipe_names, recipe_toml
from onebit.train.rundir import load_model, run_classes, run_recipe

__all__ = [
    "BatchSource",
    "Batches",
    "CheckpointError",
    "Evaluation",
    "Recipe",
    "RecipeError",
    "RunResult",
    "TrainError",
    "evaluate",
    "is_main_process",
    "load_model",
    "load_recipe",
    "recipe_names",
    "recipe_toml",
    "run_classes",
    "run_recipe",
    "train",
]
