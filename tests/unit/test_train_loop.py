"""Training end to end on the digits, made short: what a run leaves, what it refuses, what it prints."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from onebit import data
from onebit.data import DataError, Split
from onebit.train import (
    CheckpointError,
    TrainError,
    evaluate,
    load_model,
    load_recipe,
    run_recipe,
    train,
)
from onebit.train import checkpoint as checkpoints
from onebit.train.files import write_atomically
from onebit.train.metrics_log import MetricsLog, plot_curves
from onebit.train.progress import Progress

SHORT = ["epochs=3", "model.hidden=[65, 33]"]


def short(*overrides: str) -> Any:
    return load_recipe("bnn-digits", [*SHORT, *overrides])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One finished run that several tests look at."""
    return train(short(), run_dir=tmp_path_factory.mktemp("runs") / "a", threads=1, tensorboard=False)


def test_a_run_leaves_all_it_should(run: Any) -> None:
    names = {path.name for path in run.run_dir.iterdir()}
    assert names == {
        *("recipe.toml", "classes.json", "checkpoint.pt", "metrics.jsonl", "curves.png", "model.pt"),
        "result.json",
    }
    assert (run.run_dir / "curves.png").read_bytes().startswith(b"\x89PNG")
    metrics = [json.loads(line) for line in (run.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [m["epoch"] for m in metrics] == [1, 2, 3]
    assert metrics == list(run.history)
    assert metrics[-1]["train_loss"] < metrics[0]["train_loss"]
    result = json.loads((run.run_dir / "result.json").read_text())
    assert result["test_error"] == run.test_error
    assert result["threads"] == 1


def test_the_best_validation_epoch_is_reported_and_kept(run: Any) -> None:
    accuracies = [record["validation_accuracy"] for record in run.history]
    best = max(accuracies)
    assert run.validation_error == pytest.approx(100 - best)
    assert run.best_epoch == 3 - accuracies[::-1].index(best), "of equal epochs, the later one"
    splits = data.load("digits", validation=137)
    model = load_model(run.run_dir)
    assert not model.training
    assert splits.validation is not None
    assert evaluate(model, splits.validation).error == pytest.approx(run.validation_error)
    assert evaluate(model, splits.test).error == run.test_error
    assert run.test_accuracy > 80  # three epochs of a small net; chance is 10


def test_the_resolved_recipe_names_what_the_data_set_decided(run: Any) -> None:
    recipe = run_recipe(run.run_dir)
    assert recipe.model.options["input_shape"] == [1, 8, 8]
    assert recipe.model.options["classes"] == 10
    assert recipe.threads == 1


def test_the_same_recipe_gives_the_same_bits_and_another_seed_does_not(run: Any, tmp_path: Path) -> None:
    again = train(short(), run_dir=tmp_path / "b", threads=1, tensorboard=False)
    other = train(short("seed=2"), run_dir=tmp_path / "c", threads=1, tensorboard=False)
    for name, tensor in run.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name
    assert not torch.equal(run.model.linear1.weight, other.model.linear1.weight)


def test_latent_weights_stay_inside_the_unit_interval(run: Any, tmp_path: Path) -> None:
    assert run.model.linear2.weight.abs().max() <= 1
    free = train(short("optimizer.clip=false", "epochs=1"), run_dir=tmp_path / "d", tensorboard=False)
    assert free.model.linear2.weight.abs().max() > 1


def test_threads_are_put_back(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    train(short("epochs=1"), run_dir=tmp_path / "e", threads=before + 1, tensorboard=False)
    assert torch.get_num_threads() == before


def test_an_existing_run_is_not_overwritten(run: Any) -> None:
    with pytest.raises(TrainError, match=r"already holds a run: go on with it \(--resume\)"):
        train(short(), run_dir=run.run_dir)


def test_resuming_a_finished_run_gives_its_result_again(run: Any) -> None:
    again = train(short(), run_dir=run.run_dir, resume=True, tensorboard=False)
    assert (again.test_error, again.best_epoch) == (run.test_error, run.best_epoch)
    assert torch.equal(again.model.linear1.weight, run.model.linear1.weight)


def test_resume_refuses_what_would_change_the_outcome(run: Any) -> None:
    with pytest.raises(CheckpointError, match=r"epochs was 3, now 4; optimizer\.lr was 0\.003, now 0\.001"):
        train(short("epochs=4", "optimizer.lr=1e-3"), run_dir=run.run_dir, resume=True)
    assert run_recipe(run.run_dir).threads == 1
    with pytest.raises(CheckpointError, match="threads was 1, now 2"):
        train(short(), run_dir=run.run_dir, resume=True, threads=2)
    path = run.run_dir / "checkpoint.pt"
    kept = path.read_bytes()
    checkpoint = checkpoints.load(path)
    try:
        checkpoints.save(path, dataclasses.replace(checkpoint, data=checkpoint.data ^ 1))
        with pytest.raises(CheckpointError, match="other training samples"):
            train(short(), run_dir=run.run_dir, resume=True)
        for damaged in (b"", kept[: len(kept) // 2], b"not a checkpoint"):
            path.write_bytes(damaged)
            with pytest.raises(CheckpointError, match=r"checkpoint\.pt: damaged"):
                train(short(), run_dir=run.run_dir, resume=True)
    finally:
        path.write_bytes(kept)


def test_a_checkpoint_without_a_checksum_is_resumed_with_a_note(
    run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run.run_dir, folder)
    path = folder / "checkpoint.pt"
    torch.save({**torch.load(path, weights_only=True), "format": 2}, path)
    again = train(short(), run_dir=folder, resume=True, tensorboard=False)
    assert torch.equal(again.model.linear1.weight, run.model.linear1.weight)
    assert "wrote this checkpoint, without a checksum" in "".join(capsys.readouterr())


def test_no_validation_takes_the_last_epoch(tmp_path: Path) -> None:
    result = train(short("data.validation=0", "epochs=2"), run_dir=tmp_path / "f", tensorboard=False)
    assert (result.best_epoch, result.validation_error) == (2, None)
    assert (tmp_path / "f" / "curves.png").exists()


def test_errors_name_the_field_or_the_place(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"batch_size=2000, but digits has 1300 training samples"):
        train(short("batch_size=2000"), run_dir=tmp_path / "g")
    with pytest.raises(TrainError, match=r"cannot make the model 'bnn_mlp'.*hidden"):
        train(short("model.hidden=[0]"), run_dir=tmp_path / "h")
    with pytest.raises(TrainError, match="device 'gpu' cannot be used here"):
        train(short(), run_dir=tmp_path / "i", device="gpu")
    with pytest.raises(TrainError, match="threads=0: give 1 or more"):
        train(short(), run_dir=tmp_path / "l", threads=0)
    with pytest.raises(TrainError, match="the loss became NaN in epoch 1: lower the learning rate"):
        train(short("optimizer.lr=1e30", "optimizer.clip=false"), run_dir=tmp_path / "j", tensorboard=False)
    with pytest.raises(DataError, match="5000 validation images were asked for"):
        train(short("data.validation=5000"), run_dir=tmp_path / "k")
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainError, match="cannot make the run folder"):
        train(short(), run_dir=tmp_path / "file" / "run")
    with pytest.raises(TrainError, match="is no run folder"):
        load_model(tmp_path)
    for name in "ghikl":  # errors before the first step leave no folder behind
        assert not (tmp_path / name).exists()


@pytest.mark.parametrize("content", ["empty", "half", "text", "list", "folder"])
def test_a_damaged_model_is_named(run: Any, tmp_path: Path, content: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run.run_dir, folder)
    path = folder / "model.pt"
    whole = path.read_bytes()
    path.unlink()
    if content == "folder":
        path.mkdir()
    elif content == "list":
        torch.save([1, 2], path)
    else:
        path.write_bytes({"empty": b"", "half": whole[: len(whole) // 2], "text": b"not a model"}[content])
    with pytest.raises(TrainError, match=r"model\.pt: damaged, or no model of onebit"):
        load_model(folder)


def test_a_model_of_another_recipe_is_named(run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run.run_dir, folder)
    torch.save({"other.weight": torch.zeros(3)}, folder / "model.pt")
    with pytest.raises(TrainError, match=r"does not fit its recipe\.toml"):
        load_model(folder)


def test_default_run_folders_are_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = train(short("epochs=1"), tensorboard=False)
    second = train(short("epochs=1"), tensorboard=False)
    assert (first.run_dir, second.run_dir) == (Path("runs/bnn-digits"), Path("runs/bnn-digits-2"))
    assert train(short("epochs=1"), resume=True, tensorboard=False).run_dir == second.run_dir


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full_disk(file: Any) -> None:
        file.write(b"new, but")
        raise OSError(28, "No space left on device")

    with pytest.raises(TrainError, match=r"cannot write .*file.*No space left.*unchanged"):
        write_atomically(path, full_disk)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    write_atomically(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"


def test_evaluate_counts_every_image_and_puts_the_mode_back() -> None:
    class Brightest(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert not self.training
            return x.flatten(1).float()

    images = torch.zeros(7, 1, 1, 3, dtype=torch.uint8)
    images[torch.arange(7), 0, 0, torch.tensor([0, 1, 2, 0, 1, 2, 0])] = 9
    model = Brightest().train()
    split = Split(images, torch.tensor([0, 1, 2, 0, 1, 0, 1]))
    result = evaluate(model, split, batch_size=3, loss="cross_entropy")
    assert (result.correct, result.count) == (5, 7)
    assert result.error == pytest.approx(200 / 7)
    whole = nn.functional.cross_entropy(images.flatten(1).float(), split.labels)
    assert result.loss == pytest.approx(float(whole), rel=1e-6)
    assert model.training


RECORD = {
    "epoch": 2,
    "learning_rate": 1e-3,
    "train_loss": 0.5,
    "train_accuracy": 90.0,
    "validation_loss": None,
    "validation_accuracy": None,
    "seconds": 1.25,
}


def test_plain_lines_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    progress = Progress(total=20, done=10, epochs=4, stream=stream)
    assert not progress.due()
    progress.epoch(15, RECORD)
    progress.note("hello")
    progress.close()
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("epoch 2/4, loss 0.5000, accuracy 90.00 %, 1.2 s, 0:00 left")
    assert lines[1] == "hello"


def test_a_bar_on_a_terminal_shows_loss_accuracy_and_time_left() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    pytest.importorskip("tqdm")
    stream = Terminal()
    progress = Progress(total=20, done=0, epochs=4, stream=stream)
    assert progress.due()
    progress.show(5, 1, 0.25, 87.5)
    assert not progress.due()
    progress.close()
    text = stream.getvalue()
    assert "epoch 1/4" in text
    assert "5/20" in text
    assert "loss 0.2500, accuracy 87.50 %" in text
    assert "<" in text  # tqdm's elapsed<left


def test_records_drop_what_was_written_after_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n{"epo')
    records = MetricsLog(tmp_path, [{"epoch": 1}], print, tensorboard=False)
    records.add({"epoch": 2, "train_loss": 0.5})
    records.close()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"epoch": 1}\n{"epoch": 2, "train_loss": 0.5}\n'


def test_tensorboard_events_hold_every_number(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs onebit[tensorboard]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    records = MetricsLog(tmp_path, [], print, tensorboard=True)
    records.add(RECORD)
    records.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"learning_rate", "train/loss", "train/accuracy", "seconds"}
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(2, 0.5)]


@pytest.mark.parametrize(
    ("package", "words"),
    [("torch.utils.tensorboard", "onebit[tensorboard]"), ("matplotlib.figure", "onebit[train]")],
)
def test_missing_packages_are_one_line_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, words: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    notes: list[str] = []
    MetricsLog(tmp_path, [], notes.append, tensorboard=package.startswith("torch")).close()
    if package.startswith("matplotlib"):
        plot_curves(tmp_path / "curves.png", "title", [RECORD], notes.append)
    assert len(notes) == 1
    assert words in notes[0]
