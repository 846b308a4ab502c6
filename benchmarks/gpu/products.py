"""Speed of the binary product beside cuBLAS and an unoptimized kernel: items 1 and 2 of the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from correctness import unpacked, words
from setup import PEAK_TOPS, OutOfTime, Setup

from onebit.runtime.cuda.kernels import binary_gemm
from onebit.runtime.cuda.kernels.binary_gemm import BinaryGemm, GemmVariant
from onebit.runtime.cuda.kernels.epilogue import Epilogue, Raw, ScaleBias, Threshold
from onebit.runtime.cuda.kernels.pack import Bits, count_ones, pack

Calls = list[Callable[[], object]]
UNOPTIMIZED = Path(__file__).with_name("unoptimized.cu").resolve()


def random_bits(setup: Setup, rows: int, count: int) -> Bits:
    """Packed random bits with the sums of their rows."""
    if count % 128:
        return pack(setup.device, setup.signs(rows, count))
    drawn = torch.randint(0, 256, (rows, count // 8), generator=setup.generator, device=setup.where)
    return count_ones(setup.device, Bits(drawn.to(torch.uint8), count))


def gemms(
    setup: Setup, size: int, epilogue: Epilogue, variant: GemmVariant | None = None
) -> list[tuple[BinaryGemm, Bits, torch.Tensor | Bits]]:
    """Binary products of size³, their inputs and outputs, everything packed; as many sets as fill the L2."""
    row_bytes = size // 8
    out_bytes = size * size // 8 if isinstance(epilogue, Threshold) else 4 * size * size
    sets = []
    for _ in range(setup.copies(2 * size * row_bytes + out_bytes)):
        weights = random_bits(setup, size, size).data[:, : -(-size // 32) * 4]
        packed = weights.cpu().numpy().copy().view("<u4")
        gemm = BinaryGemm(setup.device, packed, size, epilogue, variant)
        sets.append((gemm, random_bits(setup, size, size), gemm.empty_output(size)))
    return sets


def products(setup: Setup, size: int, epilogue: Epilogue, variant: GemmVariant | None = None) -> Calls:
    """The binary product of size³, a call for each set of inputs, everything packed before."""
    sets = gemms(setup, size, epilogue, variant)
    return [lambda gemm=gemm, x=x, out=out: gemm(x, out) for gemm, x, out in sets]  # type: ignore[misc]


def epilogues(size: int) -> dict[str, Epilogue]:
    """The three, by what they make."""
    rng = np.random.default_rng(0)
    scale, bias = rng.normal(size=(2, size)).astype(np.float32)
    flip = rng.integers(0, 2**32, -(-size // 32), dtype=np.uint32)
    if size % 32:
        flip[-1] &= (1 << size % 32) - 1
    thresholds = rng.integers(-50, 50, size).astype(np.int32)
    return {"bits": Threshold(thresholds, flip), "i32": Raw(), "f32": ScaleBias(scale, bias)}


def tops(size: int, seconds: float) -> float:
    """Tera-operations a second of a product of size³, 2 a multiply-accumulate."""
    return 2 * size**3 / seconds * 1e-12


def write_bandwidth(setup: Setup) -> float:
    """Bytes a second that a fill writes."""
    buffers = [torch.empty(setup.size(2**30, 2**16), dtype=torch.uint8, device=setup.where) for _ in range(2)]
    calls: Calls = [buffer.zero_ for buffer in buffers]
    return buffers[0].numel() / setup.seconds(calls)


def check_large(setup: Setup, size: int) -> None:
    """One whole product, every element, against cuBLAS int8 (and some rows of that against float64)."""
    a, b = setup.signs(size, size), setup.signs(size, size)
    exact = torch._int_mm(a, b.t()) if setup.where.type == "cuda" else a.int() @ b.int().t()
    rows = torch.randint(0, size, (min(size, 64),), generator=setup.generator, device=setup.where)
    same = torch.equal((a[rows].double() @ b.double().t()).int(), exact[rows])
    setup.record.check(f"the reference of {size}³ in float64", same, f"{len(rows)} rows")
    packed = words(b)
    for name, epilogue in epilogues(size).items():
        if name == "f32":
            continue
        out = BinaryGemm(setup.device, packed, size, epilogue)(pack(setup.device, a))
        if isinstance(epilogue, Threshold):
            assert isinstance(out, Bits)
            flips = np.unpackbits(epilogue.flip.view(np.uint8), bitorder="little")[:size]
            expected = (exact >= torch.from_numpy(epilogue.thresholds).to(exact.device)) ^ torch.from_numpy(
                flips
            ).bool().to(exact.device)
            right = torch.equal(unpacked(out)[:, :size].bool(), expected)
        else:
            assert isinstance(out, torch.Tensor)
            right = torch.equal(out, exact)
        setup.record.check(f"{size}³ → {name}, every element", right)


def cublas(setup: Setup, size: int, dtype: torch.dtype) -> float:
    """Seconds of cuBLAS's product of size³, ±1 inputs."""
    calls: Calls = []
    item = torch.tensor([], dtype=dtype).element_size()
    out_type = torch.int32 if dtype is torch.int8 else dtype
    for _ in range(setup.copies(3 * item * size * size)):
        a, b = setup.signs(size, size).to(dtype), setup.signs(size, size).to(dtype)
        out = torch.empty(size, size, dtype=out_type, device=setup.where)
        if dtype is torch.int8 and setup.where.type == "cuda":
            calls.append(lambda a=a, b=b: torch._int_mm(a, b.t()))  # type: ignore[misc]
        else:
            left, right = (a.to(out_type), b.to(out_type)) if dtype is torch.int8 else (a, b)
            calls.append(lambda a=left, b=right, out=out: torch.mm(a, b.t(), out=out))  # type: ignore[misc]
    return setup.seconds(calls)


