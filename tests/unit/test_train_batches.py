"""Batches: order, augmentation, shares of several processes, and going on in the middle of an epoch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from onebit.data import Split
from onebit.train import TrainError, load_recipe, train
from onebit.train import checkpoint as checkpoints
from onebit.train.augment import augment, check, draw
from onebit.train.batches import Batches, MemoryBatches, MemorySource, load_splits, shares
from onebit.train.devices import restore_rank_state
from onebit.train.distributed import World, _meeting
from onebit.train.fields import AugmentRecipe
from onebit.train.step import EagerStep

EVERYTHING = AugmentRecipe(flip=True, crop=3, cutout=4, fill=7)


def samples(count: int = 23, *shape: int) -> Split:
    generator = torch.Generator().manual_seed(4)
    images = torch.randint(0, 256, (count, *(shape or (2, 5, 6))), dtype=torch.uint8, generator=generator)
    return Split(images, torch.arange(count))


def by_hand(recipe: AugmentRecipe, image: torch.Tensor, drawn: list[int]) -> torch.Tensor:
    """One image, (C, H, W), pixel by pixel: flipped, padded, cut out, covered."""
    flip, down, right, row, column = drawn
    channels, height, width = image.shape
    if flip:
        image = image.flip(2)
        right = -right  # the window's place is told in the unflipped image
    pad = recipe.crop
    padded = torch.full((channels, height + 2 * pad, width + 2 * pad), int(recipe.fill), dtype=image.dtype)
    padded[:, pad : pad + height, pad : pad + width] = image
    window = padded[:, pad + down : pad + down + height, pad + right : pad + right + width].clone()
    half = recipe.cutout // 2
    for y in range(height):
        for x in range(width):
            if (
                row - half <= y < row - half + recipe.cutout
                and column - half <= x < column - half + recipe.cutout
            ):
                window[:, y, x] = int(recipe.fill)
    return window


@pytest.mark.parametrize(
    "recipe",
    [
        AugmentRecipe(flip=True),
        AugmentRecipe(crop=2),
        AugmentRecipe(cutout=3, fill=255),
        AugmentRecipe(cutout=1),
        EVERYTHING,
    ],
    ids=str,
)
def test_augmentation_is_what_it_is_by_hand(recipe: AugmentRecipe) -> None:
    split = samples(200)
    draws = draw(recipe, split.images, 200, torch.Generator().manual_seed(1))
    before = split.images.clone()
    got = augment(recipe, split.images, draws)
    assert torch.equal(split.images, before)
    assert got.dtype == torch.uint8
    for image, result, drawn in zip(split.images, got, draws.tolist(), strict=True):
        assert torch.equal(result, by_hand(recipe, image, drawn)), drawn


def test_every_draw_comes_up() -> None:
    draws = draw(EVERYTHING, samples().images, 2000, torch.Generator().manual_seed(1))
    ranges = [range(2), range(-3, 4), range(-3, 4), range(5), range(6)]
    for column, values in zip(draws.T, ranges, strict=True):
        assert column.unique().tolist() == list(values)
        counts = torch.bincount(column - column.min()).double()
        assert counts.min() > 0.7 * counts.mean()


def test_float_images_and_no_augmentation_are_kept() -> None:
    images = samples().images.float() / 3
    none = AugmentRecipe()
    drawn = draw(none, images, len(images), torch.Generator())
    assert drawn.shape == (len(images), 0)
    assert augment(none, images, drawn) is images
    moved = augment(AugmentRecipe(crop=1, fill=-0.5), images, torch.tensor([[0, -1, 0, 0, 0]] * len(images)))
    assert torch.equal(moved[:, :, 1:], images[:, :, :-1])
    assert (moved[:, :, 0] == -0.5).all()


@pytest.mark.parametrize(
    ("recipe", "shape", "words"),
    [
        (AugmentRecipe(flip=True), (1, 400), "are for images"),
        (AugmentRecipe(crop=5), (1, 5, 8), r"augment.crop = 5: less than the image's 5×8"),
        (AugmentRecipe(cutout=2, fill=256), (1, 5, 8), "whole number from 0 to 255"),
        (AugmentRecipe(cutout=2, fill=0.5), (1, 5, 8), "whole number from 0 to 255"),
    ],
)
def test_augmentation_that_does_not_suit_is_refused(
    recipe: AugmentRecipe, shape: tuple[int, ...], words: str
) -> None:
    with pytest.raises(TrainError, match=words):
        check(recipe, samples(3, *shape).images)


def epoch(batches: Batches, step: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(batches.iterate(step))


def test_an_epoch_has_every_sample_once_but_for_the_rest() -> None:
    batches = MemoryBatches(samples(), 5, seed=3)
    seen = [label for _, labels in epoch(batches) for label in labels.tolist()]
    assert (batches.steps, len(seen), len(set(seen))) == (4, 20, 20)
    again = [label for _, labels in epoch(batches) for label in labels.tolist()]
    assert again != seen, "the next epoch has another order"
    split = samples()
    for inputs, labels in epoch(batches):
        assert torch.equal(inputs, split.images[labels])


def test_an_epoch_can_be_taken_up_in_the_middle() -> None:
    whole = MemoryBatches(samples(), 5, seed=3, changes=EVERYTHING)
    epoch(whole)
    iterator = whole.iterate()
    next(iterator)
    state = whole.state_dict()  # in the middle of the second epoch
    rest = [*iterator, *epoch(whole)]
    other = MemoryBatches(samples(), 5, seed=99, changes=EVERYTHING)
    other.load_state_dict(state)
    resumed = [*epoch(other, 1), *epoch(other)]
    assert len(rest) == len(resumed) == 7
    for (a, labels_a), (b, labels_b) in zip(rest, resumed, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(labels_a, labels_b)


@pytest.mark.parametrize("size", [2, 3])
def test_the_shares_of_several_processes_are_one_batch(size: int) -> None:
    alone = epoch(MemoryBatches(samples(), 6, changes=EVERYTHING))
    worlds = [World(rank, size, rank) for rank in range(size)]
    parts = [epoch(MemoryBatches(samples(), 6, changes=EVERYTHING, world=world)) for world in worlds]
    for step, (inputs, labels) in enumerate(alone):
        assert torch.equal(torch.cat([part[step][0] for part in parts]), inputs)
        assert torch.equal(torch.cat([part[step][1] for part in parts]), labels)
    tested = [labels for world in worlds for _, labels in shares(samples(), world, size=4)]
    assert torch.equal(torch.cat(tested), samples().labels)


def test_sounds_and_other_inputs_train_like_images(tmp_path: Path) -> None:
    """Nothing between the data and the model looks at the inputs' shape or dtype."""
    sounds = Split(samples(12, 1, 50).images.float() / 255, torch.arange(12))
    ((inputs, _),) = epoch(MemoryBatches(sounds, 12))
    assert (inputs.shape, inputs.dtype) == ((12, 1, 50), torch.float32)
    whole = MemoryBatches(Split(sounds.images.to(torch.int16), sounds.labels), 12)
    assert epoch(whole)[0][0].dtype == torch.int16


