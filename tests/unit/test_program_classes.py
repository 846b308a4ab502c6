"""Names of classes: from the data set to the run folder, the Program, its file, and the commands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import onebit
from onebit import nn as bnn
from onebit.cli import main
from onebit.program import Program
from onebit.train import TrainError, load_recipe, run_classes
from onebit.train.rundir import begin_run

NAMES = ["tench, Tinca tinca", "Größe", "金魚"]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    layers = [bnn.ScalePixels(), nn.Flatten(), bnn.BinaryLinear(16, 3, input_quantizer=None)]
    return nn.Sequential(*layers).eval()


def converted(model: nn.Module, **options: object) -> Program:
    return onebit.convert(model, torch.zeros(1, 1, 4, 4, dtype=torch.uint8), **options)


@pytest.mark.parametrize("given", [NAMES, tuple(NAMES)])
def test_convert_keeps_names_and_the_file_brings_them_back(
    given: list[str], model: nn.Module, tmp_path: Path
) -> None:
    program = converted(model, classes=given)
    program.save(tmp_path / "a.onebit")
    loaded = onebit.load(tmp_path / "a.onebit")
    assert loaded.metadata["classes"] == program.metadata["classes"] == NAMES
    assert loaded.classes == tuple(NAMES)
    loaded.save(tmp_path / "b.onebit")
    assert (tmp_path / "a.onebit").read_bytes() == (tmp_path / "b.onebit").read_bytes()
    pixels = np.random.default_rng(1).integers(0, 256, (5, 1, 4, 4), dtype=np.uint8)
    assert np.array_equal(onebit.Engine(loaded)(pixels), onebit.Engine(converted(model))(pixels))


def test_a_program_without_names_is_as_before(model: nn.Module) -> None:
    program = converted(model)
    assert program.classes == ()
    assert dict(program.metadata) == {"name": "Sequential"}
    assert program.text("name") == "Sequential"
    assert program.text("classes") == program.text("no such key") == ""


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (NAMES[:2], "metadata 'classes': number of names: found 2, expected 3, one for each channel of the"),
        ([*NAMES, "d"], "metadata 'classes': number of names: found 4, expected 3"),
        ([], "number of names: found 0, expected 1 to 50000"),
        ("abc", "metadata 'classes': type: found 'abc', expected a list of names"),
        ({"a": 0}, "metadata 'classes': type: found {'a': 0}, expected a list of names"),
        (["a", "b", 3], r"metadata 'classes'\[2\]: a name is text: found 3, expected a str"),
        (["a", "b", "\x1b"], r"metadata 'classes'\[2\]: characters of a name"),
        (["a", "", "c"], r"metadata 'classes'\[1\]: length of a name"),
    ],
)
def test_wrong_names_are_one_clear_error(given: object, words: str, model: nn.Module) -> None:
    with pytest.raises(onebit.ProgramError, match=words):
        converted(model, classes=given)


def test_a_hidden_value_as_output_has_no_names_of_classes(model: nn.Module) -> None:
    program = converted(model, classes=NAMES)
    hidden = program.with_outputs(program.nodes[0].output)
    assert hidden.classes == ()
    assert len(onebit.Engine(hidden)(np.zeros((2, 1, 4, 4), np.uint8))) == 2
    both = program.with_outputs(*program.outputs, program.nodes[0].output)
    assert both.classes == tuple(NAMES)


def test_commands_show_names(model: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def out(*words: str | Path) -> str:
        assert main([*map(str, words)]) == 0
        return capsys.readouterr().out

    file, batch = tmp_path / "m.onebit", tmp_path / "a.npy"
    program = converted(model, classes=NAMES)
    program.save(file)
    pixels = np.random.default_rng(1).integers(0, 256, (5, 1, 4, 4), dtype=np.uint8)
    np.save(batch, pixels)
    best = program.run(pixels)[program.outputs[0]].argmax(axis=1).tolist()
    lines = out("run", file, batch).splitlines()
    assert [line.partition("   scores")[0] for line in lines] == [
        f"sample {i}: class {number} ({NAMES[number]})" for i, number in enumerate(best)
    ]
    document = json.loads(out("run", file, batch, "--json"))
    assert document["classes"] == NAMES
    assert document["samples"] == [
        {"input": f"sample {i}", "class": number, "name": NAMES[number]} for i, number in enumerate(best)
    ]
    from PIL import Image

    pictures = [tmp_path / f"{i}.png" for i in range(5)]
    for path, picture in zip(pictures, pixels, strict=True):
        Image.fromarray(picture[0]).save(path)
    shown = json.loads(out("run", file, *pictures, "--json"))
    assert [sample["input"] for sample in shown["samples"]] == [str(path) for path in pictures]
    assert [sample["name"] for sample in shown["samples"]] == [NAMES[number] for number in best]
    assert shown["values"] == document["values"]
    replace(program, metadata={"classes": ["0", "1", "2"]}).save(file)
    assert out("run", file, batch).startswith(f"sample 0: class {best[0]}   scores")
    program.save(file)
    listed = out("inspect", file)
    assert "classes   0 tench, Tinca tinca, 1 Größe, 2 金魚\n" in listed
    assert json.loads(out("inspect", file, "--json"))["metadata"]["classes"] == NAMES
    replace(program, metadata={"name": "x"}).save(file)
    plain = json.loads(out("run", file, batch, "--json"))
    assert sorted(plain) == ["output", "shape", "values"]
    assert "classes" not in out("inspect", file)
    assert out("run", file, batch).startswith(f"sample 0: class {best[0]}   scores")


def test_a_run_folder_keeps_names_that_a_program_takes(tmp_path: Path) -> None:
    recipe = load_recipe("bnn-digits", ["model.classes=3"])
    begin_run(tmp_path / "run", recipe, ("a\nb", "x" * 300, "caf\udce9"))
    assert run_classes(tmp_path / "run") == ["a_b", "x" * 256, "caf_"]
    begin_run(tmp_path / "empty", recipe, ("", "é", "_"))
    assert run_classes(tmp_path / "empty") == ["_", "é", "_"]
    begin_run(tmp_path / "other", recipe, ("a", "b"))  # the model has one class more than the data set
    assert run_classes(tmp_path / "other") is None


@pytest.mark.parametrize("text", ["", "[", "{}", '["a", 1]', "3", "[" * 10**5, "\udce9"])
def test_a_damaged_list_of_names_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(TrainError, match=r"classes\.json.*remove it to go without names"):
        run_classes(tmp_path)


def test_onnx_keeps_names_as_json(model: nn.Module) -> None:
    onnx = pytest.importorskip("onnx", reason="needs onebit[onnx]")
    from onebit.export.onnx import to_onnx

    made = onnx.load_from_string(to_onnx(converted(model, classes=NAMES)))
    assert json.loads({p.key: p.value for p in made.metadata_props}["classes"]) == NAMES
