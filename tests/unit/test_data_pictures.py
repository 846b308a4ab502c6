"""A picture in many kinds of file: training, streams and `onebit run` see the same bytes, stated here."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import onebit
from onebit import nn as bnn
from onebit.cli import main
from onebit.data import DataError
from onebit.data.crops import central, read_window
from onebit.data.decode import decode_images
from onebit.data.pictures import read_picture

GREY = np.random.default_rng(0).integers(0, 256, (8, 6), dtype=np.uint8)
RGB = np.random.default_rng(1).integers(0, 256, (8, 6, 3), dtype=np.uint8)
DEEP = GREY.astype(np.uint16) * 256 + np.random.default_rng(2).integers(0, 256, (8, 6), dtype=np.uint16)
TWO = np.where(GREY > 127, 255, 0).astype(np.uint8)


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def tiff(pixels: np.ndarray, bits: int, photometric: int, kind: int = 1) -> bytes:
    """An uncompressed TIFF of one strip, written byte by byte: Pillow cannot write these kinds."""
    body = pixels.tobytes()
    entries = [
        (256, 3, pixels.shape[1]), (257, 3, pixels.shape[0]), (258, 3, bits), (259, 3, 1),
        (262, 3, photometric), (273, 4, 8), (277, 3, 1), (278, 3, pixels.shape[0]), (279, 4, len(body)),
        (339, 3, kind),
    ]  # fmt: skip
    table = struct.pack("<H", len(entries))
    for tag, type_, value in entries:
        table += struct.pack("<HHI", tag, type_, 1) + struct.pack("<I", value)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + table + struct.pack("<I", 0)


def palette() -> Image.Image:
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(8, 6), "P")
    image.putpalette(RGB.tobytes())
    return image


def with_alpha(pixels: np.ndarray) -> Image.Image:
    """Every pixel more or less transparent: none of it may count."""
    alpha = np.random.default_rng(3).integers(0, 256, (8, 6, 1), dtype=np.uint8)
    return Image.fromarray(np.concatenate([pixels.reshape(8, 6, -1), alpha], axis=2))


def turned() -> bytes:
    exif = Image.Exif()
    exif[274] = 6  # to be shown a quarter turned, which is not followed
    return encoded(Image.fromarray(RGB), exif=exif)


# What each file must be read as, whoever reads it.
KINDS: dict[str, tuple[Callable[[], bytes], np.ndarray]] = {
    "8-bit grey": (lambda: encoded(Image.fromarray(GREY)), GREY),
    "16-bit grey PNG": (lambda: encoded(Image.fromarray(DEEP)), GREY),
    "16-bit grey TIFF": (lambda: tiff(DEEP, 16, 1), GREY),
    "16-bit grey TIFF, white is 0": (lambda: tiff(~DEEP, 16, 0), GREY),
    "16-bit grey PGM": (lambda: b"P5\n6 8\n65535\n" + DEEP.astype(">u2").tobytes(), GREY),
    "bits": (lambda: encoded(Image.fromarray(TWO).convert("1")), TWO),
    "grey and alpha": (lambda: encoded(with_alpha(GREY)), GREY),
    "RGB": (lambda: encoded(Image.fromarray(RGB)), RGB),
    "RGB and alpha": (lambda: encoded(with_alpha(RGB)), RGB),
    "16-bit RGB": (
        lambda: b"P6\n6 8\n65535\n" + (RGB.astype(np.uint16) * 257).astype(">u2").tobytes(),
        RGB,
    ),
    "palette": (lambda: encoded(palette()), RGB),
    "palette with transparency": (lambda: encoded(palette(), transparency=bytes(range(48))), RGB),
    "GIF": (lambda: encoded(palette(), "GIF"), RGB),
    "CMYK": (
        lambda: encoded(
            Image.merge("CMYK", [*Image.fromarray(255 - RGB).split(), Image.new("L", (6, 8), 0)]), "TIFF"
        ),
        RGB,
    ),
    "turned": (turned, RGB),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("error")
def test_every_reader_sees_the_same_bytes(kind: str, tmp_path: Path) -> None:
    make, expected = KINDS[kind]
    path = tmp_path / "picture.bin"
    path.write_bytes(make())
    for item in (path, str(path), make()):
        assert np.array_equal(read_picture(item, "x"), expected)
    channels = expected.reshape(8, 6, -1).transpose(2, 0, 1)
    assert np.array_equal(decode_images([make()], ["x"])[0], channels)
    assert decode_images([str(path)], ["x"], channels=3).shape == (1, 3, 8, 6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_takes_its_window_of_the_same_bytes(kind: str) -> None:
    make, expected = KINDS[kind]
    plain = encoded(Image.fromarray(expected))
    for channels in (1, 3):
        assert np.array_equal(read_window(make(), "x", 5, channels), read_window(plain, "x", 5, channels))


@pytest.fixture(scope="module", params=[1, 3])
def network(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[int, nn.Module, Path]:
    """Channels, model and file of one that takes pictures of 8×6."""
    channels = request.param
    torch.manual_seed(0)
    layers = [bnn.ScalePixels(), nn.Flatten(), bnn.BinaryLinear(channels * 48, 10, input_quantizer=None)]
    model = nn.Sequential(*layers).eval()
    file = tmp_path_factory.mktemp("network") / "m.onebit"
    onebit.convert(model, torch.zeros(1, channels, 8, 6, dtype=torch.uint8)).save(file)
    return channels, model, file


@pytest.mark.parametrize("kind", KINDS)
def test_run_reads_a_picture_as_training_did(
    kind: str, network: tuple[int, nn.Module, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    channels, model, file = network
    path = tmp_path / "picture.png"  # told by its content, not by its name
    path.write_bytes(KINDS[kind][0]())
    trained_on = torch.from_numpy(decode_images([path.read_bytes()], ["x"], channels=channels))
    assert main(["run", str(file), str(path), "--json"]) == 0
    got = json.loads(capsys.readouterr().out)["values"]
    with torch.no_grad():
        assert got == model(trained_on).tolist()


@pytest.mark.parametrize("streamed", [False, True])
def test_resize_brings_a_picture_to_size_as_training_did(
    streamed: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        bnn.ScalePixels(), nn.Flatten(), bnn.BinaryLinear(75, 10, input_quantizer=None)
    ).eval()
    program = onebit.convert(model, torch.zeros(1, 3, 5, 5, dtype=torch.uint8))
    metadata = {**program.metadata, **({"stream": "1"} if streamed else {})}
    replace(program, metadata=metadata).save(tmp_path / "m.onebit")
    wide = np.random.default_rng(4).integers(0, 256, (8, 20, 3), dtype=np.uint8)
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(wide)))
    assert main(["run", str(tmp_path / "m.onebit"), str(tmp_path / "a.png"), "--resize", "--json"]) == 0
    got = json.loads(capsys.readouterr().out)["values"]
    box = central(20, 8) if streamed else (6, 0, 14, 8)
    seen = Image.fromarray(wide).resize((5, 5), Image.Resampling.BILINEAR, box=box)
    with torch.no_grad():
        assert got == model(torch.from_numpy(np.array(seen).transpose(2, 0, 1))[None]).tolist()


@pytest.mark.parametrize(
    "make",
    [
        lambda: tiff(GREY.astype("<f4"), 32, 1, kind=3),
        lambda: tiff(GREY.astype("<i4"), 32, 1, kind=2),
        lambda: tiff(DEEP.astype("<i2"), 16, 1, kind=2),
    ],
)
def test_pixels_of_an_unknown_range_are_refused(make: Callable[[], bytes]) -> None:
    for read in (
        lambda: read_picture(make(), "the place"),
        lambda: read_picture(make(), "the place", channels=3),
        lambda: read_window(make(), "the place", 4, 1),
    ):
        with pytest.raises(DataError, match=r"the place: its pixels are .* nothing tells what is black"):
            read()


def test_a_12_bit_tiff_keeps_its_high_bits() -> None:
    deep = GREY.astype(np.uint16).reshape(-1) << 4
    pairs = deep.reshape(-1, 2)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1)
    body = packed.astype(np.uint8).reshape(8, 9)
    raw = bytearray(tiff(body, 12, 1))
    raw[raw.index(struct.pack("<HHII", 256, 3, 1, 9)) + 8] = 6  # pixels of a row, not bytes
    assert np.array_equal(read_picture(bytes(raw), "x"), GREY)


def _outcome(raw: bytes) -> str:
    """ "" for a picture, else what the one kind of error that may come says."""
    try:
        read_picture(raw, "the place")
    except DataError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of damage that it can live with
def test_damaged_files_are_one_clear_error(kind: str) -> None:
    whole = KINDS[kind][0]()
    generator = np.random.default_rng(5)
    said = []
    for _ in range(60):
        raw = bytearray(whole[: generator.integers(0, len(whole) + 1)] if generator.random() < 0.3 else whole)
        for place in generator.integers(0, len(raw), 3) if raw else []:
            raw[place] = generator.integers(0, 256)
        said.append(_outcome(bytes(raw)))
    errors = [text for text in said if text]
    assert errors, "no damage was noticed"
    assert all("the place" in text for text in errors)
