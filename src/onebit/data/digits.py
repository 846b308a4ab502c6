"""The embedded data set: scikit-learn's 1,797 images of handwritten digits, 8×8 pixels. Needs no network."""

from __future__ import annotations

import numpy as np
import torch

from onebit.data.splits import Split, Splits, fixed_permutation, make_splits
from onebit.errors import DataError

TEST_IMAGES = 360


def load_digits(validation: int) -> Splits:
    """1,437 training images, of which `validation` are held out, and 360 test images, always the same ones.

    Pixel values 0 … 16 become bytes round(v·255/16).
    """
    try:
        from sklearn.datasets import load_digits as sklearn_digits
    except ImportError as error:
        raise DataError("the data set 'digits' needs scikit-learn: pip install 'onebit[train]'") from error
    bunch = sklearn_digits()
    pixels = (bunch.images.astype(np.int64) * 255 + 8) // 16
    images = torch.from_numpy(pixels.astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    every = Split(images, labels)
    order = fixed_permutation(len(every))
    return make_splits(
        "digits",
        every.take(order[TEST_IMAGES:]),
        every.take(order[:TEST_IMAGES]),
        tuple("0123456789"),
        validation=validation,
        shuffled=True,
    )
