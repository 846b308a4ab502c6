"""Every example of README, CONTRIBUTING and docs runs as it stands, or says on the page why it does not.

The `python` and `console` blocks of a page run from first to last, in one namespace and one folder, with what
a reader has at hand: his images, his model, his recipe. `onebit train` gets a few words more that make a run
small. A block that no test can run stands below a line `<!-- not run: the reason -->`, and only such a one.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onebit.cli import main
from support import ROOT, require

PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"))
)
LANGUAGES = {"python", "console", "json", "toml", "text"}  # text: output, drawings
_NOT_RUN = re.compile(r"\s*<!-- not run: (\S.*) -->")


@dataclass(frozen=True)
class Block:
    line: int
    language: str
    text: str
    not_run: str | None

    @property
    def runs(self) -> bool:
        return self.language in ("python", "console") and self.not_run is None

    def commands(self) -> list[list[str]]:
        """The words of each line of a console that begins with `$`."""
        whole = self.text.replace("\\\n", " ").splitlines()
        return [shlex.split(line[2:], comments=True) for line in whole if line.startswith("$ ")]


def blocks_of(page: str) -> list[Block]:
    found, before, start, body = [], "", 0, []
    language = indent = None
    for number, line in enumerate(page.splitlines(), 1):
        fence = re.match(r"( *)```(.*)$", line)
        if fence and language is None:
            indent, language, start, body = fence[1], fence[2].strip(), number, []
            reason = _NOT_RUN.fullmatch(before)
        elif fence and fence[2] == "":
            text = "\n".join(part.removeprefix(indent or "") for part in body)
            found.append(Block(start, language or "", text, reason[1] if reason else None))
            language = None
        elif language is not None:
            body.append(line)
        before = line
    assert language is None, f"the block of line {start} has no end"
    return found


def problems_of(blocks: list[Block]) -> list[str]:
    """What keeps a page's blocks from being run, or from being left alone."""
    problems = []
    for block in blocks:
        if block.language not in LANGUAGES:
            problems.append(
                f"line {block.line}: a block of {block.language!r}; say one of {sorted(LANGUAGES)}"
            )
        elif block.not_run is not None and block.language not in ("python", "console"):
            problems.append(f"line {block.line}: a block of {block.language} never runs; drop the mark")
        elif block.runs and block.language == "console":
            commands = block.commands()
            others = [" ".join(words) for words in commands if words[:1] != ["onebit"]]
            if others or not commands:
                problems.append(f"line {block.line}: no test runs {others or 'this'}: mark it as not run")
    return problems


def read(page: str) -> list[Block]:
    return blocks_of((ROOT / page).read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES)
def test_every_block_can_run_or_says_why_not(page: str) -> None:
    assert problems_of(read(page)) == []
    for block in read(page):
        if block.language == "json":
            json.loads(block.text)
        elif block.language == "toml":
            tomllib.loads(block.text)


# What the reader of a page has before its first block.
GIVEN = {
    "docs/export.md": """
import onebit
program = onebit.load("mnist.onebit")
""",
    "README.md": """
import numpy as np, torch
images = np.random.default_rng(0).integers(0, 256, (3, 1, 28, 28), dtype=np.uint8)
float_model = torch.nn.Sequential(
    torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2)
)
""",
    "docs/packing.md": """
import torch, onebit
from onebit.nn import BinaryLinear
model, x = torch.nn.Sequential(BinaryLinear(33, 8), torch.nn.Linear(8, 2)), torch.randn(2, 33)
""",
    "docs/quantizers.md": """
import torch
from onebit.nn import BinaryLinear
model, epochs = BinaryLinear(4, 4, weight_quantizer="ede"), 3
""",
    "docs/program-format.md": """
import torch, onebit
layers = [onebit.nn.BinaryLinear(33, 5), torch.nn.BatchNorm1d(5), onebit.nn.BinaryLinear(5, 3)]
onebit.convert(torch.nn.Sequential(*layers).eval(), torch.zeros(1, 33)).save("mnist.onebit")
""",
    "docs/recipes/add-a-model.md": """
from onebit.models.mlp import DenseNet
from onebit.models.registry import register
""",
    "docs/recipes/add-a-quantizer.md": """
import torch
from torch import nn
from onebit.nn import quantizers
from onebit.nn.markers import emits_markers, sign_formula
from onebit.nn.quantizers import register, require_float
del quantizers._registry["approx_sign"]  # a copy: the page makes it anew
""",
}

# Before a page's block of that number (from 0, among those that run).
GIVEN_LATER = {
    ("docs/packing.md", 1): """
C = k = 33
channels, N = 33, 5
x = torch.randn(2, 6, 6, C)
a, b = torch.randn(4, k), torch.ops.onebit.pack_bits(torch.randn(N, k))
s, t, c = torch.rand(N), torch.rand(N), torch.zeros(N, dtype=torch.int32)
f = torch.ops.onebit.pack_bits(torch.randn(N))
weight = torch.ops.onebit.pack_bits(torch.randn(N, 3, 3, C))
""",
}

