"""Every kernel family against integer or float64 references, on fresh random inputs of random shapes."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from setup import ROOT, Setup

from onebit.runtime.cuda.engine.cuda_engine import CudaEngine
from onebit.runtime.cuda.kernels import binary_gemm
from onebit.runtime.cuda.kernels.binary_gemm import BinaryGemm, GemmVariant
from onebit.runtime.cuda.kernels.epilogue import Epilogue, Raw, ScaleBias, Threshold
from onebit.runtime.cuda.kernels.pack import Bits, pack, row_bytes


def words(signs: torch.Tensor) -> np.ndarray[Any, Any]:
    """Rows of ±1 as a Program packs them: uint32 [rows, ⌈K/32⌉]."""
    positive = (signs > 0).cpu().numpy()
    padded = np.zeros((positive.shape[0], -(-positive.shape[1] // 32) * 32), np.uint8)
    padded[:, : positive.shape[1]] = positive
    return np.packbits(padded, axis=1, bitorder="little").view("<u4")


def unpacked(bits: Bits) -> torch.Tensor:
    """The bits of packed rows, padding included: int8 0 or 1 [rows, 8·row bytes]."""
    shifts = torch.arange(8, device=bits.data.device, dtype=torch.uint8)
    return (bits.data.unsqueeze(-1) >> shifts & 1).flatten(1).to(torch.int8)


def products(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a · bᵀ of ±1 in float64, which is exact: int64 [M, N]."""
    return (a.double() @ b.double().T).long()


def random_epilogue(setup: Setup, columns: int, k: int) -> Epilogue:
    """One of the three, with thresholds that are always, never and sometimes reached."""
    kind = int(setup.rng.integers(3))
    if kind == 0:
        return Raw()
    if kind == 1:
        scale, bias = setup.rng.normal(size=(2, columns)).astype(np.float32)
        return ScaleBias(scale, bias)
    spread = max(1, int(2 * k**0.5))
    thresholds = setup.rng.integers(-spread, spread + 1, columns).astype(np.int32)
    thresholds[setup.rng.random(columns) < 0.05] = -(2**31)
    thresholds[setup.rng.random(columns) < 0.05] = 2**31 - 1
    flips = setup.rng.integers(0, 2, (1, columns))
    return Threshold(thresholds, words(torch.from_numpy(2 * flips - 1))[0])


def wrong(epilogue: Epilogue, out: torch.Tensor | Bits, sums: torch.Tensor) -> str:
    """What is wrong with the output for these exact sums; empty if nothing."""
    if isinstance(epilogue, Threshold):
        assert isinstance(out, Bits)
        columns = sums.shape[1]
        thresholds = torch.from_numpy(epilogue.thresholds).to(sums.device)
        flips = np.unpackbits(epilogue.flip.view(np.uint8), bitorder="little")[:columns]
        expected = (sums >= thresholds) ^ torch.from_numpy(flips).bool().to(sums.device)
        bits = unpacked(out)
        if not torch.equal(bits[:, :columns].bool(), expected):
            return f"{int((bits[:, :columns].bool() != expected).sum())} bits differ"
        if bits[:, columns:].any():
            return "padding bits are set"
        if out.sums is not None and not torch.equal(out.sums.long(), bits.sum(1, dtype=torch.int64)):
            return "the sums of the output's rows are wrong"
        return ""
    assert isinstance(out, torch.Tensor)
    if isinstance(epilogue, ScaleBias):
        scale, bias = (torch.from_numpy(x).to(sums.device).double() for x in (epilogue.scale, epilogue.bias))
        # In float64 the product is exact and the sum all but exact: in float32 that is the fma's result, or
        # the float beside it.
        expected = (sums.double() * scale + bias).float()
        near = (out - expected).abs() <= torch.finfo(torch.float32).eps * expected.abs()
        return "" if bool(near.all()) else "floats differ by more than the last bit"
    return "" if torch.equal(out.long(), sums) else f"{int((out.long() != sums).sum())} sums differ"


