"""The whole path on the 8×8 digits of scikit-learn (no download): train, pack, run both networks, compare.

Ends with exit code 1 if the packed network predicts anything else than PyTorch does.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onebit.cli.errors import UserError
from onebit.cli.runs import RECIPE
from onebit.cli.show import microseconds, number, size, table

if TYPE_CHECKING:
    from onebit.bench import BenchReport

HELP = "see the whole path in seconds: train, pack, run, compare"

_RECIPE = "bnn-digits"
_BATCHES = (1, 256)
_THREADS = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument(
        "--run-dir", metavar="FOLDER", default="runs/demo", help="where the run goes (default: runs/demo)"
    )


def run(args: argparse.Namespace) -> int:
    """Train, pack, run both, time both, show."""
    folder = _fresh_folder(Path(args.run_dir))
    _say("1  training a binarized network on 8×8 digits, in PyTorch")
    from onebit.train import load_recipe, train

    # So small a network trains faster on one thread: more would wait for each other at every layer.
    result = train(load_recipe(_RECIPE), run_dir=folder, device="cpu", threads=1, tensorboard=False)

    _say("2  packing it: weights to bits, BatchNorm and sign to integer thresholds")
    from onebit.cli.runs import convert_run
    from onebit.program import summarize

    model, program = convert_run(folder)
    file = folder / "model.onebit"
    program.save(file)

    _say("3  running both networks on the test images")
    import torch

    from onebit import data
    from onebit.bench import bench_program
    from onebit.cli.runs import packed_scores, torch_scores
    from onebit.runtime import Engine

    torch.set_num_threads(_THREADS)
    test = data.load("digits").test
    expected = torch_scores(model, test.images)
    got = packed_scores(Engine(file, threads=_THREADS), test.images.numpy())
    differ = int((expected.argmax(axis=1) != got.argmax(axis=1)).sum())

    _say("4  timing both\n")
    reports = [
        bench_program(program, batch=batch, threads=_THREADS, rounds=5, seconds=0.02, peers=("torch",))
        for batch in _BATCHES
    ]
    labels = test.labels.numpy()
    accuracies = [100 * float((scores.argmax(axis=1) == labels).mean()) for scores in (expected, got)]
    summary = summarize(program)
    print(_table(accuracies, len(labels), differ, (summary.float32_bytes, file.stat().st_size), reports))
    print(
        f"\nTrained for {result.seconds:.1f} s. Times: medians, {_THREADS} thread, the same batch for both;"
    )
    print("PyTorch with BatchNorm folded into its float32 weights.")
    if differ:
        print("The packed network should predict what PyTorch does: please report this.", file=sys.stderr)
        return 1
    print(f"\nSee what is 1-bit in it:       onebit inspect {file}")
    print("Train one on MNIST and go on:  onebit train bnn-mnist-small")
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _fresh_folder(folder: Path) -> Path:
    """A free name for the run. What an earlier demo left there is removed; anything else is not touched."""
    if folder.exists():
        recipe = folder / RECIPE
        if not recipe.is_file() or f'name = "{_RECIPE}"' not in recipe.read_text(encoding="utf-8"):
            raise UserError(f"{str(folder)!r} is no earlier demo; name another folder with --run-dir")
        shutil.rmtree(folder)
    return folder


def _table(
    accuracies: list[float], images: int, differ: int, nbytes: tuple[int, int], reports: list[BenchReport]
) -> str:
    from onebit.bench import ENGINE, PYTORCH

    rows: list[tuple[Any, ...]] = [
        (f"accuracy on {images} test images", *(f"{accuracy:.2f} %" for accuracy in accuracies), ""),
        ("predictions that differ", "", str(differ), ""),
        ("size", *map(size, nbytes), f"{number(nbytes[0] / nbytes[1])} × smaller"),
    ]
    for report in reports:
        times = [report.seconds_an_image(name) for name in (PYTORCH, ENGINE)]
        ratio = times[0] / times[1]
        verdict = f"{number(ratio)} × faster" if ratio >= 1 else f"{number(1 / ratio)} × slower"
        label = f"time an image, batch {report.batch}"
        rows.append((label, *map(microseconds, times), verdict))
    return table(rows, header=("", "PyTorch float32", "packed", ""))
