"""Arrays for `onebit run`: a .npy file, or images or sounds that match what the network takes."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Any

from onebit.cli.errors import UserError, existing_file

if TYPE_CHECKING:
    import numpy.typing as npt


def read_inputs(
    paths: Sequence[str],
    shape: tuple[int, ...],
    *,
    bytes_in: bool,
    resize: bool,
    windowed: bool,
    sample_rate: int | None,
) -> npt.NDArray[Any]:
    """One batch from one .npy file, from images, or from WAV files.

    `shape` is that of one sample; `bytes_in`: it takes u8; `sample_rate`: Hz, of the sounds that it takes. A
    sound stands in the middle of zeros, or its middle is taken, as in training. `resize` brings pictures to
    size as training did: the whole scaled to cover it and cut at the centre or, of a network trained on a
    stream of them (`windowed`), the central window.
    A .npy file may hold one sample or a batch; its dtype must be the network's own (the engine checks).
    """
    from onebit.data.pictures import SUFFIXES

    files = [existing_file(text, what="an input (.npy, an image or a WAV file)") for text in paths]
    suffixes = {file.suffix.lower() for file in files}
    if suffixes <= set(SUFFIXES):
        return _read_images(files, shape, bytes_in=bytes_in, resize=resize, windowed=windowed)
    if suffixes == {".wav"}:
        return _read_sounds(files, shape, bytes_in=bytes_in, sample_rate=sample_rate)
    odd = next((file for file in files if file.suffix.lower() not in (*SUFFIXES, ".wav", ".npy")), None)
    if odd is not None:
        raise UserError(f"{str(odd)!r} is no .npy file, no WAV file and no image ({', '.join(SUFFIXES)})")
    if len(files) > 1:
        raise UserError(
            f"{len(files)} inputs: give one .npy file, or one image or more, or one WAV file or more,"
            " not a mixture"
        )
    return _read_npy(files[0], shape)


def _read_npy(file: Path, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    from onebit.user_files import open_regular

    try:
        with open_regular(file) as opened:
            array = _array(opened)
    except (
        ValueError,
        TypeError,
        EOFError,
        OSError,
        SyntaxError,
        MemoryError,
        RecursionError,
        TokenError,
    ) as error:  # the header is read as Python, and may be anything
        reason = str(error) or type(error).__name__
        raise UserError(f"{str(file)!r} is no readable .npy file: {reason}") from error
    return array[None] if array.shape == shape else array


def _array(opened: BufferedReader) -> npt.NDArray[Any]:
    """The array of an open .npy file, once the file is known to be as long as its header says."""
    import numpy as np

    if opened.peek(2)[:2] == b"PK":
        raise ValueError("it is a .npz archive under another name; save one array with np.save")
    version = np.lib.format.read_magic(opened)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"it has version {version[0]}.{version[1]}, which is for arrays of records")
    shape, _, dtype = readers[version](opened)
    present = os.fstat(opened.fileno()).st_size - opened.tell()
    if math.prod(shape) * dtype.itemsize > present:
        raise ValueError(
            f"its header promises {'×'.join(map(str, shape))} {dtype}, {present} bytes are there"
        )
    opened.seek(0)
    array: npt.NDArray[Any] = np.load(opened, allow_pickle=False)
    return array


def _read_sounds(
    files: Sequence[Path], shape: tuple[int, ...], *, bytes_in: bool, sample_rate: int | None
) -> npt.NDArray[Any]:
    import numpy as np

    from onebit.data.wav import SAMPLE_RATE, read_clip

    if bytes_in or len(shape) != 2 or shape[0] != 1:
        wanted = "×".join(map(str, shape))
        raise UserError(
            f"{str(files[0])!r}: the network takes {wanted} {'bytes' if bytes_in else 'values'}, which is"
            " no sound (1×samples); give a .npy file"
        )
    clips = [read_clip(file, sample_rate or SAMPLE_RATE, shape[1]) for file in files]
    return np.stack(clips)[:, None]


def _read_images(
    files: Sequence[Path], shape: tuple[int, ...], *, bytes_in: bool, resize: bool, windowed: bool
) -> npt.NDArray[Any]:
    import numpy as np

    from onebit.data.crops import read_window
    from onebit.data.pictures import read_picture

    channels, height, width, first = _image_layout(shape)
    if not bytes_in:
        raise UserError(
            f"{str(files[0])!r}: this network takes floats, and an image does not say how they were "
            "scaled in training; prepare them as in training and give a .npy file"
        )
    batch = []
    for file in files:
        if resize and windowed and height == width:
            batch.append(read_window(file, file, height, channels))
            continue
        size = (height, width) if resize else None
        pixels = read_picture(file, file, channels=channels, size=size)
        if pixels.shape[:2] != (height, width):
            raise UserError(
                f"{str(file)!r} is {pixels.shape[1]}×{pixels.shape[0]} pixels, "
                f"the network takes {width}×{height}; add --resize to rescale"
            )
        batch.append(pixels.reshape(height, width, channels).transpose(2, 0, 1))
    stacked = np.stack(batch)
    stacked = stacked if first else stacked.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(stacked.reshape(len(batch), *shape))


def _image_layout(shape: tuple[int, ...]) -> tuple[int, int, int, bool]:
    """(channels, height, width, channels stand first) of the images that fit one sample of this shape."""
    if len(shape) == 3 and shape[0] in (1, 3):
        return shape[0], shape[1], shape[2], True
    if len(shape) == 3 and shape[2] in (1, 3):
        return shape[2], shape[0], shape[1], False
    if len(shape) == 2:
        return 1, shape[0], shape[1], False
    wanted = "×".join(map(str, shape))
    raise UserError(f"the network takes {wanted} values, which is no image; give a .npy file")
