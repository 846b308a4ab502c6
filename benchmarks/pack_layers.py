"""Packed layers inside PyTorch beside the float layers of the same shape, on the CPU, packing included.

    .venv/bin/python benchmarks/pack_layers.py

Three forms of each layer: torch.nn's float layer (no bias), onebit.nn's layer in eval mode (signs as float32,
what a packed layer replaces), and the packed one. Inputs are float32 and rotate among eight; every time is of
whole calls of the module from Python. Medians of interleaved rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import onebit
from onebit.bench import describe_machine, package_versions
from onebit.nn import BinaryConv2d, BinaryLinear

Call = Callable[[Tensor], Tensor]


def cases() -> list[tuple[str, nn.Module, nn.Module, tuple[int, ...], torch.memory_format]]:
    """Name, float layer, binary layer, shape of the input, its memory format."""
    plain, last = torch.contiguous_format, torch.channels_last
    linear, binary = nn.Linear(1024, 1024, bias=False), BinaryLinear(1024, 1024)
    conv, binary_conv = nn.Conv2d(256, 256, 3, padding=1, bias=False), BinaryConv2d(256, 256, 3, padding=1)
    found: list[tuple[str, nn.Module, nn.Module, tuple[int, ...], torch.memory_format]] = []
    for batch in (1, 256):
        found.append((f"linear 1024×1024, batch {batch}", linear, binary, (batch, 1024), plain))
    for batch in (1, 16):
        shape = (batch, 256, 14, 14)
        found.append((f"conv 3×3, 256 channels, 14×14, batch {batch}", conv, binary_conv, shape, plain))
        found.append(("  the same, channels last", conv, binary_conv, shape, last))
    return found


def seconds(calls: dict[str, Call], inputs: list[Tensor], rounds: int) -> dict[str, float]:
    """The median time of a call of each; a round gives each about 20 ms, one after another."""
    counts = {}
    for name, call in calls.items():
        start = time.perf_counter()
        for x in inputs:
            call(x)
        counts[name] = max(1, round(0.02 / ((time.perf_counter() - start) / len(inputs))))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            for i in range(counts[name]):
                call(inputs[i % len(inputs)])
            times[name].append((time.perf_counter() - start) / counts[name])
    return {name: statistics.median(found) for name, found in times.items()}


def main() -> None:
    """Print microseconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    for key, value in {**describe_machine(), **package_versions()}.items():
        print(f"# {key}: {value}")
    print(f"# threads: {arguments.threads}\n")
    print(f"{'':44}{'float':>10}{'binary':>10}{'packed':>10}{'float':>9}{'binary':>9}")
    print(f"{'':44}{'µs':>10}{'µs':>10}{'µs':>10}{'/packed':>9}{'/packed':>9}")
    with torch.inference_mode():
        for name, plain, binary, shape, memory_format in cases():
            packed = onebit.pack(binary.eval())
            inputs = [torch.randn(shape).contiguous(memory_format=memory_format) for _ in range(8)]
            assert all(torch.equal(packed(x), binary(x)) for x in inputs)
            times = seconds({"float": plain, "binary": binary, "packed": packed}, inputs, arguments.rounds)
            row = "".join(f"{times[form] * 1e6:10.1f}" for form in ("float", "binary", "packed"))
            ratios = "".join(f"{times[form] / times['packed']:9.1f}" for form in ("float", "binary"))
            print(f"{name:44}{row}{ratios}")


if __name__ == "__main__":
    main()
