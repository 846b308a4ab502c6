"""The torch operators on packed bits, against PyTorch's own products of ±1 in float64."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.library import opcheck
from torch.nn import functional as F

import onebit.ops
from onebit.ops import prepared
from onebit.runtime import products
from program_samples import HURTING
from support import run_python

OPS = torch.ops.onebit
assert onebit.ops.pack  # the import registers the operators


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(11)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def every_isa(isa: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(products, "_isa", lambda: isa.encode())
    prepared._prepared.clear()
    yield isa
    prepared._prepared.clear()


def signs(*shape: int) -> Tensor:
    return torch.randint(0, 2, shape).double() * 2 - 1


def by_hand(x: Tensor) -> Tensor:
    """Packs numbers one by one."""
    rows = x.reshape(-1, x.shape[-1])
    count = math.ceil(x.shape[-1] / 32)
    words = [[0] * count for _ in rows]
    for r, row in enumerate(rows.tolist()):
        for c, value in enumerate(row):
            words[r][c // 32] |= (value >= 0) << c % 32
    signed = [[word - 2**32 if word >= 2**31 else word for word in row] for row in words]
    return torch.tensor(signed, dtype=torch.int32).reshape(*x.shape[:-1], count)


# ---- pack and unpack ----


@pytest.mark.parametrize("k", HURTING)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8])
def test_pack_bits_and_back(k: int, dtype: torch.dtype, every_isa: str) -> None:
    x = torch.randint(-2, 3, (3, 2, k)).to(dtype)
    bits = OPS.pack_bits(x)
    assert bits.dtype == torch.int32
    assert torch.equal(bits, by_hand(x))
    assert torch.equal(OPS.unpack_bits(bits, k, dtype=dtype), torch.where(x >= 0, 1, -1).to(dtype))


def test_pack_bits_of_numbers_that_rounding_would_change() -> None:
    x = torch.tensor([-1e-300, 1e-300, -0.0, math.inf, -math.inf, -1e300], dtype=torch.float64)
    assert OPS.unpack_bits(OPS.pack_bits(x), 6).tolist() == [-1, 1, 1, 1, -1, -1]
    whole = torch.tensor([2**40, -(2**40), 0])
    assert OPS.unpack_bits(OPS.pack_bits(whole), 3, dtype=torch.int8).tolist() == [1, -1, 1]


def test_pack_bits_reads_any_memory_layout(every_isa: str) -> None:
    x = torch.randn(4, 33, 5, 7)
    views = [
        x.permute(0, 2, 3, 1),  # planes, channels last
        x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1),
        x.permute(2, 0, 3, 1),
        x[:, :, 1:4, ::2].permute(0, 2, 3, 1),
        x[0, 0].t(),
        x.flatten(2).transpose(1, 2),
        x[:0].permute(0, 2, 3, 1),
        x[:, 5:6].movedim(1, -1),
    ]
    for view in views:
        assert torch.equal(OPS.pack_bits(view), by_hand(view.contiguous())), view.shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_pack_bits_refuses_a_nan(dtype: torch.dtype) -> None:
    x = torch.zeros(2, 33, 4, dtype=dtype)
    x[1, 32, 3] = math.nan
    for view in (x, x.transpose(1, 2)):
        with pytest.raises(ValueError, match="onebit::pack_bits: the input has a NaN"):
            OPS.pack_bits(view)


# ---- products ----


def check_epilogues(
    run: Callable[..., Tensor], sums: Tensor, channel_axis: int, *, bits: bool = True
) -> None:
    """The sum as int32, float, scaled, biased, both with one rounding, and as bits; sums are float64."""
    n = sums.shape[channel_axis]
    shape = [1] * sums.ndim
    shape[channel_axis] = n
    scale, bias = torch.randn(n), torch.randn(n)
    a, b = scale.double().reshape(shape), bias.double().reshape(shape)
    assert torch.equal(run(), sums.to(torch.int32))
    assert torch.equal(run(to_float=True), sums.float())
    assert torch.equal(run(scale=scale), (sums * a).float())
    assert torch.equal(run(bias=bias), (sums + b).float())
    # A product of two float32 is exact in float64, and so is its sum with a dyadic bias of few bits.
    few = (torch.randint(-8, 8, (n,)) / 4).float()
    assert torch.equal(run(scale=scale, bias=few), (sums * a + few.double().reshape(shape)).float())
    if bits:
        threshold = torch.randint(-3, 4, (n,), dtype=torch.int32)
        flip = signs(n)
        found = run(threshold=threshold, flip=OPS.pack_bits(flip))
        expected = torch.where(sums >= threshold, 1.0, -1.0) * -flip
        assert torch.equal(OPS.unpack_bits(found, n), expected.float())
        assert torch.equal(found, by_hand(expected))  # padding bits are zero
        assert torch.equal(
            OPS.unpack_bits(run(threshold=threshold), n), torch.where(sums >= threshold, 1.0, -1)
        )


@pytest.mark.parametrize("k", HURTING)
def test_binary_matmul(k: int, every_isa: str) -> None:
    for lead, n in (((), 1), ((1,), 33), ((7,), 64), ((3, 5), 31), ((2, 0, 4), 5), ((65,), 0)):
        a, b = signs(*lead, k), signs(n, k)
        packed = OPS.pack_bits(a), OPS.pack_bits(b)
        if n:
            check_epilogues(lambda p=packed, **e: OPS.binary_matmul(*p, k, **e), a @ b.T, -1)
        else:
            assert OPS.binary_matmul(*packed, k).shape == (*lead, 0)


def test_float_operands_are_packed_on_the_way(every_isa: str) -> None:
    a, b = torch.randn(70, 65), OPS.pack_bits(signs(33, 65))
    a.view(-1)[::3] = -0.0
    for operand in (a, a.t().contiguous().t(), a[0], a.reshape(2, 35, 65), a[:0]):
        expected = OPS.binary_matmul(OPS.pack_bits(operand), b, 65, to_float=True)
        assert torch.equal(OPS.binary_matmul(operand, b, 65, to_float=True), expected)
    x, w = torch.randn(2, 6, 7, 33), OPS.pack_bits(signs(5, 3, 2, 33))
    for image in (x, x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1), x.transpose(1, 2)):
        expected = OPS.binary_conv2d(OPS.pack_bits(image), w, 33)
        assert torch.equal(OPS.binary_conv2d(image, w, 33), expected)


def test_sums_beyond_sixteen_bits() -> None:
    ones = OPS.pack_bits(torch.ones(2, 70_001))
    assert OPS.binary_matmul(ones, ones, 70_001).tolist() == [[70_001, 70_001]] * 2


GEOMETRIES: list[dict[str, Any]] = [
    {"kernel": (1, 1)},
    {"kernel": (3, 3), "padding": (1, 1)},
    {"kernel": (3, 2), "padding": (2, 1), "stride": (2, 1), "padding_value": -1},
    {"kernel": (2, 3), "padding": (1, 3), "dilation": (2, 3), "padding_value": 1},
    {"kernel": (5, 7), "padding": (2, 3), "stride": (3, 2), "dilation": (1, 2)},
    {"kernel": (1, 4), "stride": (1, 3)},
]


def float_conv(x: Tensor, w: Tensor, g: dict[str, Any], groups: int) -> Tensor:
    """x (B, H, W, C), w (N, h, w, C / groups), both float64 → (B, H', W', N)."""
    (top, left), value = g.get("padding", (0, 0)), float(g.get("padding_value", 0))
    padded = F.pad(x.permute(0, 3, 1, 2), (left, left, top, top), value=value)
    stride, dilation = g.get("stride", (1, 1)), g.get("dilation", (1, 1))
    y = F.conv2d(padded, w.permute(0, 3, 1, 2), None, stride, 0, dilation, groups)
    return y.permute(0, 2, 3, 1)


@pytest.mark.parametrize("g", GEOMETRIES)
@pytest.mark.parametrize(
    ("channels", "n", "groups"), [(1, 1, 1), (33, 65, 1), (64, 31, 1), (62, 4, 2), (32, 32, 32)]
)
def test_binary_conv2d(g: dict[str, Any], channels: int, n: int, groups: int, every_isa: str) -> None:
    x, w = signs(2, 11, 13, channels), signs(n, *g["kernel"], channels // groups)
    window = {key: value for key, value in g.items() if key != "kernel"}
    packed = OPS.pack_bits(x), OPS.pack_bits(w)

    def run(**epilogue: Any) -> Tensor:
        return OPS.binary_conv2d(*packed, channels, groups=groups, **window, **epilogue)

    sums = float_conv(x, w, g, groups)
    check_epilogues(run, sums, -1)
    check_epilogues(lambda **e: run(channels_first=True, **e), sums.permute(0, 3, 1, 2), 1, bits=False)


def test_real_inputs_whose_sums_are_exact(every_isa: str) -> None:
    for k in (1, 31, 33, 64, 511):
        x, b = torch.randint(-63, 64, (3, 2, k)) / 16, signs(9, k)
        packed = OPS.pack_bits(b)
        check_floats(lambda x=x, p=packed, **e: OPS.f32_binary_matmul(x, p, **e), x.double() @ b.T, -1)
    for g in GEOMETRIES:
        if "padding_value" in g:
            continue
        x, w = torch.randint(-63, 64, (2, 11, 13, 10)) / 16, signs(6, *g["kernel"], 5)
        window = {key: value for key, value in g.items() if key != "kernel"}
        packed = OPS.pack_bits(w)
        sums = float_conv(x.double(), w, g, 2)
        check_floats(
            lambda x=x, p=packed, o=window, **e: OPS.f32_binary_conv2d(x, p, groups=2, **o, **e), sums, -1
        )
        first = OPS.f32_binary_conv2d(x, packed, groups=2, channels_first=True, **window)
        assert torch.equal(first, sums.permute(0, 3, 1, 2).float())


def check_floats(run: Callable[..., Tensor], sums: Tensor, channel_axis: int) -> None:
    scale = torch.randn(sums.shape[channel_axis])
    assert torch.equal(run(), sums.float())
    assert torch.equal(run(scale=scale), (sums * scale.double()).float())


def test_real_sums_stay_within_their_bound() -> None:
    x, b = torch.randn(5, 1000), signs(40, 1000)
    found = OPS.f32_binary_matmul(x, OPS.pack_bits(b)).double()
    bound = 1000 * 2.0**-24 * x.double().abs().sum(-1, keepdim=True)
    assert ((found - x.double() @ b.T).abs() <= bound).all()


# ---- threads, and what is prepared once ----


def test_results_are_the_same_for_every_thread_count_and_caller() -> None:
    a, w = signs(50, 300), signs(130, 300)
    x, v = signs(4, 9, 9, 64), signs(70, 3, 3, 64)
    packed = [OPS.pack_bits(t) for t in (a, w, x, v)]
    product, image = (a @ w.T).int(), float_conv(x, v, {}, 1).int()
    wrong: list[str] = []

    def use(count: int) -> None:
        for _ in range(20):
            if not torch.equal(OPS.binary_matmul(packed[0], packed[1], 300), product):
                wrong.append("matmul")
            if not torch.equal(OPS.binary_conv2d(packed[2], packed[3], 64), image):
                wrong.append("conv2d")

    for count in (1, 2, 3):
        torch.set_num_threads(count)
        callers = [threading.Thread(target=use, args=(count,)) for _ in range(3)]
        for caller in callers:
            caller.start()
        use(count)
        for caller in callers:
            caller.join()
    assert not wrong


def test_weights_written_in_place_are_seen() -> None:
    a, b = signs(3, 40), signs(5, 40)
    packed, scale = OPS.pack_bits(b), torch.ones(5)
    first = OPS.pack_bits(a)
    assert torch.equal(OPS.binary_matmul(first, packed, 40, scale=scale), (a @ b.T).float())
    other = signs(5, 40)
    packed.copy_(OPS.pack_bits(other))
    scale.mul_(2)
    assert torch.equal(OPS.binary_matmul(first, packed, 40, scale=scale), (a @ other.T).float() * 2)
    with torch.inference_mode():
        packed.copy_(OPS.pack_bits(b))
        scale.fill_(-1)
    assert torch.equal(OPS.binary_matmul(first, packed, 40, scale=scale), -(a @ b.T).float())


def test_weights_of_inference_mode_can_change_at_any_time() -> None:
    a, b = signs(3, 40), signs(5, 40)
    with torch.inference_mode():
        packed = OPS.pack_bits(b)
        assert torch.equal(OPS.binary_matmul(OPS.pack_bits(a), packed, 40), (a @ b.T).int())
        packed.copy_(OPS.pack_bits(-b))
        assert torch.equal(OPS.binary_matmul(OPS.pack_bits(a), packed, 40), -(a @ b.T).int())


def test_prepared_weights_go_with_their_tensor() -> None:
    prepared._prepared.clear()
    a = OPS.pack_bits(signs(3, 40))
    b = OPS.pack_bits(signs(5, 40))
    OPS.binary_matmul(a, b, 40)
    OPS.binary_matmul(a, b, 40)
    assert len(prepared._prepared) == 1
    del b
    assert len(prepared._prepared) == 0


def test_not_more_is_prepared_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "MAX_PREPARED", 3)
    prepared._prepared.clear()
    w = OPS.pack_bits(signs(2, 3, 3, 5))
    for size in range(3, 10):
        x = signs(1, size, size, 5)
        assert OPS.binary_conv2d(OPS.pack_bits(x), w, 5).shape == (1, size - 2, size - 2, 2)
    assert len(prepared._prepared) == 3


def test_forked_children_compute_and_python_ends_without_a_word() -> None:
    code = """
