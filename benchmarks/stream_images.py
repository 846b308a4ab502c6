"""How many images a second a stream decodes: the speed at which ImageNet reaches a GPU.

    python benchmarks/stream_images.py --data-dir FOLDER [--workers 0 1 2 4 8] [--seconds 10]

FOLDER is one that a recipe of ImageNet takes: parquet files, or train/CLASS/* and val/CLASS/*. For each
number of worker processes (0: in the process itself, and then also by its own CPU time, which a busy machine
hardly changes) prints the images a second, as training sees them (random resized crops of 224 × 224 pixels,
mirrored every second time) and as a test does. Files are read once before: this measures decoding, not the
disk.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from typing import Any

import torch

from onebit import data
from onebit.data.crops import Crops
from onebit.data.streaming import TrainingStream, in_order


def rate(batches: Iterator[Any], seconds: float) -> tuple[float, float]:
    """Images a second, and a second of this process's CPU time, from the second batch on."""
    next(batches)
    start, used, seen = time.perf_counter(), time.process_time(), 0
    for images, _ in batches:
        seen += len(images)
        if time.perf_counter() - start > seconds:
            break
    return seen / (time.perf_counter() - start), seen / (time.process_time() - used)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--batch-size", type=int, default=16)
    args = parser.parse_args()
    torch.set_num_threads(1)
    stream = data.open_stream("imagenet", args.data_dir, image_size=224)
    crops = Crops(224, resized=0.08, flip=True)
    print(f"{len(stream.train):,} training images, {len(stream.test):,} test images")
    for _ in in_order(stream, stream.train, workers=max(args.workers)):
        pass
    for workers in args.workers:
        epochs = TrainingStream(stream, args.batch_size, crops=crops, workers=workers)
        training = itertools.chain.from_iterable(epochs.iterate() for _ in itertools.count())
        testing = itertools.chain.from_iterable(
            in_order(stream, stream.test, workers=workers, size=args.batch_size) for _ in itertools.count()
        )
        (training_rate, a), (testing_rate, b) = rate(training, args.seconds), rate(testing, args.seconds)
        own = "" if workers else f" (of CPU time: {a:,.0f} and {b:,.0f})"
        print(
            f"{workers} workers: {training_rate:,.0f} images a second in training,"
            f" {testing_rate:,.0f} in testing{own}"
        )


if __name__ == "__main__":
    main()
