"""Whether the recipes for large images learn at all: each for a few epochs, with a small form of its model.

    .venv/bin/python benchmarks/short_runs.py --data-dir FOLDER    # SVHN as parquet; 1,000 images will do

The model takes the sizes that the tests give it, the images are 72×72 (bnn-svhn: 32×32), batches of 32, and
what needs other runs, a GPU or many epochs is left out. Prints the loss of the first and the last epoch.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace

import torch

from onebit import models
from onebit.train import Recipe, load_recipe, recipe_names, train

CHANGES = [
    *(
        "augment.resized_crop=0",
        "augment.crop_max=0",
        "data.stream=false",
        "data.extra=false",
        "data.name=svhn",
        "data.validation=0",
    ),
    *("epochs=8", "batch_size=32", "optimizer.warmup_epochs=0", "init=", "distill.teacher="),
    *("reestimate_batch_norm=0", "cuda_graph=false", "compile=false", "precision=float32"),
]


def shortened(name: str) -> Recipe:
    """The recipe with those changes and a small model."""
    size = [] if name == "bnn-svhn" else ["data.image_size=72"]
    recipe = load_recipe(name, [*CHANGES, *size])
    small = models.entry(recipe.model.name).small
    options = {key: value for key, value in small.items() if key not in ("input_shape", "classes")}
    return replace(recipe, model=replace(recipe.model, options={**recipe.model.options, **options}))


def main() -> None:
    """Run them all and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| recipe | loss, first epoch | last | training |\n|---|---|---|---|")
    for name in recipe_names():
        if "imagenet" in name or name == "bnn-svhn":
            with tempfile.TemporaryDirectory() as folder:
                run = train(
                    shortened(name),
                    data_dir=arguments.data_dir,
                    run_dir=f"{folder}/run",
                    threads=1,
                    tensorboard=False,
                )
            first, last = (run.history[index]["train_loss"] for index in (0, -1))
            print(f"| `{name}` | {first:.3f} | {last:.3f} | {run.seconds:.0f} s |", flush=True)


if __name__ == "__main__":
    main()
