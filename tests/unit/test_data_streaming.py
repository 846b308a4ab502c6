"""Streams: every image once an epoch, the same bytes after a resume, and what becomes of an image."""

from __future__ import annotations

import io
import pickle
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from onebit import data
from onebit.data import DataError, open_stream
from onebit.data.crops import Crops
from onebit.data.order import LANES, EpochOrder
from onebit.data.streaming import TrainingStream, in_order, worker_count

pytest.importorskip("datasets", reason="needs onebit[data]")

SIZE = 16
Batches = list[tuple[torch.Tensor, torch.Tensor]]


def encoded(value: int, *, side: int = 20, kind: str = "png") -> bytes:
    """An image of one grey value, by which a batch tells what it holds."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((side, side + 3, 3), value, dtype=np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def write_table(path: Path, cells: list[bytes | None], labels: list[Any], *, rows: int = 5) -> None:
    """A parquet file in row groups of `rows`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = pa.array(
        [{"bytes": cell, "path": None} for cell in cells],
        pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.table({"image": images, "label": pa.array(labels, pa.int64())}), path, row_group_size=rows
    )


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """72 training images of value i and label i mod 3 in two files, 9 of 100 + i to validate, 4 more."""
    folder = tmp_path_factory.mktemp("parquet")
    for name, values in (
        ("train-0", range(37)),
        ("train-1", range(37, 72)),
        ("validation-0", range(100, 109)),
    ):
        write_table(folder / f"{name}.parquet", [encoded(v) for v in values], [v % 3 for v in values])
    write_table(folder / "test-0.parquet", [encoded(v) for v in range(200, 204)], [-1] * 4)
    return folder


def streamed(folder: Path, batch_size: int = 6, **options: Any) -> TrainingStream:
    validation = options.pop("validation", 0)
    crops = options.pop("crops", Crops(SIZE, resized=0.5, flip=True))
    stream = open_stream("mine", folder, image_size=SIZE, validation=validation)
    return TrainingStream(stream, batch_size, crops=crops, **options)


def values(batches: Batches) -> list[int]:
    """What the images of `encoded` are, in order."""
    return [int(image[0, 0, 0]) for images, _ in batches for image in images]


def assert_equal(first: Batches, second: Batches) -> None:
    assert len(first) == len(second) > 0
    for (images, labels), (others, other_labels) in zip(first, second, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, other_labels)


CHUNKS = np.array([[g, g % 2, 4 + g % 7] for g in range(60)], dtype=np.int64)  # of 3 to 10 rows


class TestOrder:
    @pytest.mark.parametrize(("ranks", "share", "spread"), [(1, 7, 30), (2, 3, 0), (3, 2, 1000)])
    def test_every_image_is_there_at_most_once_and_all_but_a_rest_are(
        self, ranks: int, share: int, spread: int
    ) -> None:
        count = int((CHUNKS[:, 2] - CHUNKS[:, 1]).sum())
        steps = count // (ranks * share)
        seen = []
        for rank in range(ranks):
            order = EpochOrder(
                CHUNKS, seed=5, epoch=2, steps=steps, share=share, rank=rank, ranks=ranks, spread=spread
            )
            for step in range(steps):
                piece = order.piece(step)
                assert len(piece.chunks) == share
                seen += [(int(c), int(r)) for c, r in zip(piece.chunks, piece.rows, strict=True)]
        assert len(set(seen)) == len(seen) == steps * ranks * share > count - ranks * share
        assert all(CHUNKS[chunk, 1] <= row < CHUNKS[chunk, 2] for chunk, row in seen)

    def test_what_a_lane_has_behind_it_never_comes_again(self) -> None:
        order = EpochOrder(CHUNKS, seed=1, epoch=0, steps=100, share=3, spread=12)
        last = {}
        for step in range(100):
            piece = order.piece(step)
            assert piece.lane == step % LANES
            assert int(piece.slots.min()) >= piece.behind
            # Nothing beyond what the spread allows is read in advance: 3 + 12 images, of groups of 3 or more.
            assert int(piece.slots.max()) - piece.behind <= (12 + 3 + 12) / 3 + 2
            last[piece.lane] = piece.behind
        assert len(set(last.values())) == LANES, "the lanes do not move on"

    def test_seed_and_epoch_decide(self) -> None:
        def rows(seed: int, epoch: int) -> list[int]:
            order = EpochOrder(CHUNKS, seed=seed, epoch=epoch, steps=20, share=5)
            return [
                int(r) for step in range(20) for r in order.piece(step).chunks * 100 + order.piece(step).rows
            ]

        assert rows(1, 0) == rows(1, 0)
        assert len({tuple(rows(1, 0)), tuple(rows(1, 1)), tuple(rows(2, 0)), tuple(rows(2**40, 0))}) == 4
        assert rows(1, 0) != sorted(rows(1, 0))


