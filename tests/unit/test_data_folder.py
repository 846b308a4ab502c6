"""Image folders and their errors; images are made here, so that every pixel is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from onebit import data
from onebit.data import DataError


def write_image(path: Path, pixels: np.ndarray, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path)


def grey(seed: int, height: int = 6, width: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """train/ with classes b (7 images) and a (3), test/ with one of each."""
    for part, counts in (("train", {"b": 7, "a": 3}), ("test", {"b": 1, "a": 1})):
        for name, count in counts.items():
            for i in range(count):
                write_image(
                    tmp_path / part / name / f"{i}.png",
                    grey(100 * ord(name) + i + (50 if part == "test" else 0)),
                )
    return tmp_path


def test_train_and_test_folders_keep_pixels_and_labels(folder: Path) -> None:
    splits = data.load(str(folder))
    assert splits.classes == ("a", "b")
    assert splits.input_shape == (1, 6, 5)
    assert splits.validation is None
    assert splits.train.images.dtype == torch.uint8
    assert splits.train.labels.dtype == torch.int64
    assert splits.train.labels.tolist() == [0, 0, 0] + [1] * 7
    expected = np.stack(
        [grey(100 * ord("a") + i) for i in range(3)] + [grey(100 * ord("b") + i) for i in range(7)]
    )
    assert np.array_equal(splits.train.images[:, 0].numpy(), expected)
    assert np.array_equal(splits.test.images[:, 0].numpy(), np.stack([grey(9750), grey(9850)]))


def test_data_dir_is_the_same_as_the_folder_as_name(folder: Path) -> None:
    by_name, by_dir = data.load(str(folder)), data.load("mine", folder)
    assert by_dir.name == "mine"
    assert torch.equal(by_name.train.images, by_dir.train.images)
    assert torch.equal(by_name.test.images, by_dir.test.images)


def test_validation_is_held_out_of_train_and_mixes_classes(folder: Path) -> None:
    whole = data.load(str(folder)).train.images
    splits = data.load(str(folder), validation=4)
    assert splits.validation is not None
    assert (len(splits.train), len(splits.validation)) == (6, 4)
    assert set(splits.train.labels.tolist()) == {0, 1}
    together = torch.cat([splits.train.images, splits.validation.images])
    assert sorted(map(bytes, together.numpy())) == sorted(map(bytes, whole.numpy()))


def test_own_validation_folder_is_used(folder: Path) -> None:
    write_image(folder / "val" / "b" / "x.png", grey(7))
    splits = data.load(str(folder), validation=4)
    assert splits.validation is not None
    assert splits.validation.labels.tolist() == [1]
    assert len(splits.train) == 10


def test_without_train_and_test_a_fixed_fifth_of_each_class_is_for_testing(tmp_path: Path) -> None:
    for name, count in (("cat", 10), ("dog", 5)):
        for i in range(count):
            write_image(tmp_path / name / f"{i}.png", grey(1000 * len(name) + ord(name[0]) + 31 * i))
    first, second = data.load(str(tmp_path)), data.load(str(tmp_path))
    assert first.test.labels.tolist() == [0, 0, 1]
    assert len(first.train) == 12
    assert torch.equal(first.test.images, second.test.images)
    seen = {bytes(i) for i in first.train.images.numpy()}
    assert not seen & {bytes(i) for i in first.test.images.numpy()}


def test_one_coloured_image_makes_all_coloured(folder: Path) -> None:
    colour = np.random.default_rng(3).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    write_image(folder / "test" / "a" / "z.png", colour)
    splits = data.load(str(folder))
    assert splits.input_shape == (3, 6, 5)
    assert torch.equal(splits.train.images[:, 0], splits.train.images[:, 2])
    assert np.array_equal(splits.test.images[1].numpy(), colour.transpose(2, 0, 1))
    assert data.load(str(folder), channels=1).input_shape == (1, 6, 5)


@pytest.mark.parametrize("mode", ["1", "P", "RGBA", "LA"])
def test_other_modes_are_brought_to_bytes(tmp_path: Path, mode: str) -> None:
    pixels = np.where(grey(5) > 127, 255, 0).astype(np.uint8)
    for part in ("train", "test"):
        for name in ("x", "y"):
            write_image(tmp_path / part / name / "0.png", pixels, mode)
    images = data.load(str(tmp_path)).train.images
    assert images.shape[1] == (1 if mode in ("1", "LA") else 3)
    assert np.array_equal(images[0, 0].numpy(), pixels)


def test_sixteen_bit_grey_keeps_its_high_byte(tmp_path: Path) -> None:
    high = grey(11).astype(np.uint16)
    for name in ("x", "y"):
        for i in range(2):
            write_image(tmp_path / name / f"{i}.png", high << 8 | 0x7F)
    images = data.load(str(tmp_path)).train.images
    assert np.array_equal(images[0, 0].numpy(), high.astype(np.uint8))


def test_sizes_that_differ_are_refused_and_image_size_resolves_it(folder: Path) -> None:
    write_image(folder / "train" / "b" / "wide.png", np.full((6, 30), 200, dtype=np.uint8))
    with pytest.raises(DataError, match=r"wide\.png is 6×30.*image_size="):
        data.load(str(folder))
    splits = data.load(str(folder), image_size=4)
    assert splits.input_shape == (1, 4, 4)
    assert splits.train.images[-1].unique().tolist() == [200]
    assert data.load(str(folder), image_size=(3, 9)).input_shape == (1, 3, 9)


def one_class(folder: Path) -> None:
    for path in (folder / "train" / "a").iterdir():
        path.unlink()
    (folder / "train" / "a").rmdir()


def empty_class(folder: Path) -> None:
    for path in (folder / "train" / "a").iterdir():
        path.unlink()


def broken_image(folder: Path) -> None:
    (folder / "train" / "a" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n then nothing")


def truncated_image(folder: Path) -> None:
    whole = (folder / "train" / "a" / "1.png").read_bytes()
    (folder / "train" / "a" / "1.png").write_bytes(whole[: len(whole) - 30])


def strange_test_class(folder: Path) -> None:
    write_image(folder / "test" / "c" / "0.png", grey(1))


def splits_of_other_names(folder: Path) -> None:
    (folder / "train").rename(folder / "training")
    (folder / "test").rename(folder / "Testing")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (one_class, "two class folders or more must be there, found only 'b'"),
        (empty_class, r"a: no image in this class folder"),
        (broken_image, r"a/1\.png cannot be read as an image"),
        (truncated_image, r"a/1\.png cannot be read as an image"),
        (strange_test_class, "'c' is no class"),
        (splits_of_other_names, "'Testing', 'training' are names of splits, not of classes"),
    ],
)
def test_a_bad_folder_gets_one_clear_error(folder: Path, spoil, message: str) -> None:
    spoil(folder)
    with pytest.raises(DataError, match=message):
        data.load(str(folder))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": -1}, "validation=-1"),
        ({"validation": 10}, "10 validation images were asked for, of 10 training images"),
        ({"channels": 2}, "channels=2"),
        ({"image_size": 0}, "image_size=0"),
        ({"image_size": (4, 1 << 20)}, "image_size="),
    ],
)
def test_bad_options_are_named(folder: Path, options: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        data.load(str(folder), **options)


def test_missing_folder_file_and_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'/no/such/place' does not exist"):
        data.load("mnist", "/no/such/place")
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is a file, not a folder"):
        data.load("mnist", tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is empty"):
        data.load("mnist", tmp_path / "empty")


def test_a_misspelt_name_gets_a_suggestion() -> None:
    with pytest.raises(DataError, match=r"'mnsit': did you mean 'mnist'\?.*--data-dir"):
        data.load("mnsit")
