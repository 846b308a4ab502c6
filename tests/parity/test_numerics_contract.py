"""docs/numerics.md, line by line: test_b1_... tests line B1; the files that hold them are in _FILES.
The last test finds a line without a test."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onebit import models
from onebit import nn as bnn
from onebit.lowering import ConversionError, convert
from onebit.lowering.rules.norm import fold_batch_norm
from onebit.program import (
    Constant,
    DType,
    Node,
    Program,
    ProgramError,
    TensorType,
    fma,
    pack_bits,
    unpack_bits,
    verify,
)
from parity.agreement import (
    EPSILON,
    EXECUTORS,
    assert_equal,
    assert_hidden_bits_equal,
    assert_within_tolerance,
    eager,
    run_everywhere,
)
from parity.networks import Lambda, random_batch_norm
from support import ROOT, require

_FILES = ("numerics_contract", "numerics_images", "numerics_special", "convert_signs", "convert_quantizers")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(3)


def _signs(*shape: int) -> Tensor:
    return torch.randint(0, 2, shape) * 2.0 - 1


def test_b1_sign_of_zero_and_of_minus_zero_is_plus_one() -> None:
    x = torch.tensor([[0.0, -0.0, 1e-45, -1e-45, 3.0, -3.0, float("inf"), -float("inf")]])
    expected = torch.tensor([[1.0, 1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0]])
    model = bnn.quantizers.SteSign()
    assert torch.equal(model.train()(x), expected)
    assert torch.equal(model.eval()(x), expected)
    program = convert(model, x)
    for name, (found,) in run_everywhere(program, x.numpy()):
        assert found.dtype == np.int8, name
        assert np.array_equal(found, expected.numpy()), name


def test_b2_nan_is_refused_where_it_enters() -> None:
    program = convert(nn.Sequential(bnn.BinaryLinear(4, 3)).eval(), torch.zeros(1, 4))
    for executor in EXECUTORS.values():
        with pytest.raises(ProgramError, match="NaN"):
            executor(program, np.array([[0, 1, np.nan, 2]], dtype=np.float32))
    model = nn.Linear(4, 3).eval()
    with torch.no_grad():
        model.weight[1, 2] = float("nan")
    with pytest.raises(ConversionError, match="'weight' holds a NaN"):
        convert(model, torch.zeros(1, 4))
    latent = bnn.BinaryLinear(4, 3).eval()
    with torch.no_grad():
        latent.weight[0, 0] = float("nan")
    with pytest.raises(ConversionError, match="'weight' holds a NaN"):
        convert(latent, torch.zeros(1, 4))
    with torch.no_grad():
        latent.weight[0, 0] = float("-inf")  # its bit is −1
    assert_equal(latent, convert(latent, torch.zeros(1, 4)), torch.randn(5, 4))


def test_b3_torch_sign_is_not_used_and_is_refused() -> None:
    # The bench's peer may: it is timed, in the form that is fastest for PyTorch; no result of ours is its.
    sources = [p for p in (ROOT / "src" / "onebit").rglob("*.py") if p.name != "torch_peer.py"]
    assert len(sources) > 20
    forbidden = re.compile(r"torch\.(sign|sgn)\(|\.sign\(\)|np\.sign\(")
    assert [p.name for p in sources if forbidden.search(p.read_text("utf-8"))] == []
    with pytest.raises(ConversionError, match="0 at 0"):
        convert(Lambda(torch.sign, "torch.sign").eval(), torch.zeros(2, 3))


@pytest.mark.parametrize("k", [1, 31, 32, 33, 63, 64, 65, 511])
def test_b4_packed_form_and_the_dot_product_on_bits(k: int) -> None:
    a, b = _signs(3, k), _signs(5, k)
    packed = pack_bits(a.numpy() > 0)
    assert packed.shape == (3, -(-k // 32))
    for c in range(k):  # channel c is bit c mod 32 of word c div 32
        assert np.array_equal((packed[:, c // 32] >> np.uint32(c % 32)) & 1, a[:, c].numpy() > 0)
    words = pack_bits(b.numpy() > 0)
    if k % 32:
        assert not (packed[:, -1] >> np.uint32(k % 32)).any()
    popcount = np.array([[sum(int(w).bit_count() for w in x ^ y) for y in words] for x in packed])
    assert np.array_equal(k - 2 * popcount, (a @ b.T).numpy())
    assert np.array_equal(unpack_bits(packed, k), a.numpy() > 0)


@pytest.mark.parametrize("shape", [(2, 33), (3, 5, 7), (31, 1), (1, 65), (4, 32)])
def test_b5_reshape_keeps_the_logical_order_across_words(shape: tuple[int, ...]) -> None:
    flat = int(np.prod(shape))
    model = nn.Sequential(
        bnn.quantizers.SteSign(), nn.Flatten(), bnn.BinaryLinear(flat, 9, input_quantizer=None)
    ).eval()
    x = torch.randn(3, *shape)
    program = convert(model, x)
    assert [node.op for node in program.nodes][:2] in (
        ["sign", "reshape"],
        ["reshape", "sign"],
        ["sign", "binary_gemm"],
    )
    assert_equal(model, program, x)


@pytest.mark.parametrize("k", [1, 33, 511, 4096])
def test_s1_scale_and_bias_follow_an_exact_integer_sum(k: int) -> None:
    model = bnn.BinaryLinear(k, 7, weight_scale="learned", bias=True).eval()
    with torch.no_grad():
        model.scale.normal_()
        model.bias.normal_()
    x = torch.randn(3, k)
    program = convert(model, x)
    assert [node.op for node in program.nodes] == ["sign", "binary_gemm", "to_float", "mul", "add"]
    assert_equal(model, program, x)
    sums = [n.output for n in program.nodes if n.op == "binary_gemm"]
    exact = F.linear(bnn.quantizers.ste_sign(x.double()), bnn.quantizers.ste_sign(model.weight.double()))
    for name, (found,) in run_everywhere(program.with_outputs(*sums), x.numpy()):
        assert found.dtype == np.int32, name
        assert np.array_equal(found, exact.detach().numpy()), name


def _scaled_inside(alpha: Tensor, k: int) -> tuple[nn.Module, Tensor]:
    weight = _signs(len(alpha), k) * alpha[:, None]
    layer = nn.Linear(k, len(alpha), bias=False)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return nn.Sequential(bnn.quantizers.SteSign(), layer).eval(), torch.randn(3, k)


def test_s2_weights_of_plus_minus_alpha_are_one_bit_again() -> None:
    model, x = _scaled_inside(2.0 ** torch.arange(-4.0, 4.0), 65)
    program = convert(model, x)
    assert [node.op for node in program.nodes] == ["sign", "binary_gemm", "to_float", "mul"]
    assert_equal(model, program, x)
    alpha = torch.rand(8) + 0.1
    model, x = _scaled_inside(alpha, 65)
    (expected,) = eager(model, x)
    tolerance = 2 * 66 * EPSILON * 65 * alpha.numpy()
    for name, (found,) in run_everywhere(convert(model, x), x.numpy()):
        assert (np.abs(found - expected) <= tolerance).all(), name


def test_s3_bias_is_an_operation_of_its_own() -> None:
    program = convert(nn.Linear(5, 3).eval(), torch.zeros(2, 5))
    assert [node.op for node in program.nodes] == ["f32_gemm", "add"]
    model = bnn.BinaryLinear(511, 64, bias=True).eval()
    nn.init.normal_(model.bias)
    x = torch.randn(3, 511)
    assert_equal(model, convert(model, x), x)


def test_s4_elementwise_operations_have_one_result() -> None:
    operations = (
        lambda x: x * 0.1, lambda x: 0.1 + x, lambda x: x / 3, lambda x: 0.7 - x, torch.relu, F.relu6,
        lambda x: F.leaky_relu(x, 0.1), lambda x: x.clamp(-0.3, 0.7), lambda x: x * x - x / (x * x + 1),
        lambda x: x * torch.tensor(0.1, dtype=torch.float64), lambda x: -x * torch.arange(33),
    )  # fmt: skip
    x = torch.randn(65, 33) * 10 ** (torch.rand(65, 33) * 12 - 6)
    for position, operation in enumerate(operations):
        model = Lambda(operation, str(position)).eval()
        assert_equal(model, convert(model, x), x)
    with pytest.raises(ConversionError, match="float64"):
        convert(Lambda(lambda x: x * torch.ones(33, dtype=torch.float64), "").eval(), x)


@pytest.mark.parametrize("batch", [1, 2, 3, 64, 1000])
@pytest.mark.parametrize("channels", [1, 7, 32, 33, 511])
def test_n1_batch_norm_is_pytorchs_float_for_float(channels: int, batch: int) -> None:
    capability = torch.backends.cpu.get_cpu_capability()
    require(capability in ("AVX2", "AVX512"), f"PyTorch's AVX kernels; this machine runs {capability}")
    for affine in (True, False):
        norm = random_batch_norm(channels, affine=affine).eval()
        scale, shift = fold_batch_norm(
            norm.running_mean.numpy(),
            norm.running_var.numpy(),
            norm.weight.detach().numpy() if affine else None,
            norm.bias.detach().numpy() if affine else None,
            norm.eps,
        )
        x = torch.randn(batch, channels) * 10 ** (torch.rand(batch, channels) * 6 - 2)
        (expected,) = eager(norm, x)
        assert np.array_equal(fma(x.numpy(), scale, shift), expected)


def test_n2_alpha_and_beta_are_stored_and_applied_by_one_fma() -> None:
    norm = random_batch_norm(65).eval()
    x = torch.randn(64, 65) * 100
    program = convert(norm, x)
    assert [node.op for node in program.nodes] == ["affine"]
    scale, shift = (program.constants[name].array for name in program.nodes[0].inputs[1:])
    once = fma(x.numpy(), scale, shift)
    twice = x.numpy() * scale + shift
    assert (once != twice).any()  # the data can tell one rounding from two
    for name, (found,) in run_everywhere(program, x.numpy()):
        assert np.array_equal(found, once), name


@pytest.mark.parametrize("k", [33, 512])
def test_t1_a_threshold_is_pytorchs_sign_for_every_sum(k: int) -> None:
    """PyTorch's own BatchNorm on every integer from −K to K, against the integer comparison."""
    tail = nn.Sequential(
        random_batch_norm(65), nn.Hardtanh(-20, 20), nn.PReLU(65), bnn.quantizers.SteSign()
    ).eval()
    model = nn.Sequential(bnn.BinaryLinear(k, 65), *tail).eval()
    program = convert(model, torch.zeros(1, k))
    (node,) = [n for n in program.nodes if n.op == "threshold"]
    thresholds, flip = (program.constants[name] for name in node.inputs[1:])
    sums = np.repeat(np.arange(-k, k + 1)[:, None], 65, axis=1)
    ours = (sums >= thresholds.array) ^ unpack_bits(flip.array, 65)
    (expected,) = eager(tail, torch.from_numpy(sums.astype(np.float32)))
    assert np.array_equal(ours, expected > 0)
    assert 0 < (expected > 0).mean() < 1


