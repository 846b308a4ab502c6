"""Folders of WAV files: samples, rates, splits and errors. The files are written here, byte by byte."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from onebit import data
from onebit.data import DataError
from onebit.data.wav import fitted, read_clip, read_wav, resampled
from support import run_python

RATE = 8000


def wav_bytes(values: list[list[int]], bits: int = 16, rate: int = RATE, kind: int = 1) -> bytes:
    """A RIFF file of PCM frames; `values[i]` holds frame i, one integer a channel."""
    channels, width = len(values[0]) if values else 1, bits // 8
    body = b"".join(value.to_bytes(width, "little", signed=bits > 8) for frame in values for value in frame)
    fmt = struct.pack("<HHIIHH", kind, channels, rate, rate * channels * width, channels * width, bits)
    chunks = b"fmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def write(path: Path, values: list[int], **options: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(wav_bytes([[value] for value in values], **options))
    return path


@pytest.mark.parametrize(
    ("bits", "values", "expected"),
    [
        (8, [0, 64, 127, 128, 255], [-1.0, -0.5, -1 / 128, 0.0, 127 / 128]),
        (16, [-32768, -1, 0, 1, 16384, 32767], [-1.0, -(2**-15), 0.0, 2**-15, 0.5, 1 - 2**-15]),
        (24, [-(2**23), -1, 0, 1, 2**22, 2**23 - 1], [-1.0, -(2**-23), 0.0, 2**-23, 0.5, 1 - 2**-23]),
        (32, [-(2**31), -1, 0, 2**30, 3 << 28], [-1.0, -(2**-31), 0.0, 0.5, 0.375]),
    ],
)
def test_pcm_of_each_width(bits: int, values: list[int], expected: list[float], tmp_path: Path) -> None:
    samples = read_wav(write(tmp_path / "a.wav", values, bits=bits), RATE)
    assert samples.dtype == np.float32
    assert samples.tolist() == expected


def test_channels_are_averaged(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    path.write_bytes(wav_bytes([[16384, 0], [-32768, 32767], [100, 300]]))
    assert read_wav(path, RATE).tolist() == [0.25, -(2**-16), 200 / 32768]


@pytest.mark.parametrize(("rate", "wanted"), [(16000, 8000), (8000, 16000), (11025, 8000), (44100, 8000)])
def test_a_tone_stays_that_tone_at_another_rate(rate: int, wanted: int) -> None:
    count = rate // 4
    y = resampled(np.sin(2 * np.pi * 440 * np.arange(count) / rate), rate, wanted)
    assert len(y) == -(-count * wanted // rate)
    expected = np.sin(2 * np.pi * 440 * np.arange(len(y)) / wanted)
    inside = slice(wanted // 50, -wanted // 50)  # at its ends the tone is cut off
    assert np.abs(y - expected)[inside].max() < 2e-3


def test_what_the_lower_rate_cannot_hold_is_filtered_out() -> None:
    """6 kHz at 16 kHz would come back as 2 kHz at 8 kHz."""
    y = resampled(np.sin(2 * np.pi * 6000 * np.arange(4000) / 16000), 16000, 8000)
    assert np.abs(y[200:-200]).max() < 2e-3


def test_a_rate_that_is_right_changes_nothing() -> None:
    x = np.random.default_rng(1).normal(size=99)
    assert resampled(x, 22050, 22050).tolist() == x.tolist()


def test_a_file_of_another_rate_is_resampled(tmp_path: Path) -> None:
    samples = read_wav(write(tmp_path / "a.wav", [8192] * 1600, rate=16000), RATE)
    assert len(samples) == 800
    np.testing.assert_allclose(samples[50:-50], 0.25, atol=1e-4)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (3, [0, 1, 2, 3, 0]),  # equally many zeros on both sides
        (2, [0, 1, 2, 0, 0]),  # the odd one behind
        (5, [1, 2, 3, 4, 5]),
        (8, [2, 3, 4, 5, 6]),
    ],
)
def test_clips_stand_in_the_middle(count: int, expected: list[int]) -> None:
    assert fitted(np.arange(1, count + 1, dtype=np.float32), 5).tolist() == expected


@pytest.mark.parametrize("samples", [1, 33, 700, 1599, 1600, 1601, 5000])
@pytest.mark.parametrize(("rate", "channels"), [(RATE, 1), (RATE, 2), (16000, 1), (11025, 1), (4000, 1)])
def test_a_clip_is_the_fitted_sound(rate: int, channels: int, samples: int, tmp_path: Path) -> None:
    """Of a longer file only the middle is read, which must change nothing."""
    values = np.random.default_rng(2).integers(-(2**15), 2**15, (1600, channels)).tolist()
    (tmp_path / "a.wav").write_bytes(wav_bytes(values, rate=rate))
    clip = read_clip(tmp_path / "a.wav", RATE, samples)
    assert clip.dtype == np.float32
    expected = fitted(read_wav(tmp_path / "a.wav", RATE), samples)
    np.testing.assert_allclose(clip, expected, rtol=0, atol=1e-6)
    if rate == RATE:
        assert clip.tolist() == expected.tolist()


READ_BOUNDED = """
import resource, sys
from pathlib import Path
from onebit.data.wav import read_clip, read_wav
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for read in (lambda p: read_wav(p, 8000), lambda p: read_clip(p, 8000, 8000)):
    try:
        read(Path(sys.argv[1]))
    except ValueError as error:
        print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@pytest.mark.parametrize("rate", [1, 2, 7, 100, 499, 500, 8000, 44100, 1 << 20])
