"""The training loop: plain PyTorch, data held whole on the device, batches by a seeded permutation."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from onebit import data, optim
from onebit.data import Splits
from onebit.train import checkpoint as checkpoints
from onebit.train.checkpoint import Best, Checkpoint, Position
from onebit.train.errors import TrainError
from onebit.train.evaluation import LOSS_FUNCTIONS, evaluate
from onebit.train.progress import Progress
from onebit.train.recipe import OptimizerRecipe, Recipe, recipe_tree, with_model_options
from onebit.train.records import CURVES_NAME, Records, plot_curves
from onebit.train.rundir import (
    begin_run,
    build_model,
    default_run_dir,
    find_checkpoint,
    recorded_recipe,
    write_result,
)


@dataclass(frozen=True)
class RunResult:
    """What a run came to. Errors are per cent; `model` is the best one, in eval mode, on the run's device.

    The best epoch (from 1) is the one with the lowest validation error, the later of two equal ones, as in
    the papers' code; without validation images it is the last. `seconds` is the time spent training,
    evaluation on the validation images included, over all sittings.
    """

    run_dir: Path
    epochs: int
    best_epoch: int
    validation_error: float | None
    test_error: float
    seconds: float
    history: tuple[dict[str, Any], ...]
    model: nn.Module

    @property
    def test_accuracy(self) -> float:
        """Per cent of the test images, at the best epoch."""
        return 100.0 - self.test_error


def train(
    recipe: Recipe,
    *,
    data_dir: str | Path | None = None,
    run_dir: str | Path | None = None,
    resume: bool = False,
    device: str = "auto",
    threads: int | None = None,
    tensorboard: bool = True,
) -> RunResult:
    """Train as the recipe says and leave model, metrics and plot in `run_dir` (default: runs/NAME).

    `resume` goes on from the folder's last checkpoint, or begins where there is none yet. On a CPU with the
    same thread count the outcome is the same, bit for bit, however often the run was killed. `threads` is
    torch's thread count for this run (None: the recipe's; when resuming, the one the run was begun with, and
    any other is refused).
    `device` is "auto" (a CUDA GPU if there is one), "cpu", "cuda" or "cuda:1".

    Seeds torch's global generators. Raises `TrainError`, `CheckpointError` or `onebit.data.DataError`.
    """
    if threads is not None and threads < 1:
        raise TrainError(f"threads={threads}: give 1 or more, or leave it out")
    target = _device(device)
    folder = Path(run_dir) if run_dir is not None else default_run_dir(recipe.name, resume=resume)
    checkpoint_path = find_checkpoint(folder, resume=resume)
    checkpoint = checkpoints.load(checkpoint_path) if checkpoint_path else None
    splits = data.load(
        recipe.data.name,
        data_dir,
        validation=recipe.data.validation,
        image_size=recipe.data.image_size or None,
        channels=recipe.data.channels or None,
    )
    recipe = with_model_options(recipe, input_shape=list(splits.input_shape), classes=len(splits.classes))
    begun = checkpoint.recipe if checkpoint else recorded_recipe(folder) if resume else None
    recorded = begun["threads"] if begun else recipe.threads or torch.get_num_threads()
    recipe = replace(recipe, threads=recorded if threads is None else threads)
    if begun is not None:
        checkpoints.check_same_recipe(begun, recipe_tree(recipe))
    threads_before = torch.get_num_threads()
    try:
        torch.set_num_threads(recipe.threads)
        run = _Run(recipe, splits, folder, target, checkpoint, resume, tensorboard)
        return run.finish() if run.finished else run.go()
    finally:
        torch.set_num_threads(threads_before)


class _Run:
    """The state of one sitting."""

    def __init__(
        self,
        recipe: Recipe,
        splits: Splits,
        folder: Path,
        device: torch.device,
        checkpoint: Checkpoint | None,
        resume: bool,
        tensorboard: bool,
    ) -> None:
        self.recipe, self.folder, self.device = recipe, folder, device
        self.fingerprint = _fingerprint(splits)
        self.train_split = splits.train.to(device)
        self.validation_split = splits.validation.to(device) if splits.validation else None
        self.test_split = splits.test.to(device)
        self.steps = len(self.train_split) // recipe.batch_size
        if self.steps == 0:
            raise TrainError(
                f"batch_size={recipe.batch_size}, but {recipe.data.name} has {len(self.train_split)} training"
                f" images; give a batch size up to that (--set batch_size={len(self.train_split)})"
            )
        torch.manual_seed(recipe.seed)
        self.model = build_model(recipe).to(device).train()
        self.optimizer = make_optimizer(self.model, recipe.optimizer)
        self.forward = torch.compile(self.model) if recipe.compile else self.model
        self.loss = LOSS_FUNCTIONS[recipe.loss]
        self.order = torch.Generator().manual_seed(recipe.seed)
        self.order_at_epoch = self.order.get_state()
        self.position, self.best = Position(), Best()
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)
        self.history: list[dict[str, Any]] = []
        if checkpoint is None:
            begin_run(folder, recipe)
        else:
            self._restore(checkpoint)
        self.progress = Progress(recipe.epochs * self.steps, self._done(), recipe.epochs)
        if resume:
            self.progress.note(self._resume_note(checkpoint))
        self.records = Records(folder, self.history, self.progress.note, tensorboard=tensorboard)
        self.saved_at = self.clock = time.monotonic()

    @property
    def finished(self) -> bool:
        return self.position.epoch >= self.recipe.epochs

    def go(self) -> RunResult:
        """Train to the end."""
        try:
            while not self.finished:
                self._epoch()
            self._save()
        finally:
            self.progress.close()
            self.records.close()
        return self.finish()

    def finish(self) -> RunResult:
        """Test the best model and write what a run leaves behind. Can be done again after a kill."""
        self.model.load_state_dict(self.best.model)
        tested = evaluate(self.model, self.test_split, loss=self.loss)
        result = {
            "recipe": self.recipe.name,
            "epochs": self.recipe.epochs,
            "best_epoch": self.best.epoch,
            "validation_error": self.best.validation_error,
            "test_error": tested.error,
            "test_images": tested.count,
            "seconds": self.position.seconds,
            "threads": self.recipe.threads,
            "device": _device_name(self.device),
            "torch": torch.__version__,
        }
        plot_curves(self.folder / CURVES_NAME, self.recipe.name, self.history, self.progress.note)
        write_result(self.folder, _copy(self.model.state_dict(), "cpu"), result)
        return RunResult(
            self.folder,
            self.recipe.epochs,
            self.best.epoch,
            self.best.validation_error,
            tested.error,
            self.position.seconds,
            tuple(self.history),
            self.model.eval(),
        )

    def _epoch(self) -> None:
        recipe, images, labels = self.recipe, self.train_split.images, self.train_split.labels
        epoch, size = self.position.epoch, recipe.batch_size
        set_learning_rate(self.optimizer, recipe.optimizer, epoch, recipe.epochs)
        self.order_at_epoch = self.order.get_state()
        order = torch.randperm(len(labels), generator=self.order).to(self.device)
        for step in range(self.position.step, self.steps):
            index = order[step * size : (step + 1) * size]
            self._step(images[index], labels[index])
            self.position.step = step + 1
            if self.progress.due():
                loss, right, seen = self.sums.tolist()
                self.progress.show(self._done(), epoch + 1, loss / seen, 100 * right / seen)
            last = step + 1 == self.steps
            if not last and time.monotonic() - self.saved_at >= recipe.checkpoint_seconds:
                self._save()
        self._end_epoch()

    def _step(self, images: Tensor, labels: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        scores = self.forward(images)
        loss = self.loss(scores, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        if self.recipe.optimizer.clip:
            optim.clip_latent_weights_(self.model)
        with torch.no_grad():
            self.sums[0] += loss.detach() * len(labels)
            self.sums[1] += (scores.argmax(dim=1) == labels).sum()
            self.sums[2] += len(labels)

    def _end_epoch(self) -> None:
        loss, right, seen = self.sums.tolist()
        if loss != loss:  # NaN
            raise TrainError(
                f"the loss became NaN in epoch {self.position.epoch + 1}: lower the learning rate"
                f" (--set optimizer.lr={self.recipe.optimizer.lr / 10:g})"
            )
        measured = None
        if self.validation_split is not None:
            measured = evaluate(self.model, self.validation_split, loss=self.loss)
        error = measured.error if measured else None
        self.position.epoch, self.position.step = self.position.epoch + 1, 0
        self.sums.zero_()
        if error is None or self.best.validation_error is None or error <= self.best.validation_error:
            self.best = Best(self.position.epoch, error, _copy(self.model.state_dict()))
        seconds_before = self.history[-1]["seconds"] if self.history else 0.0
        self._tick()
        record = {
            "epoch": self.position.epoch,
            "learning_rate": learning_rate(
                self.recipe.optimizer, self.position.epoch - 1, self.recipe.epochs
            ),
            "train_loss": loss / seen,
            "train_accuracy": 100 * right / seen,
            "validation_loss": measured.loss if measured else None,
            "validation_accuracy": measured.accuracy if measured else None,
            "seconds": self.position.seconds,
        }
        self.history.append(record)
        self.records.add(record)
        self.progress.epoch(self._done(), {**record, "seconds": self.position.seconds - seconds_before})
        if not self.finished and time.monotonic() - self.saved_at >= self.recipe.checkpoint_seconds:
            self._save()

    def _save(self) -> None:
        self._tick()
        checkpoints.save(
            self.folder / checkpoints.FILE_NAME,
            Checkpoint(
                recipe=recipe_tree(self.recipe),
                data=self.fingerprint,
                device=_device_name(self.device),
                torch_version=str(torch.__version__),
                position=self.position,
                best=self.best,
                model=self.model.state_dict(),
                optimizer=self.optimizer.state_dict(),
                cpu_generator=torch.get_rng_state(),
                cuda_generators=torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
                order_generator=self.order_at_epoch if self.position.step else self.order.get_state(),
                sums=self.sums,
                history=self.history,
            ),
        )
        self.saved_at = time.monotonic()

    def _restore(self, checkpoint: Checkpoint) -> None:
        checkpoints.check_same_data(checkpoint.data, self.fingerprint)
        self.model.load_state_dict(checkpoint.model)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.position, self.history = checkpoint.position, checkpoint.history
        self.best = Best(
            checkpoint.best.epoch, checkpoint.best.validation_error, _copy(checkpoint.best.model, self.device)
        )
        self.sums.copy_(checkpoint.sums)
        self.order.set_state(checkpoint.order_generator)
        torch.set_rng_state(checkpoint.cpu_generator)
        if self.device.type == "cuda" and checkpoint.cuda_generators:
            torch.cuda.set_rng_state_all(checkpoint.cuda_generators)

    def _resume_note(self, checkpoint: Checkpoint | None) -> str:
        if checkpoint is None:
            return f"no checkpoint in {self.folder} yet: starting from the beginning"
        line = f"resuming {self.folder} at epoch {self.position.epoch + 1}, step {self.position.step}"
        now = (_device_name(self.device), str(torch.__version__))
        if (checkpoint.device, checkpoint.torch_version) != now:
            line += (
                f" (begun on {checkpoint.device} with torch {checkpoint.torch_version}, now {now[0]} with"
                f" {now[1]}: the last bits may differ from an undisturbed run)"
            )
        return line

    def _done(self) -> int:
        return self.position.epoch * self.steps + self.position.step

    def _tick(self) -> None:
        """Bring `position.seconds` up to now."""
        now = time.monotonic()
        self.position.seconds += now - self.clock
        self.clock = now


def make_optimizer(model: nn.Module, recipe: OptimizerRecipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over all parameters; each group keeps its full rate as "initial_lr"."""
    sgd = recipe.name == "sgd"
    groups: list[dict[str, Any]] = (
        optim.glorot_parameter_groups(model, recipe.lr, squared=sgd)
        if recipe.glorot
        else [{"params": list(model.parameters()), "lr": recipe.lr}]
    )
    for group in groups:
        group["initial_lr"] = group["lr"]
    make: Callable[..., torch.optim.Optimizer] = torch.optim.SGD if sgd else torch.optim.Adam
    own: dict[str, Any] = {"momentum": recipe.momentum} if sgd else {"betas": recipe.betas, "eps": recipe.eps}
    return make(groups, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True, **own)


def learning_rate(recipe: OptimizerRecipe, epoch: int, epochs: int) -> float:
    """The rate of epoch `epoch` (from 0) of `epochs`, before Glorot's scaling."""
    return float(recipe.lr * (recipe.lr_end / recipe.lr) ** (epoch / epochs))


def set_learning_rate(
    optimizer: torch.optim.Optimizer, recipe: OptimizerRecipe, epoch: int, epochs: int
) -> None:
    """Bring every group to its rate of that epoch."""
    factor = learning_rate(recipe, epoch, epochs) / recipe.lr
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise TrainError(f"device {name!r} cannot be used here: {reason}; try 'auto' or 'cpu'") from error
    return device


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _fingerprint(splits: Splits) -> int:
    """A checksum of the training images and labels, to notice a resume with other data."""
    images = zlib.crc32(splits.train.images.numpy().data)
    return zlib.crc32(splits.train.labels.numpy().data, images)


def _copy(state: dict[str, Tensor], device: torch.device | str | None = None) -> dict[str, Tensor]:
    return {k: v.detach().to(device or v.device, copy=True) for k, v in state.items()}
