"""Data sets in parquet, from the Hugging Face hub or a local folder, through the `datasets` library."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onebit.data.decode import Size, decode_images
from onebit.data.splits import ArraySplit, ArraySplits, fixed_permutation, make_splits
from onebit.errors import DataError
from onebit.user_files import check_regular

_PROBE_SECONDS = 5.0
ADVICE = "download the data set where the hub can be reached and give its folder: --data-dir FOLDER"
_MAX_CLASSES = 1 << 20  # of a set that does not name its classes: beyond, the column holds something else
VALIDATION_NAMES = ("validation", "valid", "val", "dev")


@dataclass(frozen=True)
class HubSet:
    """Where a data set lives and how its columns are called; `None` columns are found by their types."""

    path: str
    config: str | None = None
    image: str | None = None
    label: str | None = None
    paper_order: bool = False  # validation = the last training images, as the papers take them
    extra: bool = False  # there is a split "extra" of further training images
    streamed: bool = False  # too large to be loaded whole


KNOWN = {
    "mnist": HubSet("ylecun/mnist", None, "image", "label", paper_order=True),
    "cifar10": HubSet("uoft-cs/cifar10", None, "img", "label", paper_order=True),
    "svhn": HubSet("ufldl-stanford/svhn", "cropped_digits", "image", "label", extra=True),
    "imagenet": HubSet("ILSVRC/imagenet-1k", None, "image", "label", streamed=True),
}


def load_hub_set(
    name: str,
    source: HubSet,
    folder: Path | None,
    *,
    validation: int,
    image_size: Size | None,
    channels: int | None,
    extra: bool = False,
) -> ArraySplits:
    """Load `source` from the hub, or from the parquet files of `folder` when one is given.

    With `extra` its split "extra" follows the training images.
    """
    tables = _open(name, source, folder, extra=extra)
    splits: dict[str, ArraySplit] = {}
    classes: tuple[str, ...] = ()
    image_column, label_column = find_columns(name, source, tables["train"].features)
    for what, table in tables.items():
        splits[what], names = _read(f"{name} {what}", table, image_column, label_column, image_size, channels)
        classes = classes or names
    if extra:
        splits["train"] = _joined(splits["train"], splits.pop("extra"))
    if "test" not in splits:
        order = fixed_permutation(len(splits["train"]))
        share = max(1, len(order) // 5)
        splits["test"] = splits["train"].take(order[:share])
        splits["train"] = splits["train"].take(order[share:])
    return make_splits(
        name,
        splits["train"],
        splits["test"],
        classes,
        validation=validation,
        given=splits.get("validation"),
        shuffled=not source.paper_order,
    )


def _joined(first: ArraySplit, second: ArraySplit) -> ArraySplit:
    if first.images.shape[1:] != second.images.shape[1:]:
        raise DataError(
            f"the images of 'train' are {tuple(first.images.shape[1:])}, those of 'extra'"
            f" {tuple(second.images.shape[1:])}; give image_size= to bring all to one size"
        )
    return ArraySplit(
        np.concatenate([first.images, second.images]), np.concatenate([first.labels, second.labels])
    )


def _open(name: str, source: HubSet, folder: Path | None, *, extra: bool) -> dict[str, Any]:
    """The data set's tables by our split names: "train", "extra" if asked for, and "validation" and "test"
    where there are such."""
    datasets = import_datasets()
    where = f"the folder {folder}" if folder else f"the hub ({source.path})"
    try:
        with quiet(datasets):
            if folder is not None:
                files = parquet_files(folder)
                if not extra:
                    files.pop("extra", None)
                found = datasets.load_dataset("parquet", data_files=files)
            else:
                with _offline_if_unreachable(name, datasets):
                    found = datasets.load_dataset(source.path, source.config)
    except DataError:
        raise
    except Exception as error:
        # `datasets` and the clients below it raise many types for one event (no route, no name, no such set,
        # a broken file); all of them end the same way here, with the cause named and chained.
        lines = str(error).splitlines() or ["no message"]
        cause = f"{type(error).__name__}: {lines[0]}"
        if folder is not None:
            raise DataError(f"cannot read data set {name!r} from {where} ({cause})") from error
        raise DataError(f"cannot load data set {name!r} from {where}; {ADVICE} ({cause})") from error
    if "train" not in found:
        raise DataError(f"{name}: {where} has no train split, only {', '.join(found) or 'nothing'}")
    tables = {"train": found["train"]}
    if extra:
        if "extra" not in found:
            raise DataError(f"{name}: {where} has no extra split, only {', '.join(found)} (data.extra)")
        tables["extra"] = found["extra"]
    validation = next((v for v in VALIDATION_NAMES if v in found), None)
    if validation is not None:
        tables["validation"] = found[validation]
    if "test" in found:
        tables["test"] = found["test"]
    return tables


def import_datasets() -> Any:
    """The `datasets` library. Raises `DataError` where it is not installed."""
    # Without these an unreachable hub is waited for by the minute. They are read when the library is
    # imported; a value that the user has set stays.
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "10")
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "20")
    try:
        import datasets
    except ImportError as error:
        raise DataError("this data set needs the `datasets` package: pip install 'onebit[data]'") from error
    return datasets


@contextmanager
def _offline_if_unreachable(name: str, datasets: Any) -> Iterator[None]:
    """If nothing answers at the hub, let the library look in its cache only.

    Left alone it retries an unreachable hub for 23 seconds, with twelve lines of log, before the same error.
    """
    import huggingface_hub

    endpoint = huggingface_hub.constants.ENDPOINT
    if answers(endpoint):
        yield
        return
    switches = [(huggingface_hub.constants, "HF_HUB_OFFLINE"), (datasets.config, "HF_HUB_OFFLINE")]
    before = [getattr(module, switch, False) for module, switch in switches]
    try:
        for module, switch in switches:
            setattr(module, switch, True)
        yield
    except Exception as error:
        raise DataError(
            f"data set {name!r}: nothing answers at {endpoint}, and it is not in the local cache; {ADVICE}"
        ) from error
    finally:
        for (module, switch), value in zip(switches, before, strict=True):
            setattr(module, switch, value)


def answers(endpoint: str) -> bool:
    """True if an HTTP server, reached as the environment's proxies say, answers there at all."""
    try:
        with urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=_PROBE_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True  # an answer, though a refusal
    except (OSError, ValueError):
        return False


