"""`open_stream`: which images a large data set has, by split, without reading them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from onebit.data.folder import IMAGES, class_parts
from onebit.data.hub import (
    ADVICE,
    KNOWN,
    VALIDATION_NAMES,
    HubSet,
    answers,
    find_columns,
    import_datasets,
    parquet_files,
    quiet,
)
from onebit.data.loading import data_folder, kind_of, unknown_name
from onebit.data.records import FileRecords, ParquetRecords, parquet_schema
from onebit.data.splits import fixed_permutation
from onebit.data.streaming import ImageStream, Part
from onebit.errors import DataError


def open_stream(
    name: str,
    data_dir: str | Path | None = None,
    *,
    validation: int = 0,
    image_size: int,
    channels: int = 3,
) -> ImageStream:
    """A data set of images of any sizes, whose images stay where they are until a batch needs them.

    `name` and `data_dir` are those of `onebit.data.load`: a hub set, read in pieces over the network, or a
    folder of parquet files, or of images (train/CLASS/*, val/CLASS/*). Where a set has no labelled test
    images, as ImageNet has none, its validation split is the test split. `validation` training images are
    held out, unless there is a validation split beside the test split: of files a fixed random choice, of
    parquet whole row groups (and the first rows of another), which is as random as the rows' order is.
    `image_size` pixels a side; `channels` is 3 or 1 (grey).

    Raises `DataError` when the data set cannot be had, naming what to do.
    """
    if image_size < 1:
        raise DataError(
            f"the data set {name!r} is streamed: give the size of its images (data.image_size=224)"
        )
    folder = data_folder(name, data_dir)
    if folder is not None and kind_of(folder) != ".parquet":
        classes, parts = _files(folder)
    else:
        source = KNOWN.get(name) or HubSet(name)
        if folder is None and "/" not in source.path:
            raise DataError(unknown_name(name))
        urls, features = _hub_files(name, source) if folder is None else (parquet_files(folder), None)
        classes, parts = _tables(name, source, urls, features)
    train, test = parts["train"], parts.get("test")
    if test is None:
        train, test = split_off(name, train, max(1, len(train) // 5))
    held = parts.get("validation")
    if held is None and validation > 0:
        train, held = split_off(name, train, validation)
    for what, part in (("train", train), ("validation", held), ("test", test)):
        if part is not None and len(part) == 0:
            raise DataError(f"{name}: the {what} split has no images")
    return ImageStream(name, classes, train, held, test, image_size, channels)


def split_off(name: str, part: Part, count: int) -> tuple[Part, Part]:
    """Part into all but `count` images, and these: those of the first chunks in a fixed random order."""
    if not 0 < count < len(part):
        raise DataError(
            f"{name}: {count} validation images were asked for, of {len(part)} training images; ask for 0 to"
            f" {len(part) - 1} (data.validation)"
        )
    order = fixed_permutation(len(part.chunks))
    sizes = part.chunks[order, 2] - part.chunks[order, 1]
    whole = int(np.searchsorted(np.cumsum(sizes), count, side="right"))
    held, kept = part.chunks[np.sort(order[:whole])], part.chunks[np.sort(order[whole:])]
    rest = count - int(sizes[:whole].sum())
    if rest:
        group, start, stop = part.chunks[order[whole]].tolist()
        kept = kept[kept[:, 0] != group]
        held = np.vstack([held, [[group, start, start + rest]]])
        kept = np.vstack([kept, [[group, start + rest, stop]]])
    return Part(part.records, kept), Part(part.records, held)


def _whole(records: FileRecords | ParquetRecords) -> Part:
    """Every image of the records."""
    groups = np.arange(len(records.sizes), dtype=np.int64)
    return Part(records, np.stack([groups, np.zeros_like(groups), records.sizes], axis=1))


def _files(folder: Path) -> tuple[tuple[str, ...], dict[str, Part]]:
    classes, found = class_parts(folder, IMAGES, test_is_validation=True)
    parts = {what: _whole(FileRecords(folder, paths, labels)) for what, (paths, labels) in found.items()}
    return classes, parts


def _tables(
    name: str, source: HubSet, urls: dict[str, list[str]], features: Any
) -> tuple[tuple[str, ...], dict[str, Part]]:
    """Parquet files by split → classes and parts; test images without labels are left out.

    `features` are the columns' types, if they are known; else the first file's schema tells them.
    """
    if not features:
        features = import_datasets().Features.from_arrow_schema(parquet_schema(urls["train"][0]))
    columns = find_columns(name, source, features)
    validation = next((v for v in VALIDATION_NAMES if v in urls), None)
    named = {"train": "train", "test": "test"} | ({validation: "validation"} if validation else {})
    found = {ours: ParquetRecords(urls[theirs], columns) for theirs, ours in named.items() if theirs in urls}
    if "test" in found and "validation" in found and not _is_labelled(found["test"]):
        del found["test"]
    if "test" not in found and "validation" in found:
        found["test"] = found.pop("validation")
    classes = _classes(name, features[columns[1]], found["train"], urls["train"][0])
    return classes, {what: _whole(records) for what, records in found.items()}


def _is_labelled(records: ParquetRecords) -> bool:
    labels = records.labels(0) if len(records.sizes) else []
    return bool(labels) and all(label is not None and label >= 0 for label in labels)


def _classes(name: str, feature: Any, train: ParquetRecords, url: str) -> tuple[str, ...]:
    """The names that the label column brings, or the numbers from 0 to the largest label."""
    if given := getattr(feature, "names", None):
        return tuple(given)
    if "://" in url:
        raise DataError(
            f"{name}: its label column does not name the classes, and reading all labels over the network"
            " would take hours; download the data set and give its folder: --data-dir FOLDER"
        )
    labels = [label for group in range(len(train.sizes)) for label in train.labels(group)]
    return tuple(map(str, range(1 + max((label for label in labels if label is not None), default=0))))


def _hub_files(name: str, source: HubSet) -> tuple[dict[str, list[str]], Any]:
    """The URLs of a hub set's parquet files, by split, and the columns' types, if its page tells them."""
    datasets = import_datasets()
    import huggingface_hub

    endpoint = huggingface_hub.constants.ENDPOINT
    if not answers(endpoint):
        raise DataError(f"data set {name!r}: nothing answers at {endpoint}; {ADVICE}")
    try:
        with quiet(datasets):
            builder = datasets.load_dataset_builder(source.path, source.config)
            files = {str(split): list(urls) for split, urls in (builder.config.data_files or {}).items()}
    except Exception as error:  # of many types, as in hub.py
        lines = str(error).splitlines() or ["no message"]
        cause = f"{type(error).__name__}: {lines[0]}"
        raise DataError(
            f"cannot open data set {name!r} on the hub ({source.path}); {ADVICE} ({cause})"
        ) from error
    others = [url for urls in files.values() for url in urls if not url.endswith(".parquet")]
    if "train" not in files or others:
        what = f"holds {others[0].rpartition('/')[2]!r}" if others else "has no train split"
        raise DataError(f"{name}: only parquet can be streamed, and {source.path} {what}; {ADVICE}")
    return files, builder.info.features
