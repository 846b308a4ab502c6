"""Checkpoints: everything that the rest of a training depends on, in one file.

A run that is killed and resumed must end in the same bits as an undisturbed one (CPU, same thread count). So
a checkpoint holds the model, the optimizer, the state of the batches at the start of the epoch, the position
in it, each process's generators and sums behind the epoch's loss and accuracy, the best model so far, and
the history. The learning rate and the quantizers' schedules are functions of the epoch and need no state.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from onebit.errors import CheckpointError
from onebit.train import checked_archive
from onebit.train.files import write_atomically
from onebit.user_files import open_regular

FORMAT = 3  # 2 had no checksum, and is read too
FILE_NAME = "checkpoint.pt"


@dataclass
class Position:
    """Where training stands: `epoch` epochs are finished and `step` steps of the next one."""

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0  # of training so far, over all sittings


@dataclass
class Best:
    """The model of the best validation epoch so far (1-based), or of the latest where nothing is held out."""

    epoch: int = 0
    validation_error: float | None = None
    model: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass
class Checkpoint:
    """One moment of a run; `recipe` is the resolved recipe's tree, `data` and `teacher` identify the training
    samples and the weights of the network that teaches (0: none)."""

    recipe: dict[str, Any]
    data: int
    teacher: int
    device: str
    torch_version: str
    position: Position
    best: Best
    model: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    batches: dict[str, Any]  # Batches.state_dict
    ranks: list[dict[str, Any]]  # of each process: "cpu" and "cuda", its generators; "sums", of the epoch
    history: list[dict[str, Any]]
    signs: dict[str, torch.Tensor] = field(default_factory=dict)  # of the weights, where a run is diagnosed
    checked: bool = field(default=True, compare=False)  # not stored: False of an old file without a checksum


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write atomically. Only tensors and plain Python values are stored, so loading runs no code."""
    # vars, not asdict, for the outermost level: asdict would deep-copy every tensor.
    content = {**vars(checkpoint), "format": FORMAT, "position": asdict(checkpoint.position)}
    content["best"] = vars(checkpoint.best)
    del content["checked"]
    write_atomically(path, lambda file: checked_archive.save(content, file))


def load(path: Path) -> Checkpoint:
    """Read a checkpoint; all its tensors are on the CPU.

    Raises `CheckpointError` if the file is damaged or of another format.
    """
    content, checked = _read(path, "checkpoint")
    try:
        version = content.pop("format")
        if type(version) is not int or version not in (2, FORMAT):
            raise CheckpointError(f"{path}: made by another version of onebit; start the run anew")
        if version == FORMAT and not checked:
            raise CheckpointError(f"{path}: damaged (its checksum is gone)")
        content["position"] = Position(**content["position"])
        content["best"] = Best(**content["best"])
        return Checkpoint(**content, checked=checked)
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: damaged, or no checkpoint of onebit ({error})") from error


def read(path: Path, kind: str) -> dict[str, Any]:
    """The dict that `torch.save` wrote, tensors on the CPU; a checksum there is compared first.

    Raises `CheckpointError` if the file is damaged or holds something else; `kind` says what it should be.
    """
    return _read(path, kind)[0]


def _read(path: Path, kind: str) -> tuple[dict[str, Any], bool]:
    """The dict, and whether a checksum was compared."""
    try:
        with open_regular(path) as file:
            checked = checked_archive.check(file)
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # of foreign bytes torch.load raises whatever its parsers run into
        reason = _reason(error)
        raise CheckpointError(f"{path}: damaged, or no {kind} of onebit ({reason})") from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: damaged, or no {kind} of onebit (it holds a {type(content).__name__})"
        )
    return content, checked


def _reason(error: Exception) -> str:
    """One line of an error. torch's own go on for a page, and tell to load without its guard."""
    text = str(error).rpartition("WeightsUnpickler error: ")[2].strip() or type(error).__name__
    line = text.splitlines()[0]
    return line if len(line) <= 160 else line[:157] + "..."


def check_same_recipe(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Refuse to go on with another recipe (trees of `recipe_tree`) or thread count, naming what differs."""
    differences = [
        f"{key} was {before!r}, now {after!r}"
        for key, before, after in _compare(old, new)
        if key not in ("checkpoint_seconds", "data.workers", "summary", "source")
    ]
    if differences:
        raise CheckpointError(
            f"the run was begun with another recipe: {'; '.join(differences)}."
            " Resume it as it was, or begin a new run in another folder"
        )


def check_same_data(old: int, new: int) -> None:
    """Refuse to go on with other training samples (told by their checksums)."""
    if old != new:
        raise CheckpointError(
            "the run was begun with other training samples than those found now;"
            " resume it with the same data, or begin a new run in another folder"
        )


def check_same_teacher(old: int, new: int) -> None:
    """Refuse to go on with another teacher (told by its weights' checksum)."""
    if old != new:
        raise CheckpointError(
            "the run was begun with another teacher than distill.teacher holds now;"
            " bring back the old one, or begin a new run in another folder"
        )


def _compare(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    found: list[tuple[str, Any, Any]] = []
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _compare(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append((prefix + key, a, b))
    return found