def test_t2_negative_gamma_flips_and_gamma_zero_is_constant() -> None:
    norm = nn.BatchNorm1d(4)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -1.0, 0.0, 0.0]))
        norm.bias.copy_(torch.tensor([0.5, 0.5, 0.5, -0.5]))
    model = nn.Sequential(bnn.BinaryLinear(33, 4), norm, bnn.quantizers.SteSign()).eval()
    x = torch.randn(64, 33)
    program = convert(model, x)
    (node,) = [n for n in program.nodes if n.op == "threshold"]
    thresholds, flip = (program.constants[name] for name in node.inputs[1:])
    assert unpack_bits(flip.array, 4).tolist() == [False, True, False, True]
    assert (thresholds.array == -(2**31)).tolist() == [False, False, True, True]
    assert_equal(model, program, x)


def test_t3_what_is_not_monotone_takes_the_sign_of_the_float() -> None:
    tails: dict[str, list[nn.Module]] = {
        "threshold": [nn.ReLU(), Lambda(lambda x: 3 - x / 1.3, "3 - x / 1.3"), nn.PReLU(33)],
        "sign": [nn.LeakyReLU(-0.5), Lambda(lambda x: x - 2, "x - 2")],
    }
    for op, tail in tails.items():
        model = nn.Sequential(
            bnn.BinaryLinear(65, 33), random_batch_norm(33), *tail, bnn.BinaryLinear(33, 5)
        ).eval()
        x = torch.randn(16, 65)
        program = convert(model, x)
        assert [n.op for n in program.nodes if n.op in ("threshold", "sign")] == ["sign", op]
        assert_equal(model, program, x)


