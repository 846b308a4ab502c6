"""The embedded digits, and parquet sets through the `datasets` library."""

from __future__ import annotations

import builtins
import io
import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from onebit import data
from onebit.data import DataError, digits


def test_digits_are_bytes_and_always_the_same_split() -> None:
    splits = data.load("digits", validation=137)
    assert splits.validation is not None
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (1300, 137, 360)
    assert splits.input_shape == (1, 8, 8)
    assert splits.train.images.dtype == torch.uint8
    # 0 … 16 become bytes; 8 is rounded up to 128
    assert sorted(splits.train.images.unique().tolist()) == [(v * 255 + 8) // 16 for v in range(17)]
    assert splits.test.labels.bincount().min() >= 25
    assert splits.test.labels[:12].tolist() == FIRST_TEST_LABELS
    every = torch.cat([splits.train.images, splits.validation.images, splits.test.images]).flatten(1)
    assert len(every.unique(dim=0)) == 1797, "an image stands in two splits"


def test_digits_refuse_what_would_change_them(tmp_path: Path) -> None:
    assert len(data.load("digits", image_size=8, channels=1).test) == 360
    with pytest.raises(DataError, match=r"read from no folder: leave out '.*' \(--data-dir\)"):
        data.load("digits", tmp_path)
    with pytest.raises(DataError, match=r"8×8 pixels, not image_size=16"):
        data.load("digits", image_size=16)
    with pytest.raises(DataError, match=r"channels=3"):
        data.load("digits", channels=3)


FIRST_TEST_LABELS = [2, 8, 2, 6, 6, 7, 1, 9, 8, 5, 2, 8]


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def write_parquet(
    path: Path, images: list[bytes | None], labels: list[Any], *, image: str = "image", label: str = "label"
) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    cells = pa.array(
        [{"bytes": b, "path": None} for b in images], pa.struct({"bytes": pa.binary(), "path": pa.string()})
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({image: cells, label: pa.array(labels)}), path)


@pytest.fixture
def parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as MNIST's: 8 training images of 5×4 pixels of value i, 3 test images of value 100 + i."""
    pytest.importorskip("datasets", reason="needs onebit[data]")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    train = [png(np.full((5, 4), i, dtype=np.uint8)) for i in range(8)]
    test = [png(np.full((5, 4), 100 + i, dtype=np.uint8)) for i in range(3)]
    write_parquet(folder / "train-00000-of-00001.parquet", train, [3, 1, 2, 0, 3, 1, 2, 0])
    write_parquet(folder / "test-00000-of-00001.parquet", test, [0, 1, 3])
    return folder


def test_mnist_from_a_folder_holds_out_the_last_images_as_the_papers_do(parquet: Path) -> None:
    splits = data.load("mnist", parquet, validation=3)
    assert splits.validation is not None
    assert splits.train.images.shape == (5, 1, 5, 4)
    assert splits.train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert splits.validation.images[:, 0, 0, 0].tolist() == [5, 6, 7]
    assert splits.validation.labels.tolist() == [1, 2, 0]
    assert splits.test.images[:, 0, 0, 0].tolist() == [100, 101, 102]
    assert splits.classes == ("0", "1", "2", "3")


def test_a_parquet_folder_of_any_name_finds_its_columns(parquet: Path) -> None:
    for path in parquet.iterdir():
        path.unlink()
    images = [png(np.full((3, 3, 3), i, dtype=np.uint8)) for i in range(10)]
    write_parquet(parquet / "train.parquet", images, [i % 2 for i in range(10)], image="photo", label="kind")
    splits = data.load("mine", parquet, validation=2)
    assert splits.validation is not None
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (6, 2, 2)
    assert splits.input_shape == (3, 3, 3)
    parts = (splits.train, splits.validation, splits.test)
    assert sorted(v for p in parts for v in p.images[:, 0, 0, 0].tolist()) == list(range(10))
    for part in parts:
        assert (part.images[:, 0, 0, 0] % 2).tolist() == part.labels.tolist()


@pytest.mark.parametrize("labels", [["a", "b"], [0.5, 1.5], [[0], [1]]], ids=["text", "floats", "lists"])
def test_a_label_column_of_another_type_is_refused(parquet: Path, labels: list[Any]) -> None:
    image = png(np.zeros((5, 4), dtype=np.uint8))
    for path in parquet.iterdir():
        path.unlink()
    write_parquet(parquet / "train.parquet", [image, image], labels)
    with pytest.raises(DataError, match=r"mnist: the label column 'label' holds .*, no labels"):
        data.load("mnist", parquet)


def test_a_label_that_counts_no_classes_is_refused_at_once(tmp_path: Path) -> None:
    image = png(np.zeros((5, 4), dtype=np.uint8))
    write_parquet(tmp_path / "train.parquet", [image] * 3, [0, 1, 2**62])
    with pytest.raises(DataError, match=r"mine train: a label is 4611686018427387904"):
        data.load("mine", tmp_path)


def test_parquet_errors_name_the_place(parquet: Path) -> None:
    image = png(np.zeros((5, 4), dtype=np.uint8))
    test_file = parquet / "test-00000-of-00001.parquet"
    write_parquet(test_file, [image, b"no image"], [0, 1])
    with pytest.raises(DataError, match="mnist test, row 1 cannot be read as an image"):
        data.load("mnist", parquet)
    write_parquet(test_file, [image, None], [0, 1])
    with pytest.raises(DataError, match="mnist test, row 1: there is no image"):
        data.load("mnist", parquet)
    write_parquet(test_file, [image, image], [0, -1])
    with pytest.raises(DataError, match=r"a label of the test split is -1"):
        data.load("mnist", parquet)
    test_file.write_bytes(b"PAR1 but no more")
    with pytest.raises(DataError, match="cannot read data set 'mnist' from the folder"):
        data.load("mnist", parquet)
    (parquet / "train-00000-of-00001.parquet").unlink()
    with pytest.raises(DataError, match="no parquet file whose name begins with 'train'"):
        data.load("mnist", parquet)


def test_an_unreachable_hub_is_one_error_that_names_data_dir(tmp_path: Path) -> None:
    pytest.importorskip("datasets", reason="needs onebit[data]")
    # A process of its own: the library reads these variables once. Port 9 of this machine answers nobody.
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    code = "from onebit import data\ntry: data.load('mnist')\nexcept data.DataError as e: print(e)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("data set 'mnist': nothing answers at http://127.0.0.1:9")
    assert "--data-dir" in done.stdout
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def refuse_import(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    real = builtins.__import__

    def refuse(module: str, *args: object, **kwargs: object) -> object:
        if module == missing:
            raise ImportError(f"No module named {module!r}")
        return real(module, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_import(monkeypatch, "datasets")
    with pytest.raises(DataError, match=r"onebit\[data\]"):
        data.load("mnist")
    monkeypatch.setattr(digits, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"'digits' needs scikit-learn: pip install 'onebit\[train\]'"):
        data.load("digits")


def test_digits_are_those_of_scikit_learn_with_and_without_importing_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()

    def check() -> None:
        values, labels = digits._read()
        np.testing.assert_array_equal(values, bunch.images)
        np.testing.assert_array_equal(labels, bunch.target)

    with monkeypatch.context() as patched:
        refuse_import(patched, "sklearn.datasets")
        check()
    elsewhere = ModuleSpec("sklearn", None, is_package=True)
    elsewhere.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(digits, "find_spec", lambda name: elsewhere)
    check()  # imported, as the folder has no such file


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "~/no-such-folder"])
def test_a_name_that_is_a_path_is_no_name_on_the_hub(name: str) -> None:
    with pytest.raises(DataError, match=f"the data folder '{name}' does not exist"):
        data.load(name)
