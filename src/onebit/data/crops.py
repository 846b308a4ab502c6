"""Encoded images of any size → bytes of one size: the window of an image that training or a test looks at.

A window is a box in the image's own pixels, (left, top, right, bottom), which is scaled to the wanted size in
one step, with PIL's antialiasing bilinear filter. So nothing outside the window is scaled, and a large JPEG
can be decoded at a half, a quarter or an eighth of its size if the window is still large enough then.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from onebit.data.pictures import BILINEAR, Item, in_bytes, opened

Box: TypeAlias = tuple[float, float, float, float]

CENTRE = 7 / 8  # of the shorter side: 224 of 256 pixels, as everyone tests on ImageNet
_ASPECTS = (3 / 4, 4 / 3)
_TRIES = 10


@dataclass(frozen=True)
class Crops:
    """What a training image becomes: a random window, possibly mirrored, of `size` × `size` pixels.

    resized: if above 0, a window of that part of the image's area at least, at most all of it, of an aspect
        ratio of 3/4 … 4/3, both drawn: the "random resized crop" of GoogLeNet (arXiv 1409.4842, section 6).
    margin: otherwise, the image's shorter side is taken as size + m pixels, m drawn from margin[0] …
        margin[1], and a square of size × size is cut out of it anywhere, as in AlexNet and VGG (arXiv
        1409.1556, section 3.1). (0, 0) cuts the largest square.
    flip: left to right, every second time.
    """

    size: int
    resized: float = 0.0
    margin: tuple[int, int] = (0, 0)
    flip: bool = False

    def draw(self, width: int, height: int, generator: np.random.RandomState) -> tuple[Box, bool]:
        """A window of an image of that size, and whether it is mirrored."""
        flip = self.flip and generator.random_sample() < 0.5
        if self.resized > 0:
            return self._resized(width, height, generator), flip
        margin = generator.randint(self.margin[0], self.margin[1] + 1)
        side = min(width, height) * self.size / (self.size + margin)
        left = generator.random_sample() * (width - side)
        top = generator.random_sample() * (height - side)
        return (left, top, left + side, top + side), flip

    def _resized(self, width: int, height: int, generator: np.random.RandomState) -> Box:
        low, high = (math.log(aspect) for aspect in _ASPECTS)
        for _ in range(_TRIES):
            area = width * height * generator.uniform(self.resized, 1.0)
            aspect = math.exp(generator.uniform(low, high))
            across, down = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < across <= width and 0 < down <= height:
                left = int(generator.randint(0, width - across + 1))
                top = int(generator.randint(0, height - down + 1))
                return left, top, left + across, top + down
        # A very long image: its centre, as much of it as the ratio allows.
        return _centred(width, height, min(width, height * _ASPECTS[1]), min(height, width / _ASPECTS[0]))


def central(width: int, height: int) -> Box:
    """The square that a test looks at: `CENTRE` of the shorter side, in the middle."""
    side = min(width, height) * CENTRE
    return _centred(width, height, side, side)


def _centred(width: int, height: int, across: float, down: float) -> Box:
    left, top = (width - across) / 2, (height - down) / 2
    return left, top, left + across, top + down


def read_window(
    item: Item,
    place: object,
    size: int,
    channels: int,
    crops: Crops | None = None,
    generator: np.random.RandomState | None = None,
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Decode an image file (its bytes, or its path) and scale a window of it: uint8 (channels, size, size).

    The window is drawn as `crops` says, or is `central`. Whatever the file holds becomes grey or RGB (see
    `pictures.in_bytes`) of that size, an image smaller than the window too. Raises `DataError`, which names
    `place` (its text).
    """
    with opened(item, place) as image:
        width, height = image.size
        box, flip = (
            (central(width, height), False)
            if crops is None or generator is None
            else crops.draw(width, height, generator)
        )
        if crops is not None:  # a test decodes in full, as everyone else's does
            image.draft(None, _min_size(image.size, box, size))
        picture = in_bytes(image, 1 if channels == 1 else 3)
        x, y = picture.width / width, picture.height / height
        scaled = (box[0] * x, box[1] * y, min(box[2] * x, picture.width), min(box[3] * y, picture.height))
        picture = picture.resize((size, size), BILINEAR, box=scaled)
        pixels = np.asarray(picture).reshape(size, size, channels)
    return np.ascontiguousarray((pixels[:, ::-1] if flip else pixels).transpose(2, 0, 1))


def _min_size(whole: tuple[int, int], box: Box, size: int) -> tuple[int, int]:
    """What the whole image must measure at least so that the window in it has `size` × `size` pixels."""
    across, down = box[2] - box[0], box[3] - box[1]
    return math.ceil(whole[0] * size / across), math.ceil(whole[1] * size / down)
