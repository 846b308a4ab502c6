"""Accuracy on a test set: a run in PyTorch, a .onebit file in the engine, or both, and where they differ.

onebit eval runs/bnn-digits                    both: the run's model, and the same model packed
onebit eval runs/bnn-digits digits.onebit      both: the run's model, and that file
onebit eval digits.onebit --data digits        the file alone
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onebit.cli.errors import UserError, existing_file
from onebit.cli.options import add_data, add_threads
from onebit.cli.runs import PREPARATION, existing_run
from onebit.cli.show import print_json, table

if TYPE_CHECKING:
    import torch

    from onebit.data import Splits
    from onebit.program import Program

HELP = "accuracy of a run or a .onebit file, and predictions that differ"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument(
        "what", metavar="RUN_OR_FILE", nargs="+", help="a run folder, a .onebit file, or both"
    )
    parser.add_argument("--data", metavar="NAME", help="the data set (default: the one trained on)")
    add_data(parser)
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    add_threads(parser)


def run(args: argparse.Namespace) -> int:
    """Load what was named, run it on the test images, count."""
    if len(args.what) > 2:
        raise UserError(f"{len(args.what)} names: give a run folder, a .onebit file, or one of each")
    files = [text for text in args.what if Path(text).is_file() or text.endswith(".onebit")]
    folders = [text for text in args.what if text not in files]
    if len(files) > 1 or len(folders) > 1:
        raise UserError(f"{args.what[0]!r} and {args.what[1]!r}: give a run folder and a .onebit file")
    path = existing_file(files[0], what="a .onebit file", suffix=".onebit") if files else None
    run_dir = existing_run(folders[0]) if folders else None
    from onebit.program import load

    model: torch.nn.Module | None = None
    program: Program | None = load(path) if path else None
    if run_dir is not None:
        model, own = _model_of(run_dir, pack=program is None)
        program = program or own
    assert program is not None
    splits = _data(args, run_dir, program)
    report = _compare(model, program, splits, args.threads)
    if args.json:
        print_json(report)
    else:
        _print(report, "images" if len(splits.input_shape) == 3 else "sounds")
    return 0


def _model_of(run_dir: Path, *, pack: bool) -> tuple[torch.nn.Module, Program | None]:
    if pack:
        from onebit.cli.runs import convert_run

        return convert_run(run_dir)
    from onebit.train import load_model

    return load_model(run_dir), None


def _data(args: argparse.Namespace, run_dir: Path | None, program: Program) -> Splits:
    """The data set named with --data; else the run's own, prepared as in training; else the file's own."""
    from onebit import data

    if args.data is None and run_dir is not None:
        from onebit.train import run_recipe

        of_run = run_recipe(run_dir).data
        as_trained: dict[str, Any] = {field: getattr(of_run, field) or None for field in PREPARATION}
        return data.load(of_run.name, args.data_dir, **as_trained)
    name = args.data or program.metadata.get("data")
    if name is None:
        raise UserError(f"{args.what[0]!r} does not say what it was trained on; add e.g. --data digits")
    prepared: dict[str, Any] = {
        field: int(program.metadata[field])
        for field in PREPARATION
        if args.data is None and program.metadata.get(field, "").isdecimal()
    }
    return data.load(name, args.data_dir, **prepared)


def _compare(model: torch.nn.Module | None, program: Program, splits: Splits, threads: int) -> dict[str, Any]:
    import torch

    from onebit.cli.runs import packed_scores, torch_scores
    from onebit.runtime import Engine

    images, labels = splits.test.images, splits.test.labels.numpy()
    scores = {}
    if model is not None:
        torch.set_num_threads(threads)
        scores["pytorch"] = torch_scores(model, images)
    scores["packed"] = packed_scores(Engine(program, threads=threads), images.numpy())
    report: dict[str, Any] = {"data": splits.name, "images": len(labels), "threads": threads}
    for name, values in scores.items():
        correct = int((values.argmax(axis=1) == labels).sum())
        report[name] = {"correct": correct, "accuracy": 100 * correct / len(labels)}
    if model is not None:
        predictions = [values.argmax(axis=1) for values in scores.values()]
        report["predictions_that_differ"] = int((predictions[0] != predictions[1]).sum())
        report["scores_that_differ"] = int((scores["pytorch"] != scores["packed"]).sum())
    return report


def _print(report: dict[str, Any], noun: str) -> None:
    rows = [
        (title, f"{report[key]['accuracy']:.2f} %", f"{report[key]['correct']:,} of {report['images']:,}")
        for key, title in (("pytorch", "PyTorch"), ("packed", "packed"))
        if key in report
    ]
    print(f"{report['data']}, {report['images']:,} test {noun}")
    print(table(rows, header=("", "accuracy", "right")))
    if "predictions_that_differ" in report:
        print(f"predictions that differ: {report['predictions_that_differ']:,}")
        print(f"scores that differ: {report['scores_that_differ']:,}")
