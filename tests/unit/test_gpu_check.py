"""benchmarks/gpu/check.py: a dry run goes through every section, and what goes wrong in one is said."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support import ROOT, require_tool

GPU = ROOT / "benchmarks" / "gpu"
SCRIPT = GPU / "check.py"


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module that keeps findings."""
    monkeypatch.syspath_prepend(str(GPU))
    return importlib.import_module("record")


def check(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)


@pytest.mark.slow  # six processes that load PyTorch, and the kernels they compile for the emulator
def test_a_dry_run_goes_through_every_section(tmp_path: Path) -> None:
    require_tool("g++")
    done = check("--dry", "--out", str(tmp_path), "--seed", "5")
    assert done.returncode == 0, done.stdout + done.stderr
    findings = [json.loads(line) for line in (tmp_path / "findings.jsonl").read_text().splitlines()]
    assert {finding["section"] for finding in findings} == {
        "compile",
        "exact",
        "product",
        "paper",
        "mnist",
        "images",
        "programs",
    }
    assert not [finding for finding in findings if finding["name"] in ("out of time", "came to its end")]
    verdicts = [finding["ok"] for finding in findings]
    assert verdicts.count(True) >= 10
    assert False not in verdicts
    bars = {finding["bar"] for finding in findings if finding["bar"]}
    assert bars >= {9_000, 6_500, 0.85, 11, 170, 300, 60, 4, 1, 23, 3.4}, bars
    assert "hold, 0 do not" in done.stdout.splitlines()[-1]


def test_a_section_that_fails_or_hangs_costs_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sections are replaced by one that raises, one that sleeps and one that finds something."""
    folder = tmp_path / "gpu"
    folder.mkdir()
    for path in GPU.glob("*.py"):
        (folder / path.name).write_text(path.read_text())
    (folder / "broken.py").write_text(
        "import time\n"
        "def raises(setup): raise ValueError('no such thing')\n"
        "def sleeps(setup): time.sleep(100)\n"
        "def finds(setup): setup.record.number('found', 3.0, 's', bar=2.0)\n"
    )
    text = (folder / "check.py").read_text()
    begin, end = text.index("SECTIONS = {"), text.index("SANITIZER =")
    sections = {
        "one": ("broken", "raises", 90),
        "two": ("broken", "sleeps", 6),
        "three": ("broken", "finds", 90),
    }
    text = f"{text[:begin]}SECTIONS = {sections!r}\n{text[end:]}".replace("seconds + 15", "seconds + 1")
    (folder / "check.py").write_text(text.replace("parents[2]", "parent"))
    (folder / "setup.py").write_text(
        (folder / "setup.py").read_text().replace('ROOT / "tests"', f"{str(ROOT / 'tests')!r}")
    )
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    require_tool("g++")
    command = [sys.executable, str(folder / "check.py"), "--dry", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert "ValueError: no such thing" in done.stdout
    assert "killed after 7 s" in done.stdout
    assert "three        found" in done.stdout
    assert "0 hold, 2 do not, 1 open" in done.stdout


def test_without_a_gpu_the_script_says_so(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    done = check("--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "nothing can be measured: PyTorch" in done.stderr
    assert "--dry needs none" in done.stderr


def test_bars_decide(record: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "findings.jsonl"
    judge = record.Recorder(path, "part", judge=True)
    judge.number("fast", 12.0, "×", bar=11.0)
    judge.number("slow", 10.0, "×", bar=11.0)
    judge.number("late", 10.0, "s", bar=11.0, at_most=True)
    judge.number("only told", 1.0)
    judge.check("wrong", False, "why")
    record.Recorder(path, "dry", judge=False).number("fast", 12.0, bar=11.0)
    with path.open("a") as file:
        file.write('{"section": "cut sho')
    found = record.read(path)
    assert [finding.ok for finding in found] == [True, False, True, None, False, None]
    text = record.table(found)
    assert "only told" not in text
    assert text.splitlines()[-1] == "2 hold, 2 do not, 1 open"
    assert len(capsys.readouterr().out.splitlines()) == 6