def test_p1_scaled_pixels_are_exact_in_any_order() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    values = bnn.ScalePixels()(every)
    assert torch.equal(values.double(), (2 * every.double() - 255) / 256)
    x = bnn.ScalePixels()(torch.randint(0, 256, (784,), dtype=torch.uint8)) * _signs(784)
    exact = float(x.double().sum())
    for _ in range(50):
        shuffled = x[torch.randperm(784)].numpy()
        running = np.float32(0)
        for value in shuffled:
            running = np.float32(running + value)
        assert float(running) == exact
    assert 65_793 * 255 <= 2**24 < 65_794 * 255


def test_p2_the_first_layer_is_integer() -> None:
    model = models.create_small("bnn_mlp").eval()
    x = models.example_input(model, 64)
    program = convert(model, x)
    assert program.values[program.inputs[0]].dtype is DType.U8
    assert [node.op for node in program.nodes][:3] == ["reshape", "u8_gemm", "threshold"]
    assert_hidden_bits_equal(model, program, x)
    layer = nn.Sequential(bnn.ScalePixels(), bnn.BinaryLinear(65, 9, input_quantizer=None)).eval()
    y = torch.randint(0, 256, (3, 65), dtype=torch.uint8)
    program = convert(layer, y)
    assert [node.op for node in program.nodes] == ["u8_gemm", "to_float", "mul"]
    assert program.constants[program.nodes[2].inputs[1]].array.tolist() == [1 / 256]
    assert_equal(layer, program, y)


