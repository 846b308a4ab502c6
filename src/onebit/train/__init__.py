"""Training: recipes, the loop, checkpoints that survive a kill, and what a run leaves behind."""

from onebit.train.errors import CheckpointError, RecipeError, TrainError
from onebit.train.evaluation import Evaluation, evaluate
from onebit.train.loop import RunResult, train
from onebit.train.recipe import Recipe, load_recipe, recipe_names, recipe_toml
from onebit.train.rundir import load_model, run_recipe

__all__ = [
    "CheckpointError",
    "Evaluation",
    "Recipe",
    "RecipeError",
    "RunResult",
    "TrainError",
    "evaluate",
    "load_model",
    "load_recipe",
    "recipe_names",
    "recipe_toml",
    "run_recipe",
    "train",
]
