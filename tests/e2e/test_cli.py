"""The commands as a user types them, in a process of their own: few, as importing torch is slow. What a
command computes is asked of it in this process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from onebit.cli import main
from onnx_runtime import require_onnx, session

DIGITS = (1, 8, 8)


def onebit(*words: str, code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `onebit …` and check its exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "onebit", *words],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", **env},
        check=False,
    )
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run of bnn-digits, trained by the command."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    done = onebit(
        "train", "bnn-digits", "--set", "epochs=3", "--set", "model.hidden=[96,33]", "--run-dir", str(folder),
        "--device", "cpu", "--threads", "1", "--no-tensorboard", "--json",
    )  # fmt: skip
    result = json.loads(done.stdout)
    assert result["epochs"] == 3
    assert result["test_accuracy"] > 80
    return folder


@pytest.fixture(scope="module")
def packed(run: Path) -> Path:
    """That run, packed by the command."""
    file = run.parent / "digits.onebit"
    done = onebit("convert", str(run), "-o", str(file), "--json")
    assert json.loads(done.stdout)["summary"]["file_bytes"] == file.stat().st_size
    return file


def test_demo_agrees_and_says_so(tmp_path: Path) -> None:
    done = onebit("demo", "--run-dir", str(tmp_path / "demo"))
    assert re.search(r"predictions that differ +0$", done.stdout, re.MULTILINE)
    row = re.search(r"accuracy on 360 test images +([\d.]+) % +([\d.]+) %", done.stdout)
    assert row is not None
    assert row[1] == row[2]
    assert float(row[1]) > 90
    assert "batch 1 " in done.stdout
    assert "batch 256" in done.stdout
    assert "onebit inspect" in done.stdout
    file = tmp_path / "demo" / "model.onebit"
    assert f"{file}" in done.stdout
    onebit("inspect", str(file))


def test_eval_counts_what_differs(run: Path, packed: Path) -> None:
    report = json.loads(onebit("eval", str(run), str(packed), "--json").stdout)
    assert report["images"] == 360
    assert report["pytorch"] == report["packed"]
    assert report["packed"]["accuracy"] == pytest.approx(100 * report["packed"]["correct"] / 360)
    assert report["predictions_that_differ"] == 0
    assert report["scores_that_differ"] == 0


def test_eval_notices_another_network(
    run: Path, packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file whose first flip bits are inverted is another network, and eval must see that."""
    from dataclasses import replace

    from onebit.program import Constant, DType, load, save

    program = load(packed)
    name = next(n.inputs[2] for n in program.nodes if n.op == "threshold")
    flip = program.constants[name]
    assert flip.type.dtype is DType.BITS
    channels = flip.type.channels
    mask = np.full_like(flip.array, 0xFFFFFFFF)
    if channels % 32:
        mask[-1] = (1 << channels % 32) - 1
    other = replace(program, constants={**program.constants, name: Constant(flip.type, flip.array ^ mask)})
    save(other, tmp_path / "other.onebit")
    capsys.readouterr()
    assert main(["eval", str(run), str(tmp_path / "other.onebit"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["predictions_that_differ"] > 100


def test_eval_of_a_file_uses_the_data_it_was_trained_on(
    packed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["eval", str(packed)]) == 0
    said = capsys.readouterr().out
    assert "digits, 360 test images" in said
    assert "PyTorch" not in said


def test_eval_of_a_file_prepares_images_as_in_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Images of several sizes, brought to 6×6 grey for training: the file alone must know that."""
    from PIL import Image

    random = np.random.default_rng(2)
    for index in range(40):
        name, shade = ("dark", 40) if index % 2 else ("light", 200)
        pixels = random.integers(shade, shade + 50, (7 + index % 3, 8, 3), dtype=np.uint8)
        (tmp_path / "images" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "images" / name / f"{index}.png")
    recipe, folder, file = tmp_path / "mine.toml", str(tmp_path / "run"), str(tmp_path / "mine.onebit")
    recipe.write_text(
        'name = "mine"\nepochs = 2\nbatch_size = 8\n'
        '[data]\nname = "shades"\nimage_size = 6\nchannels = 1\n'
        '[model]\nname = "bnn_mlp"\nhidden = [16]\n[optimizer]\nname = "adam"\n'
    )
    images = ("--data-dir", str(tmp_path / "images"))
    options = ("--run-dir", folder, "--device", "cpu", "--threads", "1", "--no-tensorboard")
    assert main(["train", str(recipe), *images, *options]) == 0
    assert main(["convert", folder, "-o", file]) == 0
    capsys.readouterr()
    assert main(["eval", folder, file, *images, "--json"]) == 0
    both = json.loads(capsys.readouterr().out)
    assert main(["eval", file, *images, "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert alone["images"] == 8
    assert both["predictions_that_differ"] == 0
    assert alone["packed"] == both["packed"]


def test_run_saves_what_the_engine_returns(packed: Path, tmp_path: Path) -> None:
    from onebit.program import execute, load

    images = np.random.default_rng(3).integers(0, 256, (5, *DIGITS), dtype=np.uint8)
    np.save(tmp_path / "batch.npy", images)
    onebit(
        "run", str(packed), str(tmp_path / "batch.npy"), "-o", str(tmp_path / "scores.npy"), "--threads", "2"
    )
    program = load(packed)
    expected = execute(program, images)[program.outputs[0]]
    np.testing.assert_array_equal(np.load(tmp_path / "scores.npy"), expected)


def test_run_needs_no_torch(packed: Path, tmp_path: Path) -> None:
    """With a torch that cannot be imported, a packed model still runs."""
    (tmp_path / "torch.py").write_text("raise ImportError('blocked by the test')")
    np.save(tmp_path / "one.npy", np.zeros(DIGITS, np.uint8))
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = onebit("run", str(packed), str(tmp_path / "one.npy"), PYTHONPATH=path)
    assert re.match(r".*one\.npy: class \d   scores ", done.stdout)


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_export_writes_what_onnx_runtime_runs(run: Path, packed: Path, tmp_path: Path) -> None:
    """From the file (without PyTorch) and from the run: the engine's scores, bit for bit."""
    require_onnx()
    from onebit import Engine

    stub = tmp_path / "torch.py"
    stub.write_text("raise ImportError('torch must not be loaded')\n")
    target = tmp_path / "digits.onnx"
    words = ("export", "onnx", str(packed), "-o", str(target), "--opset", "15", "--json")
    told = json.loads(onebit(*words, PYTHONPATH=str(tmp_path)).stdout)
    assert told["bytes"] == target.stat().st_size
    assert told == {
        "file": str(target),
        "bytes": told["bytes"],
        "onebit_bytes": packed.stat().st_size,
        "opset": 15,
    }
    done = onebit("export", "onnx", str(run))
    assert done.stdout.startswith(str(run / "model.onnx"))
    x = np.random.default_rng(4).integers(0, 256, (50, *DIGITS), dtype=np.uint8)
    expected = Engine(packed)(x)
    for file in (target, run / "model.onnx"):
        (scores,) = session(file.read_bytes(), optimize=True).run(None, {"input": x})
        np.testing.assert_array_equal(scores, expected)


def test_ctrl_c_ends_cleanly(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = ["train", "bnn-digits", "--run-dir", str(folder), "--device", "cpu", "--threads", "1"]
    words += ["--set", "epochs=4000", "--set", "model.hidden=[32]", "--set", "checkpoint_seconds=0.0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "onebit", *words, "--no-tensorboard"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore SIGINT and would pass that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        end = time.monotonic() + 120
        while not (folder / "checkpoint.pt").exists():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < end, "no checkpoint after two minutes"
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "--resume" in errors
    assert errors.rstrip().endswith("onebit: interrupted")
