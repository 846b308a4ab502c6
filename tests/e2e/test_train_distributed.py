"""Two processes train together: the gradients of one, a kill that torchrun mends, an error that ends both.

The file is also the program that the tests start:
    python test_train_distributed.py pairs [[TASK, ARGUMENT…], …]     for each, two forked processes
    torchrun … test_train_distributed.py TASK ARGUMENT…               one of torchrun's own
Forking saves the seconds that every process takes to import torch.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

# What differs between the ranks (noise) and what they share (order, augmentation) are all in it.
OVERRIDES = [
    "epochs=3",
    "model.hidden=[65, 33]",
    "model.dropout_hidden=0.2",
    "model.weight_quantizer=stochastic_sign",
    "augment.crop=1",
    "optimizer.schedule=cosine",
]
PROCESSES = 2
SEPARATOR = "-- ended "


def task_train(run_dir: str, rank: str = "-1", step: str = "0", how: str = "kill") -> None:
    """Train; in its first sitting, rank `rank` is killed, or raises, after `step` steps."""
    from onebit.cli import main
    from onebit.train.step import EagerStep

    first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    made = {"steps": 0}
    whole = EagerStep.__call__

    def disturbed(self: Any, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        whole(self, inputs, labels)
        made["steps"] += 1
        if first and os.environ["RANK"] == rank and made["steps"] == int(step):
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError(f"a defect on rank {rank}")

    EagerStep.__call__ = disturbed  # type: ignore[method-assign]
    words = ["train", "bnn-digits", "--run-dir", run_dir, "--no-tensorboard", "--threads", "1", "--json"]
    overrides = [*OVERRIDES, f"checkpoint_seconds={0 if how == 'kill' and int(step) else 30}"]
    sys.exit(main([*words, *(word for field in overrides for word in ("--set", field))]))


def task_nowhere() -> None:
    """A data folder that does not exist, which the first process of the machine finds."""
    from onebit.cli import main

    sys.exit(main(["train", "bnn-mnist", "--data-dir", "no-such-folder", "--run-dir", "no-such-run"]))


def task_steps(out: str) -> None:
    """A few steps of a network without BatchNorm on this rank's share of each batch of 100; its weights."""
    from torch import nn

    from onebit import data, optim
    from onebit.nn import BinaryLinear, ScalePixels
    from onebit.train import distributed, load_recipe
    from onebit.train.batches import MemoryBatches
    from onebit.train.evaluation import LOSS_FUNCTIONS
    from onebit.train.fields import AugmentRecipe
    from onebit.train.step import EagerStep

    torch.set_num_threads(1)
    with distributed.joined(torch.device("cpu")) as world:
        torch.manual_seed(3)
        model = nn.Sequential(
            ScalePixels(),
            nn.Flatten(),
            BinaryLinear(64, 40, input_quantizer=None, weight_scale="channel_mean"),
            nn.Tanh(),
            nn.Linear(40, 10),
        )
        changes = AugmentRecipe(flip=True, crop=2, cutout=2)
        batches = MemoryBatches(data.load("digits").train, 100, changes=changes, world=world)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        assert list(optim.latent_parameters(model))
        forward = distributed.parallel(model, world)
        sums = torch.zeros(3, dtype=torch.float64)
        recipe = load_recipe("bnn-digits")
        step = EagerStep(model, forward, optimizer, LOSS_FUNCTIONS["cross_entropy"], recipe, sums)
        for inputs, labels in batches.iterate():
            assert len(labels) == 100 // world.size
            step(inputs, labels)
        total = world.sum(sums)
        if world.is_main:
            torch.save({"weights": model.state_dict(), "sums": total}, out)


def pairs(tasks: list[list[str]]) -> None:
    """For each task fork the processes as torchrun would start them; print the exit statuses."""
    import matplotlib.backends.backend_agg  # noqa: F401
    import torch._dynamo  # noqa: F401, torch.optim imports it

    import onebit.train  # noqa: F401

    for task, *arguments in tasks:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        children = []
        for rank in range(PROCESSES):
            child = os.fork()
            if child == 0:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(PROCESSES)}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
                in_child(task, arguments)
            children.append(child)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(f"\n{SEPARATOR}{json.dumps(statuses)}", flush=True)
        print(SEPARATOR, file=sys.stderr, flush=True)


def in_child(task: str, arguments: list[str]) -> NoReturn:
    """Do the task and end the process."""
    status = 1
    try:
        TASKS[task](*arguments)
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        os._exit(status)


TASKS = {"train": task_train, "steps": task_steps, "nowhere": task_nowhere}


