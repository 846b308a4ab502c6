"""Distillation: learning a trained network's scores beside, or instead of, the labels.

With student scores s, teacher scores t, temperature T and p = softmax(t / T), q = softmax(s / T), the loss is

    (1 - weight) · loss(s, labels) + weight · T² · mean over samples of Σ_c p_c · (log p_c - log q_c)

(Hinton, Vinyals and Dean, arXiv 1503.02531, section 2: T² keeps the gradient's size whatever T.) Weight 1 and
T = 1 is the distributional loss that ReActNet is trained with (arXiv 2003.03488, equation 8, up to the
teacher's entropy, which has no gradient).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onebit import models
from onebit.errors import TrainError
from onebit.train.evaluation import LossFunction
from onebit.train.fields import DistillRecipe, Recipe
from onebit.train.rundir import is_run, load_model
from onebit.train.weights import checksum, read_weights


class Teacher:
    """A trained network in eval mode, frozen, on the run's device; `fingerprint` tells its weights."""

    def __init__(self, model: nn.Module, recipe: DistillRecipe) -> None:
        self.model = model.eval().requires_grad_(False)
        self.recipe = recipe
        self.fingerprint = checksum(model.state_dict())

    @torch.no_grad()
    def scores(self, inputs: Tensor) -> Tensor:
        """What the teacher says, (N, classes)."""
        scores: Tensor = self.model(inputs)
        return scores

    def loss(self, loss: LossFunction, scores: Tensor, labels: Tensor, taught: Tensor) -> Tensor:
        """The student's loss on a batch, a scalar; the formula stands at the top of the file."""
        temperature, weight = self.recipe.temperature, self.recipe.weight
        softened = distillation(scores, taught, temperature)
        return softened if weight == 1 else (1 - weight) * loss(scores, labels) + weight * softened


def distillation(scores: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(taught / T) ‖ softmax(scores / T)), mean over the samples: a scalar.

    scores, taught: (N, classes), floating point.
    """
    student = F.log_softmax(scores / temperature, dim=1)
    teacher = F.log_softmax(taught / temperature, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def load_teacher(
    recipe: Recipe, input_shape: tuple[int, ...], classes: int, device: torch.device
) -> Teacher | None:
    """The recipe's teacher, or None. Raises `TrainError` if it is not to be had or does not suit the data."""
    distill = recipe.distill
    if not distill.teacher:
        return None
    if is_run(distill.teacher):
        model = load_model(distill.teacher)
    else:
        model = _from_file(distill, input_shape, classes)
    teacher = Teacher(model.to(device), distill)
    try:
        sample = torch.zeros_like(models.example_input(model)).to(device)
        got = tuple(teacher.scores(sample).shape[1:])
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise TrainError(f"distill.teacher = {distill.teacher!r} cannot be run: {error}") from error
    if tuple(sample.shape[1:]) != tuple(input_shape) or got != (classes,):
        raise TrainError(
            f"distill.teacher = {distill.teacher!r} turns {tuple(sample.shape[1:])} into {got} scores;"
            f" this data set needs {tuple(input_shape)} into {(classes,)}"
        )
    return teacher


def _from_file(distill: DistillRecipe, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    if not Path(distill.teacher).expanduser().exists():
        raise TrainError(
            f"distill.teacher = {distill.teacher!r} does not exist: train the teacher first, or name"
            " another run"
        )
    if not distill.model:
        raise TrainError(
            f"distill.teacher = {distill.teacher!r} is no run folder; if it is a file of weights, name the"
            " registered model that they belong to (distill.model)"
        )
    options = {"input_shape": list(input_shape), "classes": classes, **distill.options}
    with torch.random.fork_rng(devices=[]):  # the first weights, which are overwritten, cost no draw
        try:
            model = models.create(distill.model, **options)
        except (TypeError, ValueError) as error:
            raise TrainError(f"distill.model = {distill.model!r} cannot be made: {error}") from error
    try:
        model.load_state_dict(read_weights(distill.teacher))
    except RuntimeError as error:
        raise TrainError(
            f"distill.teacher = {distill.teacher!r} does not fit distill.model = {distill.model!r}: {error}"
        ) from error
    return model
