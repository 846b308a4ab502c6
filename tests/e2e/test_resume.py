"""kill -9 at any moment, then resume: the same weights, bit for bit, as a run that nobody disturbed.

The file is also the driver that the test starts: `python test_resume.py RUN_DIR KILL…` forks one training
after another, each killed as its KILL says, and a last one that may finish. Forking saves the seconds that
every process would take to import torch; the driver itself never computes, so the fork is safe.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

THREADS = 2
STEPS = 8 * 26  # epochs × (1,300 images / 50)
# Dropout, stochastic quantizers and augmentation, so that a generator not restored shows at once.
OVERRIDES = [
    "epochs=8",
    "model.hidden=[65, 33]",
    "model.dropout_hidden=0.2",
    "model.activation=stochastic_sign",
    "model.weight_quantizer=stochastic_sign",
    "augment.flip=true",
    "augment.crop=1",
    "augment.cutout=3",
    "optimizer.schedule=cosine",
    "optimizer.warmup_epochs=2",
    "reestimate_batch_norm=5",
]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(kill: str) -> None:
    """Make this process kill itself at a moment such as "step:17" (after the 17th step of this sitting)."""
    from onebit.train import checkpoint, files
    from onebit.train.step import EagerStep

    moment, _, number = kill.partition(":")
    calls = {"left": int(number)}

    def reached() -> bool:
        calls["left"] -= 1
        return calls["left"] == 0

    if moment == "step":
        step = EagerStep.__call__

        def killed_step(self: Any, inputs: torch.Tensor, labels: torch.Tensor) -> None:
            step(self, inputs, labels)
            if reached():
                die()

        EagerStep.__call__ = killed_step  # type: ignore[method-assign]
    elif moment in ("write", "rename", "renamed"):
        write_atomically = files.write_atomically

        def killed_write(path: Path, write: Any) -> None:
            if not reached():
                write_atomically(path, write)
            elif moment == "write":
                write_atomically(path, lambda file: (write(file), file.truncate(file.tell() // 2), die()))
            else:
                if moment == "rename":
                    Path.replace = lambda *_: die()  # type: ignore[assignment,method-assign]
                write_atomically(path, write)
                die()

        checkpoint.write_atomically = killed_write  # type: ignore[attr-defined]
    else:
        raise ValueError(kill)


def attempt(run_dir: str, kill: str | None, seconds: float) -> None:
    """One sitting of the training. `seconds` between checkpoints; 0 writes one after every step."""
    from onebit.train import load_recipe, train

    resume = Path(run_dir).exists()
    if kill and not kill.startswith("time"):
        arm(kill)
    recipe = load_recipe("bnn-digits", [*OVERRIDES, f"checkpoint_seconds={seconds}"])
    # The thread count is told until it is written down; after that it must be restored.
    threads = None if (Path(run_dir) / "recipe.toml").exists() else THREADS
    train(recipe, run_dir=run_dir, resume=resume, threads=threads, tensorboard=False)


def drive(run_dir: str, kills: list[str]) -> None:
    """Fork the sittings; print for each how it ended, as a line of JSON."""
    # Imported once, before the forks: whatever is slow to import and every sitting needs.
    import matplotlib.backends.backend_agg  # noqa: F401
    import torch._dynamo  # torch.optim imports it

    import onebit.train  # noqa: F401

    torch.set_num_threads(1)
    for kill in [*kills, None]:
        child = os.fork()
        if child == 0:
            try:
                attempt(run_dir, kill, 0.0 if kills else 30.0)
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
            os._exit(0)
        if kill and kill.startswith("time"):
            time.sleep(float(kill.partition(":")[2]))
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        half = (Path(run_dir) / "checkpoint.pt.tmp").exists()
        print(json.dumps({"kill": kill, "status": status, "half_written": half}), flush=True)


def run(run_dir: Path, kills: list[str]) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, __file__, str(run_dir), *kills],
        env={**os.environ, "OMP_WAIT_POLICY": "passive"},  # threads on a busy machine: sleep, do not spin
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    sittings = [json.loads(line) for line in done.stdout.splitlines()]
    assert sittings[-1]["status"] == 0, done.stderr
    return sittings


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


def assert_same(a: Any, b: Any, where: str) -> None:
    """Equal in every bit, with the place of the first difference."""
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, where
        assert a.shape == b.shape, where
        assert torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8)), where
    elif isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


def seeded_kills(seed: int) -> list[str]:
    """Moments spread over the run: between steps, in a write, before and after its rename, at any time."""
    rng = random.Random(seed)
    moments = ["write", "step", "rename", "renamed", "step", "write"]
    rng.shuffle(moments)
    most = STEPS // (2 * len(moments))  # so that all kills come before the run is over
    return [
        f"time:{rng.uniform(0.05, 0.25):.3f}",
        *(f"{moment}:{rng.randint(2, most)}" for moment in moments),
    ]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    run_dir = tmp_path_factory.mktemp("resume") / "undisturbed"
    run(run_dir, [])
    return outcome(run_dir)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_and_resumed_ends_in_the_same_bits(
    undisturbed: dict[str, Any], tmp_path: Path, seed: int
) -> None:
    kills = ["write:1", *seeded_kills(seed)]  # the first: while the very first checkpoint is written
    print(f"replay: python {__file__} {tmp_path / 'run'} {' '.join(kills)}")
    sittings = run(tmp_path / "run", kills)
    for sitting in sittings[:-1]:
        assert sitting["status"] == -signal.SIGKILL, f"{sitting} was not killed"
        if sitting["kill"].startswith(("write", "rename:")):
            assert sitting["half_written"], f"{sitting} was not killed in the middle of a checkpoint"
    assert undisturbed["result"]["threads"] == THREADS
    assert_same(undisturbed, outcome(tmp_path / "run"), "run")


if __name__ == "__main__":
    drive(sys.argv[1], sys.argv[2:])
