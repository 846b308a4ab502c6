"""The device that a process trains on, and the generators whose states a checkpoint keeps."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from onebit.errors import TrainError
from onebit.train.distributed import World, started_by_torchrun


def find_device(name: str) -> torch.device:
    """The device that the user named; "auto" is a CUDA GPU if there is one.

    Of the processes that torchrun started on one machine, each gets the GPU of its local rank, unless the
    name has a number. Raises `TrainError` for a device that cannot be used here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda" and ":" not in name:
            local = int(os.environ.get("LOCAL_RANK", 0)) if started_by_torchrun() else 0
            device = torch.device("cuda", local)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise TrainError(f"device {name!r} cannot be used here: {reason}; try 'auto' or 'cpu'") from error
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def device_name(device: torch.device) -> str:
    """What the user knows the device as."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def rank_state(device: torch.device, sums: Tensor) -> dict[str, Any]:
    """What a checkpoint keeps of each process: its generators' states and the epoch's sums."""
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return {"cpu": torch.get_rng_state(), "cuda": cuda, "sums": sums.cpu()}


def restore_rank_state(
    states: list[dict[str, Any]], world: World, device: torch.device, sums: Tensor
) -> None:
    """Bring back `rank_state`, `sums` in place.

    If there were another number of processes, the sums go to rank 0, and a process that had no state keeps
    the generators it has: such a run goes on, but to other bits.
    """
    if len(states) == world.size:
        sums.copy_(states[world.rank]["sums"])
    elif world.is_main:
        sums.copy_(torch.stack([state["sums"] for state in states]).sum(dim=0))
    if world.rank < len(states):
        state = states[world.rank]
        torch.set_rng_state(state["cpu"])
        if device.type == "cuda" and state["cuda"] is not None:
            torch.cuda.set_rng_state(state["cuda"], device)
