"""Draws the products of binary_gemm.py under the rates that the machine can reach."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

from kernel_bench import OUT, Row, find


def intensity(row: Row) -> float:
    """MACs for each byte that a product must read and write once: packed operands, and its output."""
    m, n, k = row["m"], row["n"], row["k"]
    out = {"i32": 4.0, "f32": 4.0, "bits": 1 / 8}[row["epilogue"]]
    return m * n * k / (m * k / 8 + n * k / 8 + m * n * out)


def draw(rows: list[Row]) -> Path:
    """Write benchmarks/out/roofline.png; the slope is the rate at which one thread reads M=1's weights."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    machine = find(rows, what="machine")
    figure, axes = plt.subplots(figsize=(7, 5))
    x = [2.0**e for e in range(16)]
    read = next(row["read_bytes_per_cycle"] for row in rows if "read_bytes_per_cycle" in row)
    for label, peak in (
        ("xor + popcnt + add, AVX-512", machine["avx512_xor_popcnt_add_mac_per_cycle"]),
        ("float32 FMA, AVX-512", machine["avx512_f32_fma_mac_per_cycle"]),
        ("float32 FMA, AVX2", machine["avx2_f32_fma_mac_per_cycle"]),
    ):
        if peak:
            axes.plot(x, [min(peak, read * i) for i in x], label=f"{label}: {peak:.0f} MAC/cycle")
    for variant, marker in (("avx512", "o"), ("avx2", "s"), ("generic", "^")):
        own = [row for row in rows if row["what"] == "gemm" and row["variant"].endswith("/" + variant)]
        axes.plot(
            [intensity(row) for row in own],
            [row["mac_per_cycle"] for row in own],
            marker,
            linestyle="none",
            label=f"binary_gemm/{variant}",
        )
    axes.set(xscale="log", yscale="log", xlabel="MACs a byte", ylabel="MACs a cycle")
    axes.set_title("Binary matrix product, one thread")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(fontsize=8)
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / "roofline.png"
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
    return path