def unoptimized_call(setup: Setup, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> Callable[[], object]:
    """c = a · b by the unoptimized kernel; b is [k, n]."""
    kernel = setup.device.kernel(str(UNOPTIMIZED), "unoptimized", {})
    (m, k), n = a.shape, b.shape[1]
    grid = (-(-n // 16), -(-m // 16), 1)
    tiles = 2 * 16 * 16 * 4  # bytes of shared memory
    return lambda: setup.device.launch(kernel, grid, 256, tiles, a, b, c, m, n, k)


def unoptimized(setup: Setup, size: int) -> float:
    """Seconds of the unoptimized kernel, after a check of some rows."""
    a, b = (setup.signs(size, size).float() for _ in range(2))
    c = torch.empty(size, size, device=setup.where)
    call = unoptimized_call(setup, a, b, c)
    call()
    setup.record.check(
        "the unoptimized kernel is right", torch.equal(c[:32].double(), a[:32].double() @ b.double())
    )
    return setup.seconds([call], 1.5)


def packing(setup: Setup, size: int) -> float:
    """Seconds of packing one float32 matrix of size²."""
    calls: Calls = []
    for _ in range(setup.copies(4 * size * size)):
        x = setup.signs(size, size).float()
        bits = pack(setup.device, x)
        calls.append(lambda x=x, bits=bits: pack(setup.device, x, bits))  # type: ignore[misc]
    return setup.seconds(calls)


def run(setup: Setup) -> None:
    """The section `product`: item 1."""
    record = setup.record
    small, large = setup.size(8192, 64), setup.size(16384, 64)
    check_large(setup, small)
    bandwidth = write_bandwidth(setup)
    record.number("writing memory", bandwidth * 1e-12, "TB/s")
    bars = {(large, "bits"): 11_000, (small, "bits"): 9_000}
    ours: dict[tuple[int, str], float] = {}
    for size in sorted({small, large}):
        for name, epilogue in epilogues(size).items():
            seconds = ours[size, name] = setup.seconds(products(setup, size, epilogue))
            variant = binary_gemm.choose(setup.device.capability, setup.device.multiprocessors, size, size)
            note = f"{seconds * 1e3:.4f} ms, {variant.kernel} {variant.tile_rows}×{variant.tile_columns}"
            record.number(
                f"{size}³ → {name}", tops(size, seconds), "TOPS", bar=bars.get((size, name)), note=note
            )
            if name == "i32":
                floor = max(2 * size**3 / (PEAK_TOPS * 1e12), 4 * size * size / bandwidth)
                record.number(f"{size}³ → i32, share of the floor", floor / seconds, "", bar=0.85)
    record.number(
        f"sm_80 path, {large}³ → bits",
        tops(large, setup.seconds(products(setup, large, epilogues(large)["bits"], binary_gemm.MMA[0]))),
        "TOPS",
        bar=6_500,
    )
    compare(setup, small, ours[small, "bits"])
    others = (*binary_gemm.WGMMA, binary_gemm.MMA[1], binary_gemm.POPC)
    for variant in others[: setup.size(len(others), 0)]:
        seconds = setup.seconds(products(setup, small, epilogues(small)["bits"], variant), 0.3)
        name = " ".join(str(value) for _, value in variant.macros)
        record.number(
            f"{variant.kernel} {name}, {small}³ → bits".replace("  ", " "), tops(small, seconds), "TOPS"
        )


def compare(setup: Setup, size: int, ours: float) -> None:
    """Beside cuBLAS, with the bars of item 1."""
    for dtype, bar in ((torch.bfloat16, 11.0), (torch.float32, 170.0), (torch.int8, None)):
        name = str(dtype).removeprefix("torch.")
        seconds = cublas(setup, size, dtype)
        setup.record.number(
            f"cuBLAS {name}, {size}³", tops(size, seconds), "TOPS", note=f"{seconds * 1e3:.4f} ms"
        )
        setup.record.number(f"{size}³ → bits over cuBLAS {name}", seconds / ours, "×", bar=bar)


def run_paper(setup: Setup) -> None:
    """The section `paper`: the first half of item 2, packing left out and taken in."""
    size = setup.size(8192, 64)
    ours = setup.seconds(products(setup, size, epilogues(size)["i32"]))
    pack_one = packing(setup, size)
    peers = {"cuBLAS float32": (cublas(setup, size, torch.float32), 3.4)}
    try:
        peers["the unoptimized kernel"] = (unoptimized(setup, size), 23.0)
    except OutOfTime:
        setup.record.remark("the unoptimized kernel", "out of time")
    setup.record.number(f"packing {size}² float32", pack_one * 1e3, "ms")
    for name, (seconds, paper) in peers.items():
        setup.record.number(f"{name}, {size}³", tops(size, seconds), "TOPS", note=f"{seconds * 1e3:.3f} ms")
        for packed, total in (("out", ours), ("in", ours + 2 * pack_one)):
            text = f"{size}³ → i32 over {name}, packing {packed}"
            setup.record.number(text, seconds / total, "×", bar=paper, note="bar: the paper's figure")


def run_tune(setup: Setup) -> None:
    """The section `tune`, only where asked for: other stages, leads and clusters of wgmma's tiles."""
    variants = [
        binary_gemm.wgmma(2, columns, stages, cluster, lead, rate=1.0)
        for columns, most in ((256, 4), (128, 6))
        for stages in (most - 1, most)
        for cluster in (1, 2)
        for lead in (0, 1, 2)
        if lead <= stages - 2
    ]
    for size in (setup.size(8192, 64), setup.size(16384, 300)):
        for name in ("bits", "i32"):
            sets = gemms(setup, size, epilogues(size)[name])
            for variant in variants[: setup.size(len(variants), 2)]:
                chosen = [(gemm.by(variant), x, out) for gemm, x, out in sets]
                calls: Calls = [lambda s=s: s[0](*s[1:]) for s in chosen]  # type: ignore[misc]
                macros = " ".join(f"{key.lower()} {value}" for key, value in variant.macros[1:])
                speed = tops(size, setup.seconds(calls, 0.4))
                setup.record.number(f"{size}³ → {name}, {macros}", speed, "TOPS")


def all_calls(calls: Sequence[Callable[[], object]]) -> Callable[[], object]:
    """One call that does all."""

    def run_all() -> None:
        for call in calls:
            call()

    return run_all
