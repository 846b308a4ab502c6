"""A machine without PyTorch: what runs there, and what says how to get it, in processes of their own."""

from __future__ import annotations

import json
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import onebit
from onebit import nn as bnn
from onebit.cli import main
from onebit.train import load_recipe, recipe_names
from support import run_python

BLOCKED = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoTorch())
"""
HOW = "pip install 'onebit[train]'"


def command(*words: str | Path, code: int = 0) -> str:
    """What a command prints where PyTorch is missing, its last word in stderr too."""
    text = BLOCKED + (
        "import contextlib, io\nfrom onebit.cli import main\nerr = io.StringIO()\n"
        f"with contextlib.redirect_stderr(err): code = main({[str(word) for word in words]!r})\n"
        f"assert code == {code}, (code, err.getvalue())\nprint(err.getvalue(), end='')\n"
        "assert 'torch' not in sys.modules"
    )
    return run_python(text)


def small(shape: tuple[int, ...], dtype: torch.dtype, **metadata: object) -> onebit.Program:
    torch.manual_seed(0)
    first = [bnn.ScalePixels()] if dtype is torch.uint8 else []
    size = int(np.prod(shape))
    model = nn.Sequential(*first, nn.Flatten(), bnn.BinaryLinear(size, 10, input_quantizer=None)).eval()
    program = onebit.convert(model, torch.zeros(1, *shape, dtype=dtype))
    return replace(program, metadata={**program.metadata, **metadata})


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("file") / "digits.onebit"
    small((1, 8, 8), torch.uint8, data="digits", classes=list("abcdefghij")).save(file)
    return file


def test_a_part_that_needs_it_says_which_extra_brings_it() -> None:
    rooms = ["lowering", "models", "nn", "ops", "optim", "train"]
    names = ["convert", "pack", *rooms]
    uses = [f"onebit.{name}" for name in names] + [f"from onebit import {name}" for name in names]
    uses += [f"import onebit.{room}" for room in rooms] + ["from onebit.train.recipe import load_recipe"]
    said = run_python(
        f"{BLOCKED}import onebit\nfor use in {uses!r}:\n    try:\n        exec(use)\n"
        "    except ImportError as error:\n        print(error, isinstance(error, onebit.OnebitError))"
    )
    assert said.splitlines() == [f"this needs PyTorch, which is not installed: {HOW} True"] * len(uses)


def test_a_data_set_as_tensors_says_it_and_as_arrays_needs_none() -> None:
    said = run_python(
        f"{BLOCKED}from onebit import data\narrays = data.load_arrays('digits', validation=7)\n"
        "print(type(arrays.train.images).__name__, arrays.input_shape, len(arrays.validation))\n"
        "for use in (lambda: data.load('digits'), lambda: data.load_arrays('digits', whiten=True),\n"
        "            lambda: data.open_stream('imagenet', image_size=8), lambda: data.Split):\n"
        "    try: use()\n    except ImportError as error: print(error)"
    )
    assert said.splitlines()[0] == "ndarray (1, 8, 8) 7"
    assert said.splitlines()[1:] == [f"this needs PyTorch, which is not installed: {HOW}"] * 4
    tensors, arrays = (
        onebit.data.load("digits", validation=7),
        onebit.data.load_arrays("digits", validation=7),
    )
    for part in ("train", "validation", "test"):
        ours, theirs = getattr(tensors, part), getattr(arrays, part)
        assert np.array_equal(ours.images.numpy(), theirs.images)
        assert np.array_equal(ours.labels.numpy(), theirs.labels)


def test_the_list_of_recipes() -> None:
    found = json.loads(command("train", "--json"))
    assert [recipe["name"] for recipe in found] == recipe_names()
    assert {r["name"]: r["summary"] for r in found} == {n: load_recipe(n).summary for n in recipe_names()}
    lines = command("train").splitlines()
    assert [line.split()[0] for line in lines[: len(found)]] == recipe_names()


def test_eval_of_a_file(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(digits), "--json"]) == 0
    assert json.loads(command("eval", digits, "--json")) == json.loads(capsys.readouterr().out)
    image = pytest.importorskip("PIL.Image", reason="images need pillow")
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(5):
            pixels = generator.integers(0, 256, (8, 8), dtype=np.uint8)
            image.fromarray(pixels).save(tmp_path / "set" / name / f"{number}.png")
    words = ("eval", digits, "--data", tmp_path / "set", "--json")
    assert main([*map(str, words)]) == 0
    with_torch = json.loads(capsys.readouterr().out)
    assert with_torch["images"] == 2
    assert json.loads(command(*words)) == with_torch


def test_run_of_arrays_pictures_and_sounds(digits: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="images need pillow")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    np.save(tmp_path / "a.npy", pixels[None])
    image.fromarray(pixels).save(tmp_path / "a.png")
    image.fromarray(np.kron(pixels, np.ones((3, 3), np.uint8))).save(tmp_path / "large.png")
    expected = onebit.Engine(digits)(pixels[None, None]).tolist()
    for name in ("a.npy", "a.png"):
        found = json.loads(command("run", digits, tmp_path / name, "--json"))
        assert found["values"] == expected
        assert found["samples"][0]["input"] == str(tmp_path / name)
    assert json.loads(command("run", digits, tmp_path / "large.png", "--resize", "--json"))["shape"] == [
        1,
        10,
    ]
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(range(200)))
    small((1, 128), torch.float32).save(tmp_path / "words.onebit")
    found = json.loads(command("run", tmp_path / "words.onebit", tmp_path / "a.wav", "--json"))
    assert found["shape"] == [1, 10]


def test_other_commands_on_a_file(digits: Path) -> None:
    assert "digits" in command("inspect", digits)
    assert "batch 1" in command("bench", digits, "--no-peers", "--batch", "1", "--rounds", "1")
    assert "onebit[train]" in command("bench", digits, "--batch", "1", "--rounds", "1")


def test_commands_that_need_it_say_so(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").touch()
    for words in (
        ("train", "bnn-digits"),
        ("convert", tmp_path),
        ("eval", tmp_path),
        ("bench", tmp_path),
        ("bench", "quicknet"),
        ("demo", "--run-dir", tmp_path / "demo"),
    ):
        said = command(*words, code=2).splitlines()[-1]
        assert said.startswith("onebit: this ")
        assert said.endswith((f"is not installed: {HOW}", f"is not installed: run {HOW}")), words