def test_p3_bit_planes() -> None:
    for k in (1, 33, 511):
        x, w = torch.randint(0, 256, (k,)), _signs(k)
        total = 0
        for plane in range(8):
            bits = (x >> plane) & 1
            both = int((bits * (w > 0)).sum())  # popcount(x and w)
            total += (2 * both - int(bits.sum())) << plane
        program = Program(
            ("x",), ("y",), (Node("u8_gemm", ("x", "w"), "y", {"multiplier": 1, "offset": 0}),),
            {"w": Constant(TensorType(DType.BITS, (1, k)), pack_bits(w[None].numpy() > 0))},
            {"x": TensorType(DType.U8, (k,)), "y": TensorType(DType.I32, (1,))},
        )  # fmt: skip
        for name, (found,) in run_everywhere(program, x[None].to(torch.uint8).numpy()):
            assert found.tolist() == [[total]], name


def test_p4_beyond_24_bits_the_sum_is_exact_and_rounds_once() -> None:
    k = 70_001
    weights = torch.ones(2, k)
    weights[1, ::3] = -1
    model = nn.Sequential(bnn.ScalePixels(), nn.Linear(k, 2, bias=False)).eval()
    with torch.no_grad():
        model[1].weight.copy_(weights)
    x = torch.full((1, k), 255, dtype=torch.uint8)
    x[0, :3] = 3
    exact = (2 * x.double() - 255) @ weights.T.double() / 256
    assert float(exact[0, 0]) * 256 > 2**24
    assert float(exact[0, 0]) != float(exact[0, 0].float())  # it has to round
    program = convert(model, x)
    assert "u8_gemm" in [node.op for node in program.nodes]
    for name, (found,) in run_everywhere(program, x.numpy()):
        assert np.array_equal(found, exact.float().numpy()), name
    (pytorch,) = eager(model, x)
    assert (np.abs(pytorch - exact.numpy()) <= (k + 1) * EPSILON * k).all()


def test_e1_integer_networks_equal_pytorch_everywhere() -> None:
    """One network here; two hundred random ones in test_convert_random.py."""
    model = nn.Sequential(
        bnn.ScalePixels(), nn.Flatten(),
        bnn.BinaryLinear(63, 511, input_quantizer=None), random_batch_norm(511),
        bnn.BinaryLinear(511, 65, weight_scale="channel_mean"), random_batch_norm(65), nn.Hardtanh(),
        bnn.BinaryLinear(65, 10, bias=True), random_batch_norm(10),
    ).eval()  # fmt: skip
    x = torch.randint(0, 256, (129, 7, 9), dtype=torch.uint8)
    program = convert(model, x)
    assert_equal(model, program, x)
    assert assert_hidden_bits_equal(model, program, x) == len(EXECUTORS) * 129 * (511 + 65)


def test_e2_dyadic_numbers_sum_exactly_in_every_order() -> None:
    model = nn.Sequential(nn.Linear(65, 33), nn.ReLU(), bnn.BinaryLinear(33, 9, input_quantizer=None)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.randint(-8, 9, (33, 65)) / 8)
        model[0].bias.copy_(torch.randint(-8, 9, (33,)) / 8)
    x = torch.randint(-8, 9, (64, 65)) / 8
    program = convert(model, x)
    assert [node.op for node in program.nodes] == ["f32_gemm", "add", "relu", "f32_binary_gemm"]
    assert_equal(model, program, x)


