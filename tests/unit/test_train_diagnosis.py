"""Figures of the binary layers in a run's metrics and plot, the same whether it was interrupted or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
from onebit.train import TrainError, load_recipe, train
from onebit.train.diagnosis import MEASURES, PLOT_NAME
from onebit.train.loop import _Run


def _recipe(*more: str) -> Any:
    fields = ["epochs=3", "diagnose=true", "model.hidden=[33, 17]", "checkpoint_seconds=0", *more]
    return load_recipe("bnn-digits", fields)


def _layers(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["layers"] for line in lines]


def test_each_epoch_records_every_layer(tmp_path: Path) -> None:
    train(_recipe(), run_dir=tmp_path, threads=1)
    epochs = _layers(tmp_path)
    assert len(epochs) == 3
    for layers in epochs:
        assert list(layers) == ["linear1", "linear2", "linear3"]
        assert set(layers["linear1"]) == {"saturation", "weight_entropy", "flip_ratio"}  # its input is real
        assert set(layers["linear2"]) == set(MEASURES) - {"unique_filters"}
        assert all(0 <= value <= 1 for layer in layers.values() for value in layer.values())
    assert epochs[0]["linear1"]["flip_ratio"] > 0
    picture = (tmp_path / PLOT_NAME).read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert any((tmp_path / "tensorboard").iterdir())


def test_an_interrupted_run_counts_the_same_flips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(_recipe(), run_dir=tmp_path / "whole", threads=1, tensorboard=False)
    write, saved = _Run._write_checkpoint, 0

    def stop(run: Any, ranks: Any) -> None:
        nonlocal saved
        write(run, ranks)
        saved += 1
        if saved == 40:  # in the middle of the second or third epoch
            raise KeyboardInterrupt

    monkeypatch.setattr(_Run, "_write_checkpoint", stop)
    with pytest.raises(KeyboardInterrupt):
        train(_recipe(), run_dir=tmp_path / "parts", threads=1, tensorboard=False)
    monkeypatch.undo()
    assert 1 <= len(_layers(tmp_path / "parts")) < 3
    train(_recipe(), run_dir=tmp_path / "parts", threads=1, tensorboard=False, resume=True)
    assert _layers(tmp_path / "parts") == _layers(tmp_path / "whole")


def test_a_model_without_binary_layers_is_refused(tmp_path: Path) -> None:
    recipe = _recipe(
        'model={name="binaryconnect_convnet_cifar10", form="float", widths=[8], hidden=[]}',
    )
    with pytest.raises(
        TrainError, match="diagnose = true: BinaryConnectConvNet has no layer with one-bit weights"
    ):
        train(recipe, run_dir=tmp_path, threads=1, tensorboard=False)
