"""Global contrast normalization and ZCA whitening, as BinaryConnect (arXiv 1511.00363) prepares CIFAR-10.

GCN: an image x minus its mean, scaled to a Euclidean norm of 55.
ZCA: of the training images, those held out for validation among them, μ is the mean and C = V·diag(λ)·Vᵀ the
covariance; an image x becomes
    (x − μ)·V·diag(1 / √(λ + 0.1))·Vᵀ,
which leaves it as near to x as decorrelation allows. The numbers 55 and 0.1 are those of the script
(pylearn2's make_cifar10_gcn_whitened) that the authors name, and so is what it is fitted on: how many images
are held out changes nothing.
"""

from __future__ import annotations

from onebit.needs_torch import torch

# isort: split
from collections.abc import Iterator

from torch import Tensor

from onebit.data.tensor_splits import Split, Splits
from onebit.errors import DataError

_NORM, _FILTER_BIAS, _MIN_NORM = 55.0, 0.1, 1e-8
_CHUNK = 10_000  # images in float64 at a time


def whiten(splits: Splits) -> Splits:
    """The same data set with float32 images, whitened; see above. For images of at most 4,096 numbers.

    The sums are taken in float64; the last bits of the result may still differ between machines. Raises
    `DataError` for larger images and for sounds.
    """
    shape = splits.input_shape
    pixels = splits.train.images[0].numel()
    if len(shape) != 3 or pixels > 4096:
        size = "×".join(map(str, shape))
        raise DataError(
            f"{splits.name}: whitening is for small images, of at most 4,096 numbers; these are {size}"
            " (leave out data.whiten)"
        )
    held_out = [splits.validation.images] if splits.validation else []
    mean, matrix = _zca([splits.train.images, *held_out])

    def white(split: Split) -> Split:
        return Split(_apply(split.images, mean, matrix), split.labels)

    validation = white(splits.validation) if splits.validation else None
    return Splits(splits.name, white(splits.train), validation, white(splits.test), splits.classes)


def _chunks(*parts: Tensor) -> Iterator[Tensor]:
    """GCN of all images, in float64, some at a time: (N, C·H·W)."""
    for images in parts:
        for start in range(0, len(images), _CHUNK):
            yield _normalized(images[start : start + _CHUNK])


def _normalized(images: Tensor) -> Tensor:
    x = images.flatten(1).double()
    x = x - x.mean(dim=1, keepdim=True)
    norm = x.norm(dim=1, keepdim=True) / _NORM
    return x / torch.where(norm < _MIN_NORM, 1.0, norm)  # an image of one colour stays 0


def _zca(parts: list[Tensor]) -> tuple[Tensor, Tensor]:
    """μ (D,) and the matrix (D, D), float64."""
    count, size = sum(len(images) for images in parts), parts[0][0].numel()
    total = torch.zeros(size, dtype=torch.float64)
    for chunk in _chunks(*parts):
        total += chunk.sum(dim=0)
    mean = total / count
    covariance = torch.zeros(size, size, dtype=torch.float64)
    for chunk in _chunks(*parts):
        covariance += (chunk - mean).T @ (chunk - mean)
    values, vectors = torch.linalg.eigh(covariance / count)
    return mean, (vectors / (values.clamp(min=0) + _FILTER_BIAS).sqrt()) @ vectors.T


def _apply(images: Tensor, mean: Tensor, matrix: Tensor) -> Tensor:
    chunks = [((chunk - mean) @ matrix).float() for chunk in _chunks(images)]
    return torch.cat(chunks).reshape(images.shape)
