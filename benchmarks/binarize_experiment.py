"""From a pre-trained network, or from scratch? One small ConvNet on CIFAR-10, an equal budget for both.

    python benchmarks/binarize_experiment.py --data-dir FOLDER --out runs/binarize

Stopped and started again, it goes on with the row that it was stopped in.

For each seed, with F epochs of a float network and B epochs of a binary one:

    float          trained for F epochs
    binarized      that network through onebit.nn.binarize, BatchNorm re-estimated, not trained
    fine-tuned     then trained for B epochs
    scratch        the same binary network from random weights (what the float one started from), B epochs
    scratch, long  the same for F + B epochs: as much training as float and fine-tuning together

All with Adam from one rate, which falls to 0 along a cosine, cross entropy, batches of 100, pixels scaled to
[-1, 1], no augmentation; latent weights clipped after every step. The rate of the binary network is the same
for the three. The error is that of the test images after the last epoch; nothing is chosen by it. One thread,
deterministic algorithms: a seed gives the same numbers again on the same machine.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import onebit
from onebit.data import Split

BATCH = 100
SETTINGS = ("epochs", "float_epochs", "lr", "float_lr", "inputs", "train_images")


class ConvNet(nn.Sequential):
    """24C3-MP2-48C3-MP2-64C3-64C3-MP2-10: each convolution → BatchNorm → ReLU (→ pool); 32×32×3 floats."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for fan_in, fan_out, pools in ((3, 24, True), (24, 48, True), (48, 64, False), (64, 64, True)):
            layers += [nn.Conv2d(fan_in, fan_out, 3, padding=1, bias=False), nn.BatchNorm2d(fan_out)]
            layers += [nn.ReLU(), *([nn.MaxPool2d(2)] if pools else [])]
        super().__init__(*layers, nn.Flatten(), nn.Linear(64 * 4 * 4, 10))


def pixels(images: Tensor) -> Tensor:
    return images.float() / 127.5 - 1


def train(model: nn.Module, data: Split, epochs: int, lr: float, seed: int) -> float:
    """Adam, the rate along half a cosine from `lr` to 0. Returns the seconds it took."""
    start = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    steps = epochs * (len(data) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: (1 + math.cos(math.pi * i / steps)) / 2)
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(data), generator=generator)
        for index in order[: len(data) // BATCH * BATCH].split(BATCH):
            loss = F.cross_entropy(model(pixels(data.images[index])), data.labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            onebit.optim.clip_latent_weights_(model)
    return time.perf_counter() - start


@torch.no_grad()
def error(model: nn.Module, data: Split) -> float:
    """Percent of wrong predictions, in eval mode."""
    model.eval()
    wrong = sum(
        int((model(pixels(images)).argmax(1) != labels).sum())
        for images, labels in zip(data.images.split(500), data.labels.split(500), strict=True)
    )
    return 100 * wrong / len(data)


def run(seed: int, data: Split, test: Split, options: argparse.Namespace) -> None:
    """Every row for one seed; those that stand in the results already are not made again."""
    results = options.out / "results.jsonl"
    kept = {k: getattr(options, k) for k in SETTINGS}
    done = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    for line in done:
        if any(line[k] != v for k, v in kept.items()):
            raise SystemExit(f"{results} holds a run with other settings: choose another --out")
    rows = {line["row"] for line in done if line["seed"] == seed}

    def note(row: str, model: nn.Module, seconds: float) -> None:
        line = {"seed": seed, "row": row, "error": error(model, test), "seconds": round(seconds, 1), **kept}
        print(f"seed {seed}: {row:14} {line['error']:6.2f} %  {line['seconds']:6.1f} s", flush=True)
        with results.open("a") as file:
            file.write(json.dumps(line) + "\n")

    torch.manual_seed(seed)
    network = ConvNet()
    random = onebit.nn.binarize(network, inputs=options.inputs)
    trained = options.out / f"float_{seed}.pt"
    if "float" in rows:
        network.load_state_dict(torch.load(trained, weights_only=True))
    else:
        seconds = train(network, data, options.float_epochs, options.float_lr, seed)
        torch.save(network.state_dict(), trained)
        note("float", network, seconds)
    binary = onebit.nn.binarize(network, inputs=options.inputs)
    onebit.nn.reestimate_batch_norm_(binary, (pixels(x) for x in data.images[:5000].split(BATCH)))
    if "binarized" not in rows:
        note("binarized", binary, 0)
    long = options.float_epochs + options.epochs
    for row, start, epochs in (
        ("fine-tuned", binary, options.epochs),
        ("scratch", copy.deepcopy(random), options.epochs),
        ("scratch, long", random, long),
    ):
        if row not in rows:
            note(row, start, train(start, data, epochs, options.lr, seed))


def table(lines: list[dict]) -> str:
    """Markdown: the mean over the seeds, the least and the most."""
    first = lines[0]
    budgets = {
        "float": f"{first['float_epochs']} float",
        "binarized": f"{first['float_epochs']} float",
        "fine-tuned": f"{first['float_epochs']} float + {first['epochs']}",
        "scratch": f"{first['epochs']}",
        "scratch, long": f"{first['float_epochs'] + first['epochs']}",
    }
    rows = ["| network | epochs | test error, mean (least – most) | seeds |", "|---|---|---|---|"]
    for row, budget in budgets.items():
        errors = [line["error"] for line in lines if line["row"] == row]
        if errors:
            span = f"{mean(errors):.2f} % ({min(errors):.2f} – {max(errors):.2f})"
            rows.append(f"| {row} | {budget} | {span} | {len(errors)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, help="a folder with CIFAR-10 as parquet; default: the hub")
    parser.add_argument("--out", type=Path, required=True, help="folder for results and float networks")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--float-epochs", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="of the binary network")
    parser.add_argument("--float-lr", type=float, default=2e-3)
    parser.add_argument("--lr", type=float, default=2e-3, help="of the binary network")
    parser.add_argument("--inputs", default="ste_sign", help="the quantizer of the activations")
    parser.add_argument("--train-images", type=int, default=10000, help="how many of the 50,000")
    parser.add_argument("--validation", action="store_true", help="test on the last 5,000 training images")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    splits = onebit.data.load("cifar10", options.data_dir, validation=5000)
    data = splits.train.take(torch.arange(options.train_images))
    test = splits.test
    if options.validation:
        assert splits.validation is not None
        test = splits.validation
    for seed in options.seeds:
        run(seed, data, test, options)
    print(table([json.loads(line) for line in (options.out / "results.jsonl").read_text().splitlines()]))


if __name__ == "__main__":
    main()