import os, sys, torch, onebit.ops
sys.stderr = sys.stdout
torch.set_num_threads(2)
a = torch.ops.onebit.pack_bits(torch.randn(300, 400))
first = torch.ops.onebit.binary_matmul(a, a, 400)
child = os.fork()
again = torch.ops.onebit.binary_matmul(a, a, 400)
if child == 0:
    os._exit(0 if torch.equal(first, again) else 3)
print(os.waitpid(child, 0)[1], torch.equal(first, again))
"""
    assert run_python(code) == "0 True\n"


# ---- what PyTorch asks of an operator ----


def samples() -> Iterator[tuple[Any, tuple[Any, ...], dict[str, Any]]]:
    a, b = OPS.pack_bits(signs(5, 65)), OPS.pack_bits(signs(34, 65))
    x, w = OPS.pack_bits(signs(2, 6, 5, 33)), OPS.pack_bits(signs(34, 3, 2, 33))
    scale, bias, flip = torch.randn(34), torch.randn(34), OPS.pack_bits(signs(34))
    threshold = torch.zeros(34, dtype=torch.int32)
    yield OPS.pack_bits.default, (torch.randn(3, 33, 4).transpose(1, 2),), {}
    yield OPS.pack_bits.default, (torch.ones(33, dtype=torch.int8),), {}
    yield OPS.unpack_bits.default, (a, 65), {"dtype": torch.float64}
    for epilogue in (
        {},
        {"to_float": True},
        {"scale": scale, "bias": bias},
        {"threshold": threshold, "flip": flip},
    ):
        yield OPS.binary_matmul.default, (a, b, 65), epilogue
        yield OPS.binary_conv2d.default, (x, w, 33), {**epilogue, "padding": [1, 1], "padding_value": 1}
    yield OPS.binary_conv2d.default, (x, w, 33), {"channels_first": True, "stride": [2, 1]}
    yield OPS.binary_matmul.default, (torch.randn(3, 65), b, 65), {"scale": scale}
    yield OPS.binary_conv2d.default, (torch.randn(2, 33, 6, 5).permute(0, 2, 3, 1), w, 33), {}
    yield OPS.f32_binary_matmul.default, (torch.randn(3, 65), b), {"scale": scale}
    yield OPS.f32_binary_conv2d.default, (torch.randn(2, 6, 5, 33), w), {"dilation": [1, 2], "bias": bias}


def test_opcheck() -> None:
    seen = set()
    for op, arguments, options in samples():
        opcheck(op, arguments, options)
        seen.add(op.name().removeprefix("onebit::"))
    assert seen == set(onebit.ops.operators.SCHEMAS)


def test_meta_tensors_have_the_shapes_of_real_ones() -> None:
    for op, arguments, options in samples():
        real = op(*arguments, **options)
        meta = [t.to("meta") if isinstance(t, Tensor) else t for t in arguments]
        found = op(*meta, **{k: t.to("meta") if isinstance(t, Tensor) else t for k, t in options.items()})
        assert (found.shape, found.dtype, found.stride()) == (real.shape, real.dtype, real.stride()), op


def test_a_gradient_is_refused_and_named() -> None:
    x, b = torch.randn(3, 40, requires_grad=True), OPS.pack_bits(signs(5, 40))
    w = OPS.pack_bits(signs(5, 1, 1, 40))
    scale = torch.ones(5, requires_grad=True)
    calls: list[Callable[[], Tensor]] = [
        lambda: OPS.pack_bits(x),
        lambda: OPS.f32_binary_matmul(x, b),
        lambda: OPS.binary_matmul(x, b, 40),
        lambda: OPS.binary_conv2d(x.reshape(1, 3, 1, 40), w, 40),
        lambda: OPS.f32_binary_conv2d(x.reshape(1, 3, 1, 40), w),
        lambda: OPS.binary_matmul(b, b, 40, scale=scale),
        lambda: OPS.binary_conv2d(b.reshape(1, 5, 1, 2), w, 40, scale=scale),
    ]
    for call in calls:
        for _ in range(2):  # also when everything is prepared
            with pytest.raises(RuntimeError, match="inference_mode"):
                call()
            with torch.no_grad():
                assert call().numel()


# ---- refusals ----


def packed(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.int32)


REFUSED: list[tuple[str, tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    ("pack_bits", (torch.zeros(()),), {}, ValueError, r"\(\.\.\., C\), C >= 1, not \(\)"),
    ("pack_bits", (torch.zeros(3, 0),), {}, ValueError, r"not \(3, 0\)"),
    ("pack_bits", (torch.zeros(3, dtype=torch.bool),), {}, TypeError, "torch.bool has none"),
    ("pack_bits", (torch.zeros(3, dtype=torch.complex64),), {}, TypeError, "complex64"),
    ("unpack_bits", (packed(3, 2), 65), {}, ValueError, r"\(any, 3\), not \(3, 2\)"),
    ("unpack_bits", (packed(3, 2), 0), {}, ValueError, "k is 0"),
    ("unpack_bits", (torch.zeros(3, 2), 33), {}, TypeError, "must be torch.int32, not torch.float32"),
    ("binary_matmul", (packed(3, 2), packed(4, 2), 0), {}, ValueError, "k is 0"),
    ("binary_matmul", (packed(3, 2), packed(4, 2), 32), {}, ValueError, r"a must have the shape \(any, 1\)"),
    ("binary_matmul", (packed(3, 2), packed(4, 1), 33), {}, ValueError, "b must have"),
    ("binary_matmul", (packed(3, 2), packed(4, 2, 2), 33), {}, ValueError, "b must have"),
    ("binary_matmul", (torch.zeros(3, 33).half(), packed(4, 2), 33), {}, TypeError, "pack_bits makes such"),
    ("binary_matmul", (torch.zeros(3, 34), packed(4, 2), 33), {}, ValueError, r"a must .* \(any, 33\)"),
    ("binary_matmul", (torch.full((3, 33), math.nan), packed(4, 2), 33), {}, ValueError, "NaN"),
    ("binary_matmul", (torch.zeros(()), packed(4, 2), 33), {}, ValueError, r"not \(\)"),
    ("binary_conv2d", (torch.zeros(()), packed(4, 3, 3, 2), 33), {}, ValueError, "x must have"),
    ("binary_matmul", (packed(3, 2).long(), packed(4, 2), 33), {}, TypeError, "torch.int64"),
    (
        "binary_matmul",
        (packed(3, 2), packed(4, 2), 33),
        {"scale": torch.ones(3)},
        ValueError,
        r"scale .* \(4\)",
    ),
    ("binary_matmul", (packed(3, 2), packed(4, 2), 33), {"bias": torch.ones(4).double()}, TypeError, "bias"),
    ("binary_matmul", (packed(3, 2), packed(4, 2), 33), {"flip": packed(1)}, ValueError, "flip goes with"),
    (
        "binary_matmul",
        (packed(3, 2), packed(4, 2), 33),
        {"threshold": packed(4), "to_float": True},
        ValueError,
        "no scale, bias or to_float",
    ),
    ("binary_matmul", (packed(3, 2), packed(4, 2), 33), {"threshold": packed(3)}, ValueError, "threshold"),
    (
        "binary_matmul",
        (packed(3, 2) + 2, packed(4, 2), 33),
        {},
        ValueError,
        "first input: row 0 has a padding bit",
    ),
    ("binary_matmul", (packed(3, 2), packed(4, 2) + 2, 33), {}, ValueError, "weights .* padding bit"),
    ("binary_matmul", (packed(3, 2), packed(4, 2).to("meta"), 33), {}, ValueError, "cpu and meta"),
    ("f32_binary_matmul", (torch.zeros(3, 34).double(), packed(4, 2)), {}, TypeError, "torch.float64"),
    ("f32_binary_matmul", (torch.zeros(3, 65), packed(4, 2)), {}, ValueError, "b must have"),
    ("f32_binary_matmul", (torch.zeros(()), packed(4, 2)), {}, ValueError, r"\(\.\.\., K\)"),
    ("f32_binary_matmul", (torch.full((3, 34), math.nan), packed(4, 2)), {}, ValueError, "NaN"),
    ("binary_conv2d", (packed(1, 5, 5), packed(4, 3, 3, 2), 33), {}, ValueError, "x must have"),
    ("binary_conv2d", (packed(1, 5, 5, 2), packed(4, 3, 3, 1), 33), {}, ValueError, "weight must have"),
    (
        "binary_conv2d",
        (packed(1, 5, 5, 2), packed(4, 3, 3, 2), 33),
        {"groups": 2},
        ValueError,
        r"groups \(2\)",
    ),
    ("binary_conv2d", (packed(1, 5, 5, 2), packed(3, 3, 3, 1), 34), {"groups": 2}, ValueError, "3 outputs"),
    ("binary_conv2d", (packed(1, 5, 5, 2), packed(4, 7, 3, 2), 33), {}, ValueError, "does not fit an image"),
    ("binary_conv2d", (packed(1, 5, 5, 2), packed(4, 3, 3, 2), 33), {"stride": [0, 1]}, ValueError, "stride"),
    (
        "binary_conv2d",
        (packed(1, 5, 5, 2), packed(4, 3, 3, 2), 33),
        {"padding": [-1, 0]},
        ValueError,
        "padding",
    ),
    (
        "binary_conv2d",
        (packed(1, 5, 5, 2), packed(4, 3, 3, 2), 33),
        {"padding_value": 2},
        ValueError,
        "0, 1 or",
    ),
    (
        "binary_conv2d",
        (packed(1, 5, 5, 2), packed(4, 3, 3, 2), 33),
        {"threshold": packed(4), "channels_first": True},
        ValueError,
        "excludes channels_first",
    ),
    ("f32_binary_conv2d", (torch.zeros(1, 5, 5), packed(4, 3, 3, 2)), {}, ValueError, "x must have"),
]


@pytest.mark.parametrize(("name", "arguments", "options", "error", "words"), REFUSED)
def test_refusals(
    name: str, arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        getattr(OPS, name)(*arguments, **options)
    assert str(caught.value).startswith("onebit")


def test_words_for_torch_compile_and_the_cpu_are_the_same() -> None:
    """The shape checks of fake tensors are those of real ones."""
    for name, arguments, options, error, words in REFUSED:
        if "padding bit" in words or words in ("NaN", "cpu and meta"):
            continue  # about the numbers, which a meta tensor has not
        meta = [t.to("meta") if isinstance(t, Tensor) else t for t in arguments]
        more = {key: t.to("meta") if isinstance(t, Tensor) else t for key, t in options.items()}
        with pytest.raises(error, match=words):
            getattr(OPS, name)(*meta, **more)
