"""From a folder of WAV files to a word: train, convert, eval and run, on three made-up words of tones."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
import pytest

from onebit.cli import main
from onebit.program import load
from support import ROOT, run_python

RATE = 6000
WORDS = {"high": (1800,), "low": (300,), "rise": (300, 900, 1800)}
SMALL = (
    "epochs=8", "batch_size=16", "data.validation=12", f"data.sample_rate={RATE}", "data.samples=1500",
    f"model.sample_rate={RATE}", "model.filters=16", "model.hidden=[33, 32]", "model.shift=100",
)  # fmt: skip


def speak(path: Path, pitches: tuple[int, ...], rng: np.random.Generator) -> None:
    """A fifth of a second of these tones, a little off, with noise, at any loudness; 16-bit, mono."""
    length = RATE // 5
    frequency = np.repeat(np.array(pitches) * rng.uniform(0.93, 1.07), length // len(pitches))
    sound = np.sin(2 * np.pi * np.cumsum(frequency) / RATE) + 0.1 * rng.normal(size=len(frequency))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((sound * 10 ** rng.uniform(2, 4)).astype("<i2").tobytes())


def answer(capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict:
    """What the command prints as JSON."""
    capsys.readouterr()
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_words_are_learned_packed_and_recognized(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(7)
    folder = tmp_path / "words"
    folder.mkdir()
    for word, pitches in WORDS.items():
        for number in range(45):
            speak(folder / f"{word}_ann_{number}.wav", pitches, rng)
            speak(folder / f"{word}_bob_{number}.wav", pitches, rng)
    run, file = tmp_path / "run", tmp_path / "words.onebit"
    overrides = [part for text in SMALL for part in ("--set", text)]
    trained = answer(
        capsys, "train", "bnn-fsdd", "--data-dir", folder, "--run-dir", run, *overrides,
        "--device", "cpu", "--threads", 1, "--no-tensorboard",
    )  # fmt: skip
    assert trained["test_accuracy"] > 80  # of 30 clips; by chance 33
    packed = answer(capsys, "convert", run, "-o", file)
    assert packed["summary"]["macs_1bit"] > 0
    assert load(file).metadata["sample_rate"] == str(RATE)
    both = answer(capsys, "eval", run, file, "--data-dir", folder)
    assert both["images"] == 30
    assert both["pytorch"]["accuracy"] == pytest.approx(trained["test_accuracy"])
    assert both["predictions_that_differ"] <= 1
    # The file alone remembers the rate and the length, and so does `run`.
    alone = answer(capsys, "eval", file, "--data-dir", folder)
    assert alone["packed"] == both["packed"]
    clips = [folder / f"{word}_ann_{number}.wav" for word in WORDS for number in range(5)]
    ran = answer(capsys, "run", file, *clips)
    scores = np.array(ran["values"])
    assert ran["classes"] == sorted(WORDS) == load(file).metadata["classes"]
    assert ran["samples"] == [
        {"input": str(clip), "class": int(row.argmax()), "name": sorted(WORDS)[row.argmax()]}
        for clip, row in zip(clips, scores, strict=True)
    ]
    assert scores.shape == (15, 3)
    assert (scores.argmax(axis=1) == np.repeat(range(3), 5)).mean() > 0.75
    for clip, row in zip(clips, scores, strict=True):  # padded as `run` pads it, so it answers the same
        probability = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        assert listen(file, clip) == [f"  0.00 s  {sorted(WORDS)[row.argmax()]}  {probability.max():.0%}"]


def listen(file: Path, clip: Path) -> list[str]:
    """What the example prints, without PyTorch."""
    script = ROOT / "examples" / "keyword_spotting.py"
    code = (
        f"import runpy, sys; sys.argv = {[script.name, str(file), str(clip)]!r};"
        f"runpy.run_path({str(script)!r}); assert 'torch' not in sys.modules"
    )
    return run_python(code).splitlines()
