"""What the commands say to mistakes: exit code 2, no traceback, the user's own words, and what to do."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from onebit.cli import main
from onebit.cli.shell import COMMANDS, build_parser, users_mistake
from onebit.program import Constant, DType, Node, Program, TensorType, pack_bits
from support import require


def _say(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """stderr of a command that must end with exit code 2 and one line."""
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert code == 2, f"exit code {code}\n{out}\n{err}"
    assert "Traceback" not in err
    assert err.startswith("onebit: ")
    assert err.count("\n") == 1, err
    return err


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A file that takes u8[1, 4, 4] and gives f32[3]."""
    weights = np.random.default_rng(5).integers(0, 2, (3, 16)).astype(bool)
    program = Program(
        inputs=("x",),
        outputs=("scores",),
        nodes=(
            Node("reshape", ("x",), "flat", {"shape": (16,)}),
            Node("u8_gemm", ("flat", "w"), "sums", {"multiplier": 2, "offset": -255}),
            Node("to_float", ("sums",), "scores"),
        ),
        constants={"w": Constant(TensorType(DType.BITS, (3, 16)), pack_bits(weights))},
        values={
            "x": TensorType(DType.U8, (1, 4, 4)),
            "flat": TensorType(DType.U8, (16,)),
            "sums": TensorType(DType.I32, (3,)),
            "scores": TensorType(DType.F32, (3,)),
        },
    )
    path = tmp_path / "small.onebit"
    program.save(path)
    return path


def test_unknown_command_and_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unknown command 'trian'; did you mean 'train'?" in _say(capsys, "trian")
    assert "'--recume'; did you mean '--resume'?" in _say(capsys, "train", "bnn-digits", "--recume")
    assert "unexpected argument 'b.onebit'" in _say(capsys, "inspect", "a.onebit", "b.onebit")
    assert "'zero' is no whole number from 1 on" in _say(capsys, "run", "a", "b", "--threads", "zero")
    assert "'0' is no whole number from 1 on" in _say(capsys, "bench", "a", "--batch", "1,0")
    assert "FILE" in _say(capsys, "inspect")


def test_missing_files_name_their_neighbours(
    capsys: pytest.CaptureFixture[str], packed: Path, tmp_path: Path
) -> None:
    near = packed.with_name("smal.onebit")
    for command in ("inspect", "bench"):
        said = _say(capsys, command, near)
        assert repr(str(near)) in said
        assert f"did you mean {str(packed)!r}" in said
    assert "is a folder" in _say(capsys, "inspect", tmp_path)
    assert "the folder 'nowhere' does not exist" in _say(capsys, "inspect", "nowhere/a.onebit")
    (tmp_path / "runs" / "digits").mkdir(parents=True)
    (tmp_path / "runs" / "digits" / "recipe.toml").touch()
    assert "did you mean" in _say(capsys, "convert", tmp_path / "runs" / "digit")
    assert "holds no run" in _say(capsys, "convert", tmp_path / "runs")
    assert "is a file; a run is the folder" in _say(capsys, "convert", packed)


def test_a_damaged_file_is_named(capsys: pytest.CaptureFixture[str], packed: Path, tmp_path: Path) -> None:
    whole = packed.read_bytes()
    for length in (0, 7, 8, 100, len(whole) - 1):
        cut = tmp_path / f"cut{length}.onebit"
        cut.write_bytes(whole[:length])
        assert str(cut) in _say(capsys, "inspect", cut)
    np.save(tmp_path / "x.npy", np.zeros((1, 4, 4), np.uint8))
    assert str(cut) in _say(capsys, "run", cut, tmp_path / "x.npy")


