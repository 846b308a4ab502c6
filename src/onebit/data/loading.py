"""`load`: from a data set's name to its splits."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onebit.data.audio import SAMPLES, load_audio_folder
from onebit.data.decode import Size
from onebit.data.digits import load_digits
from onebit.data.folder import LAYOUT_HELP, load_image_folder
from onebit.data.hub import KNOWN, HubSet, load_hub_set
from onebit.data.splits import ArraySplits
from onebit.data.wav import SAMPLE_RATE
from onebit.errors import DataError

if TYPE_CHECKING:
    from onebit.data.tensor_splits import Splits

_NO_FSDD = (
    "the data set 'fsdd' is read from a folder of WAV files: get the Free Spoken Digit Dataset"
    " (github.com/Jakobovski/free-spoken-digit-dataset) and give its folder: --data-dir FOLDER"
)
NAMES = ("digits", "fsdd", *KNOWN)


def load(
    name: str,
    data_dir: str | Path | None = None,
    *,
    validation: int = 0,
    image_size: Size | None = None,
    channels: int | None = None,
    sample_rate: int | None = None,
    samples: int | None = None,
    whiten: bool | None = None,
    extra: bool | None = None,
) -> Splits:
    """Load a data set whole: images as uint8 (N, C, H, W), or sounds as float32 (N, 1, samples); labels as
    int64 (N,).

    `name` is one of `NAMES`, a name on the Hugging Face hub ("owner/set"), or a folder of the user's own:
    parquet files, or images or WAV files with one sub-folder a class. `data_dir` is a local folder to read
    instead of the hub. `validation` training images are held out, unless the data set brings a validation
    split: the last ones of MNIST and CIFAR-10, as in the papers, and a fixed random choice elsewhere.
    `image_size` (pixels, or (height, width)) rescales; `channels` (1 or 3) forces grey or colour. The
    embedded "digits" take `validation` only. Sounds ("fsdd") take `sample_rate` (Hz) and `samples` (of each
    clip) instead, 8,000 both unless given; see `onebit.data.audio`. `whiten` makes small images float32, by
    global contrast normalization and ZCA; see `onebit.data.whiten`. With `extra` the training images are
    those of the splits "train" and "extra" (SVHN's: 604,388).

    Raises `DataError` when the data set cannot be had, naming what to do.
    """
    from onebit.data.tensor_splits import as_tensors

    arrays = load_arrays(
        name,
        data_dir,
        validation=validation,
        image_size=image_size,
        channels=channels,
        sample_rate=sample_rate,
        samples=samples,
        whiten=whiten,
        extra=extra,
    )
    return as_tensors(arrays)


def load_arrays(
    name: str,
    data_dir: str | Path | None = None,
    *,
    validation: int = 0,
    image_size: Size | None = None,
    channels: int | None = None,
    sample_rate: int | None = None,
    samples: int | None = None,
    whiten: bool | None = None,
    extra: bool | None = None,
) -> ArraySplits:
    """`load` in NumPy arrays: works without PyTorch, except to whiten."""
    splits = _load(
        name,
        data_dir,
        validation=validation,
        of_images={"image_size": image_size, "channels": channels},
        of_sounds={"sample_rate": sample_rate, "samples": samples},
        extra=bool(extra),
    )
    if not whiten:
        return splits
    from onebit.data.tensor_splits import as_arrays, as_tensors
    from onebit.data.whiten import whiten as whitened

    return as_arrays(whitened(as_tensors(splits)))


def _load(
    name: str,
    data_dir: str | Path | None,
    *,
    validation: int,
    of_images: dict[str, Any],
    of_sounds: dict[str, Any],
    extra: bool,
) -> ArraySplits:
    if validation < 0:
        raise DataError(f"validation={validation}: give the number of training images to hold out, 0 or more")
    if of_images["channels"] not in (None, 1, 3):
        raise DataError(f"channels={of_images['channels']}: give 1 (grey) or 3 (colour)")
    if extra and not (name in KNOWN and KNOWN[name].extra):
        raise DataError(f"the data set {name!r} has no split 'extra': leave it out (data.extra)")
    if name in KNOWN and KNOWN[name].streamed:
        raise DataError(
            f"the data set {name!r} is too large to be loaded whole: stream it (data.stream=true)"
        )
    if name == "digits":
        _refuse(of_sounds, "the data set 'digits' has images")
        _check_digits(data_dir, **of_images)
        return load_digits(validation)
    folder = data_folder(name, data_dir)
    if name == "fsdd" and folder is None:
        raise DataError(_NO_FSDD)
    kind = None if folder is None else ".wav" if name == "fsdd" else kind_of(folder)
    if folder is not None and kind == ".wav":
        _refuse(of_images, f"{folder} holds WAV files")
        return load_audio_folder(
            folder,
            name,
            validation=validation,
            **{"sample_rate": SAMPLE_RATE, "samples": SAMPLES} | _given(of_sounds),
        )
    _refuse(of_sounds, f"the data set {name!r} has images")
    source = KNOWN.get(name)
    if folder is not None and kind != ".parquet":
        if extra:
            raise DataError(
                f"the split 'extra' is read from parquet files, and {folder} has none (data.extra)"
            )
        return load_image_folder(folder, name, validation=validation, **of_images)
    if source is None:
        if folder is None and "/" not in name:
            raise DataError(unknown_name(name))
        source = HubSet(name)
    return load_hub_set(name, source, folder, validation=validation, extra=extra, **of_images)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {option: value for option, value in options.items() if value is not None}


def kind_of(folder: Path) -> str:
    """What the folder holds at any depth: ".parquet" if any, else ".wav" if any, else "" (images)."""
    kind = ""
    for _, _, files in os.walk(folder):
        if any(file.endswith(".parquet") for file in files):
            return ".parquet"
        if any(file.lower().endswith(".wav") and not file.startswith(".") for file in files):
            kind = ".wav"
    return kind


def _refuse(options: dict[str, Any], why: str) -> None:
    """Options of another kind of data are refused, not ignored."""
    given = [f"{option}={value}" for option, value in _given(options).items()]
    if given:
        raise DataError(f"{why}, which have no {', '.join(given)}: leave that out")


def _check_digits(data_dir: str | Path | None, image_size: Size | None, channels: int | None) -> None:
    """The embedded set is what it is: an option that would change it is refused, not ignored."""
    if data_dir is not None:
        raise DataError(
            f"the data set 'digits' comes with scikit-learn and is read from no folder: leave out"
            f" {str(data_dir)!r} (--data-dir), or name a data set of your own (data.name)"
        )
    if image_size not in (None, 8, (8, 8)) or channels not in (None, 1):
        raise DataError(
            f"the data set 'digits' has grey images of 8×8 pixels, not image_size={image_size},"
            f" channels={channels}: leave both out"
        )


def data_folder(name: str, data_dir: str | Path | None) -> Path | None:
    """The local folder to read, checked; None for the hub."""
    if data_dir is None:
        named = Path(name).expanduser()
        if name.startswith(("/", ".", "~")) and not named.is_dir():
            raise DataError(f"the data folder {name!r} does not exist; {LAYOUT_HELP}")
        return named if name not in KNOWN and named.is_dir() else None
    folder = Path(data_dir).expanduser()
    if not folder.exists():
        raise DataError(f"the data folder {str(data_dir)!r} does not exist; {LAYOUT_HELP}")
    if not folder.is_dir():
        raise DataError(f"{str(data_dir)!r} is a file, not a folder; {LAYOUT_HELP}")
    if not any(folder.iterdir()):
        raise DataError(f"the data folder {str(data_dir)!r} is empty; {LAYOUT_HELP}")
    return folder


def unknown_name(name: str) -> str:
    """What to say of a name that is no data set."""
    near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return (
        f"there is no data set {name!r}: {hint}Known are {', '.join(NAMES)};"
        " or give a hub name (owner/set), or a folder of your own with --data-dir (data_dir= in Python)"
    )