def start(command: list[str | Path], timeout: float = 200) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "GLOO_SOCKET_IFNAME": "lo"}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        env.pop(name, None)
    words = [sys.executable, *map(str, command)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        words, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as started:
        try:
            out, err = started.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            started.terminate()  # upon which torchrun ends its processes
            raise
        finally:  # what it forked goes with it
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                started.wait(timeout=30)
                os.killpg(started.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(words, started.returncode, out, err)


@dataclass
class Ended:
    """How the two processes of a task ended, and what they said."""

    statuses: list[int]
    out: str
    err: str


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All tasks that two forked processes do, one after another."""
    folder = tmp_path_factory.mktemp("distributed")
    tasks = {
        "undisturbed": ["train", folder / "run"],
        "again": ["train", folder / "run"],
        "nowhere": ["nowhere"],
        "defect": ["train", folder / "defect", "1", "30", "raise"],
        "steps": ["steps", folder / "two.pt"],
    }
    done = start([__file__, "pairs", json.dumps([[str(word) for word in words] for words in tasks.values()])])
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = {"folder": folder}
    outs, errs = done.stdout.split(f"\n{SEPARATOR}"), done.stderr.split(f"{SEPARATOR}\n")
    for i, name in enumerate(tasks):
        statuses, _, rest = outs[i + 1].partition("\n")
        outs[i + 1] = rest
        found[name] = Ended(json.loads(statuses), outs[i], errs[i])
    return found


def outcome(run_dir: Path) -> dict[str, Any]:
    """Everything a run ends with, the seconds it took left out."""
    checkpoint = torch.load(run_dir / "checkpoint.pt", weights_only=True)
    metrics = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((run_dir / "result.json").read_text())
    for record in (*metrics, result):
        record.pop("seconds")
    kept = ("model", "optimizer", "batches", "ranks", "best")
    return {
        "model": torch.load(run_dir / "model.pt", weights_only=True),
        "checkpoint": {key: checkpoint[key] for key in kept},
        "metrics": metrics,
        "result": result,
    }


def bits(value: Any, where: str = "run") -> list[tuple[str, Any]]:
    """A tree as a flat list of places and values, tensors as their bytes."""
    if isinstance(value, torch.Tensor):
        return [(where, (str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes()))]
    if isinstance(value, dict):
        return [item for key, part in value.items() for item in bits(part, f"{where}.{key}")]
    if isinstance(value, list):
        return [item for i, part in enumerate(value) for item in bits(part, f"{where}[{i}]")]
    return [(where, value)]


@pytest.mark.slow  # processes that import torch, on cores that they share
def test_torchrun_restarts_a_run_of_which_one_process_was_killed(
    ended: dict[str, Any], tmp_path: Path
) -> None:
    undisturbed: Ended = ended["undisturbed"]
    assert undisturbed.statuses == [0, 0], undisturbed.err
    run_dir = tmp_path / "killed"
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={PROCESSES}"]
    done = start([*launch, "--max-restarts=1", __file__, "train", run_dir, "1", "37"])
    assert done.returncode == 0, done.stderr
    assert f"resuming {run_dir} at epoch 2, step 1" in done.stderr
    wanted, got = bits(outcome(ended["folder"] / "run")), bits(outcome(run_dir))
    assert len(wanted) > 60
    assert [place for place, _ in wanted] == [place for place, _ in got]
    differ = [place for (place, a), (_, b) in zip(wanted, got, strict=True) if a != b]
    assert not differ
    assert json.loads((run_dir / "result.json").read_text())["processes"] == PROCESSES


@pytest.mark.slow  # as above
def test_rank_0_alone_talks(ended: dict[str, Any]) -> None:
    undisturbed: Ended = ended["undisturbed"]
    assert [line.split(",")[0] for line in undisturbed.err.splitlines()] == [
        f"epoch {i}/3" for i in range(1, 4)
    ]
    assert undisturbed.out.count('"test_error"') == 1


@pytest.mark.slow  # as above
def test_an_error_of_one_process_ends_both(ended: dict[str, Any]) -> None:
    """The other one would otherwise wait for half an hour, longer than this test may take."""
    defect: Ended = ended["defect"]
    assert 0 not in defect.statuses
    assert "a defect on rank 1" in defect.err


@pytest.mark.slow  # as above
def test_a_refusal_of_rank_0_reaches_the_other(ended: dict[str, Any]) -> None:
    again: Ended = ended["again"]
    assert again.statuses == [2, 2]
    # Not line by line: the two write to one pipe, each in pieces.
    assert again.err.count("onebit: rank 0 stopped: the folder") == 1
    assert again.err.count("onebit: the folder") == 1
    assert again.err.count("already holds a run") == 2
    assert "Traceback" not in again.err


@pytest.mark.slow  # as above
def test_a_data_set_that_is_not_there_is_one_sentence_of_each(ended: dict[str, Any]) -> None:
    nowhere: Ended = ended["nowhere"]
    assert nowhere.statuses == [2, 2]
    assert nowhere.err.count("the data folder 'no-such-folder' does not exist") == 2
    assert nowhere.err.count("onebit: rank 0 stopped: ") == 1
    assert "Traceback" not in nowhere.err


@pytest.mark.slow  # as above
def test_two_processes_of_50_train_like_one_of_100(ended: dict[str, Any], tmp_path: Path) -> None:
    assert ended["steps"].statuses == [0, 0], ended["steps"].err
    threads = torch.get_num_threads()
    task_steps(str(tmp_path / "one.pt"))  # here, alone
    torch.set_num_threads(threads)
    one = torch.load(tmp_path / "one.pt", weights_only=True)
    two = torch.load(ended["folder"] / "two.pt", weights_only=True)
    for name, weight in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], weight, rtol=1e-4, atol=1e-6, msg=name)
    torch.testing.assert_close(two["sums"], one["sums"], rtol=1e-6, atol=0)
    assert one["sums"][2] == 1400


if __name__ == "__main__":
    faulthandler.enable()
    if sys.argv[1] == "pairs":
        pairs(json.loads(sys.argv[2]))
    else:
        TASKS[sys.argv[1]](*sys.argv[2:])