@pytest.mark.parametrize("k", [1, 33, 511, 2048])
def test_f1_float_products_keep_their_tolerance(k: int) -> None:
    for one_bit in (True, False):
        layer = bnn.BinaryLinear(k, 31, input_quantizer=None) if one_bit else nn.Linear(k, 31, bias=False)
        x = torch.randn(7, k) * 10 ** (torch.rand(7, k) * 4 - 2)
        weight = bnn.quantizers.ste_sign(layer.weight) if one_bit else layer.weight
        exact = (x.double() @ weight.double().T).detach().numpy()
        size = (x.double().abs() @ weight.double().abs().T).detach().numpy()
        for name, (found,) in run_everywhere(convert(layer.eval(), x), x.numpy()):
            assert (np.abs(found - exact) <= (k + 1 - one_bit) * EPSILON * size + 1e-300).all(), (
                name,
                one_bit,
            )


def test_f2_a_sign_differs_only_within_the_tolerance_and_flips_are_counted() -> None:
    model = models.create_small("bnn_mlp", scale_pixels=False, hidden=(511, 65)).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.running_mean, std=3)
    x = models.example_input(model, 256)
    program = convert(model, x)
    (expected,) = eager(model, x)
    for name, executor in EXECUTORS.items():
        flips = assert_within_tolerance(program, executor, x.numpy())
        assert flips.signs == 256 * 511, name
        assert flips.flipped <= flips.open <= flips.signs // 1000, name
        (found,) = executor(program, x.numpy())
        agreement = float((found.argmax(1) == expected.argmax(1)).mean())
        assert agreement >= 0.99, (name, agreement, flips)


def test_f2_the_comparison_can_fail() -> None:
    """An executor with one flipped bit, or one wrong float, is caught."""
    model = nn.Sequential(nn.Linear(65, 33), nn.BatchNorm1d(33), bnn.BinaryLinear(33, 5)).eval()
    x = torch.randn(8, 65)
    program = convert(model, x)
    for op, wrong in (
        ("sign", lambda a: -a),
        ("f32_gemm", lambda a: a + 1e-3),
        ("binary_gemm", lambda a: a + 1),
    ):
        position = [node.op for node in program.nodes].index(op)

        def broken(
            p: Program, *inputs: np.ndarray, at: int = position, change: object = wrong
        ) -> list[np.ndarray]:  # type: ignore[type-arg]
            results = EXECUTORS["reference"](p, *inputs)
            results[at] = change(results[at])  # type: ignore[operator]
            return results

        with pytest.raises(AssertionError):
            assert_within_tolerance(program, broken, x.numpy())


def test_a1_accumulators_need_32_bits_and_have_them() -> None:
    k = 40_000  # K itself leaves int16, and so does each sum
    layer = bnn.BinaryLinear(k, 3).eval()
    with torch.no_grad():
        layer.weight.fill_(1)
        layer.weight[1].fill_(-1)
        layer.weight[2, ::4] = -1
    x = torch.ones(2, k)
    assert_equal(layer, convert(layer, x), x)
    assert eager(layer, x)[0].tolist() == [[40_000.0, -40_000.0, 20_000.0]] * 2
    k = 2**31 // 510 + 1
    words = np.zeros((1, -(-k // 32)), dtype=np.uint32)
    program = Program(
        ("x",), ("y",), (Node("u8_gemm", ("x", "w"), "y", {"multiplier": 1, "offset": 255}),),
        {"w": Constant(TensorType(DType.BITS, (1, k)), words)},
        {"x": TensorType(DType.U8, (k,)), "y": TensorType(DType.I32, (1,))},
    )  # fmt: skip
    with pytest.raises(ProgramError, match="int32 accumulator"):
        verify(program)


def test_every_line_of_the_contract_has_a_test() -> None:
    page = (ROOT / "docs" / "numerics.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\*\*([A-Z]\d+)\*\*", page, re.MULTILINE)
    assert len(lines) == len(set(lines)) >= 20
    files = [Path(__file__).with_name(f"test_{name}.py") for name in _FILES]
    names = re.findall(r"^def test_([a-z]\d+)_", "".join(f.read_text("utf-8") for f in files), re.MULTILINE)
    assert set(lines) == {name.upper() for name in names}