_SMALL = (
    "--device cpu --threads 1 --no-tensorboard --set epochs=1 --set model.hidden=[8] --set data.validation=4"
)
_STREAM = "--device cpu --threads 1 --no-tensorboard --set epochs=1 --set batch_size=4 --set data.workers=1"
SMALLER = {
    "README.md": f"{_SMALL} --set batch_size=4 --data-dir images",
    "docs/recipes/add-an-experiment.md": f"{_SMALL} --set batch_size=4 --data-dir images",
    "docs/training.md": _SMALL,
}


def write_images(folder: Path, size: int, channels: int) -> None:
    """Two classes of four images for training and one for testing, in the layout of an image folder."""
    require(importlib.util.find_spec("PIL"), "Pillow, to write images")
    from PIL import Image

    generator = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 1)):
        for label in ("0", "1"):
            (folder / split / label).mkdir(parents=True)
            for i in range(count):
                shape = (size, size) if channels == 1 else (size, size, channels)
                pixels = generator.integers(0, 256, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{i}.png")


def give_images(blocks: list[Block]) -> None:
    write_images(Path("images"), 28, 1)


def give_experiment(blocks: list[Block]) -> None:
    """The reader has written the page's own recipe."""
    give_images(blocks)
    Path("my.toml").write_text(next(block.text for block in blocks if block.language == "toml"))


def give_two_steps(blocks: list[Block]) -> None:
    """Two recipes that differ in the weight quantizer, the teacher's run, and a folder of photographs."""
    write_images(Path("FOLDER"), 70, 3)
    for name, quantizer in (("step1", "stochastic_sign"), ("step2", "ste_sign"), ("real", "ste_sign")):
        Path(f"{name}.toml").write_text(
            f'name = "{name}"\nsummary = "tiny"\nsource = "a test"\nepochs = 1\nbatch_size = 50\n'
            '[data]\nname = "digits"\n'
            f'[model]\nname = "bnn_mlp"\nhidden = [8]\nweight_quantizer = "{quantizer}"\n'
        )
    assert main(["train", "./real.toml", "--run-dir", "runs/real", *shlex.split(_SMALL)]) == 0


def give_run(blocks: list[Block]) -> None:
    """A trained run and its file, of digits for MNIST."""
    require(importlib.util.find_spec("onnx"), "onnx, to write ONNX files")
    assert main(["train", "bnn-digits", "--run-dir", "runs/mnist", *shlex.split(_SMALL)]) == 0
    assert main(["convert", "runs/mnist", "-o", "mnist.onebit"]) == 0


SET_UP: dict[str, Callable[[list[Block]], None]] = {
    "README.md": give_images,
    "docs/export.md": give_run,
    "docs/recipes/add-an-experiment.md": give_experiment,
    "docs/training.md": give_two_steps,
}


def run_console(page: str, block: Block) -> None:
    for words in block.commands():
        smaller: list[str] = []
        if words[1] == "train":
            smaller = shlex.split(_STREAM if "bnn-alexnet-imagenet" in words else SMALLER[page])
        assert main([*words[1:], *smaller]) == 0, f"{page}:{block.line}: {shlex.join(words)}"


@pytest.mark.parametrize("page", [page for page in PAGES if any(block.runs for block in read(page))])
def test_the_blocks_of_a_page_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onebit.models import registry
    from onebit.nn import quantizers

    monkeypatch.chdir(tmp_path)
    for module in (registry, quantizers):  # what a page registers is forgotten again
        monkeypatch.setattr(module, "_registry", dict(module._registry))
    blocks = read(page)
    if page in SET_UP:
        SET_UP[page](blocks)
    names: dict[str, Any] = {"__name__": "page"}
    exec(GIVEN.get(page, ""), names)
    for number, block in enumerate(block for block in blocks if block.runs):
        exec(GIVEN_LATER.get((page, number), ""), names)
        if block.language == "console":
            run_console(page, block)
        else:
            exec(compile("\n" * block.line + block.text, page, "exec"), names)


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        ("```\nmake\n```", "a block of ''"),
        ("```bash\nmake\n```", "a block of 'bash'"),
        ("```console\n$ make test\n```", "mark it as not run"),
        ("```console\n$ onebit doctor\n$ python x.py\n```", "mark it as not run"),
        ("```console\nonebit doctor\n```", "mark it as not run"),
        ("<!-- not run: a drawing -->\n```text\nx\n```", "drop the mark"),
        ("<!-- not run: -->\n```console\n$ make\n```", "mark it as not run"),
        ("<!-- not run: why -->\n\n```console\n$ make\n```", "mark it as not run"),
    ],
)
def test_a_block_that_hides_is_found(page: str, problem: str) -> None:
    found = problems_of(blocks_of(page))
    assert len(found) == 1
    assert problem in found[0]


def test_blocks_are_read_with_their_marks_and_lines() -> None:
    page = (
        "a\n<!-- not run: needs a GPU -->\n```python\nx = 1\n```\n"
        "1. b\n\n   ```console\n   $ onebit run \\\n       a\n   ```\n"
    )
    first, second = blocks_of(page)
    assert (first.line, first.text, first.not_run, first.runs) == (3, "x = 1", "needs a GPU", False)
    assert (second.line, second.runs, second.commands()) == (8, True, [["onebit", "run", "a"]])
    assert problems_of([first, second]) == []
