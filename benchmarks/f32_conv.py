"""The float32 convolution on one thread: share of the FMA peak, and of what ONNX Runtime reaches in this run.

    make bench            or, when it is built:  .venv/bin/python benchmarks/f32_conv.py

The shapes are the stems, downsamplings and depthwise convolutions of the networks. Each round runs the C
benchmark and then ONNX Runtime's Conv of the same shapes (onnx_conv.py says how); medians over the rounds.
"""

from __future__ import annotations

import argparse
import re
from statistics import median

import kernel_bench
import onnx_conv
from kernel_bench import Row, find
from onebit.bench import describe_machine, package_versions
from onnx_conv import Shape

_SHAPE = re.compile(r"(\d+)x\1x(\d+) -> (\d+) kernel (\d+) stride (\d+) pad (\d+) groups (\d+)")


def shape_of(row: Row) -> Shape:
    """The convolution that a row of the C benchmark is of."""
    found = _SHAPE.fullmatch(row["shape"])
    if found is None:
        raise SystemExit(f"bench_f32_conv printed a shape that this script cannot read: {row['shape']!r}")
    return Shape(*map(int, found.groups()))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--isa", help="this instruction set alone: avx512, avx2 or generic")
    arguments = parser.parse_args()
    for key, value in {**describe_machine(), **package_versions()}.items():
        print(f"# {key}: {value}")
    chosen = ("--isa", arguments.isa) if arguments.isa else ()
    rounds: list[list[Row]] = []
    peer_rounds: list[dict[Shape, float]] = []
    for _ in range(arguments.rounds):
        rounds.append(kernel_bench.run("f32_conv", *chosen))
        shapes = dict.fromkeys(shape_of(row) for row in rounds[-1] if row["what"] == "conv")
        peer_rounds.append({shape: onnx_conv.seconds(shape, int8=False) for shape in shapes})
    rows = kernel_bench.medians(rounds)
    peers = {shape: median(one[shape] for one in peer_rounds) for shape in peer_rounds[0]}
    print(f"float32 FMA peak: {find(rows, what='machine')['fma_gmacs']:.1f} GMAC/s\n")
    print(f"{'variant':18} {'shape':58} {'µs':>9} {'GMAC/s':>8} {'of peak':>8} {'ONNX':>8} {'of ONNX':>8}")
    for row in rows:
        if row["what"] != "conv":
            continue
        seconds, shape = row["us"] * 1e-6, shape_of(row)
        peak = f"{row['share']:.0%}" if "share" in row else "–"
        print(
            f"{row['variant']:18} {row['shape']:58} {row['us']:9.1f} {row['gmacs']:8.1f} {peak:>8} "
            f"{shape.macs / peers[shape] * 1e-9:8.1f} {peers[shape] / seconds:8.0%}"
        )
    kernel_bench.save("f32_conv", rows)


if __name__ == "__main__":
    main()
