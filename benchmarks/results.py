"""docs/results.md: the table of trained networks, made from run folders.

    .venv/bin/python benchmarks/results.py add runs/bnn-mnist --data-dir FOLDER    # keep a finished run
    .venv/bin/python benchmarks/results.py                                         # write the table anew

`add` reads the run's recipe and result, counts with `onebit eval` the test predictions in which the packed
network differs from PyTorch's, and keeps all that as one line of docs/results/runs.jsonl. A run is named by
its recipe, the fields that were changed, its seed and its device; adding it again replaces its line. The
table stands between two marks in docs/results.md; the text around it is written by hand. A recipe without a
run is a row that says so.
"""

from __future__ import annotations

import argparse
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from onebit import models
from onebit.train import load_recipe, recipe_names
from onebit.train.recipe import recipe_tree
from onebit.train.rundir import RESULT_NAME, run_recipe

DOCS = Path(__file__).resolve().parents[1] / "docs"
RUNS, PAGE = DOCS / "results" / "runs.jsonl", DOCS / "results.md"
BEGIN, END = "<!-- table: benchmarks/results.py -->", "<!-- end of the table -->"
# Test error in per cent that the papers report for what a recipe names.
PAPER = {
    "bnn-mnist": 0.96,
    "bnn-mnist-shift": 1.40,
    "binaryconnect-mnist-det": 1.29,
    "binaryconnect-mnist-stoch": 1.18,
    "bnn-cifar10": 10.15,
    "binaryconnect-cifar10-det": 9.90,
    "binaryconnect-cifar10-stoch": 8.27,
    "bwn-cifar10": 9.88,
    "xnornet-cifar10": 10.17,
    "bnn-svhn": 2.53,
}
_PATHS = {"init", "distill.teacher"}
# Fields that decide nothing about the outcome, or that the run itself fills in.
_NOT_A_CHANGE = {"threads", "checkpoint_seconds", "seed", "model.input_shape", "model.classes"}


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, keys joined by dots; of a path to a run or a file, its last part."""
    fields: dict[str, Any] = {}
    for key, value in tree.items():
        fields |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return {key: Path(value).name if key in _PATHS else value for key, value in fields.items()}


def changes(run_dir: Path) -> list[str]:
    """What --set changed of the recipe that comes with the package; all of it where there is none.

    An option of the model that a recipe leaves out has the model's default: to write that down is no change.
    """
    recipe = run_recipe(run_dir)
    own = flat(recipe_tree(recipe))
    shipped = flat(recipe_tree(load_recipe(recipe.name))) if recipe.name in recipe_names() else {}
    parameters = inspect.signature(models.entry(recipe.model.name).factory).parameters.values()
    defaults = {
        f"model.{p.name}": list(p.default) if type(p.default) is tuple else p.default for p in parameters
    }
    before = {**defaults, **shipped}
    return [
        f"{key}={json.dumps(value)}"
        for key, value in own.items()
        if key not in _NOT_A_CHANGE and before.get(key) != value and (shipped or key != "name")
    ]


def add(run_dir: Path, data_dir: str | None) -> None:
    """Keep one finished run."""
    if not (run_dir / RESULT_NAME).is_file():
        raise SystemExit(f"{run_dir} holds no finished run: it has no {RESULT_NAME}")
    result = json.loads((run_dir / RESULT_NAME).read_text())
    recipe = run_recipe(run_dir)
    convertible = models.entry(recipe.model.name).unconvertible is None
    report = evaluated(run_dir, data_dir) if convertible else {}
    line = {
        "recipe": recipe.name,
        "changes": changes(run_dir),
        "seed": recipe.seed,
        "data": recipe.data.name,
        "model": recipe.model.name,
        **{
            key: result[key] for key in ("test_error", "epochs", "best_epoch", "seconds", "device", "threads")
        },
        "torch": result["torch"],
        "test_samples": result["test_images"],
        "predictions_that_differ": report.get("predictions_that_differ"),
    }
    identity = ("recipe", "changes", "seed", "device", "threads")
    others = [run for run in kept() if any(run[key] != line[key] for key in identity)]
    RUNS.parent.mkdir(exist_ok=True)
    lines = sorted(json.dumps(run, ensure_ascii=False) for run in [*others, line])
    RUNS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{recipe.name}, seed {recipe.seed}: {result['test_error']:.2f} % test error kept")


def evaluated(run_dir: Path, data_dir: str | None) -> dict[str, Any]:
    """What `onebit eval` counts of the run, packed and in PyTorch."""
    command = [sys.executable, "-m", "onebit", "eval", str(run_dir), "--json"]
    command += ["--data-dir", data_dir] if data_dir else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"onebit eval {run_dir} failed:\n{done.stderr}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def kept() -> list[dict[str, Any]]:
    """The runs kept so far."""
    return (
        [json.loads(line) for line in RUNS.read_text(encoding="utf-8").splitlines()] if RUNS.exists() else []
    )


def table() -> str:
    """One row for each recipe, change and device; the seeds of one are put together."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for run in kept():
        key = (run["recipe"], tuple(run["changes"]), run["device"], run["threads"])
        groups.setdefault(key, []).append(run)
    done = {key[0] for key in groups if not key[1]}
    rows = [(key[0], _row(key, runs)) for key, runs in groups.items()]
    for name in recipe_names():
        if name not in done:
            recipe = load_recipe(name)
            rows.append((name, _line(_code(name), recipe.data.name, name, "not run", "", "", "", "")))
    header = _line(
        "recipe", "data set", None, "ours", "seeds", "packed: predictions that differ", "training", "on"
    )
    rule = "|---" * 8 + "|"
    return "\n".join([header, rule, *(row for _, row in sorted(rows))])


