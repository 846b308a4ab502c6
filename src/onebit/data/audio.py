"""Spoken words: a folder of WAV files, one sub-folder a word, or named as those of the Free Spoken Digits."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from onebit.data.folder import FileKind, class_parts
from onebit.data.splits import ArraySplit, ArraySplits, DataArray, make_splits
from onebit.data.wav import SAMPLE_RATE, read_clip
from onebit.errors import DataError

SAMPLES = 8000  # of a clip

_TEST_TAKES = 5
_TAKE = re.compile(r"([^_]+)_(.+)_([0-9]{1,9})\.wav", re.IGNORECASE)
_LAYOUT = (
    "expected FOLDER/WORD/clip.wav, or FOLDER/train/WORD/clip.wav and FOLDER/test/WORD/clip.wav, or files"
    " FOLDER/WORD_SPEAKER_NUMBER.wav as in the Free Spoken Digit Dataset"
)
_WAV = FileKind("WAV file", frozenset({".wav"}), _LAYOUT)


def load_audio_folder(
    root: Path, name: str, *, validation: int, sample_rate: int = SAMPLE_RATE, samples: int = SAMPLES
) -> ArraySplits:
    """Read a folder of WAV files: clips as float32 (N, 1, samples) in [-1, 1], labels int64 (N,).

    Every clip is brought to `sample_rate` (Hz), and to `samples` of it: a shorter one stands in the middle
    of zeros, of a longer one the middle remains.

    Files named WORD_SPEAKER_NUMBER.wav, in `root` or in its sub-folder `recordings`, are split as the Free
    Spoken Digit Dataset (github.com/Jakobovski/free-spoken-digit-dataset) says: numbers 0 to 4 of each
    speaker are for testing. The `validation` held-out clips are those of the highest numbers. Otherwise a
    word is a sub-folder (see `class_parts`) and the held-out clips are a fixed random choice.
    Raises `DataError` for another layout and for a file that is no WAV of PCM samples.
    """
    if sample_rate < 1 or samples < 1:
        raise DataError(f"sample_rate={sample_rate}, samples={samples}: give positive numbers")
    takes = _take_files(root)
    classes, parts = _take_parts(takes) if takes else class_parts(root, _WAV)
    splits = {
        what: ArraySplit(_clips(paths, sample_rate, samples), labels)
        for what, (paths, labels) in parts.items()
    }
    return make_splits(
        name,
        splits["train"],
        splits["test"],
        classes,
        validation=validation,
        given=splits.get("validation"),
        shuffled=not takes,
    )


def _clips(paths: list[Path], sample_rate: int, samples: int) -> DataArray:
    clips = np.stack([read_clip(path, sample_rate, samples) for path in paths])
    return clips[:, None]


def _is_wav(path: Path) -> bool:
    return path.suffix.lower() == ".wav" and not path.name.startswith(".") and path.is_file()


def _take_files(root: Path) -> list[Path]:
    """The WAV files that lie in `root`, or else in its `recordings`, without class folders."""
    for folder in (root, root / "recordings"):
        found = sorted(p for p in folder.iterdir() if _is_wav(p)) if folder.is_dir() else []
        if found:
            return found
    return []


def _take_parts(
    paths: list[Path],
) -> tuple[tuple[str, ...], dict[str, tuple[list[Path], np.ndarray[tuple[int], np.dtype[np.int64]]]]]:
    """The words, and the files by split, in the order of their numbers, then words, then speakers."""
    named = []
    for path in paths:
        match = _TAKE.fullmatch(path.name)
        if match is None:
            raise DataError(
                f"{path}: lies in no class folder and is not named WORD_SPEAKER_NUMBER.wav; {_LAYOUT}"
            )
        word, speaker, number = match.groups()
        named.append((int(number), word, speaker, path))
    named.sort()
    classes = tuple(sorted({word for _, word, _, _ in named}))
    parts = {}
    for what, of_test in (("train", False), ("test", True)):
        chosen = [take for take in named if (take[0] < _TEST_TAKES) == of_test]
        if not chosen:
            raise DataError(
                f"{paths[0].parent}: no clip for the {what} split; of WORD_SPEAKER_NUMBER.wav the numbers 0"
                f" to {_TEST_TAKES - 1} are for testing, all others for training"
            )
        labels = np.array([classes.index(take[1]) for take in chosen], dtype=np.int64)
        parts[what] = ([take[3] for take in chosen], labels)
    return classes, parts