def test_inputs_that_do_not_fit(capsys: pytest.CaptureFixture[str], packed: Path, tmp_path: Path) -> None:
    def saved(name: str, array: np.ndarray) -> Path:
        np.save(tmp_path / name, array)
        return tmp_path / name

    wrong_shape = saved("shape.npy", np.zeros((2, 1, 5, 4), np.uint8))
    assert "(2, 1, 5, 4)" in _say(capsys, "run", packed, wrong_shape)
    wrong_type = saved("type.npy", np.zeros((2, 1, 4, 4), np.float64))
    assert "float64" in _say(capsys, "run", packed, wrong_type)
    pickled = tmp_path / "pickled.npy"
    np.save(pickled, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert str(pickled) in _say(capsys, "run", packed, pickled)
    (tmp_path / "text.npy").write_text("not an array")
    assert "text.npy" in _say(capsys, "run", packed, tmp_path / "text.npy")
    np.savez(tmp_path / "many.npz", a=np.zeros(3))
    (tmp_path / "many.npz").rename(tmp_path / "many.npy")
    assert "a .npz archive under another name" in _say(capsys, "run", packed, tmp_path / "many.npy")
    (tmp_path / "notes.txt").write_text("hello")
    assert "no .npy file, no WAV file and no image" in _say(capsys, "run", packed, tmp_path / "notes.txt")
    assert "not a mixture" in _say(capsys, "run", packed, wrong_shape, wrong_type)
    (tmp_path / "word.wav").write_bytes(b"RIFF")
    assert "takes 1×4×4 bytes, which is no sound" in _say(capsys, "run", packed, tmp_path / "word.wav")
    good = saved("good.npy", np.zeros((1, 4, 4), np.uint8))
    assert "ending in .npy" in _say(capsys, "run", packed, good, "-o", "out.csv")
    assert "does not exist" in _say(capsys, "run", packed, good, "-o", tmp_path / "no" / "out.npy")


def test_damaged_arrays(capsys: pytest.CaptureFixture[str], packed: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((2, 1, 4, 4), np.uint8))
    whole = path.read_bytes()
    header = (
        str({"descr": "|u1", "fortran_order": False, "shape": (98765432101,)}).encode().ljust(117) + b"\n"
    )
    path.write_bytes(whole[:8] + len(header).to_bytes(2, "little") + header + bytes(32))
    assert "its header promises 98765432101 uint8, 32 bytes are there" in _say(capsys, "run", packed, path)
    generator = np.random.default_rng(6)
    for _ in range(300):
        raw = bytearray(whole)
        for place in generator.integers(0, len(raw), 2):
            raw[place] = generator.integers(0, 256)
        path.write_bytes(raw)
        assert main(["run", str(packed), str(path), "--json"]) in (0, 2)
        assert "Traceback" not in capsys.readouterr().err


def test_images_that_do_not_fit(capsys: pytest.CaptureFixture[str], packed: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="images need pillow")
    picture = tmp_path / "five.png"
    image.fromarray(np.zeros((4, 5), np.uint8)).save(picture)
    assert "5×4 pixels, the network takes 4×4; add --resize" in _say(capsys, "run", packed, picture)
    broken = tmp_path / "broken.png"
    broken.write_bytes(picture.read_bytes()[:20])
    assert "cannot be read as an image" in _say(capsys, "run", packed, broken)
    assert main(["run", str(packed), str(picture), "--resize"]) == 0
    assert "five.png: class" in capsys.readouterr().out


def test_image_and_array_give_the_same(
    capsys: pytest.CaptureFixture[str], packed: Path, tmp_path: Path
) -> None:
    image = pytest.importorskip("PIL.Image", reason="images need pillow")
    pixels = np.random.default_rng(7).integers(0, 256, (4, 4), dtype=np.uint8)
    image.fromarray(pixels).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", pixels[None])
    shown = []
    for name in ("a.png", "a.npy"):
        assert main(["run", str(packed), str(tmp_path / name), "--json"]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train", "bnn-digit"], "did you mean 'bnn-digits'?"),
        (["train", "bnn-digits", "--set", "epoch=3"], "did you mean 'epochs'?"),
        (["train", "bnn-digits", "--set", "epochs"], "'epochs'"),
        (["train", "bnn-digits", "--set", "epochs=many"], "'many'"),
        (["train", "bnn-digits", "--set", "data.name=digit"], "did you mean 'digits'?"),
        (["train", "bnn-digits", "--device", "tpu9"], "'tpu9'"),
        (["train", "bnn-mnist-small", "--data-dir", "no-such-folder"], "'no-such-folder' does not exist"),
    ],
)
def test_mistakes_in_training(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], expected: str
) -> None:
    assert expected in _say(capsys, *words, "--run-dir", tmp_path / "run")


