"""What the commands say when something is wrong: the user's own words, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from onebit.errors import OnebitError

# Module name → how a user installs it. The extras are those of pyproject.toml.
INSTALL_WITH = {
    "torch": "train",
    "sklearn": "train",
    "matplotlib": "train",
    "tqdm": "train",
    "datasets": "data",
    "PIL": "images",
    "tensorboard": "tensorboard",
    "onnx": "onnx",
    "onnxruntime": "bench",
    "cuda": "cuda",
}


class UserError(OnebitError):
    """A mistake in what the user typed or in a file that the user named; exit code 2."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or `; there are: a, b, c` when nothing is near."""
    options = sorted(known)
    near = get_close_matches(word, options, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are: {', '.join(options)}" if options else ""


def existing_file(text: str, *, what: str, suffix: str = "") -> Path:
    """The path `text`, or a UserError that names the nearest file beside it."""
    path = Path(text)
    if path.is_file():
        return path
    if path.is_dir():
        raise UserError(f"{text!r} is a folder; {what} is a file{f' ending in {suffix}' if suffix else ''}")
    if path.exists():
        raise UserError(f"{text!r} is a pipe, a socket or a device; {what} is a regular file")
    folder = path.parent
    if not folder.is_dir():
        raise UserError(f"no file {text!r}: the folder {str(folder)!r} does not exist")
    beside = [entry.name for entry in folder.iterdir() if entry.is_file() and entry.name.endswith(suffix)]
    near = get_close_matches(path.name, beside, n=1, cutoff=0.6)
    hint = (
        f"; did you mean {str(folder / near[0])!r}?"
        if near
        else f"; {what} is needed, and none there has a similar name"
    )
    raise UserError(f"no file {text!r}{hint}")


def writable_file(option: str, text: str, *, example: str) -> Path:
    """The path `text` of an option, for a file to write; a UserError where its folder is none."""
    path = Path(text)
    if path.is_dir():
        raise UserError(f"{option} {text!r} is a folder; name the file, e.g. {str(path / example)!r}")
    if not path.parent.is_dir():
        raise UserError(f"{option} {text!r}: the folder {str(path.parent)!r} does not exist")
    return path


def missing_package(module: str) -> str:
    """The sentence for a package that is not installed."""
    top = module.partition(".")[0]
    extra = INSTALL_WITH.get(top)
    how = f"pip install 'onebit[{extra}]'" if extra else f"pip install {top}"
    return f"this command needs the package {top!r}, which is not installed: run {how}"
