"""Accuracy on a test set: a run in PyTorch, a .onebit file in the engine, or both, and where they differ.

onebit eval runs/bnn-digits                    both: the run's model, and the same model packed
onebit eval runs/bnn-digits digits.onebit      both: the run's model, and that file
onebit eval digits.onebit --data digits        the file alone
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onebit.cli.errors import UserError, existing_file
from onebit.cli.options import add_data, add_threads
from onebit.cli.runs import PREPARATION, existing_run, prepared_as
from onebit.cli.show import print_json, table

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

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
    test = _data(args, run_dir, program)
    report = _compare(model, program, test, args.threads)
    if args.json:
        print_json(report)
    else:
        _print(report, "images" if len(test.input_shape) == 3 else "sounds")
    return 0


def _model_of(run_dir: Path, *, pack: bool) -> tuple[torch.nn.Module, Program | None]:
    if pack:
        from onebit.cli.runs import convert_run

        return convert_run(run_dir)
    from onebit.train import load_model

    return load_model(run_dir), None


@dataclass(frozen=True)
class _Test:
    """The test samples in order, in batches of inputs and labels, and the shape of one."""

    name: str
    input_shape: tuple[int, ...]
    batches: Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]


def _data(args: argparse.Namespace, run_dir: Path | None, program: Program) -> _Test:
    """The data set named with --data; else the run's own, prepared as in training; else the file's own."""
    if args.data is None and run_dir is not None:
        from onebit.train import run_recipe

        of_run = run_recipe(run_dir).data
        as_trained: dict[str, Any] = {field: getattr(of_run, field) or None for field in PREPARATION}
        return _opened(of_run.name, args.data_dir, as_trained)
    name = args.data or program.text("data")
    if not name:
        raise UserError(f"{args.what[0]!r} does not say what it was trained on; add e.g. --data digits")
    prepared: dict[str, Any] = {
        field: value
        for field in PREPARATION
        if args.data is None and (value := prepared_as(program, field)) is not None
    }
    return _opened(name, args.data_dir, prepared)


def _opened(name: str, data_dir: str | None, prepared: dict[str, Any]) -> _Test:
    from onebit import data

    if prepared.pop("stream", None):
        from onebit.data.streaming import in_order, worker_count

        size, channels = prepared["image_size"], prepared.get("channels") or 3
        stream = data.open_stream(name, data_dir, image_size=size, channels=channels)
        tensors = in_order(stream, stream.test, workers=worker_count())
        batches = ((images.numpy(), labels.numpy()) for images, labels in tensors)
        return _Test(stream.name, stream.input_shape, batches)
    splits = data.load_arrays(name, data_dir, **prepared)
    return _Test(splits.name, splits.input_shape, iter([(splits.test.images, splits.test.labels)]))


def _compare(model: torch.nn.Module | None, program: Program, test: _Test, threads: int) -> dict[str, Any]:
    from onebit.cli.runs import packed_scores, torch_scores
    from onebit.runtime import Engine

    engine = Engine(program, threads=threads)
    if model is not None:
        import torch

        torch.set_num_threads(threads)
    count: Counter[str] = Counter()
    for images, labels in test.batches:
        scores = {"pytorch": torch_scores(model, torch.from_numpy(images))} if model is not None else {}
        scores["packed"] = packed_scores(engine, images)
        count["images"] += len(labels)
        for name, values in scores.items():
            count[name] += int((values.argmax(axis=1) == labels).sum())
        if model is not None:
            first, second = scores.values()
            count["predictions"] += int((first.argmax(axis=1) != second.argmax(axis=1)).sum())
            count["scores"] += int((first != second).sum())
    report: dict[str, Any] = {"data": test.name, "images": count["images"], "threads": threads}
    for name in ("pytorch", "packed") if model is not None else ("packed",):
        report[name] = {"correct": count[name], "accuracy": 100 * count[name] / count["images"]}
    if model is not None:
        report["predictions_that_differ"] = count["predictions"]
        report["scores_that_differ"] = count["scores"]
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
