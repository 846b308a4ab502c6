"""The paper's MNIST MLP, 784-3×4096-10, whole, one thread, bytes in, through Python: onebit beside its peers.

    make bench            or:  .venv/bin/python benchmarks/mnist_mlp.py

Weights are random signs: speed does not depend on them. The peers run the same network with BatchNorm folded
into their weights, in float32 and in int8, and get their input as float32 already. Medians of interleaved
rounds.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

import onebit
from onebit.bench import bench_program, describe_machine, package_versions
from onebit.bench.packed import ENGINE


def program() -> onebit.Program:
    """The network with random signs and BatchNorm statistics that leave every sign undecided."""
    torch.manual_seed(0)
    model = onebit.models.create("bnn_mlp", hidden=(4096, 4096, 4096))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d) and module.running_mean is not None:
            module.running_mean.normal_(0, 8)
    return onebit.convert(model.eval(), torch.zeros(1, 1, 28, 28, dtype=torch.uint8))


def main() -> None:
    """Print milliseconds, ratios and file sizes for each batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 256])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    for key, value in {**describe_machine(), **package_versions()}.items():
        print(f"# {key}: {value}")
    network = program()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mnist.onebit")
        network.save(path)
        packed = path.stat().st_size
    for batch in arguments.batch:
        report = bench_program(
            network, batch=batch, threads=arguments.threads, rounds=arguments.rounds, seconds=0.3
        )
        print(f"\nbatch {batch}, {arguments.threads} thread(s)")
        for result in report.results:
            ratio = "" if result.name == ENGINE else f"{report.speedup(result.name):8.1f}× as long"
            size = report.bytes_of.get(result.name, packed if result.name == ENGINE else 0)
            share = f"{size:>12,} bytes" if size else ""
            print(f"  {result.name:28} {result.seconds * 1e3:10.4f} ms  {ratio:18} {share}")
        for name, reason in report.left_out.items():
            print(f"  {name}: {reason}")
        float_bytes = report.bytes_of.get("ONNX Runtime float32")
        if float_bytes:
            print(f"  file: {packed:,} bytes, {float_bytes / packed:.1f} times smaller than float32 ONNX")


if __name__ == "__main__":
    main()
