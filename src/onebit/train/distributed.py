"""Several processes, one training: what `torchrun` starts and `torch.distributed` joins.

    torchrun --nproc-per-node 2 --no-python onebit train bnn-mnist --run-dir runs/a

Every process holds the same model and takes its share of each batch; DistributedDataParallel averages the
gradients. The recipe's batch size is that of all processes together, so a recipe means the same on any
number of them. Rank 0 reads and writes the run folder and talks to the user.
"""

from __future__ import annotations

import gc
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.rendezvous import rendezvous

from onebit.errors import TrainError

T = TypeVar("T")

_MEETING_SECONDS = 600  # how much later than the first process the last may start


@dataclass(frozen=True)
class World:
    """The processes of one training; `rank` is this one's number, `local_rank` the number on its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """True in the process that reads and writes files and shows progress."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """True if this process is the only one."""
        return self.size == 1

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value (of the others' nothing is used), on every rank; pickled on the way."""
        if self.alone:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]

    def agreed(self, work: Callable[[], T]) -> T:
        """Rank 0's `work()`, on every rank; where it fails, every rank raises."""
        if self.alone:
            return work()
        value: Any = None
        failure: Exception | None = None
        if self.is_main:
            try:
                value = work()
            except Exception as error:
                failure = error
        value, reason = self.broadcast((value, str(failure) if failure else None))
        if failure is not None:
            raise failure
        if reason is not None:
            raise TrainError(f"rank 0 stopped: {reason}")
        return cast(T, value)

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in the order of the ranks, on every rank."""
        if self.alone:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, a new tensor."""
        total = tensor.clone()
        if not self.alone:
            distributed.all_reduce(total)
        return total

    @contextmanager
    def first_of_the_machine_first(self) -> Iterator[None]:
        """One process a machine goes through the block before its others: it may download, they then read.

        Where one of the first fails, every rank raises.
        """
        if self.alone:
            yield
            return
        first = self.local_rank == 0
        if not first:
            self._raise_what_stopped(self.gather(None))
        try:
            yield
        except Exception as error:
            if first:
                self.gather(str(error))
            raise
        if first:
            self._raise_what_stopped(self.gather(None))

    @staticmethod
    def _raise_what_stopped(reasons: list[str | None]) -> None:
        for rank, reason in enumerate(reasons):
            if reason is not None:
                raise TrainError(f"rank {rank} stopped: {reason}")

    def share_buffers(self, model: nn.Module) -> None:
        """Give every rank rank 0's buffers: each rank's BatchNorm has seen other samples."""
        if not self.alone:
            for buffer in model.buffers():
                distributed.broadcast(buffer, src=0)


def started_by_torchrun() -> bool:
    """True if the environment names this process's rank, as torchrun's does."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def is_main_process() -> bool:
    """True unless the environment says that this is one of the processes that leave talking to rank 0."""
    return not started_by_torchrun() or int(os.environ["RANK"]) == 0


def restarts() -> tuple[int, int]:
    """How often torchrun has restarted this training after a failure, and how often it may."""
    return (
        int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)),
        int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)),
    )


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """Join the processes that the environment names (gloo on CPUs, NCCL on CUDA), and leave them at the end.

    Without such an environment, or where the caller has joined them already, it only says who is there.
    Inside the block no variable that outlives it may keep a model made `parallel`.
    Raises `TrainError` if the processes cannot find one another.
    """
    if distributed.is_available() and distributed.is_initialized():
        yield _world()
        return
    if not started_by_torchrun():
        yield World()
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        shared, rank, size = next(rendezvous("env://"))
        distributed.init_process_group(
            backend,
            store=distributed.PrefixStore(_meeting(shared, rank, size), shared),  # type: ignore[attr-defined]
            rank=rank,
            world_size=size,
            device_id=device if backend == "nccl" else None,
        )
    except (RuntimeError, ValueError) as error:
        raise TrainError(
            f"cannot join the other processes (RANK={os.environ['RANK']},"
            f" WORLD_SIZE={os.environ['WORLD_SIZE']}): {error}. Start them with torchrun"
        ) from error
    # After an error nothing is left tidily: leaving would wait for the others, who may wait for this process.
    # That this process ends tells them.
    yield _world()
    # What still refers to the group (DistributedDataParallel does) must go first: the group's destructor
    # waits for its threads, and out of such an object it would do so holding the lock they need to end.
    gc.collect()
    distributed.destroy_process_group()


def _meeting(store: Any, rank: int, size: int) -> str:
    """A name, out of a torch.distributed store, that all processes of this start know and no earlier one had.

    torchrun's store outlives a restart, and with it the addresses of processes that are gone; a process that
    reads one waits for the dead. (Its count of restarts is no such name: machines that joined at different
    times count differently.) So each process writes a fresh number, rank 0 offers a name together with the
    numbers that it has seen, and a process takes an offer only if its own number is in it.
    """
    mine = uuid.uuid4().hex
    store.set(f"here/{rank}", mine)
    deadline = time.monotonic() + _MEETING_SECONDS
    while time.monotonic() < deadline:
        if rank == 0:
            seen = [store.get(f"here/{other}").decode() for other in range(size)]
            store.set("offer", " ".join(seen))
            taken = [f"taken/{other}" for other in range(1, size)]
            if not taken or (store.check(taken) and all(store.get(key).decode() == mine for key in taken)):
                return mine
        else:
            offer: list[str] = store.get("offer").decode().split()
            if len(offer) == size and offer[rank] == mine:
                store.set(f"taken/{rank}", offer[0])
                return offer[0]
        time.sleep(0.05)
    raise RuntimeError(f"no sign of some of them in {_MEETING_SECONDS} s")


def _world() -> World:
    local = int(os.environ.get("LOCAL_RANK", distributed.get_rank()))
    return World(distributed.get_rank(), distributed.get_world_size(), local)


def parallel(model: nn.Module, world: World) -> nn.Module:
    """What training calls instead of `model`: its gradients are averaged over all processes.

    `model`'s own tensors are used. With one process it is `model` itself.
    """
    if world.alone:
        return model
    device = next(model.parameters()).device
    wrapped = nn.parallel.DistributedDataParallel(
        model, device_ids=[device.index] if device.type == "cuda" else None
    )
    # BatchNorm's running statistics play no part in training: they are shared before an evaluation, not
    # before each step. (The constructor's argument of this name has a successor, unknown to older versions.)
    wrapped.broadcast_buffers = False
    return wrapped


def synchronized(model: nn.Module, world: World) -> nn.Module:
    """`model`, in which every BatchNorm is replaced by one that measures the whole batch of all processes.

    Parameters, buffers and their names stay. Raises `TrainError` on a CPU, where PyTorch has none.
    """
    if world.alone:
        return model
    if next(model.parameters()).device.type != "cuda":
        raise TrainError("sync_batch_norm = true: PyTorch has it on CUDA devices only; leave it out on a CPU")
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return converted
