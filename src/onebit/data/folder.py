"""A user's own images: one sub-folder a class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from onebit.data.decode import Size, decode_images
from onebit.data.pictures import SUFFIXES
from onebit.data.splits import ArraySplit, ArraySplits, fixed_permutation, make_splits
from onebit.errors import DataError

Labels: TypeAlias = np.ndarray[tuple[int], np.dtype[np.int64]]
Part: TypeAlias = tuple[list[Path], Labels]

_VALIDATION_NAMES = ("validation", "valid", "val")
_SPLIT_NAMES = {"train", "training", "test", "testing", "dev", *_VALIDATION_NAMES}
_TEST_SHARE = 5  # one image in five of each class is for testing when the folder has no test/

LAYOUT_HELP = (
    "expected FOLDER/CLASS/image.png, or FOLDER/train/CLASS/image.png and FOLDER/test/CLASS/image.png,"
    " or parquet files, or WAV files in the same folders"
)


@dataclass(frozen=True)
class FileKind:
    """What a class folder is searched for, and what errors call it."""

    noun: str
    suffixes: frozenset[str]  # lower case, with the dot
    layout: str  # how a folder of such files must look


IMAGES = FileKind(
    "image",
    frozenset(SUFFIXES),
    LAYOUT_HELP,
)


def load_image_folder(
    root: Path, name: str, *, validation: int, image_size: Size | None, channels: int | None
) -> ArraySplits:
    """Read the images of `root` in the layout of `class_parts`."""
    classes, parts = class_parts(root, IMAGES)
    # All parts are decoded together, so that they agree on grey or colour.
    every = [path for part, _ in parts.values() for path in part]
    images = decode_images(
        [str(p) for p in every], [str(p) for p in every], image_size=image_size, channels=channels
    )
    splits: dict[str, ArraySplit] = {}
    start = 0
    for what, (part, part_labels) in parts.items():
        splits[what] = ArraySplit(images[start : start + len(part)], part_labels)
        start += len(part)
    return make_splits(
        name,
        splits["train"],
        splits["test"],
        classes,
        validation=validation,
        given=splits.get("validation"),
        shuffled=True,
    )


def class_parts(
    root: Path, kind: FileKind, *, test_is_validation: bool = False
) -> tuple[tuple[str, ...], dict[str, Part]]:
    """The classes below `root`, and its files by split: "train", "test" and, if there, "validation".

    Files are `root`/train/CLASS/*, `root`/test/CLASS/* and `root`/validation/CLASS/*. Classes are the
    sub-folders' names in sorted order. Without train/ and test/ the classes stand in `root` itself and a
    fixed fifth of each class becomes the test split. Raises `DataError` for any other layout.

    `test_is_validation` is for sets like ImageNet, whose test images have no labels: a validation split takes
    the place of a test split that is not there, or that has no class folders.
    """
    train_root = root / "train" if (root / "train").is_dir() else root
    classes = _class_names(train_root, kind)
    paths, labels = _listing(train_root, classes, kind)
    parts = {"train": (paths, labels)}
    if train_root is not root:
        skipped = ("test",) if test_is_validation and not _has_folders(root / "test") else ()
        parts |= _other_parts(root, classes, kind, skipped)
    if test_is_validation and "test" not in parts and "validation" in parts:
        parts["test"] = parts.pop("validation")
    if "test" not in parts:
        parts |= _hold_out_test(root, paths, labels, classes, kind)
    return classes, parts


def _class_names(root: Path, kind: FileKind, min_count: int = 2) -> tuple[str, ...]:
    names = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not names and any(p.suffix.lower() in kind.suffixes for p in root.iterdir()):
        raise DataError(
            f"{root}: its {kind.noun}s lie in no class folders, so nothing tells their classes; move each"
            " into a sub-folder named after its class (for ImageNet its synset, such as n01440764)"
        )
    if len(names) < min_count:
        found = f"only {names[0]!r}" if names else "none"
        need = "two class folders or more" if min_count > 1 else "a class folder"
        raise DataError(f"{root}: {need} must be there, found {found}; {kind.layout}")
    if _SPLIT_NAMES.issuperset(name.lower() for name in names):
        raise DataError(
            f"{root}: {', '.join(map(repr, names))} are names of splits, not of classes, and there is no"
            f" 'train'; {kind.layout}"
        )
    return tuple(names)


def _has_folders(root: Path) -> bool:
    return root.is_dir() and any(p.is_dir() for p in root.iterdir())


def _listing(root: Path, classes: tuple[str, ...], kind: FileKind) -> Part:
    """Every file of that kind below each class folder, sorted, with its label."""
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(
            p for p in (root / name).rglob("*") if p.suffix.lower() in kind.suffixes and p.is_file()
        )
        if not found:
            raise DataError(
                f"{root / name}: no {kind.noun} in this class folder ({', '.join(sorted(kind.suffixes))})"
            )
        paths += found
        labels += [label] * len(found)
    return paths, np.array(labels, dtype=np.int64)


def _other_parts(
    root: Path, classes: tuple[str, ...], kind: FileKind, skipped: tuple[str, ...] = ()
) -> dict[str, Part]:
    parts = {}
    for what, names in (("validation", _VALIDATION_NAMES), ("test", ("test",))):
        folder = next((root / n for n in names if (root / n).is_dir()), None)
        if folder is None or what in skipped:
            continue
        unknown = sorted(set(_class_names(folder, kind, min_count=1)) - set(classes))
        if unknown:
            raise DataError(f"{folder / unknown[0]}: {unknown[0]!r} is no class of {root / 'train'}")
        present = tuple(c for c in classes if (folder / c).is_dir())
        paths, labels = _listing(folder, present, kind)
        parts[what] = (paths, np.array([classes.index(c) for c in present], dtype=np.int64)[labels])
    return parts


def _hold_out_test(
    root: Path,
    paths: list[Path],
    labels: Labels,
    classes: tuple[str, ...],
    kind: FileKind,
) -> dict[str, Part]:
    """A fixed fifth of each class, at least one file, for testing; the rest for training."""
    is_test = np.zeros(len(paths), dtype=bool)
    for label, name in enumerate(classes):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise DataError(
                f"{root}: class {name!r} has one {kind.noun}; without a test/ folder each class needs two or"
                " more"
            )
        chosen = fixed_permutation(len(members))[: max(1, len(members) // _TEST_SHARE)]
        is_test[members[chosen]] = True
    return {
        what: ([p for p, m in zip(paths, mask, strict=True) if m], labels[mask])
        for what, mask in (("train", ~is_test), ("test", is_test))
    }
