"""Encoded image files → one uint8 array (N, C, H, W)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from onebit.data.pictures import Pixels, read_picture
from onebit.errors import DataError

Size: TypeAlias = int | tuple[int, int]


def decode_images(
    encoded: Sequence[bytes | str],
    places: Sequence[str],
    *,
    image_size: Size | None = None,
    channels: int | None = None,
) -> Pixels:
    """Decode image files (their bytes, or their paths) into a uint8 array (N, C, H, W).

    `places[i]` is what an error calls image i. C is `channels` (1 or 3) or, when None, 1 if every image is
    grey and 3 otherwise. Without `image_size` all images must have one size; with it (an int for a square, or
    (height, width)) each is scaled to cover that size and cut at the centre. `in_bytes` says what becomes of
    pixels that are not 8-bit grey or RGB.

    Raises `DataError` for a file that is no image, images of several sizes, or a package that is missing.
    """
    size = _as_size(image_size)
    first_size: tuple[int, int] | None = None
    arrays: list[np.ndarray[Any, Any]] = []
    for item, place in zip(encoded, places, strict=True):
        array = read_picture(item, place, channels=channels, size=size)
        height, width = array.shape[:2]
        if first_size is None:
            first_size = (height, width)
        elif first_size != (height, width):
            raise DataError(
                f"{place} is {height}×{width} but {places[0]} is {first_size[0]}×{first_size[1]};"
                " give image_size= to bring all images to one size"
            )
        arrays.append(array)
    if (
        channels is None and len({array.ndim for array in arrays}) > 1
    ):  # some grey, some coloured: all coloured
        arrays = [np.repeat(a[:, :, None], 3, axis=2) if a.ndim == 2 else a for a in arrays]
    batch = np.stack(arrays)
    batch = batch[:, None] if batch.ndim == 3 else batch.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(batch)


def _as_size(image_size: Size | None) -> tuple[int, int] | None:
    if image_size is None:
        return None
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if not (0 < height <= 1 << 14 and 0 < width <= 1 << 14):
        raise DataError(
            f"image_size={image_size!r}: give a number of pixels from 1 to {1 << 14}, or (height, width)"
        )
    return height, width