def test_a_batch_that_processes_cannot_share_is_refused() -> None:
    from onebit.train.batches import _check_batch_size

    recipe = load_recipe("bnn-digits", ["batch_size=50"])
    source = MemorySource(load_splits(recipe.data, None), recipe, torch.device("cpu"), World())
    with pytest.raises(TrainError, match=r"batch_size=50 is shared by 4 processes.*batch_size=48"):
        _check_batch_size(recipe, source, World(0, 4, 0))


def test_a_restart_by_torchrun_needs_a_folder_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = load_recipe("bnn-digits", ["epochs=1", "model.hidden=[33]", "threads=1"])
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    with pytest.raises(TrainError, match=r"name its folder, so that it is found again \(--run-dir\)"):
        train(recipe)
    first = train(recipe, run_dir=tmp_path / "run", tensorboard=False)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    again = train(recipe, run_dir=tmp_path / "run", tensorboard=False)
    assert f"resuming {tmp_path / 'run'} at epoch 2" in capsys.readouterr().err
    assert torch.equal(first.model.linear1.weight, again.model.linear1.weight)


def test_a_run_of_two_processes_goes_on_with_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As if two had begun it: the second's generators and sums stand in the checkpoint."""
    recipe = load_recipe("bnn-digits", ["epochs=1", "model.hidden=[33]", "threads=1"])
    run = train(recipe, run_dir=tmp_path / "run", tensorboard=False)
    path = run.run_dir / "checkpoint.pt"
    checkpoint = checkpoints.load(path)
    states = [{"cpu": torch.get_rng_state(), "cuda": None, "sums": torch.ones(3) * rank} for rank in (1, 2)]
    checkpoints.save(path, replace(checkpoint, ranks=states))
    train(recipe, run_dir=run.run_dir, resume=True, tensorboard=False)
    assert "2 processes then, 1 process now: the last bits may differ" in capsys.readouterr().err
    sums = torch.zeros(3)
    restore_rank_state(states, World(), torch.device("cpu"), sums)
    assert sums.tolist() == [3, 3, 3]
    restore_rank_state(states, World(1, 2, 1), torch.device("cpu"), sums)
    assert sums.tolist() == [2, 2, 2]


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    "overrides",
    [
        ["distill.weight=0.5", "optimizer.name=adamw", "augment.flip=true", "loss=cross_entropy"],
        ["optimizer.name=bop", "optimizer.schedule=linear", "model.dropout_hidden=0.1"],
        ["precision=bf16", "optimizer.name=shift_adamax", "augment.crop=1", "model.activation=ede"],
        ["optimizer.name=sgd", "optimizer.momentum=0.9", "optimizer.center=true", "save_bits=true"],
    ],
    ids=["distillation", "bop", "bf16", "sgd"],
)
def test_every_field_survives_an_interruption(
    overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle of the second epoch, resumed, and compared with an undisturbed run."""
    common = ["epochs=3", "model.hidden=[33]", "threads=1", "batch_size=100"]
    if "distill.weight=0.5" in overrides:
        teacher = load_recipe("bnn-digits", ["epochs=1", "model.hidden=[40]", "threads=1"])
        train(teacher, run_dir=tmp_path / "teacher", tensorboard=False)
        overrides = [*overrides, f"distill.teacher={tmp_path / 'teacher'}"]
    recipe = load_recipe("bnn-digits", [*common, *overrides])
    undisturbed = train(recipe, run_dir=tmp_path / "whole", tensorboard=False)
    made = {"steps": 0}
    whole_step = EagerStep.__call__

    def step(self: Any, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        if made["steps"] == 20:
            raise Killed
        made["steps"] += 1
        whole_step(self, inputs, labels)

    with monkeypatch.context() as patched:
        patched.setattr(EagerStep, "__call__", step)
        with pytest.raises(Killed):
            train(replace(recipe, checkpoint_seconds=0.0), run_dir=tmp_path / "cut", tensorboard=False)
    resumed = train(recipe, run_dir=tmp_path / "cut", resume=True, tensorboard=False)
    for name, value in undisturbed.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    for a, b in zip(undisturbed.history, resumed.history, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}


def test_another_teacher_is_refused_when_resuming(tmp_path: Path) -> None:
    for seed in (1, 2):
        teacher = load_recipe("bnn-digits", ["epochs=1", "model.hidden=[33]", "threads=1", f"seed={seed}"])
        train(teacher, run_dir=tmp_path / f"{seed}", tensorboard=False)
    recipe = load_recipe(
        "bnn-digits",
        ["epochs=1", "model.hidden=[33]", "threads=1", f"distill.teacher={tmp_path / 'teacher'}"],
    )
    (tmp_path / "1").rename(tmp_path / "teacher")
    train(recipe, run_dir=tmp_path / "run", tensorboard=False)
    (tmp_path / "teacher").rename(tmp_path / "1")
    (tmp_path / "2").rename(tmp_path / "teacher")
    with pytest.raises(TrainError, match="begun with another teacher than"):
        train(recipe, run_dir=tmp_path / "run", resume=True, tensorboard=False)


def test_processes_meet_in_spite_of_what_an_earlier_start_left_in_the_store() -> None:
    """Each rank is a thread here; the store is full of the numbers of a start that was killed."""
    store = torch.distributed.HashStore()
    for key in ("here/0", "here/1", "here/2", "taken/1", "taken/2"):
        store.set(key, "stale")
    store.set("offer", "stale stale stale")
    with ThreadPoolExecutor(3) as pool:
        late_first = [pool.submit(_meeting, store, rank, 3) for rank in (2, 0, 1)]
        names = {future.result(timeout=60) for future in late_first}
    assert len(names) == 1
    assert names != {"stale"}
    with ThreadPoolExecutor(2) as pool:
        again = {future.result(timeout=60) for future in [pool.submit(_meeting, store, r, 2) for r in (0, 1)]}
    assert len(again) == 1
    assert again.isdisjoint(names)
