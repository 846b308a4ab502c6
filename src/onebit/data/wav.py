"""WAV files → samples: PCM of 8, 16, 24 or 32 bits, mixed to one channel, at the rate that is asked for.

Needs NumPy only: `onebit run` reads sounds with it where no PyTorch is.
"""

from __future__ import annotations

import math
import os
import wave
from pathlib import Path
from typing import TypeAlias

import numpy as np

from onebit.errors import DataError, FileKindError
from onebit.user_files import open_regular

SAMPLE_RATE = 8000  # Hz: that of sounds unless another is given
Samples: TypeAlias = np.ndarray[tuple[int], np.dtype[np.float32]]

_ZERO_CROSSINGS = 16  # of the sinc, each side: more makes a steeper low-pass and takes longer
_MAX_RATE = 1 << 20
# Times that a rate may rise and fall: a header alone cannot ask for more memory.
_MAX_UP, _MAX_DOWN = 16, 1024


def read_wav(path: Path, sample_rate: int) -> Samples:
    """The file's samples at `sample_rate` (Hz), float32 (n,) in [-1, 1]; channels are averaged.

    8-bit PCM x becomes (x − 128)/128, others x / 2^(bits − 1). A file of another rate is resampled.
    Raises `DataError`, naming the file, if it cannot be read, is no PCM, is cut off, holds no samples, or has
    a rate below a sixteenth or above 1,024 times of the wanted one.
    """
    return _read(path, sample_rate, None)


def read_clip(path: Path, sample_rate: int, samples: int) -> Samples:
    """`fitted(read_wav(path, sample_rate), samples)`, of a longer file without reading the rest of it.

    What training, evaluation and `onebit run` see of a sound.
    """
    return fitted(_read(path, sample_rate, samples), samples)