def test_eval_wants_one_of_each(capsys: pytest.CaptureFixture[str], packed: Path) -> None:
    assert "a run folder and a .onebit file" in _say(capsys, "eval", packed, packed)
    assert "does not say what it was trained on" in _say(capsys, "eval", packed)
    assert "did you mean 'digits'" in _say(capsys, "eval", packed, "--data", "digit")


def test_demo_leaves_other_folders_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert "is no earlier demo" in _say(capsys, "demo", "--run-dir", tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_debug_shows_the_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEBIT_DEBUG", "1")
    assert main(["inspect", "no-such-file.onebit"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> int:
        return [][1]  # an error that no user made

    monkeypatch.setattr(COMMANDS["doctor"], "run", broken)
    with pytest.raises(IndexError):
        main(["doctor"])


def test_interrupt_and_closed_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(COMMANDS["doctor"], "run", interrupted)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err.strip() == "onebit: interrupted"


def test_whose_mistake_it_is() -> None:
    assert users_mistake(OSError(28, "No space left on device")) == "No space left on device"
    assert users_mistake(FileNotFoundError(2, "No such file or directory", "a b")) == (
        "No such file or directory: 'a b'"
    )
    missing = users_mistake(ModuleNotFoundError("No module named 'sklearn'", name="sklearn"))
    assert missing is not None
    assert "pip install 'onebit[train]'" in missing
    assert users_mistake(ModuleNotFoundError("No module named 'onebit.lost'", name="onebit.lost")) is None
    assert users_mistake(ZeroDivisionError("division by zero")) is None
    with pytest.raises(ValueError) as caught:
        np.zeros(3).reshape(2)
    assert users_mistake(caught.value) is None, "numpy's ValueError is not a message for users"


def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    _, parsers = build_parser()
    assert set(parsers) == set(COMMANDS)
    for name in COMMANDS:
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert ended.value.code == 0
        shown = capsys.readouterr().out
        assert f"usage: onebit {name}" in shown
        assert len(shown.splitlines()) > 5
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)


def test_doctor_tells_a_wrong_isa_from_a_library_that_does_not_load(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEBIT_ISA", "avx9")
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "NO ENGINE CAN RUN: ONEBIT_ISA is 'avx9'" in shown
    assert "DOES NOT LOAD" not in shown


def test_a_terminal_without_the_symbols_shows_others(packed: Path) -> None:
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "onebit", "inspect", str(packed)],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "u8[1, 4, 4]" in done.stdout
    assert "?" in done.stdout, "nothing had to be replaced: this test shows nothing"


def test_doctor_as_json_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    import json

    assert main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["library"]["loads"]
    assert facts["library"]["isa"] in facts["library"]["available"]
    assert set(facts["library"]["kernels"]) == {"binary_gemm", "u8_gemm", "f32_binary_gemm", "f32_gemm"}
    assert facts["extras"]["train"]["torch"]
    assert int(facts["machine"]["cpus"]) <= (os.cpu_count() or 1)


def test_export_names_what_it_cannot_write(
    capsys: pytest.CaptureFixture[str], packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.onnx"
    assert "no form 'onx'; did you mean 'onnx'?" in _say(capsys, "export", "onx", packed)
    assert "did you mean" in _say(capsys, "export", "onnx", packed.with_name("smal.onebit"))
    assert "holds no run" in _say(capsys, "export", "onnx", tmp_path)
    assert "is a folder; name the file, e.g." in _say(capsys, "export", "onnx", packed, "-o", tmp_path)
    assert "folder 'nowhere' does not exist" in _say(capsys, "export", "onnx", packed, "-o", "nowhere/a.onnx")
    assert "'x' is no whole number" in _say(capsys, "export", "onnx", packed, "--opset", "x")
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert "pip install 'onebit[onnx]'" in _say(capsys, "export", "onnx", packed, "-o", target)
    monkeypatch.undo()
    require(find_spec("onnx"), "onnx is not installed")
    said = _say(capsys, "export", "onnx", packed, "-o", target, "--opset", "9")
    assert "opset 9 is not written here; 13 to 21 are" in said
    assert not target.exists()
    assert "not a regular file" in _say(capsys, "export", "onnx", packed, "-o", "/dev/null")