class TestBatches:
    def test_an_epoch_has_every_image_once_with_its_label(self, parquet: Path) -> None:
        batches = streamed(parquet)
        assert (batches.steps, batches.samples) == (12, 72)
        first, second = list(batches.iterate()), list(batches.iterate())
        assert sorted(values(first)) == sorted(values(second)) == list(range(72))
        assert values(first) != values(second)
        images, labels = first[0]
        assert (images.shape, images.dtype, labels.dtype) == ((6, 3, SIZE, SIZE), torch.uint8, torch.int64)
        assert [v % 3 for v in values(first)] == torch.cat([labels for _, labels in first]).tolist()

    @pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
    @pytest.mark.parametrize("workers", [1, 2, 3])
    def test_the_number_of_workers_changes_nothing(self, parquet: Path, workers: int) -> None:
        assert_equal(list(streamed(parquet).iterate()), list(streamed(parquet, workers=workers).iterate()))

    @pytest.mark.parametrize("workers", [0, 2])
    def test_an_epoch_can_be_taken_up_in_the_middle(self, parquet: Path, workers: int) -> None:
        whole = streamed(parquet, seed=3)
        list(whole.iterate())
        iterator = whole.iterate()
        before = [next(iterator) for _ in range(5)]
        state = whole.state_dict()
        rest = [*iterator, *whole.iterate()]
        other = streamed(parquet, seed=3, workers=workers)
        other.load_state_dict(state)
        assert_equal(rest, [*other.iterate(5), *other.iterate()])
        assert sorted(values(before + rest[:7])) == list(range(72))

    def test_the_ranks_share_an_epoch(self, parquet: Path) -> None:
        parts = [streamed(parquet, 10, rank=rank, ranks=2) for rank in range(2)]
        assert [part.steps for part in parts] == [7, 7]
        batches = [list(part.iterate()) for part in parts]
        assert all(len(labels) == 5 for part in batches for _, labels in part)
        seen = Counter(values(batches[0]) + values(batches[1]))
        assert sum(seen.values()) == 70
        assert max(seen.values()) == 1

    def test_each_group_is_read_once_and_a_resume_skips_what_was_seen(
        self, parquet: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        batches = streamed(parquet, 3, spread=4)
        records = batches._stream.train.records
        reads: Counter[int] = Counter()
        read = type(records).read

        def counted(self: Any, group: int) -> Any:
            reads[group] += 1
            return read(self, group)

        monkeypatch.setattr(type(records), "read", counted)
        list(batches.iterate())
        # 15 groups; those where the span of one of 8 lanes ends and another begins are read for both.
        assert set(reads) == set(range(15))
        assert sum(reads.values()) <= 15 + LANES - 1
        reads.clear()
        list(batches.iterate(20))
        assert 0 < sum(reads.values()) <= LANES

    def test_starting_to_load_draws_nothing(self, parquet: Path) -> None:
        state = torch.get_rng_state()
        batches = streamed(parquet, workers=1)
        next(batches.iterate())
        next(batches.plain(1))
        assert torch.equal(torch.get_rng_state(), state)

    def test_another_process_may_get_it_by_pickling(self, parquet: Path) -> None:
        """As it does where processes are not forked."""
        batches = streamed(parquet)
        first = list(batches.iterate())  # files are open now
        copy = pickle.loads(pickle.dumps(batches))
        second = list(copy.iterate())
        assert_equal(second, list(batches.iterate()))
        assert values(first) != values(second)

    def test_plain_batches_are_always_the_same_and_whole_on_every_rank(self, parquet: Path) -> None:
        first = list(streamed(parquet, 10, seed=1).plain(2))
        other = streamed(parquet, 10, seed=2, rank=1, ranks=2)
        list(other.iterate())
        second = list(other.plain(2))
        assert [len(batch) for batch in first] == [10, 10]
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        assert len(list(streamed(parquet, 10).plain(50))) == 7

    def test_in_order_gives_each_rank_its_share(self, parquet: Path) -> None:
        stream = open_stream("mine", parquet, image_size=SIZE)
        parts = [list(in_order(stream, stream.test, rank=r, ranks=2, size=3, workers=r)) for r in range(2)]
        assert [values(part) for part in parts] == [list(range(100, 104)), list(range(104, 109))]
        assert torch.cat([labels for part in parts for _, labels in part]).tolist() == [
            v % 3 for v in range(100, 109)
        ]

    def test_worker_counts_divide_the_lanes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(22)), raising=False)
        assert [worker_count(n) for n in (1, 2, 3, 5, 8, 40)] == [8, 8, 4, 4, 2, 1]


