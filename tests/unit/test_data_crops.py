"""What becomes of an image: the window, its scale, and files of every kind."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onebit.data import DataError
from onebit.data.crops import Crops, central, read_window


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def slopes(width: int, height: int) -> Image.Image:
    """Red rises from left to right by 200 in all, green from top to bottom; blue is 30."""
    red = np.broadcast_to(np.linspace(0, 200, width), (height, width))
    green = np.broadcast_to(np.linspace(0, 200, height)[:, None], (height, width))
    return Image.fromarray(np.stack([red, green, np.full_like(red, 30)], axis=2).round().astype(np.uint8))


def test_a_test_sees_what_resizing_to_256_and_cutting_224_shows() -> None:
    image = slopes(512, 768)
    resized = image.resize((256, 384), Image.Resampling.BILINEAR)
    expected = np.asarray(resized.crop((16, 80, 240, 304))).astype(int)
    got = read_window(saved(image, "png"), "x", 224, 3)
    assert got.shape == (3, 224, 224)
    assert np.abs(got.transpose(1, 2, 0).astype(int) - expected).max() <= 1


def test_the_central_window() -> None:
    assert central(256, 256) == (16, 16, 240, 240)
    assert central(800, 400) == (225, 25, 575, 375)


def seen(pixels: np.ndarray[Any, Any]) -> tuple[float, float, float, float]:
    """Of an image of `slopes`, where the window began and ended: left, right, top, bottom, as parts of it."""
    red, green = pixels[0].astype(float) / 200, pixels[1].astype(float) / 200
    return red[:, 0].mean(), red[:, -1].mean(), green[0].mean(), green[-1].mean()


def test_random_resized_windows_have_the_areas_and_ratios_that_were_asked_for() -> None:
    image, crops = saved(slopes(400, 300), "png"), Crops(32, resized=0.2)
    areas, ratios, lefts = [], [], []
    for seed in range(150):
        left, right, top, bottom = seen(read_window(image, "x", 32, 3, crops, np.random.RandomState(seed)))
        # The outermost pixels' middles stand half a pixel inside the window.
        across, down = (right - left) * 32 / 31, (bottom - top) * 32 / 31
        areas.append(across * down)
        ratios.append(across * 400 / (down * 300))
        lefts.append(left)
    assert 0.17 < min(areas) < 0.35
    assert 0.85 < max(areas) <= 1.05
    assert 0.7 < min(ratios) < 0.85
    assert 1.2 < max(ratios) < 1.42
    assert min(lefts) < 0.05
    assert max(lefts) > 0.4


def test_windows_of_one_size_lie_anywhere() -> None:
    """224 of 256 pixels of the shorter side, here of an image of 300 × 200."""
    image, crops = saved(slopes(300, 200), "png"), Crops(224, margin=(32, 32))
    windows = [
        seen(read_window(image, "x", 224, 3, crops, np.random.RandomState(seed))) for seed in range(60)
    ]
    for left, right, top, bottom in windows:
        assert right - left == pytest.approx(200 * 0.875 / 300, abs=0.02)
        assert bottom - top == pytest.approx(0.875, abs=0.02)
    assert min(w[0] for w in windows) < 0.05
    assert max(w[1] for w in windows) > 0.95
    assert max(w[2] for w in windows) > 0.1
    jittered = Crops(224, margin=(32, 256))
    sides = [
        seen(read_window(image, "x", 224, 3, jittered, np.random.RandomState(seed))) for seed in range(60)
    ]
    heights = [bottom - top for _, _, top, bottom in sides]
    assert 0.45 < min(heights) < 0.52  # 224 of 480
    assert 0.8 < max(heights) < 0.9


def test_half_of_the_windows_are_mirrored() -> None:
    image, crops = saved(slopes(64, 64), "png"), Crops(32, flip=True)
    mirrored = 0
    for seed in range(100):
        left, right, top, bottom = seen(read_window(image, "x", 32, 3, crops, np.random.RandomState(seed)))
        assert (left, right) == pytest.approx((1, 0) if left > right else (0, 1), abs=0.05)
        assert bottom > top
        mirrored += left > right
    assert 30 < mirrored < 70


def test_a_large_jpeg_decoded_small_shows_the_same() -> None:
    image, crops = slopes(1600, 1200), Crops(64, resized=0.3)
    for seed in range(5):
        small = read_window(saved(image, "jpeg", quality=95), "x", 64, 3, crops, np.random.RandomState(seed))
        whole = read_window(saved(image, "png"), "x", 64, 3, crops, np.random.RandomState(seed))
        assert np.abs(small.astype(int) - whole.astype(int)).max() <= 6


GREY = Image.new("L", (40, 30), 90)
KINDS = {
    "grey JPEG": (saved(GREY, "jpeg"), (90, 90, 90)),
    "CMYK JPEG": (saved(Image.new("CMYK", (40, 30), (0, 255, 255, 0)), "jpeg"), (255, 0, 0)),
    "palette": (saved(Image.new("RGB", (40, 30), (10, 200, 30)).quantize(4), "png"), (10, 200, 30)),
    "transparent": (saved(Image.new("RGBA", (40, 30), (10, 200, 30, 5)), "png"), (10, 200, 30)),
    "16-bit": (saved(Image.fromarray(np.full((30, 40), 90 * 257, dtype=np.uint16)), "png"), (90, 90, 90)),
    "one pixel": (saved(Image.new("RGB", (1, 1), (10, 200, 30)), "png"), (10, 200, 30)),
    "a line": (saved(Image.new("RGB", (500, 2), (10, 200, 30)), "png"), (10, 200, 30)),
    "a PNG called JPEG": (saved(GREY, "png"), (90, 90, 90)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("crops", [None, Crops(16, resized=0.08), Crops(16, margin=(2, 9))])
def test_every_kind_of_file_becomes_rgb_of_one_size(kind: str, crops: Crops | None) -> None:
    item, colour = KINDS[kind]
    for seed in range(5):
        pixels = read_window(item, kind, 16, 3, crops, np.random.RandomState(seed))
        assert (pixels.shape, pixels.dtype) == ((3, 16, 16), np.uint8)
        assert np.abs(pixels.astype(int) - np.array(colour)[:, None, None]).max() <= 3


def test_grey_on_demand() -> None:
    pixels = read_window(KINDS["palette"][0], "x", 16, 1)
    assert pixels.shape == (1, 16, 16)
    # ITU-R 601: 0.299 R + 0.587 G + 0.114 B
    assert abs(int(pixels[0, 3, 3]) - (0.299 * 10 + 0.587 * 200 + 0.114 * 30)) <= 1


@pytest.mark.parametrize("item", [b"", b"GIF89a", saved(slopes(90, 90), "jpeg")[:400], "/no/such/file.jpg"])
def test_what_is_no_image_is_named(item: bytes | str) -> None:
    with pytest.raises(DataError, match=r"^the place cannot be read as an image: .+"):
        read_window(item, "the place", 16, 3)


def test_a_file_is_read_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(KINDS["grey JPEG"][0])
    assert abs(int(read_window(str(tmp_path / "a.jpg"), "x", 16, 3).mean()) - 90) <= 1