def said(error: Exception) -> str:
    """An error in a line."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"


def check_product(setup: Setup, variant: GemmVariant, epilogue: Epilogue, shape: tuple[int, int, int]) -> str:
    """What is wrong with one random product of rows × columns × K; empty if nothing."""
    m, n, k = shape
    a, b = setup.signs(m, k), setup.signs(n, k)
    gemm = BinaryGemm(setup.device, words(b), k, epilogue, variant)
    out = gemm(pack(setup.device, a), gemm.empty_output(m, sums=True))
    return wrong(epilogue, out, products(a, b))


def check_products(setup: Setup, cases: int, max_sizes: tuple[int, int, int]) -> None:
    """Each variant of the binary product on random shapes, packed by the kernel that packs."""
    capability = setup.device.capability
    variants = [*binary_gemm.FEW_ROWS, binary_gemm.POPC]
    variants += binary_gemm.MMA if capability >= (8, 0) else ()
    variants += binary_gemm.WGMMA if capability == (9, 0) else ()
    if setup.dry:
        variants = [variants[0], variants[-1]]
    for variant in variants:
        failures, ran = [], 0
        for _ in range(cases):
            setup.left()
            m, n, k = (int(setup.rng.integers(1, limit + 1)) for limit in max_sizes)
            m = min(m, variant.tile_rows) if variant.kernel == "few_rows" else m
            epilogue = random_epilogue(setup, n, k)
            try:
                problem = check_product(setup, variant, epilogue, (m, n, k))
            except RuntimeError as error:  # so that the other variants are looked at too
                problem = said(error)
            failures += [f"{m}×{n}×{k} {type(epilogue).__name__}: {problem}"] if problem else []
            ran += 1
        name = f"{variant.kernel} {' '.join(str(value) for _, value in variant.macros)}".strip()
        note = f"{ran} shapes {failures[:3] or ''}"
        setup.record.check(f"binary product {name}", not failures and ran == cases, note)


def check_packing(setup: Setup) -> None:
    """Packing of each type, and the count of ones."""
    failures = []
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.bool)[: setup.size(5, 2)]:
        for columns in (1, 33, setup.size(5000, 300)):
            x = torch.randn(setup.size(300, 20), columns, generator=setup.generator, device=setup.where)
            x = x > 0 if dtype is torch.bool else (3 * x).to(dtype)
            x = torch.where(x == 0, -x, x) if dtype.is_floating_point else x  # −0.0 is +1 as well
            bits = pack(setup.device, x)
            expected = torch.zeros(x.shape[0], 8 * row_bytes(columns), dtype=torch.int8, device=setup.where)
            expected[:, :columns] = x if dtype is torch.bool else x >= 0
            assert bits.sums is not None
            if not torch.equal(unpacked(bits), expected) or not torch.equal(bits.sums, expected.sum(1).int()):
                failures.append(f"{dtype} {columns}")
    setup.record.check("packing", not failures, ", ".join(failures))


def run_products(setup: Setup) -> None:
    """The section `exact`."""
    check_packing(setup)
    check_products(setup, setup.size(20, 1), (40, 40, 300) if setup.dry else (700, 900, 6000))


def run_programs(setup: Setup) -> None:
    """The section `programs`: whole Programs, with every op, against the reference executor."""
    sys.path.insert(0, str(ROOT / "tests"))
    from parity.agreement_engine import compare
    from parity.random_images import ImageMaker
    from parity.random_programs import ProgramMaker

    for kind in (ProgramMaker, ImageMaker):
        failures: list[str] = []
        floats: list[str] = []
        ops: set[str] = set()
        first = setup.seed * 1000
        seeds = range(first, first + setup.size(150, 1))
        ran = 0
        for seed in seeds:
            if setup.left() < 3:
                break
            maker = kind(seed)
            program = maker.make(ops=10)
            batch = 1 + seed % 5
            try:
                with CudaEngine(program, device=setup.device) as engine:
                    compare(program, engine, maker.feed(batch), f"seed {seed}, batch {batch}")
            except (AssertionError, RuntimeError) as error:  # an EngineError is one
                # Sums are exact in any order, but cuDNN may take a transform (Winograd), which rounds.
                differs = isinstance(error, AssertionError)
                convolves = any(node.op == "f32_conv2d" for node in program.nodes)
                (floats if differs and convolves else failures).append(said(error))
            ran += 1
            ops |= {node.op for node in program.nodes}
        note = f"{ran} of {len(seeds)}, {len(ops)} ops {failures[:3] or ''}"
        setup.record.check(f"random programs, {kind.__name__}", not failures and ran > 0, note)
        if floats:
            setup.record.remark("random programs with cuDNN's float convolution", f"differ: {floats[:3]}")
    check_operators(setup, setup.size(20, 2))


def check_operators(setup: Setup, cases: int) -> None:
    """The operators of onebit.ops, on tensors where the run's tensors lie, against float64."""
    import onebit.ops  # registers them

    ops = torch.ops.onebit
    assert onebit.ops is not None
    failures = []
    for _ in range(cases):
        m, n, k = (int(setup.rng.integers(1, setup.size(700, 50))) for _ in range(3))
        a, b = setup.signs(m, k), setup.signs(n, k)
        got = ops.binary_matmul(ops.pack_bits(a.float()), ops.pack_bits(b.float()), k)
        failures += [] if torch.equal(got.long(), products(a, b)) else [f"{m}×{n}×{k}"]
        size, channels, filters = (int(setup.rng.integers(low, 70)) for low in (3, 1, 1))
        size = size if not setup.dry else 5
        image = setup.signs(2 * size * size, channels).view(2, size, size, channels)
        weight = setup.signs(filters * 9, channels).view(filters, 3, 3, channels)
        y = ops.binary_conv2d(
            ops.pack_bits(image.float()), ops.pack_bits(weight.float()), channels, padding=[1, 1]
        )
        first, last = (x.permute(0, 3, 1, 2).double() for x in (image, weight))
        expected = torch.nn.functional.conv2d(first, last, padding=1).permute(0, 2, 3, 1)
        right = torch.equal(y.double(), expected)
        failures += [] if right else [f"convolution {size}² {channels} → {filters}"]
    setup.record.check("the torch operators", not failures, f"{cases} of each kind {failures[:3] or ''}")


def run_small(setup: Setup) -> None:
    """The section `small`, for compute-sanitizer: every variant on small shapes, and a few Programs."""
    check_packing(setup)
    check_products(setup, 2, (150, 300, 1500))
    run_programs(setup)
