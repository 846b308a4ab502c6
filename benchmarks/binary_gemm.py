"""The binary matrix product on one thread: against the machine's bound, and against PyTorch in the same run.

    make bench            or, when it is built:  .venv/bin/python benchmarks/binary_gemm.py

Each round runs the C benchmark (which times every call beside a chain of dependent additions, so that the
figures are MACs a cycle) and then PyTorch's float32 `matmul` and int8 `_int_mm` of the same size. Medians
over the rounds. Operands are packed beforehand; the time to pack them is printed apart.
"""

from __future__ import annotations

import argparse
from statistics import median

import torch

import kernel_bench
import roofline
from kernel_bench import Row, find
from onebit.bench import Contender, contest, describe_machine, package_versions

SIZE = 4096


def torch_seconds(size: int) -> dict[str, float]:
    """Seconds of one product in float32 and in int8, each the median of three rounds."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    x, y = (torch.randint(-127, 128, (size, size), dtype=torch.int8) for _ in range(2))
    contenders = [
        Contender("f32", lambda: a @ b),
        Contender("int8", lambda: torch._int_mm(x, y)),
        Contender("int8, second operand transposed", lambda: torch._int_mm(x, y.t())),
    ]
    times = {result.name: result.seconds for result in contest(contenders, rounds=3)}
    return {"f32": times["f32"], "int8": min(times["int8"], times["int8, second operand transposed"])}


def report(rows: list[Row], peers: dict[str, float]) -> None:
    """The table of README and docs/performance.md."""
    macs = SIZE**3
    machine = find(rows, what="machine")
    print(f"bound of xor+popcnt+add, AVX-512: {machine['avx512_xor_popcnt_add_mac_per_cycle']:.0f} MAC/cycle")
    print(f"float32 FMA peak: AVX2 {machine['avx2_f32_fma_mac_per_cycle']:.1f}, ", end="")
    print(f"AVX-512 {machine['avx512_f32_fma_mac_per_cycle']:.1f} MAC/cycle\n")
    print(f"{'variant':22} {'M×N×K':>16} {'out':>5} {'GMAC/s':>9} {'MAC/cycle':>10}  against")
    for row in rows:
        if row["what"] != "gemm":
            continue
        against = []
        if "fraction" in row:
            against.append(f"{row['fraction']:.1%} of the bound")
        if "times_f32_fma_peak" in row:
            against.append(f"{row['times_f32_fma_peak']:.2f}× the AVX2 float32 FMA peak")
        if "fraction_of_read" in row:
            against.append(f"{row['fraction_of_read']:.1%} of the rate of reading the weights")
        shape = f"{row['m']}×{row['n']}×{row['k']}"
        print(
            f"{row['variant']:22} {shape:>16} {row['epilogue']:>5} {row['gmac_per_second']:9.1f} "
            f"{row['mac_per_cycle']:10.1f}  {'; '.join(against)}"
        )
    print()
    for row in rows:
        if row["what"] in ("prepack", "pack_sign"):
            print(", ".join(f"{key} {value}" for key, value in row.items()))
    print()
    for name, seconds in peers.items():
        print(f"PyTorch {name:5} {SIZE}³: {macs / seconds * 1e-9:8.1f} GMAC/s")
    for row in rows:
        if row["what"] == "gemm" and row["m"] == SIZE and row["epilogue"] == "i32":
            ratios = [f"{seconds / row['seconds']:.1f}× PyTorch {name}" for name, seconds in peers.items()]
            print(f"{row['variant']} {SIZE}³ i32: {', '.join(ratios)}")


def main() -> None:
    """Measure, print, and draw the roofline."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    for key, value in {**describe_machine(), **package_versions()}.items():
        print(f"# {key}: {value}")
    torch.set_num_threads(1)
    rounds: list[list[Row]] = []
    peer_rounds: list[dict[str, float]] = []
    for _ in range(arguments.rounds):
        rounds.append(kernel_bench.run("binary_gemm"))
        peer_rounds.append(torch_seconds(SIZE))
    rows = kernel_bench.medians(rounds)
    peers = {name: median(one[name] for one in peer_rounds) for name in peer_rounds[0]}
    report(rows, peers)
    kernel_bench.save("binary_gemm", rows)
    print(f"\nroofline: {roofline.draw(rows).relative_to(kernel_bench.ROOT)}")


if __name__ == "__main__":
    main()