def _read(path: Path, wanted: int, samples: int | None) -> Samples:
    """The whole sound at that rate or, where it is longer, the `samples` in its middle."""
    try:
        with open_regular(path) as opened, wave.open(opened) as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            frames, size = file.getnframes(), channels * width
            present = (os.fstat(opened.fileno()).st_size - opened.tell()) // size
            _check(path, width, rate, wanted, frames, present)
            length = _length(frames, rate, wanted)
            start = 0 if samples is None else max(0, (length - samples) // 2)
            outputs = range(start, length if samples is None else min(length, start + samples))
            needed = _needed(outputs, rate, wanted)
            first, last = max(0, needed.start), min(frames, needed.stop)
            file.setpos(first)
            raw = file.readframes(last - first)
            if len(raw) < (last - first) * size:  # the outermost chunk ends before its samples
                _check(path, width, rate, wanted, frames, first + len(raw) // size)
    except FileKindError as error:
        raise DataError(f"{path} is {error.kind}, no WAV file") from error
    except (wave.Error, EOFError, OSError, RuntimeError) as error:  # the last: a chunk longer than its file
        raise DataError(
            f"{path} cannot be read as a WAV file: {str(error) or 'it ends within its header'}"
            " (uncompressed PCM is needed)"
        ) from error
    mono = _numbers(raw, width).reshape(-1, channels).mean(axis=1)
    around = np.pad(mono, (first - needed.start, needed.stop - last))
    return _filtered(around, outputs, rate, wanted).astype(np.float32)


def _check(path: Path, width: int, rate: int, wanted: int, frames: int, present: int) -> None:
    if width not in (1, 2, 3, 4) or not 1 <= rate <= _MAX_RATE:
        raise DataError(f"{path}: {8 * width}-bit samples at {rate} Hz; 8, 16, 24 or 32-bit PCM is needed")
    if present < frames:
        raise DataError(f"{path} is cut off: its header promises {frames} frames, {present} are there")
    if frames == 0:
        raise DataError(f"{path} holds no samples")
    if not rate <= wanted * _MAX_DOWN or not wanted <= rate * _MAX_UP:
        raise DataError(
            f"{path} is of {rate} Hz by its header, and {wanted} Hz are wanted; a sound of"
            f" {-(-wanted // _MAX_UP)} to {min(_MAX_RATE, wanted * _MAX_DOWN)} Hz is needed"
        )


def fitted(clip: Samples, samples: int) -> Samples:
    """`clip` in the middle of `samples` zeros, or its middle if it is longer."""
    if len(clip) >= samples:
        start = (len(clip) - samples) // 2
        return clip[start : start + samples]
    before = (samples - len(clip)) // 2
    return np.pad(clip, (before, samples - len(clip) - before))


def _numbers(raw: bytes, width: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Little-endian PCM of `width` bytes as numbers in [-1, 1)."""
    if width == 1:
        return (np.frombuffer(raw, np.uint8).astype(np.float64) - 128) / 128
    # The bytes become the high ones of an int32, so that its sign is theirs.
    high = np.zeros((len(raw) // width, 4), np.uint8)
    high[:, 4 - width :] = np.frombuffer(raw, np.uint8).reshape(-1, width)
    return high.reshape(-1).view("<i4").astype(np.float64) / 2**31


def resampled(
    x: np.ndarray[tuple[int], np.dtype[np.float64]], rate: int, wanted: int
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """x, sampled at `rate`, as samples at `wanted`: ⌈len(x)·wanted/rate⌉ of them, by a windowed sinc.

    With up/down = wanted/rate in lowest terms, output j lies at t = j·down/up input samples:
    y[j] = Σ_k x[k]·h(t − k), h(t) = sinc(c·t)·cos²(π·c·t/2Z) for |c·t| < Z = 16, scaled to Σ_k h(t − k) = 1.
    c = 0.95·min(1, up/down): what the lower of the two rates cannot hold is filtered out. Outside, x is 0.
    """
    outputs = range(_length(len(x), rate, wanted))
    needed = _needed(outputs, rate, wanted)
    return _filtered(np.pad(x, (-needed.start, needed.stop - len(x))), outputs, rate, wanted)


def _lowest(rate: int, wanted: int) -> tuple[int, int, float, int]:
    """up, down, c, and how many inputs before and after ⌊t⌋ an output depends on."""
    divisor = math.gcd(rate, wanted)
    up, down = wanted // divisor, rate // divisor
    cutoff = 0.95 * min(1.0, up / down)
    return up, down, cutoff, 0 if up == down else math.ceil(_ZERO_CROSSINGS / cutoff)


def _length(count: int, rate: int, wanted: int) -> int:
    return -(-count * wanted // rate)


def _needed(outputs: range, rate: int, wanted: int) -> range:
    """The inputs that these outputs depend on, those before 0 and after the end among them, which are 0."""
    up, down, _, reach = _lowest(rate, wanted)
    return range(outputs.start * down // up - reach, (outputs.stop - 1) * down // up + reach + 1)


def _filtered(
    x: np.ndarray[tuple[int], np.dtype[np.float64]], outputs: range, rate: int, wanted: int
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The outputs of `resampled`, x being the inputs that they need."""
    up, down, cutoff, reach = _lowest(rate, wanted)
    if up == down:
        return x
    windows = np.lib.stride_tricks.sliding_window_view(x, 2 * reach + 1)
    y = np.zeros(len(outputs))
    before = outputs.start * down // up
    for phase in range(min(up, len(y))):  # outputs of one phase lie equally between input samples
        base, rest = divmod((outputs.start + phase) * down, up)
        t = cutoff * (rest / up - np.arange(-reach, reach + 1))
        inside = np.abs(t) < _ZERO_CROSSINGS
        h = np.where(inside, np.sinc(t) * np.cos(np.pi * t / (2 * _ZERO_CROSSINGS)) ** 2, 0)
        places = y[phase::up]
        places[:] = windows[base - before :: down][: len(places)] @ (h / h.sum())
    return y
