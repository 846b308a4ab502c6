"""Arrays for `onebit run`: a .npy file, or images or sounds that match what the network takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onebit.cli.errors import UserError, existing_file

if TYPE_CHECKING:
    import numpy.typing as npt

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")


def read_inputs(
    paths: Sequence[str], shape: tuple[int, ...], *, bytes_in: bool, resize: bool, sample_rate: int | None
) -> npt.NDArray[Any]:
    """One batch from one .npy file, from images, or from WAV files.

    `shape` is that of one sample; `bytes_in`: it takes u8; `sample_rate`: Hz, of the sounds that it takes. A
    sound stands in the middle of zeros, or its middle is taken, as in training.
    A .npy file may hold one sample or a batch; its dtype must be the network's own (the engine checks).
    """
    files = [existing_file(text, what="an input (.npy, an image or a WAV file)") for text in paths]
    suffixes = {file.suffix.lower() for file in files}
    if suffixes <= set(IMAGES):
        return _read_images(files, shape, bytes_in=bytes_in, resize=resize)
    if suffixes == {".wav"}:
        return _read_sounds(files, shape, bytes_in=bytes_in, sample_rate=sample_rate)
    odd = next((file for file in files if file.suffix.lower() not in (*IMAGES, ".wav", ".npy")), None)
    if odd is not None:
        raise UserError(f"{str(odd)!r} is no .npy file, no WAV file and no image ({', '.join(IMAGES)})")
    if len(files) > 1:
        raise UserError(
            f"{len(files)} inputs: give one .npy file, or one image or more, or one WAV file or more,"
            " not a mixture"
        )
    return _read_npy(files[0], shape)


def _read_npy(file: Path, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    import numpy as np

    try:
        array: Any = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{str(file)!r} is no readable .npy file: {error}") from error
    if not isinstance(array, np.ndarray):
        raise UserError(f"{str(file)!r} is a .npz archive under another name; save one array with np.save")
    return array[None] if array.shape == shape else array


def _read_sounds(
    files: Sequence[Path], shape: tuple[int, ...], *, bytes_in: bool, sample_rate: int | None
) -> npt.NDArray[Any]:
    import numpy as np

    from onebit.data.wav import SAMPLE_RATE, fitted, read_wav

    if bytes_in or len(shape) != 2 or shape[0] != 1:
        wanted = "×".join(map(str, shape))
        raise UserError(
            f"{str(files[0])!r}: the network takes {wanted} {'bytes' if bytes_in else 'values'}, which is"
            " no sound (1×samples); give a .npy file"
        )
    clips = [fitted(read_wav(file, sample_rate or SAMPLE_RATE), shape[1]) for file in files]
    return np.stack(clips)[:, None]


def _read_images(
    files: Sequence[Path], shape: tuple[int, ...], *, bytes_in: bool, resize: bool
) -> npt.NDArray[Any]:
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    channels, height, width, first = _image_layout(shape)
    if not bytes_in:
        raise UserError(
            f"{str(files[0])!r}: this network takes floats, and an image does not say how they were "
            "scaled in training; prepare them as in training and give a .npy file"
        )
    batch = []
    for file in files:
        try:
            with Image.open(file) as opened:
                image = opened.convert("L" if channels == 1 else "RGB")
        except (UnidentifiedImageError, OSError) as error:
            raise UserError(f"{str(file)!r} is no readable image: {error}") from error
        if image.size != (width, height):
            if not resize:
                raise UserError(
                    f"{str(file)!r} is {image.width}×{image.height} pixels, "
                    f"the network takes {width}×{height}; add --resize to rescale"
                )
            image = image.resize((width, height))
        pixels = np.asarray(image, dtype=np.uint8).reshape(height, width, channels)
        batch.append(pixels.transpose(2, 0, 1) if first else pixels)
    return np.ascontiguousarray(np.stack(batch).reshape(len(batch), *shape))


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