class TestSplits:
    def test_validation_images_are_the_test_where_test_images_have_no_labels(self, parquet: Path) -> None:
        stream = open_stream("mine", parquet, image_size=SIZE)
        assert (len(stream.train), stream.validation, len(stream.test)) == (72, None, 9)
        assert stream.classes == ("0", "1", "2")
        assert stream.input_shape == (3, SIZE, SIZE)

    def test_with_labelled_test_images_both_are_what_they_are_called(
        self, parquet: Path, tmp_path: Path
    ) -> None:
        for path in parquet.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        write_table(tmp_path / "test-0.parquet", [encoded(v) for v in range(200, 204)], [0, 1, 2, 0])
        stream = open_stream("mine", tmp_path, image_size=SIZE, validation=5)
        assert stream.validation is not None
        assert values(list(in_order(stream, stream.validation))) == list(range(100, 109))
        assert values(list(in_order(stream, stream.test))) == list(range(200, 204))

    @pytest.mark.parametrize("count", [1, 5, 13, 71])
    def test_held_out_images_are_not_trained_on(self, parquet: Path, count: int) -> None:
        stream = open_stream("mine", parquet, image_size=SIZE, validation=count)
        assert stream.validation is not None
        held = values(list(in_order(stream, stream.validation)))
        kept = values(list(in_order(stream, stream.train)))
        assert len(held) == count
        assert sorted(held + kept) == list(range(72))
        again = open_stream("mine", parquet, image_size=SIZE, validation=count).validation
        assert again is not None
        assert np.array_equal(again.chunks, stream.validation.chunks)

    def test_too_many_validation_images(self, parquet: Path) -> None:
        with pytest.raises(DataError, match=r"72 validation images were asked for, of 72 .*0 to 71"):
            open_stream("mine", parquet, image_size=SIZE, validation=72)

    def test_image_folders(self, tmp_path: Path) -> None:
        for part, count in (("train", 6), ("val", 2)):
            for label, name in enumerate(("n01", "n02")):
                for i in range(count):
                    path = tmp_path / part / name / f"{name}_{i}.JPEG"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(encoded(20 * i + 10 * label, kind="jpeg"))
        (tmp_path / "test").mkdir()  # without labels, as ImageNet's
        (tmp_path / "test" / "1.JPEG").write_bytes(encoded(0, kind="jpeg"))
        stream = open_stream("imagenet", tmp_path, image_size=SIZE)
        assert (stream.classes, len(stream.train), len(stream.test)) == (("n01", "n02"), 12, 4)
        batches = TrainingStream(stream, 4, crops=Crops(SIZE))
        epoch = list(batches.iterate())
        assert sorted(values(epoch)) == sorted(20 * i + 10 * label for i in range(6) for label in (0, 1))
        labels = torch.cat([labels for _, labels in epoch])
        assert [v // 10 % 2 for v in values(epoch)] == labels.tolist()
        assert torch.cat([labels for _, labels in in_order(stream, stream.test)]).tolist() == [0, 0, 1, 1]

    def test_a_val_folder_without_class_folders_is_refused(self, tmp_path: Path) -> None:
        for name in ("n01", "n02"):
            (tmp_path / "train" / name).mkdir(parents=True)
            (tmp_path / "train" / name / "1.JPEG").write_bytes(encoded(1, kind="jpeg"))
        (tmp_path / "val").mkdir()
        (tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG").write_bytes(encoded(1, kind="jpeg"))
        with pytest.raises(DataError, match=r"val: its images lie in no class folders.*n01440764"):
            open_stream("imagenet", tmp_path, image_size=SIZE)


def builder(files: dict[str, list[str]], features: Any = None) -> Any:
    """What `datasets.load_dataset_builder` gives, as far as it is asked."""
    return SimpleNamespace(config=SimpleNamespace(data_files=files), info=SimpleNamespace(features=features))


class TestHub:
    def test_files_are_read_in_place_over_fsspec(
        self, parquet: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import datasets

        files = {
            split: [f"file://{path}" for path in sorted(parquet.glob(f"{split}-*"))]
            for split in ("train", "validation", "test")
        }
        names = datasets.ClassLabel(names=["a", "b", "c"])
        features = datasets.Features({"image": datasets.Image(), "label": names})
        monkeypatch.setattr("onebit.data.stream_sets.answers", lambda endpoint: True)
        monkeypatch.setattr(datasets, "load_dataset_builder", lambda path, config: builder(files))
        with pytest.raises(DataError, match=r"does not name the classes.*--data-dir"):
            open_stream("someone/set", image_size=SIZE)
        monkeypatch.setattr(datasets, "load_dataset_builder", lambda path, config: builder(files, features))
        stream = open_stream("someone/set", image_size=SIZE)
        assert stream.classes == ("a", "b", "c")
        remote = TrainingStream(stream, 6, crops=Crops(SIZE, resized=0.5, flip=True), workers=1)
        assert_equal(list(streamed(parquet).iterate()), list(remote.iterate()))

    def test_a_failure_of_the_network_is_tried_again(
        self, parquet: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from onebit.data import records

        opened = records.ParquetRecords([f"file://{parquet}/train-0.parquet"], ("image", "label"))
        whole, waits = records._parquet_file, []
        failures = iter([OSError("reset"), OSError("reset again")])

        def flaky(url: str, footer: Any) -> Any:
            for failure in failures:
                raise failure
            return whole(url, footer)

        monkeypatch.setattr(records, "_parquet_file", flaky)
        monkeypatch.setattr(records.time, "sleep", waits.append)
        assert len(opened.read(0)) == 5
        assert waits == [1, 2]
        opened._files.clear()
        failures = iter([OSError("gone")] * 9)
        with pytest.raises(DataError, match=r"cannot read file://.*train-0.parquet: gone"):
            opened.read(0)

    def test_an_unreachable_hub_is_one_error_that_names_the_option(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
        with pytest.raises(DataError, match=r"'imagenet': nothing answers at http://127.*--data-dir FOLDER"):
            open_stream("imagenet", image_size=SIZE)

    def test_a_set_that_is_no_parquet(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import datasets

        files = {"train": ["hf://datasets/a/b/train.tar.gz"]}
        monkeypatch.setattr("onebit.data.stream_sets.answers", lambda endpoint: True)
        monkeypatch.setattr(datasets, "load_dataset_builder", lambda path, config: builder(files))
        with pytest.raises(DataError, match=r"only parquet can be streamed.*'train.tar.gz'.*--data-dir"):
            open_stream("a/b", image_size=SIZE)


class TestMistakes:
    def test_names_and_sizes(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"no data set 'imagnet': did you mean 'imagenet'\?"):
            open_stream("imagnet", image_size=SIZE)
        with pytest.raises(DataError, match=r"data.image_size=224"):
            open_stream("imagenet", tmp_path, image_size=0)
        with pytest.raises(DataError, match=r"'imagenet' is too large to be loaded whole.*data.stream"):
            data.load("imagenet", tmp_path)

    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.parametrize(
        ("cell", "label", "words"),
        [
            (b"no image at all", 0, r"train-0.parquet, row 7 cannot be read as an image: .+"),
            (encoded(3, kind="jpeg")[:300], 0, r"train-0.parquet, row 7 cannot be read as an image: .+"),
            (None, 0, r"train-0.parquet, row 7: there is no image"),
            (encoded(3), None, r"train-0.parquet, row 7: there is no label"),
            (encoded(3), -2, r"train-0.parquet, row 7: the label is -2, outside 0 … 2"),
        ],
        ids=["bytes", "cut", "none", "no-label", "negative"],
    )
    def test_a_bad_row_is_named(
        self, tmp_path: Path, cell: bytes | None, label: int | None, words: str, workers: int
    ) -> None:
        cells: list[bytes | None] = [encoded(v) for v in range(12)]
        labels: list[int | None] = [v % 3 for v in range(12)]
        cells[7], labels[7] = cell, label
        write_table(tmp_path / "train-0.parquet", cells, labels)
        write_table(tmp_path / "test-0.parquet", [encoded(v) for v in range(3)], [0, 1, 2])
        with pytest.raises(DataError, match=words) as caught:
            list(streamed(tmp_path, 4, workers=workers).iterate())
        assert "\n" not in str(caught.value)

    def test_a_bad_file_is_named(self, tmp_path: Path) -> None:
        for part in ("train", "val"):
            for name in ("a", "b"):
                (tmp_path / part / name).mkdir(parents=True)
                (tmp_path / part / name / "good.jpg").write_bytes(encoded(1, kind="jpeg"))
        (tmp_path / "train" / "b" / "bad.jpg").write_bytes(b"")
        with pytest.raises(DataError, match=r"train/b/bad.jpg cannot be read as an image: \w+") as caught:
            list(streamed(tmp_path, 3).iterate())
        assert str(caught.value).count("bad.jpg") == 1

    def test_a_damaged_parquet_file_is_named(self, parquet: Path, tmp_path: Path) -> None:
        (tmp_path / "train-0.parquet").write_bytes((parquet / "train-0.parquet").read_bytes()[:500])
        with pytest.raises(DataError, match=r"cannot read .*train-0.parquet as a parquet file: \w+"):
            open_stream("mine", tmp_path, image_size=SIZE)


def test_svhn_trains_on_its_extra_images_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "svhn"
    for split, numbers in (("train", range(5)), ("extra", range(50, 57)), ("test", range(100, 102))):
        write_table(folder / f"{split}-0.parquet", [encoded(v) for v in numbers], [v % 2 for v in numbers])
    plain, extra = data.load("svhn", folder), data.load("svhn", folder, extra=True)
    assert plain.train.images[:, 0, 0, 0].tolist() == list(range(5))
    assert extra.train.images[:, 0, 0, 0].tolist() == [*range(5), *range(50, 57)]
    assert extra.train.labels.tolist() == [v % 2 for v in [*range(5), *range(50, 57)]]
    assert len(extra.test) == len(plain.test) == 2
    held = data.load("svhn", folder, extra=True, validation=4)
    assert held.validation is not None
    assert (len(held.train), len(held.validation)) == (8, 4)
    with pytest.raises(DataError, match=r"'mnist' has no split 'extra'"):
        data.load("mnist", folder, extra=True)
    (folder / "extra-0.parquet").unlink()
    with pytest.raises(DataError, match=r"svhn has no extra split, only test, train"):
        data.load("svhn", folder, extra=True)
