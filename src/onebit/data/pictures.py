"""One picture file → bytes: the one place where a picture is opened and its pixels become 8-bit grey or RGB.

Needs NumPy and Pillow only: `onebit run` reads pictures with it where no PyTorch is.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from onebit.errors import DataError, FileKindError
from onebit.user_files import open_regular

if TYPE_CHECKING:
    from PIL.Image import Image

Item: TypeAlias = bytes | str | PathLike[str]
"""A picture file: its bytes, or its path."""
Pixels: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"
)  # fmt: skip
BILINEAR = 2  # PIL.Image.Resampling.BILINEAR, which is known without importing it
_GREY_MODES = {"1", "L", "LA", "La"}
_DEEP_FORMATS = {"PNG", "PPM"}  # whose mode "I" holds 0 … 65,535; elsewhere its range is anyone's guess


def read_picture(
    item: Item, place: object, *, channels: int | None = None, size: tuple[int, int] | None = None
) -> Pixels:
    """The picture as uint8 (H, W) when grey, (H, W, 3) otherwise.

    `place` is what an error calls it. `channels` (1 or 3) makes it grey or coloured; None leaves that to the
    file. With `size`, (height, width), it is scaled to cover that size and cut at the centre. See `in_bytes`
    for what becomes of other kinds of pixels. Raises `DataError` for a file that is no picture.
    """
    with opened(item, place) as image:
        picture = in_bytes(image, channels)
        if size is not None and picture.size != (size[1], size[0]):
            from PIL import ImageOps

            picture = ImageOps.fit(picture, (size[1], size[0]), method=BILINEAR)
        return np.asarray(picture)


@contextmanager
def opened(item: Item, place: object) -> Iterator[Image]:
    """The picture, open and not yet decoded. What fails while it is open becomes a `DataError`."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise DataError("reading pictures needs Pillow: pip install 'onebit[images]'") from error
    try:
        with io.BytesIO(item) if isinstance(item, bytes) else open_regular(item) as file:
            try:
                with Image.open(file) as image:
                    yield image
            except UnidentifiedImageError as error:
                raise DataError(
                    f"{place} cannot be read as an image: of no format known to Pillow"
                ) from error
    except FileKindError as error:
        raise DataError(f"{place} is {error.kind}, no image") from error
    except DataError as error:
        raise error if str(place) in str(error) else DataError(f"{place}: {error}") from error
    except Exception as error:
        # Pillow has a decoder a format, and damaged files make them raise nearly every type there is.
        reason = str(error) or type(error).__name__
        raise DataError(f"{place} cannot be read as an image: {reason}") from error


def in_bytes(image: Image, channels: int | None) -> Image:
    """The picture in mode "L" or "RGB": one or three bytes a pixel.

    16-bit grey keeps its high byte, as 16-bit colour does in Pillow; two colours become 0 and 255; palettes,
    CMYK and the like become RGB; transparency is dropped; of several frames the first one counts. Orientation
    tags are not followed, since no one does on ImageNet. Raises `DataError` for pixels whose range nothing
    tells: 32-bit integers and floats.
    """
    image.load()
    grey = image.mode in _GREY_MODES or image.mode.startswith(("I", "F"))
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _DEEP_FORMATS):
        image = _high_bytes(image)
    elif image.mode.startswith(("I", "F")):
        raise DataError(
            f"its pixels are of {image.mode!r}, 32 bits each, and nothing tells what is black and what is"
            " white; save it with 8 or 16 bits a channel"
        )
    image.info.pop("transparency", None)  # it would be mapped, or warned of; the pixels stay the same
    wanted = "L" if (grey if channels is None else channels == 1) else "RGB"
    return image if image.mode == wanted else image.convert(wanted)


def _high_bytes(image: Image) -> Image:
    """16-bit grey (of TIFF also 12 bits, or white as 0) → mode "L"."""
    from PIL import Image

    tags = getattr(image, "tag_v2", {})  # of a TIFF: 258 is the bits of a sample, 262 which end is white
    pixels = np.asarray(image) >> (4 if tags.get(258) == (12,) else 8)
    pixels = pixels.astype(np.uint8)
    return Image.fromarray(255 - pixels if tags.get(262) == 0 else pixels)
