"""Two processes train on a stream of parquet, one of them is killed: torchrun mends it, to the same bits.

The file is also the program that torchrun starts: test_stream_distributed.py FOLDER RUN_DIR STEP, where rank
1 is killed after STEP steps of its first sitting (0: never).
"""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

OVERRIDES = [
    "data.image_size=32",
    "data.validation=5",
    "data.workers=2",
    "batch_size=6",
    "epochs=2",
    "threads=1",
    "channels_last=false",
    "checkpoint_seconds=0",
    "model.widths=[8, 8, 8, 8]",
    "model.blocks=[1, 1, 1, 1]",
]


def program(folder: str, run_dir: str, kill_at: str) -> None:
    from onebit.cli import main
    from onebit.train.step import EagerStep

    first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    made = {"steps": 0}
    whole = EagerStep.__call__

    def disturbed(self: Any, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        whole(self, inputs, labels)
        made["steps"] += 1
        if first and os.environ["RANK"] == "1" and made["steps"] == int(kill_at):
            os.kill(os.getpid(), signal.SIGKILL)

    EagerStep.__call__ = disturbed  # type: ignore[method-assign]
    words = ["train", "birealnet18-imagenet", "--data-dir", folder, "--run-dir", run_dir, "--no-tensorboard"]
    sys.exit(main([*words, *(word for field in OVERRIDES for word in ("--set", field))]))


def write_images(folder: Path) -> None:
    """50 training images of one colour each, in row groups of 7, and 8 to test."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    for name, numbers in (("train-0", range(50)), ("validation-0", range(8))):
        cells = []
        for number in numbers:
            buffer = io.BytesIO()
            Image.fromarray(np.full((40, 36, 3), 5 * number, dtype=np.uint8)).save(buffer, "jpeg")
            cells.append({"bytes": buffer.getvalue(), "path": None})
        table = pa.table({"image": pa.array(cells, kind), "label": pa.array([n % 3 for n in numbers])})
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=7)


def run(folder: Path, run_dir: Path, kill_at: int) -> str:
    """Both processes' standard error."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    words = [*launcher, "--max-restarts", "1", __file__, str(folder), str(run_dir), str(kill_at)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.slow  # starts Python seven times
def test_a_killed_process_changes_nothing(tmp_path: Path) -> None:
    pytest.importorskip("datasets", reason="needs onebit[data]")
    write_images(tmp_path)
    run(tmp_path, tmp_path / "whole", 0)
    said = run(tmp_path, tmp_path / "killed", 3)
    assert f"resuming {tmp_path / 'killed'} at epoch 1, step" in said
    whole, killed = (torch.load(tmp_path / name / "model.pt") for name in ("whole", "killed"))
    for name, value in whole.items():
        assert torch.equal(value, killed[name]), name
    records = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "killed")
    ]
    assert len(records[0]) == 2
    assert [{**r, "seconds": 0} for r in records[0]] == [{**r, "seconds": 0} for r in records[1]]
    result = json.loads((tmp_path / "killed" / "result.json").read_text())
    assert (result["test_images"], result["processes"]) == (8, 2)


if __name__ == "__main__":
    program(*sys.argv[1:])