@contextmanager
def quiet(datasets: Any) -> Iterator[None]:
    """Progress bars off for local preparation; whatever the user had chosen comes back after."""
    was_off = datasets.utils.logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if was_off:
            datasets.enable_progress_bars()


def parquet_files(folder: Path) -> dict[str, list[str]]:
    """The parquet files below `folder` by split, told from how their names begin (train-00000-of-…)."""
    files: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("*.parquet")):
        if path.is_dir():
            continue
        check_regular(path)  # pyarrow opens it by its name, and would wait for a pipe
        stem = path.stem.split("-")[0].split("_")[0].lower()
        parent = path.parent.name.lower()
        for split in ("train", "extra", "test", *VALIDATION_NAMES):
            if split in (stem, parent):
                files.setdefault(split, []).append(str(path))
                break
    if "train" not in files:
        raise DataError(
            f"{folder}: no parquet file whose name begins with 'train' (as in train-00000-of-00001.parquet)"
        )
    return files


def find_columns(name: str, source: HubSet, features: Any) -> tuple[str, str]:
    """The names of the image column and the label column; `features` maps names to their types."""
    images = [c for c, f in features.items() if type(f).__name__ == "Image" or _is_image_struct(f)]
    labels = [c for c, f in features.items() if type(f).__name__ == "ClassLabel"]
    if not labels:
        labels = [c for c, f in features.items() if str(getattr(f, "dtype", "")).startswith(("int", "uint"))]
    chosen = []
    for what, wanted, found in (("image", source.image, images), ("label", source.label, labels)):
        if wanted in features:
            if not _suits(what, features[wanted]):
                raise DataError(f"{name}: the {what} column {wanted!r} holds {features[wanted]}, no {what}s")
            chosen.append(str(wanted))
        elif len(found) == 1:
            chosen.append(str(found[0]))
        else:
            have = ", ".join(features)
            raise DataError(
                f"{name}: cannot tell the {what} column among {have};"
                f" rename it {what!r} or leave one column of that type"
            )
    return chosen[0], chosen[1]


def _suits(what: str, feature: Any) -> bool:
    """Can a column of this type be read as images (also as bare bytes or paths), or as class numbers?"""
    dtype = str(getattr(feature, "dtype", ""))
    if what == "image":
        encoded = ("binary", "large_binary", "string", "large_string")
        return type(feature).__name__ == "Image" or _is_image_struct(feature) or dtype in encoded
    return type(feature).__name__ == "ClassLabel" or dtype.startswith(("int", "uint"))


def _is_image_struct(feature: Any) -> bool:
    return isinstance(feature, dict) and set(feature) == {"bytes", "path"}


def _read(
    place: str,
    table: Any,
    image_column: str,
    label_column: str,
    image_size: Size | None,
    channels: int | None,
) -> tuple[ArraySplit, tuple[str, ...]]:
    """Decode one table by column."""
    import datasets

    feature = table.features[label_column]
    if not _is_image_struct(table.features[image_column]):
        table = table.cast_column(image_column, datasets.Image(decode=False))
    columns = table.with_format("arrow")
    labels = np.asarray(columns[label_column].to_numpy(), dtype=np.int64)
    encoded: list[bytes | str] = []
    for row, cell in enumerate(columns[image_column].to_pylist()):
        item = (cell or {}).get("bytes") or (cell or {}).get("path")
        if item is None:
            raise DataError(f"{place}, row {row}: there is no image")
        encoded.append(item)
    places = [f"{place}, row {row}" for row in range(len(encoded))]
    images = decode_images(encoded, places, image_size=image_size, channels=channels)
    return ArraySplit(images, labels.copy()), _class_names(place, feature, labels)


def _class_names(place: str, feature: Any, labels: np.ndarray[Any, Any]) -> tuple[str, ...]:
    """The names that the column brings, or the numbers from 0 to the largest label."""
    if given := getattr(feature, "names", None):
        return tuple(given)
    largest = int(labels.max(initial=0))
    if largest >= _MAX_CLASSES:
        raise DataError(f"{place}: a label is {largest}; labels must count the classes from 0")
    return tuple(map(str, range(largest + 1)))
