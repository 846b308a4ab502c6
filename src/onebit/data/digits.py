"""The embedded data set: scikit-learn's 1,797 images of handwritten digits, 8×8 pixels. Needs no network."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onebit.data.splits import ArraySplit, ArraySplits, fixed_permutation, make_splits
from onebit.errors import DataError

TEST_IMAGES = 360


def load_digits(validation: int) -> ArraySplits:
    """1,437 training images, of which `validation` are held out, and 360 test images, always the same ones.

    Pixel values 0 … 16 become bytes round(v·255/16).
    """
    values, digits = _read()
    pixels = (values.astype(np.int64) * 255 + 8) // 16
    every = ArraySplit(pixels.astype(np.uint8)[:, None], digits.astype(np.int64))
    order = fixed_permutation(len(every))
    return make_splits(
        "digits",
        every.take(order[TEST_IMAGES:]),
        every.take(order[:TEST_IMAGES]),
        tuple("0123456789"),
        validation=validation,
        shuffled=True,
    )


def _read() -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Images [1797, 8, 8] of numbers from 0 to 16, and which digit each is.

    From the file in scikit-learn's folder: to import the package, and SciPy with it, takes seconds, and every
    command on this data set would wait for it.
    """
    found = find_spec("sklearn")
    if found is None or not found.submodule_search_locations:
        raise DataError("the data set 'digits' needs scikit-learn: pip install 'onebit[train]'")
    file = Path(found.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    if file.exists():
        with gzip.open(file, "rt", encoding="ascii") as lines:
            table = np.loadtxt(lines, delimiter=",")
        return table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    from sklearn.datasets import load_digits as sklearn_digits  # a version that keeps it elsewhere

    bunch = sklearn_digits()
    return bunch.images, bunch.target
