"""Whitening against its definition, worked out with NumPy."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from onebit.data import DataError, Split, Splits  # noqa: E402
from onebit.data.whiten import whiten  # noqa: E402


def _splits(count: int, *shape: int) -> Splits:
    generator = torch.Generator().manual_seed(1)
    base = torch.randint(0, 256, (count, *shape), generator=generator, dtype=torch.uint8)
    base[:, 0, 0] = base[:, 0, 1]  # a row that repeats
    base[0] = 77  # of one colour
    labels = torch.zeros(count, dtype=torch.int64)
    train, test = Split(base[:-5], labels[:-5]), Split(base[-5:], labels[-5:])
    return Splits("random", train, None, test, ("a",))


def test_it_is_gcn_and_zca() -> None:
    splits = _splits(45, 2, 3, 4)
    white = whiten(splits)
    assert white.validation is None
    assert white.train.images.dtype == torch.float32
    assert white.input_shape == (2, 3, 4)

    def normalized(images: torch.Tensor) -> np.ndarray:
        x = images.numpy().reshape(len(images), -1).astype(float)
        x -= x.mean(1, keepdims=True)
        norm = np.sqrt((x**2).sum(1, keepdims=True)) / 55
        return np.divide(x, norm, out=x, where=norm > 0)

    train = normalized(splits.train.images)
    _, s, vt = np.linalg.svd(train - train.mean(0), full_matrices=True)
    variances = np.zeros(24)
    variances[: len(s)] = s**2 / len(train)
    matrix = vt.T @ np.diag(1 / np.sqrt(variances + 0.1)) @ vt
    for mine, theirs in ((white.train, splits.train), (white.test, splits.test)):
        expected = (normalized(theirs.images) - train.mean(0)) @ matrix
        np.testing.assert_allclose(mine.images.numpy().reshape(expected.shape), expected, atol=1e-5)
        assert torch.equal(mine.labels, theirs.labels)


def test_directions_that_vary_get_variance_one() -> None:
    images = whiten(_splits(3000, 1, 3, 3)).train.images.flatten(1).double()
    values = torch.linalg.eigvalsh(images.T.cov())
    assert (values > 0.9).sum() == 5  # of 9: the mean goes with GCN, a row of 3 repeats
    assert values.max() < 1.02


def test_held_out_images_change_nothing() -> None:
    whole = _splits(45, 2, 3, 4)
    train, held = (
        Split(whole.train.images[part], whole.train.labels[part]) for part in (slice(30), slice(30, None))
    )
    parted = whiten(Splits("random", train, held, whole.test, ("a",)))
    white = whiten(whole)
    assert parted.validation is not None
    together = torch.cat([parted.train.images, parted.validation.images])
    torch.testing.assert_close(together, white.train.images, rtol=0, atol=1e-6)
    torch.testing.assert_close(parted.test.images, white.test.images, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 40, 40), (1, 9)])
def test_what_is_no_small_image_is_refused(shape: tuple[int, ...]) -> None:
    images = torch.zeros(4, *shape)
    split = Split(images, torch.zeros(4, dtype=torch.int64))
    with pytest.raises(DataError, match="×".join(map(str, shape))):
        whiten(Splits("large", split, None, split, ("a",)))
