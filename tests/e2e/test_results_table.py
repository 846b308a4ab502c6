"""benchmarks/results.py: a finished run becomes a row of the page."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from support import ROOT

pytest.importorskip("torch")
from onebit.train import load_recipe, recipe_names, train


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("results", ROOT / "benchmarks" / "results.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = tmp_path / "results.md"
    page.write_text(f"above\n\n{module.BEGIN}\nold\n{module.END}\n\nbelow\n", encoding="utf-8")
    monkeypatch.setattr(module, "RUNS", tmp_path / "results" / "runs.jsonl")
    monkeypatch.setattr(module, "PAGE", page)
    return module


def _main(results: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["results.py", *words])
    results.main()
    text: str = results.PAGE.read_text(encoding="utf-8")
    return text


def test_runs_become_rows(results: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = _main(results, monkeypatch)
    assert text.startswith("above\n\n")
    assert text.endswith("\n\nbelow\n")
    assert "old" not in text
    for name in recipe_names():
        assert f"| `{name}` |" in text
    assert "| `bnn-mnist` | mnist | 0.96 % | not run |" in text
    for seed in (1, 2):
        recipe = load_recipe("bnn-digits", ["epochs=1", f"seed={seed}"])
        train(recipe, run_dir=tmp_path / f"run{seed}", tensorboard=False, threads=1)
    text = _main(results, monkeypatch, "add", str(tmp_path / "run1"), str(tmp_path / "run2"))
    assert _main(results, monkeypatch, "add", str(tmp_path / "run1")) == text  # it replaces what was there
    runs = [json.loads(line) for line in results.RUNS.read_text().splitlines()]
    assert [run["seed"] for run in runs] == [1, 2]
    assert runs[0]["changes"] == ["epochs=1"]
    assert runs[0]["predictions_that_differ"] == 0
    (row,) = [line for line in text.splitlines() if line.startswith("| `bnn-digits`, `epochs=1` |")]
    mean = sum(run["test_error"] for run in runs) / 2
    assert f"| {mean:.2f} % (" in row
    assert "| 1, 2 | 0 of 720 |" in row
    assert "| `bnn-digits` | digits | – | not run |" in text  # the recipe as it is has not been run


def test_what_is_no_finished_run_is_refused(
    results: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match="no finished run"):
        _main(results, monkeypatch, "add", str(tmp_path))
    assert not results.RUNS.exists()
    results.PAGE.write_text("no marks")
    with pytest.raises(SystemExit, match="lacks the marks"):
        _main(results, monkeypatch)
