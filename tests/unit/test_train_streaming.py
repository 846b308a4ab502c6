"""Training on a stream: a recipe of ImageNet made small learns, survives a kill, and reports top-5."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from onebit.cli import main
from onebit.data import open_stream
from onebit.train import RecipeError, TrainError, evaluation, load_recipe, recipe_names, train
from onebit.train.batches import StreamSource
from onebit.train.distributed import World
from onebit.train.recipe import with_model_options
from onebit.train.rundir import build_model
from onebit.train.step import EagerStep
from onebit.train.weights import start_from

CLASSES = 3
SMALL = [
    "data.image_size=32",
    "data.validation=6",
    "data.workers=2",
    "batch_size=8",
    "epochs=3",
    "threads=1",
    "channels_last=false",
    "model.widths=[8, 16, 16, 16]",
    "model.blocks=[1, 1, 1, 1]",
    "optimizer.lr=0.01",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """JPEGs of noisy stripes, 48 × 40 and larger, whose direction and colour are their class."""
    folder = tmp_path_factory.mktemp("images")
    draws = np.random.RandomState(0)
    for part, count in (("train", 20), ("val", 4)):
        for label in range(CLASSES):
            for i in range(count):
                height, width = 40 + draws.randint(30), 48 + draws.randint(30)
                y, x = np.mgrid[:height, :width]
                wave = np.sin(0.5 * (x, y, x + y)[label]) * 60 + 120
                pixels = np.stack([wave + 60 * (c == label) for c in range(3)], axis=2)
                pixels = pixels + draws.normal(0, 10, pixels.shape)
                path = folder / part / f"n{label:02}" / f"{i}.JPEG"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return folder


def records(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    recipe = load_recipe("birealnet18-imagenet", SMALL)
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    return train(recipe, data_dir=folder, run_dir=run_dir, tensorboard=False)


def test_a_recipe_of_imagenet_learns_from_a_small_folder(undisturbed: Any) -> None:
    losses = [record["train_loss"] for record in undisturbed.history]
    assert losses[-1] < 0.7 * losses[0], losses
    assert undisturbed.test_error <= 50  # of three classes, by chance 67
    assert undisturbed.validation_error is not None
    result = json.loads((undisturbed.run_dir / "result.json").read_text())
    assert result["test_images"] == 4 * CLASSES
    assert "test_top5_error" not in result, "three classes are not many"


def test_eval_streams_what_the_run_streamed(
    undisturbed: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["eval", str(undisturbed.run_dir), "--data-dir", str(folder), "--json", "--threads", "1"]) == 0
    )
    report = json.loads(capsys.readouterr().out)
    assert report["images"] == 4 * CLASSES
    assert report["pytorch"]["accuracy"] == pytest.approx(undisturbed.test_accuracy)
    assert report["predictions_that_differ"] <= 1


class Killed(BaseException):
    pass


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_run_ends_in_the_same_bits(
    undisturbed: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """Stopped in the middle of the second epoch, and resumed with the same or another number of workers."""
    recipe = load_recipe("birealnet18-imagenet", SMALL)
    whole_step, made = EagerStep.__call__, {"steps": 0}

    def step(self: Any, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        if made["steps"] == 9:
            raise Killed
        made["steps"] += 1
        whole_step(self, inputs, labels)

    with monkeypatch.context() as patched:
        patched.setattr(EagerStep, "__call__", step)
        with pytest.raises(Killed):
            train(
                replace(recipe, checkpoint_seconds=0.0),
                data_dir=folder,
                run_dir=tmp_path / "run",
                tensorboard=False,
            )
    recipe = replace(recipe, data=replace(recipe.data, workers=workers))
    resumed = train(recipe, data_dir=folder, run_dir=tmp_path / "run", resume=True, tensorboard=False)
    for name, value in undisturbed.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    for a, b in zip(undisturbed.history, resumed.history, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}


def test_other_images_are_refused_when_resuming(undisturbed: Any, folder: Path, tmp_path: Path) -> None:
    for path in sorted(folder.rglob("*.JPEG")):
        if path.name != "0.JPEG":
            copy = tmp_path / "less" / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    recipe = load_recipe("birealnet18-imagenet", SMALL)
    with pytest.raises(TrainError, match="begun with other training samples"):
        train(recipe, data_dir=tmp_path / "less", run_dir=undisturbed.run_dir, resume=True, tensorboard=False)


def test_the_processes_share_what_there_is(folder: Path) -> None:
    recipe = load_recipe("birealnet18-imagenet", [*SMALL, "data.workers=0"])
    stream = open_stream("imagenet", folder, image_size=32, validation=6)
    worlds = [World(rank, 2, rank) for rank in range(2)]
    sources = [StreamSource(stream, recipe, torch.device("cpu"), world) for world in worlds]
    for part in ("validation", "test"):
        counts = [sum(len(labels) for _, labels in getattr(source, part)()) for source in sources]
        assert sum(counts) == {"validation": 6, "test": 12}[part]
        assert max(counts) - min(counts) <= 1
    parts = [list(source.train.iterate()) for source in sources]
    assert [len(part) for part in parts] == [54 // 8, 54 // 8]
    assert all(inputs.shape == (4, 3, 32, 32) for part in parts for inputs, _ in part)
    everything = torch.cat([inputs for part in parts for inputs, _ in part]).flatten(1)
    assert len(everything.unique(dim=0)) == 48, "two processes were given the same image"
    plain = [torch.cat(list(source.plain(2))) for source in sources]
    assert torch.equal(*plain)
    assert len(plain[0]) == 16


def test_top5_is_recorded_where_there_are_many_classes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onebit.train.loop.MANY_CLASSES", CLASSES)
    recipe = load_recipe("birealnet18-imagenet", [*SMALL, "epochs=1"])
    run = train(recipe, data_dir=folder, run_dir=tmp_path / "run", tensorboard=False)
    (record,) = records(run.run_dir)
    assert record["validation_top5_accuracy"] == 100  # of three classes
    assert json.loads((run.run_dir / "result.json").read_text())["test_top5_error"] == 0


def test_the_five_highest_scores() -> None:
    scores = torch.tensor([[9.0, 8, 7, 6, 5, 4, 3], [1, 2, 3, 4, 5, 6, 7], [0, 0, 0, 0, 0, 0, 9]])
    labels = torch.tensor([4, 1, 6])  # fifth, sixth, first
    measured = evaluation.summed(
        evaluation.measure(
            nn.Identity(), [(scores, labels)], loss="cross_entropy", device=torch.device("cpu")
        )
    )
    assert (measured.correct, measured.near, measured.count) == (1, 2, 3)
    assert measured.top_accuracy == pytest.approx(200 / 3)
    two = evaluation.measure(
        nn.Identity(),
        [(scores[:, :2], labels.clamp(max=1))],
        loss="cross_entropy",
        device=torch.device("cpu"),
    )
    assert evaluation.summed(two).near == 3


IMAGENET = [name for name in recipe_names() if "-imagenet" in name]


def test_the_recipes_of_imagenet_are_there() -> None:
    assert len(IMAGENET) >= 11
    for name in IMAGENET:
        recipe = load_recipe(name)
        assert (recipe.data.name, recipe.data.stream, recipe.data.image_size) == ("imagenet", True, 224)
        assert recipe.augment.flip
        assert (recipe.augment.resized_crop > 0) != (recipe.augment.crop > 0)
    svhn = load_recipe("bnn-svhn")
    assert (svhn.data.extra, svhn.epochs, svhn.batch_size) == (True, 200, 50)
    assert (svhn.optimizer.lr, svhn.optimizer.lr_end) == (1e-3, 1e-6)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("birealnet18-imagenet", ["augment.cutout=3"]),
        ("birealnet18-imagenet", ["augment.crop=3"]),
        ("birealnet18-imagenet", ["data.image_size=0"]),
        ("birealnet18-imagenet", ["data.whiten=true"]),
        ("bwn-resnet18-imagenet", ["augment.crop_max=3"]),
        ("bnn-cifar10", ["augment.resized_crop=0.08"]),
        ("bnn-cifar10", ["augment.crop_max=8"]),
        ("bnn-cifar10", ["data.workers=-2"]),
    ],
)
def test_fields_that_do_not_go_together_are_refused(name: str, overrides: list[str]) -> None:
    field = overrides[0].partition("=")[0].rpartition(".")[2]
    with pytest.raises(
        RecipeError, match=rf"{'resized_crop|' if field == 'crop' else ''}{field}|data.stream"
    ):
        load_recipe(name, overrides)


def test_the_second_step_starts_from_the_first_ones_weights(folder: Path, tmp_path: Path) -> None:
    """ReActNet: real weights first, and from them binary ones; every tensor is taken over."""
    small = [o for o in SMALL if "blocks" not in o and "widths" not in o and "epochs" not in o]
    small += ["epochs=1", "model.widths=[8, 16, 16]", "checkpoint_seconds=30"]
    first = train(
        load_recipe("reactnet-a-imagenet-step1", small),
        data_dir=folder,
        run_dir=tmp_path / "step1",
        tensorboard=False,
    )
    second = load_recipe("reactnet-a-imagenet-step2", [*small, f"init={tmp_path / 'step1'}"])
    model = build_model(with_model_options(second, input_shape=[3, 32, 32], classes=CLASSES))
    started = start_from(model, str(tmp_path / "step1"))
    assert (started.missing, started.unused, started.other_shape) == ((), (), {})
    state = first.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    run = train(second, data_dir=folder, run_dir=tmp_path / "step2", tensorboard=False)
    weight = next(m for n, m in run.model.named_modules() if n.endswith("conv3"))
    assert weight.latent_parameters(), "the second step's weights are not binary"
    assert not next(m for n, m in first.model.named_modules() if n.endswith("conv3")).latent_parameters()
