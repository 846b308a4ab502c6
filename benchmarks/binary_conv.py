"""The binary convolution on one thread: against the machine's bound, and ONNX Runtime in the same run.

    make bench            or, when it is built:  .venv/bin/python benchmarks/binary_conv.py

Each round runs the C benchmark (threshold to bits, in C, so that Python's call does not blur it) and then
ONNX Runtime's float32 Conv and int8 QLinearConv of the same shapes (onnx_conv.py says how). Medians over the
rounds. MACs count taps outside the image for everybody.
"""

from __future__ import annotations

import argparse
from statistics import median

import kernel_bench
import onnx_conv
from kernel_bench import Row, find
from onebit.bench import describe_machine, package_versions
from onnx_conv import Shape

# The layers of csrc/kernels/binary_conv/bench.c by name: kernel, stride, padding.
GEOMETRY = {
    "3x3": (3, 1, 1),
    "3x3 stride 2": (3, 2, 1),
    "1x1": (1, 1, 0),
    "1x1 stride 2": (1, 2, 0),
    "whole image": (6, 1, 0),
    "one pixel": (1, 1, 0),
}
PEERS = {"float32": False, "int8": True}


def shape_of(row: Row) -> Shape:
    """The convolution that a row of the C benchmark is of."""
    size, _, channels = map(int, row["image"].split("x"))
    return Shape(size, channels, row["n"], *GEOMETRY[row["layer"]])


def report(rows: list[Row], peers: dict[tuple[Shape, str], float]) -> None:
    """The table of docs/performance.md."""
    machine = find(rows, what="machine")
    print(f"bound of xor+popcnt+add, AVX-512: {machine['avx512_xor_popcnt_add_mac_per_cycle']:.0f} MAC/cycle")
    print(
        f"{'variant':20} {'layer':13} {'image':>10} {'n':>5} {'pad of':>6} {'µs':>9} {'GMAC/s':>8} "
        f"{'of bound':>8} {'× float32':>10} {'× int8':>8}"
    )
    for row in rows:
        if row["what"] != "conv":
            continue
        times = [peers[shape_of(row), name] / row["seconds"] for name in PEERS]
        bound = f"{row['fraction']:.1%}" if "fraction" in row else "–"
        print(
            f"{row['variant']:20} {row['layer']:13} {row['image']:>10} {row['n']:5} {row['padding_value']:6} "
            f"{row['seconds'] * 1e6:9.2f} {row['gmac_per_second']:8.1f} {bound:>8} "
            f"{times[0]:10.1f} {times[1]:8.2f}"
        )
    print()
    for shape in dict.fromkeys(shape for shape, _ in peers):
        rates = ", ".join(
            f"{name} {peers[shape, name] * 1e6:.1f} µs, {shape.macs / peers[shape, name] * 1e-9:.1f} GMAC/s"
            for name in PEERS
        )
        print(f"ONNX Runtime {shape}: {rates}")


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
    peer_rounds: list[dict[tuple[Shape, str], float]] = []
    for _ in range(arguments.rounds):
        rounds.append(kernel_bench.run("binary_conv", *chosen))
        shapes = dict.fromkeys(shape_of(row) for row in rounds[-1] if row["what"] == "conv")
        peer_rounds.append(
            {
                (shape, name): onnx_conv.seconds(shape, int8=int8)
                for shape in shapes
                for name, int8 in PEERS.items()
            }
        )
    rows = kernel_bench.medians(rounds)
    report(rows, {key: median(one[key] for one in peer_rounds) for key in peer_rounds[0]})
    kernel_bench.save("binary_conv", rows)


if __name__ == "__main__":
    main()
