"""Train a recipe, and leave the model, its metrics and its curves in a run folder.

onebit train                                   lists the recipes
onebit train bnn-digits
onebit train bnn-mnist-small --data-dir ~/mnist --set epochs=20
onebit train bnn-mnist-small --resume          goes on after a kill, to the same bits
torchrun --nproc-per-node 2 --no-python onebit train bnn-mnist          on two GPUs, or two processes
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from importlib import resources
from operator import itemgetter
from typing import Any

from onebit.cli.options import add_data, add_threads
from onebit.cli.show import print_json

HELP = "train a recipe"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("recipe", metavar="RECIPE", nargs="?", help="a recipe's name, or a TOML file")
    parser.add_argument(
        "--set",
        metavar="FIELD=VALUE",
        action="append",
        default=[],
        help="override a field of the recipe, e.g. epochs=20 or model.hidden=[1024,1024]; may be repeated",
    )
    add_data(parser)
    parser.add_argument("--run-dir", metavar="FOLDER", help="where the run goes (default: runs/RECIPE)")
    parser.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda … (default: auto)")
    parser.add_argument("--no-tensorboard", action="store_true", help="write no TensorBoard events")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    add_threads(parser, default=None, shown="the recipe's, or as many as torch chooses")


def run(args: argparse.Namespace) -> int:
    """Train, then say how good it is and what to do with it."""
    if args.recipe is None:
        return _list_recipes(as_json=args.json)
    from onebit.train import is_main_process, load_recipe, train

    recipe = load_recipe(args.recipe, args.set)
    try:
        result = train(
            recipe,
            data_dir=args.data_dir,
            run_dir=args.run_dir,
            resume=args.resume,
            device=args.device,
            threads=args.threads,
            tensorboard=not args.no_tensorboard,
        )
    except KeyboardInterrupt:
        if is_main_process():
            print("\nTo go on from the last checkpoint: the same command with --resume", file=sys.stderr)
        raise
    if not is_main_process():
        return 0
    facts: dict[str, Any] = {
        "recipe": recipe.name,
        "run_dir": str(result.run_dir),
        "test_accuracy": result.test_accuracy,
        "test_error": result.test_error,
        "validation_error": result.validation_error,
        "best_epoch": result.best_epoch,
        "epochs": result.epochs,
        "seconds": result.seconds,
    }
    if args.json:
        print_json(facts)
        return 0
    print(
        f"test accuracy {result.test_accuracy:.2f} % (error {result.test_error:.2f} %), "
        f"epoch {result.best_epoch} of {result.epochs}, {result.seconds:.1f} s of training"
    )
    print(f"model, metrics and curves: {result.run_dir}")
    print(f"next: onebit convert {result.run_dir} -o {recipe.name}.onebit")
    return 0


def _list_recipes(*, as_json: bool) -> int:
    # Read here, since onebit.train needs PyTorch, and a list does not.
    folder = resources.files("onebit") / "train" / "recipes"
    texts = [file.read_text(encoding="utf-8") for file in folder.iterdir() if file.name.endswith(".toml")]
    recipes = sorted(map(tomllib.loads, texts), key=itemgetter("name"))
    summaries = {recipe["name"]: recipe["summary"] for recipe in recipes}
    if as_json:
        print_json([{"name": name, "summary": summary} for name, summary in summaries.items()])
        return 0
    width = max(map(len, summaries))
    for name, summary in summaries.items():
        print(f"{name:{width}}  {summary}")
    print("\nonebit train RECIPE trains one of them, or a TOML file of your own.")
    return 0
