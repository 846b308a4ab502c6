"""WAV files → samples: PCM of 8, 16, 24 or 32 bits, mixed to one channel, at the rate that is asked for.

Needs NumPy only: `onebit run` reads sounds with it where no PyTorch is.
"""

from __future__ import annotations

import math
import wave
from pathlib import Path
from typing import TypeAlias

import numpy as np

from onebit.errors import DataError

SAMPLE_RATE = 8000  # Hz: that of sounds unless another is given
Samples: TypeAlias = np.ndarray[tuple[int], np.dtype[np.float32]]

_ZERO_CROSSINGS = 16  # of the sinc, each side: more makes a steeper low-pass and takes longer
_MAX_RATE = 1 << 20


def read_wav(path: Path, sample_rate: int) -> Samples:
    """The file's samples at `sample_rate` (Hz), float32 (n,) in [-1, 1]; channels are averaged.

    8-bit PCM x becomes (x − 128)/128, others x / 2^(bits − 1). A file of another rate is resampled.
    Raises `DataError`, naming the file, if it cannot be read, is no PCM, is cut off, or holds no samples.
    """
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            frames, raw = file.getnframes(), file.readframes(file.getnframes())
    except (wave.Error, EOFError, OSError) as error:
        raise DataError(
            f"{path} cannot be read as a WAV file: {str(error) or 'it ends within its header'}"
            " (uncompressed PCM is needed)"
        ) from error
    if width not in (1, 2, 3, 4) or not 1 <= rate <= _MAX_RATE:
        raise DataError(f"{path}: {8 * width}-bit samples at {rate} Hz; 8, 16, 24 or 32-bit PCM is needed")
    if len(raw) != frames * channels * width:
        raise DataError(
            f"{path} is cut off: its header promises {frames} frames,"
            f" {len(raw) // (channels * width)} are there"
        )
    if frames == 0:
        raise DataError(f"{path} holds no samples")
    mono = _numbers(raw, width).reshape(frames, channels).mean(axis=1)
    return resampled(mono, rate, sample_rate).astype(np.float32)


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
    """x, sampled at `rate`, as sampled at `wanted`: ⌈n·wanted/rate⌉ numbers, the first at the same instant.

    With up/down = wanted/rate in lowest terms, output j lies at t = j·down/up input samples:
    y[j] = Σ_k x[k]·h(t − k), h(t) = sinc(c·t)·cos²(π·c·t/2Z) for |c·t| < Z = 16, scaled to Σ_k h(t − k) = 1.
    c = 0.95·min(1, up/down): what the lower of the two rates cannot hold is filtered out. Outside, x is 0.
    """
    divisor = math.gcd(rate, wanted)
    up, down = wanted // divisor, rate // divisor
    if up == down:
        return x
    cutoff = 0.95 * min(1.0, up / down)
    reach = math.ceil(_ZERO_CROSSINGS / cutoff)
    padded = np.pad(x, (reach, reach + down))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    y = np.zeros(-(-len(x) * up // down))
    for phase in range(min(up, len(y))):  # outputs of one phase lie equally between input samples
        base, rest = divmod(phase * down, up)
        t = cutoff * (rest / up - np.arange(-reach, reach + 1))
        inside = np.abs(t) < _ZERO_CROSSINGS
        h = np.where(inside, np.sinc(t) * np.cos(np.pi * t / (2 * _ZERO_CROSSINGS)) ** 2, 0)
        places = y[phase::up]
        places[:] = windows[base::down][: len(places)] @ (h / h.sum())
    return y