def test_no_rate_that_a_header_claims_takes_more_memory_than_the_sound(rate: int, tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", [513] * 20000, rate=rate)
    said = run_python(f"import sys; sys.argv = ['x', {str(path)!r}]\n{READ_BOUNDED}").splitlines()
    assert int(said[-1]) < 64  # MiB; the 1 Hz of one file of this size took 1.8 GiB
    refused = [line for line in said[:-1] if f"is of {rate} Hz by its header, and 8000 Hz are wanted" in line]
    assert len(refused) == len(said) - 1 == (2 if rate < 500 else 0)
    if rate < 500:
        assert "a sound of 500 to 1048576 Hz is needed" in refused[0]


def test_a_rate_that_is_asked_for_is_bounded_too(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", [1] * 9, rate=8000)
    for wanted in (7, 128_001, 10**9):
        with pytest.raises(DataError, match=f"is of 8000 Hz by its header, and {wanted} Hz are wanted"):
            read_clip(path, wanted, 8)
    assert read_clip(path, 8, 8).shape == read_clip(path, 128_000, 8).shape == (8,)


def test_a_header_that_promises_gigabytes(tmp_path: Path) -> None:
    raw = bytearray(wav_bytes([[1]] * 9))
    raw[40:44] = struct.pack("<I", 2**32 - 2)
    (tmp_path / "a.wav").write_bytes(raw)
    with pytest.raises(DataError, match="its header promises 2147483647 frames, 9 are there"):
        read_wav(tmp_path / "a.wav", RATE)


def test_damaged_headers_are_one_clear_error(tmp_path: Path) -> None:
    whole, generator, path = wav_bytes([[1]] * 9), np.random.default_rng(3), tmp_path / "a.wav"
    broken = 0
    for _ in range(2000):
        raw = bytearray(whole[: generator.integers(0, len(whole) + 1)] if generator.random() < 0.2 else whole)
        for place in generator.integers(0, len(raw), 2) if raw else []:
            raw[place] = generator.integers(0, 256)
        path.write_bytes(raw)
        with contextlib.suppress(DataError):
            broken -= len(read_clip(path, RATE, 8)) // 8
        broken += 1
    assert broken > 100


def fsdd(root: Path) -> Path:
    """Two words, two speakers, numbers 0 … 6; the one sample of a file tells all three."""
    for w, word in enumerate(("no", "yes")):
        for s, speaker in enumerate(("ann", "bob_b")):
            for number in range(7):
                write(root / f"{word}_{speaker}_{number}.wav", [1000 * w + 100 * s + number + 1])
    write(root / "._no_ann_0.wav", [9])  # what some systems leave beside each file
    (root / "README.md").write_text("not a sound")
    return root


def codes(split: data.Split) -> list[int]:
    """The one sample that is not 0 of each clip."""
    assert split.images.dtype == torch.float32
    assert (split.images != 0).sum(dim=(1, 2)).tolist() == [1] * len(split)
    return (split.images.sum(dim=(1, 2)) * 32768).int().tolist()


@pytest.mark.parametrize("folder", [".", "recordings"])
def test_numbers_0_to_4_are_the_test_split(folder: str, tmp_path: Path) -> None:
    fsdd(tmp_path / folder)
    splits = data.load("fsdd", tmp_path)
    assert splits.input_shape == (1, 8000)
    assert splits.classes == ("no", "yes")
    assert splits.validation is None
    # by number, then word, then speaker
    assert codes(splits.test) == [c + n for n in range(1, 6) for c in (0, 100, 1000, 1100)]
    assert splits.test.labels.tolist() == [0, 0, 1, 1] * 5
    assert codes(splits.train) == [c + n for n in (6, 7) for c in (0, 100, 1000, 1100)]


def test_the_highest_numbers_are_held_out(tmp_path: Path) -> None:
    splits = data.load("fsdd", fsdd(tmp_path), validation=4)
    assert splits.validation is not None
    assert codes(splits.train) == [6, 106, 1006, 1106]
    assert codes(splits.validation) == [7, 107, 1007, 1107]
    assert splits.validation.labels.tolist() == [0, 0, 1, 1]


def test_class_folders_with_a_test_folder(tmp_path: Path) -> None:
    for code, place in enumerate(("train/b/x", "train/a/x", "train/a/deep/er", "test/a/x", "test/b/y")):
        write(tmp_path / f"{place}.wav", [code + 1])
    splits = data.load(str(tmp_path))
    assert splits.classes == ("a", "b")
    assert (codes(splits.train), splits.train.labels.tolist()) == ([3, 2, 1], [0, 0, 1])
    assert (codes(splits.test), splits.test.labels.tolist()) == ([4, 5], [0, 1])


def test_class_folders_alone_are_split_once_and_for_all(tmp_path: Path) -> None:
    for w, word in enumerate(("left", "right")):
        for i in range(10):
            write(tmp_path / word / f"{i}.WAV", [100 * w + i + 1])
    splits = data.load("words", tmp_path, validation=3)
    assert splits.validation is not None
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [13, 3, 4]
    assert splits.test.labels.tolist() == [0, 0, 1, 1]
    every = [*codes(splits.train), *codes(splits.validation), *codes(splits.test)]
    assert sorted(every) == [*range(1, 11), *range(101, 111)]
    again = data.load("words", tmp_path, validation=3)
    assert codes(again.test) == codes(splits.test)


def test_rate_and_length_can_be_chosen(tmp_path: Path) -> None:
    splits = data.load("fsdd", fsdd(tmp_path), samples=31)
    assert splits.input_shape == (1, 31)
    assert splits.test.images[0, 0, 15] == 1 / 32768
    write(tmp_path / "no_ann_0.wav", [8192] * 100)
    halved, doubled = (data.load("fsdd", tmp_path, sample_rate=rate) for rate in (4000, 16000))
    assert (halved.test.images[0, 0, 3975:4025] > 0.1).sum() == 50
    assert (doubled.test.images[0, 0, 3900:4100] > 0.1).sum() == 200
    with pytest.raises(DataError, match="samples=0: give positive numbers"):
        data.load("fsdd", tmp_path, samples=0)
    with pytest.raises(
        DataError, match="'digits' has images, which have no sample_rate=8000: leave that out"
    ):
        data.load("digits", sample_rate=8000)


BROKEN = {
    "no RIFF": (b"ID3\x03 an mp3, say", "cannot be read as a WAV file: file does not start with RIFF id"),
    "nothing": (b"", "cannot be read as a WAV file: it ends within its header"),
    "header": (wav_bytes([[1]])[:30], "cannot be read as a WAV file"),
    "float": (wav_bytes([[1]], bits=32, kind=3), r"unknown format: 3 \(uncompressed PCM is needed\)"),
    "cut": (wav_bytes([[1]] * 9)[:-4], "is cut off: its header promises 9 frames, 7 are there"),
    "empty": (wav_bytes([]), "holds no samples"),
    "wide": (wav_bytes([[1]], bits=64), "64-bit samples at 8000 Hz; 8, 16, 24 or 32-bit PCM is needed"),
    "no rate": (wav_bytes([[1]], rate=0), "16-bit samples at 0 Hz"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_named(kind: str, tmp_path: Path) -> None:
    content, words = BROKEN[kind]
    path = fsdd(tmp_path) / "no_ann_3.wav"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        data.load("fsdd", tmp_path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_named_as_the_others(tmp_path: Path) -> None:
    write(fsdd(tmp_path) / "noise.wav", [1])
    with pytest.raises(
        DataError, match=r"noise\.wav: lies in no class folder and is not named WORD_SPEAKER_N"
    ):
        data.load("fsdd", tmp_path)


def test_numbers_that_leave_a_split_empty(tmp_path: Path) -> None:
    write(tmp_path / "no_ann_5.wav", [1])
    with pytest.raises(
        DataError, match=r"no clip for the test split; of WORD_SPEAKER_NUMBER.wav the numbers 0"
    ):
        data.load("fsdd", tmp_path)


def test_an_empty_class_folder_and_wrong_options(tmp_path: Path) -> None:
    write(tmp_path / "yes" / "1.wav", [1])
    (tmp_path / "no").mkdir()
    with pytest.raises(DataError, match=r"no: no WAV file in this class folder \(\.wav\)"):
        data.load("words", tmp_path)
    with pytest.raises(DataError, match="holds WAV files, which have no image_size=32: leave that out"):
        data.load("words", tmp_path, image_size=32)


def test_fsdd_wants_wav_files_and_other_folders_need_none(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(b"no image either")
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match=r"a: no WAV file in this class folder"):
        data.load("fsdd", tmp_path)
    with pytest.raises(DataError, match=r"b: no image in this class folder"):
        data.load("mine", tmp_path)


def test_fsdd_says_where_to_get_it() -> None:
    with pytest.raises(DataError, match=r"free-spoken-digit-dataset\) and give its folder: --data-dir"):
        data.load("fsdd")
