"""Weights of an earlier run: a run folder's best model, or a state_dict that torch.save wrote."""

from __future__ import annotations

import difflib
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from onebit import models
from onebit.errors import TrainError
from onebit.train import checkpoint as checkpoints
from onebit.train.rundir import is_run, load_model


@dataclass(frozen=True)
class Started:
    """What `start_from` took over, by name; `other_shape` maps a name to (the file's shape, the model's)."""

    taken: tuple[str, ...]
    missing: tuple[str, ...]  # the model has them, the file has not
    unused: tuple[str, ...]  # the file has them, the model has not
    other_shape: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]

    def __str__(self) -> str:
        parts = [f"{len(self.taken)} tensors taken over"]
        for what, found in (
            ("not in the file, so as drawn", self.missing),
            ("not in the model, so unused", self.unused),
            (
                "of another shape, so as drawn",
                tuple(f"{k} {a} → {b}" for k, (a, b) in self.other_shape.items()),
            ),
        ):
            if found:
                more = f" and {len(found) - 6} more" if len(found) > 6 else ""
                parts.append(f"{what}: {', '.join(found[:6])}{more}")
        return "; ".join(parts)


def read_weights(path: str) -> dict[str, Tensor]:
    """The state_dict of a run folder or of a file. Raises `TrainError`."""
    place = Path(path).expanduser()
    if is_run(place):
        return load_model(place).state_dict()
    if not place.is_file():
        raise TrainError(
            f"no weights in {path!r}: name a run folder, or a file that torch.save wrote{_near(place)}"
        )
    state = checkpoints.read(place, "weights")
    nested = state.get("state_dict", state.get("model", state))  # as many training scripts save them
    if not isinstance(nested, dict) or not any(isinstance(value, Tensor) for value in nested.values()):
        raise TrainError(f"{path!r} holds no weights: a state_dict, name → tensor, is needed")
    return {str(name): value for name, value in nested.items() if isinstance(value, Tensor)}


@torch.no_grad()
def start_from(model: nn.Module, path: str) -> Started:
    """Copy into `model` every tensor of `path` whose name and shape fit, in place, and say what did not.

    A name that begins with "module." (as saved out of DistributedDataParallel) is taken without it. Where no
    name fits, as of torchvision's AlexNet, layers are paired in their order: `models.load_float_weights`.
    Raises `TrainError` if nothing fits, or the file cannot be read.
    """
    state = {name.removeprefix("module."): value for name, value in read_weights(path).items()}
    own = model.state_dict()
    other = {
        name: (tuple(state[name].shape), tuple(own[name].shape))
        for name in own
        if name in state and state[name].shape != own[name].shape
    }
    taken = [name for name in own if name in state and name not in other]
    if not any(own[name].ndim > 0 for name in taken):  # BatchNorm's counters alone are no weights
        return _start_from_float(model, state, path)
    for name in taken:
        own[name].copy_(state[name])
    return Started(
        tuple(taken),
        tuple(name for name in own if name not in state),
        tuple(name for name in state if name not in own),
        other,
    )


def _start_from_float(model: nn.Module, state: dict[str, Tensor], path: str) -> Started:
    """A float network with other names, layer by layer."""
    own = list(model.state_dict())
    try:
        loaded = models.load_float_weights(model, state)
    except ValueError as error:
        raise TrainError(
            f"init = {path!r}: no tensor there fits the model; it has {_some(list(state))},"
            f" the model {_some(own)}. Nor do the layers pair up in their order: {error}"
        ) from error
    taken = tuple(ours for _, ours in loaded.loaded)
    unused = tuple(theirs for theirs, _ in loaded.unused)
    return Started(taken, tuple(name for name in own if name not in taken), unused, {})


def checksum(state: dict[str, Tensor]) -> int:
    """A checksum of names and values, to notice other weights."""
    total = 0
    for name, value in state.items():
        total = zlib.crc32(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data, total)
        total = zlib.crc32(name.encode(), total)
    return total


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" … ({len(names)})" if len(names) > 3 else "")


def _near(place: Path) -> str:
    beside = [entry.name for entry in place.parent.iterdir()] if place.parent.is_dir() else []
    near = difflib.get_close_matches(place.name, beside, n=1)
    return f"; did you mean {str(place.parent / near[0])!r}?" if near else ""
