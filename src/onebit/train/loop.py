"""The training loop: plain PyTorch over batches from a seeded source, on one device or several processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from onebit.errors import TrainError
from onebit.nn import reestimate_batch_norm_, save_bits_, set_progress_
from onebit.train import checkpoint as checkpoints
from onebit.train import distributed
from onebit.train.batches import BatchSource, open_source
from onebit.train.checkpoint import Best, Checkpoint, Position
from onebit.train.devices import device_name, find_device, rank_state, restore_rank_state
from onebit.train.diagnosis import PLOT_NAME, Watch, plot_layers
from onebit.train.distill import load_teacher
from onebit.train.distributed import World
from onebit.train.evaluation import LOSS_FUNCTIONS, MANY_CLASSES, Evaluation, measure, summed
from onebit.train.fields import Recipe
from onebit.train.metrics_log import CURVES_NAME, MetricsLog, plot_curves
from onebit.train.optimizers import learning_rate, load_optimizer, make_optimizer, set_learning_rate
from onebit.train.precision import mixed, tf32
from onebit.train.progress import Progress
from onebit.train.recipe import recipe_tree, with_model_options
from onebit.train.rundir import (
    begin_run,
    build_model,
    default_run_dir,
    find_checkpoint,
    recorded_recipe,
    write_result,
)
from onebit.train.step import EagerStep, ReplayedStep, TrainStep
from onebit.train.weights import start_from

_DIAGNOSED_BATCHES = 4  # of training samples, whose signs are looked at after an epoch
_AGREE_EVERY = 20  # steps after which several processes agree on whether a checkpoint is due


@dataclass(frozen=True)
class RunResult:
    """What a run came to. Errors are per cent; `model` is the best one, in eval mode, on the run's device.

    The best epoch (from 1) is the one with the lowest validation error, the later of two equal ones, as in
    the papers' code; without validation samples it is the last. `seconds` is the time spent training,
    evaluation on the validation samples included, over all sittings.
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
        """Per cent of the test samples, at the best epoch."""
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

    Started by torchrun, it is one of several processes that train together, each on a device of its own
    (see `distributed`); all return the same result. A restart by torchrun (--max-restarts) resumes.

    Seeds torch's global generators. Raises `TrainError`, `CheckpointError` or `onebit.data.DataError`.
    """
    if threads is not None and threads < 1:
        raise TrainError(f"threads={threads}: give 1 or more, or leave it out")
    restarted, may_restart = distributed.restarts()
    if may_restart and run_dir is None:
        raise TrainError(
            "torchrun may restart this run: name its folder, so that it is found again (--run-dir)"
        )
    resume = resume or restarted > 0
    target = find_device(device)
    threads_before = torch.get_num_threads()
    try:
        with distributed.joined(target) as world:
            opening = world.agreed(lambda: _open(recipe, run_dir, resume=resume))
            source = open_source(recipe, data_dir, target, world)
            recipe = _resolved(recipe, source, opening, threads)
            torch.set_num_threads(recipe.threads)
            with tf32(recipe.tf32):
                # In one expression: nothing of the run may be left when the processes part.
                return _Run(
                    recipe, source, opening, target, world, resume=resume, tensorboard=tensorboard
                ).go()
    finally:
        torch.set_num_threads(threads_before)


@dataclass(frozen=True)
class _Opening:
    """What rank 0 found in the run folder; `begun` is the tree of the recipe that the run was begun with."""

    folder: Path
    checkpoint: Checkpoint | None
    begun: dict[str, Any] | None


def _open(recipe: Recipe, run_dir: str | Path | None, *, resume: bool) -> _Opening:
    folder = Path(run_dir) if run_dir is not None else default_run_dir(recipe.name, resume=resume)
    path = find_checkpoint(folder, resume=resume)
    checkpoint = checkpoints.load(path) if path else None
    begun = checkpoint.recipe if checkpoint else recorded_recipe(folder) if resume else None
    return _Opening(folder, checkpoint, begun)


def _resolved(recipe: Recipe, source: BatchSource, opening: _Opening, threads: int | None) -> Recipe:
    """The recipe with what the data set and this machine decide; refused if the run began with another."""
    shape = {"input_shape": list(source.input_shape), "classes": len(source.classes)}
    recipe = with_model_options(recipe, **shape)
    begun = opening.begun
    recorded = begun["threads"] if begun else recipe.threads or torch.get_num_threads()
    recipe = replace(recipe, threads=recorded if threads is None else threads)
    if begun is not None:
        checkpoints.check_same_recipe(begun, recipe_tree(recipe))
    return recipe


class _Run:
    """The state of one sitting, in one process."""

    def __init__(
        self,
        recipe: Recipe,
        source: BatchSource,
        opening: _Opening,
        device: torch.device,
        world: World,
        *,
        resume: bool,
        tensorboard: bool,
    ) -> None:
        self.recipe, self.source, self.folder = recipe, source, opening.folder
        self.device, self.world = device, world
        notes: list[str] = []
        checkpoint = opening.checkpoint
        self.model = self._make_model(notes if checkpoint is None else None)
        with torch.random.fork_rng(devices=[]):  # making the teacher draws, and must not change the run
            self.teacher = load_teacher(recipe, source.input_shape, len(source.classes), device)
        self.loss = LOSS_FUNCTIONS[recipe.loss]
        self.position, self.best = Position(), Best()
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)
        self.history: list[dict[str, Any]] = []
        self.step = self._make_step(notes)
        self.watch = Watch(self.model) if recipe.diagnose else None
        if checkpoint is None:
            world.agreed(lambda: begin_run(self.folder, recipe, source.classes))
        else:
            self._restore(checkpoint)
        self.progress = Progress(
            recipe.epochs * source.train.steps, self._done(), recipe.epochs, quiet=not world.is_main
        )
        if resume:
            notes.append(self._resume_note(checkpoint))
        for note in notes:
            self.progress.note(note)
        self.records = (
            MetricsLog(self.folder, self.history, self.progress.note, tensorboard=tensorboard)
            if world.is_main
            else None
        )
        self.saved_at = self.clock = time.monotonic()

    def _make_model(self, notes: list[str] | None) -> nn.Module:
        """The model as the recipe begins it; `notes` (None: weights come from a checkpoint) gets a line."""
        recipe = self.recipe
        torch.manual_seed(recipe.seed)
        model = build_model(recipe)
        if recipe.init and notes is not None:
            with torch.random.fork_rng(devices=[]):
                notes.append(f"init = {recipe.init!r}: {start_from(model, recipe.init)}")
        if self.world.rank:  # every process its own noise; rank 0's is that of a process alone
            torch.manual_seed(recipe.seed + 1_000_003 * self.world.rank)
        model = model.to(self.device).train()
        if recipe.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if recipe.reestimate_batch_norm and not any(isinstance(m, _BatchNorm) for m in model.modules()):
            raise TrainError(
                f"reestimate_batch_norm = {recipe.reestimate_batch_norm}: the model {recipe.model.name!r} has"
                " no BatchNorm; leave it out"
            )
        if recipe.save_bits:
            save_bits_(model, self._example())
        return distributed.synchronized(model, self.world) if recipe.sync_batch_norm else model

    def _example(self) -> Tensor:
        """Two training samples."""
        return next(self.source.plain(1))[:2]

    def _make_step(self, notes: list[str]) -> TrainStep:
        recipe, world = self.recipe, self.world
        graph = recipe.cuda_graph and self.device.type == "cuda"
        if graph and not world.alone:
            raise TrainError(f"cuda_graph = true works with one process, not with {world.size}: leave it out")
        if recipe.cuda_graph and not graph:
            notes.append(f"cuda_graph = true has no effect on {device_name(self.device)}")
        self.optimizer = make_optimizer(self.model, recipe.optimizer, capturable=graph)
        forward: Callable[[Tensor], Tensor] = distributed.parallel(self.model, world)
        if recipe.compile:  # DistributedDataParallel breaks the graph itself, at its buckets
            forward = torch.compile(forward, fullgraph=world.alone)
        step = EagerStep(self.model, forward, self.optimizer, self.loss, recipe, self.sums, self.teacher)
        return ReplayedStep(step) if graph else step

    def finished(self) -> bool:
        """True when every epoch is done."""
        return self.position.epoch >= self.recipe.epochs

    def go(self) -> RunResult:
        """Train to the end, unless that was done before, and finish."""
        if self.finished():
            return self.finish()
        with ExitStack() as stack:
            stack.callback(self.progress.close)
            if self.records is not None:
                stack.callback(self.records.close)
            if self.recipe.precision != "float32":
                stack.enter_context(mixed(self.model, self.recipe.precision, self._example()))
            while not self.finished():
                self._epoch()
            self._save()
        return self.finish()

    def finish(self) -> RunResult:
        """Test the best model and write what a run leaves behind. Can be done again after a kill."""
        recipe, best = self.recipe, self.best
        model = build_model(recipe).to(self.device)  # a plain one, whatever training did to its own
        model.load_state_dict(best.model)
        with tf32(False):
            if recipe.reestimate_batch_norm:
                reestimate_batch_norm_(model, self.source.plain(recipe.reestimate_batch_norm))
            model.eval()
            sums = measure(model, self.source.test(), loss=self.loss, device=self.device)
        tested = summed(self.world.sum(sums))
        if self.world.is_main:
            self._write(model, tested)
        return RunResult(
            self.folder,
            recipe.epochs,
            best.epoch,
            best.validation_error,
            tested.error,
            self.position.seconds,
            tuple(self.history),
            model,
        )

    def _write(self, model: nn.Module, tested: Evaluation) -> None:
        result = {
            "recipe": self.recipe.name,
            "epochs": self.recipe.epochs,
            "best_epoch": self.best.epoch,
            "validation_error": self.best.validation_error,
            "test_error": tested.error,
            **self._top("test_top5_error", 100.0 - tested.top_accuracy),
            "test_images": tested.count,
            "seconds": self.position.seconds,
            "threads": self.recipe.threads,
            "processes": self.world.size,
            "device": device_name(self.device),
            "torch": str(torch.__version__),
        }
        plot_curves(self.folder / CURVES_NAME, self.recipe.name, self.history, self.progress.note)
        if self.watch:
            plot_layers(self.folder / PLOT_NAME, self.recipe.name, self.history, self.progress.note)
        write_result(self.folder, _copy(model.state_dict(), "cpu"), result)

    def _top(self, key: str, value: float | None) -> dict[str, float | None]:
        """An entry of a record, where there are many classes."""
        return {key: value} if len(self.source.classes) >= MANY_CLASSES else {}

    def _epoch(self) -> None:
        recipe, epoch = self.recipe, self.position.epoch
        steps = self.source.train.steps
        set_learning_rate(self.optimizer, recipe.optimizer, epoch, recipe.epochs)
        set_progress_(self.model, epoch / recipe.epochs)
        for inputs, labels in self.source.train.iterate(self.position.step):
            self.step(inputs, labels)
            self.position.step += 1
            if self.progress.due():
                loss, right, seen = self.sums.tolist()
                self.progress.show(self._done(), epoch + 1, loss / seen, 100 * right / seen)
            if self.position.step < steps and self._checkpoint_due():
                self._save()
        self._end_epoch()

    def _end_epoch(self) -> None:
        loss, right, seen = self.world.sum(self.sums).tolist()
        if loss != loss:  # NaN
            raise TrainError(
                f"the loss became NaN in epoch {self.position.epoch + 1}: lower the learning rate"
                f" (--set optimizer.lr={self.recipe.optimizer.lr / 10:g})"
            )
        self.world.share_buffers(self.model)
        measured = None
        if self.source.has_validation:
            with tf32(False):
                sums = measure(self.model, self.source.validation(), loss=self.loss, device=self.device)
            measured = summed(self.world.sum(sums))
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
            **self._top("validation_top5_accuracy", measured.top_accuracy if measured else None),
            "seconds": self.position.seconds,
            **(self.watch.record(self.source.plain(_DIAGNOSED_BATCHES)) if self.watch else {}),
        }
        self.history.append(record)
        if self.records is not None:
            self.records.add(record)
        self.progress.epoch(self._done(), {**record, "seconds": self.position.seconds - seconds_before})
        if not self.finished() and self._checkpoint_due():
            self._save()

    def _checkpoint_due(self) -> bool:
        """True when the time has come; rank 0's clock decides, and all ranks ask at the same steps."""
        interval, step = self.recipe.checkpoint_seconds, self.position.step
        if not self.world.alone and interval > 0 and step % _AGREE_EVERY:
            return False
        return bool(self.world.broadcast(time.monotonic() - self.saved_at >= interval))

    def _save(self) -> None:
        self._tick()
        ranks = self.world.gather(rank_state(self.device, self.sums))
        if self.world.is_main:
            self._write_checkpoint(ranks)
        self.saved_at = time.monotonic()

    def _write_checkpoint(self, ranks: list[dict[str, Any]]) -> None:
        checkpoints.save(
            self.folder / checkpoints.FILE_NAME,
            Checkpoint(
                recipe=recipe_tree(self.recipe),
                data=self.source.train.fingerprint,
                teacher=self.teacher.fingerprint if self.teacher else 0,
                device=device_name(self.device),
                torch_version=str(torch.__version__),
                position=self.position,
                best=self.best,
                model=self.model.state_dict(),
                optimizer=self.optimizer.state_dict(),
                batches=self.source.train.state_dict(),
                ranks=ranks,
                history=self.history,
                signs=self.watch.state_dict() if self.watch else {},
            ),
        )

    def _restore(self, checkpoint: Checkpoint) -> None:
        checkpoints.check_same_data(checkpoint.data, self.source.train.fingerprint)
        checkpoints.check_same_teacher(checkpoint.teacher, self.teacher.fingerprint if self.teacher else 0)
        self.model.load_state_dict(checkpoint.model)
        load_optimizer(self.optimizer, checkpoint.optimizer)
        self.position, self.history = checkpoint.position, checkpoint.history
        self.best = Best(
            checkpoint.best.epoch, checkpoint.best.validation_error, _copy(checkpoint.best.model, self.device)
        )
        if self.watch:
            self.watch.load_state_dict(checkpoint.signs)
        self.source.train.load_state_dict(checkpoint.batches)
        restore_rank_state(checkpoint.ranks, self.world, self.device, self.sums)

    def _resume_note(self, checkpoint: Checkpoint | None) -> str:
        if checkpoint is None:
            return f"no checkpoint in {self.folder} yet: starting from the beginning"
        line = f"resuming {self.folder} at epoch {self.position.epoch + 1}, step {self.position.step}"
        before = [checkpoint.device, f"torch {checkpoint.torch_version}", _processes(len(checkpoint.ranks))]
        now = [device_name(self.device), f"torch {torch.__version__}", _processes(self.world.size)]
        changed = [f"{a} then, {b} now" for a, b in zip(before, now, strict=True) if a != b]
        if changed:
            line += f" ({'; '.join(changed)}: the last bits may differ from an undisturbed run)"
        if not checkpoint.checked:
            line += "; an older onebit wrote this checkpoint, without a checksum: damage may go unnoticed"
        return line

    def _done(self) -> int:
        return self.position.epoch * self.source.train.steps + self.position.step

    def _tick(self) -> None:
        """Bring `position.seconds` up to now."""
        now = time.monotonic()
        self.position.seconds += now - self.clock
        self.clock = now


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


def _copy(state: dict[str, Tensor], device: torch.device | str | None = None) -> dict[str, Tensor]:
    return {k: v.detach().to(device or v.device, copy=True) for k, v in state.items()}