def _row(key: tuple[Any, ...], runs: list[dict[str, Any]]) -> str:
    name, changed, device, threads = key
    errors = [run["test_error"] for run in runs]
    ours = f"{sum(errors) / len(errors):.2f} %"
    if len(errors) > 1:
        ours += f" ({min(errors):.2f}–{max(errors):.2f})"
    counts = [run["predictions_that_differ"] for run in runs]
    samples = sum(run["test_samples"] for run in runs)
    differ = "no Program" if None in counts else f"{sum(counts):,} of {samples:,}"
    seconds = sum(run["seconds"] for run in runs) / len(runs)
    what = _code(name) + "".join(f", {_code(change)}" for change in changed)
    where = f"{device}, {threads} thread{'s' if threads > 1 else ''}" if device == "cpu" else device
    seeds = ", ".join(str(run["seed"]) for run in sorted(runs, key=lambda run: run["seed"]))
    return _line(
        what, runs[0]["data"], "" if changed else name, ours, seeds, differ, _duration(seconds), where
    )


def _line(what: str, data: str, name: str | None, *others: str) -> str:
    paper = "paper" if name is None else f"{PAPER[name]:.2f} %" if name in PAPER else "–"
    return "| " + " | ".join([what, data, paper, *(other or "–" for other in others)]) + " |"


def _code(text: str) -> str:
    return f"`{text}`"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def write_page() -> None:
    """Put the table between its marks."""
    text = PAGE.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise SystemExit(f"docs/{PAGE.name} lacks the marks {BEGIN} and {END}")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Add a run, or only write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command")
    adding = commands.add_parser("add", help="keep the figures of finished runs")
    adding.add_argument("runs", metavar="RUN", nargs="+", type=Path)
    adding.add_argument("--data-dir", help="as for onebit eval")
    arguments = parser.parse_args()
    if arguments.command == "add":
        for run_dir in arguments.runs:
            add(run_dir, arguments.data_dir)
    write_page()


if __name__ == "__main__":
    main()
