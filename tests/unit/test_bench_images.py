"""The float peers of networks over images compute what the Program does, and nothing of ours slows them."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest

from onebit.bench import (
    BenchReport,
    bench_program,
    explain,
    random_program,
    spend,
)
from onebit.bench.packed import ONNX_DYNAMIC, ONNX_INT8, PYTORCH, random_inputs
from onebit.bench.spending import by_kind
from onebit.cli import main
from onebit.export import float_network
from onebit.program import DType, Node, Program, execute, verify
from onebit.runtime import ONE_BIT, REAL, REST
from parity.random_images import ImageMaker
from program_samples import constant, f32
from support import require

torch = pytest.importorskip("torch")
from onebit import models  # noqa: E402
from registered_programs import dyadic  # noqa: E402

SEEDS = range(120)
RTOL, ATOL = 1e-4, 1e-3


# Where K, a rounded mean, comes before a sign, another order of summation flips one now and then: of an image
# or two of these inputs.
FLIPS = {"xnor_convnet_cifar10"}


def check_peers(program: Program, inputs: list[npt.NDArray[np.generic]], context: str) -> None:
    """Both memory formats of PyTorch, and ONNX Runtime, against the reference."""
    from onebit.bench.onnx_session import session
    from onebit.bench.torch_peer import torch_peers
    from onebit.export.onnx.float32 import onnx_bytes

    expected = execute(program, *inputs)[program.outputs[0]].astype(np.float32)
    network = float_network(program)
    feed = network.feed(inputs)
    answers = {f"PyTorch {form}": peer(*feed) for form, peer in torch_peers(network).items()}
    run = session(onnx_bytes(network), network.outputs[0], threads=1)
    answers["ONNX Runtime"] = run(dict(zip(network.inputs, feed, strict=True)))
    for who, answer in answers.items():
        assert answer.shape == expected.shape, f"{context}, {who}"
        rows = slice(None)
        if context in FLIPS:
            close = np.isclose(answer, expected, rtol=RTOL, atol=ATOL).all(axis=tuple(range(1, answer.ndim)))
            assert close.mean() >= 0.5, f"{context}, {who}: more than a stray sign differs"
            rows = close
        atol = max(ATOL, 1e-6 * float(np.abs(expected).max()))  # large sums that cancel
        np.testing.assert_allclose(
            answer[rows], expected[rows], rtol=RTOL, atol=atol, err_msg=f"{context}, {who}"
        )


def require_onnx() -> None:
    from importlib.util import find_spec

    for package in ("onnx", "onnxruntime"):
        require(find_spec(package), f"{package} is not installed")


def test_random_image_programs_have_float_peers_that_agree() -> None:
    """Every geometry and layout; not where an input is i32, which float32 cannot hold."""
    require_onnx()
    seen: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    padding_values = set()
    for seed in SEEDS:
        maker = ImageMaker(seed)
        program = maker.make(ops=12)
        if program.outputs[0] in program.inputs:
            continue
        if any(program.values[name].dtype is DType.I32 for name in program.inputs):
            continue
        check_peers(program, maker.feed(3), f"seed {seed}")
        seen.update(node.op for node in program.nodes)
        kinds.update(op.kind for op in float_network(program).ops)
        padding_values |= {node.attrs.get("padding_value") for node in program.nodes}
    for op in ("binary_conv2d", "u8_conv2d", "f32_conv2d", "f32_binary_conv2d", "max_pool2d", "avg_pool2d"):
        assert seen[op] > 2, f"the seeds draw no {op}"
    for kind in ("conv", "transpose", "concat", "mean", "function", "binary", "signum", "sign", "prelu"):
        assert kinds[kind] > 0, f"the seeds make no {kind}"
    assert {0, 1, -1} <= padding_values


@pytest.mark.parametrize("name", models.convertible_names())
def test_registered_models_have_float_peers_that_agree(name: str) -> None:
    require_onnx()
    program = dyadic(name)
    check_peers(program, random_inputs(program, 5), name)


def test_a_convnet_is_convolutions_clamps_and_pools_alone() -> None:
    """Scales and thresholds are folded, also across pools; pixels come scaled; images stay channels first."""
    network = float_network(random_program("bnn_convnet_cifar10", **_small("bnn_convnet_cifar10")))
    kinds = [op.kind for op in network.ops]
    hidden = ["conv", "signum", "conv", "signum", "max_pool"]
    assert kinds[:15] == hidden * 3
    assert set(kinds[15:]) == {"reshape", "linear", "signum"}
    assert list(network.prepared) == list(network.inputs)


def test_residual_networks_keep_no_affine_of_their_own() -> None:
    network = float_network(random_program("birealnet18", **_small("birealnet18")))
    kinds = Counter(op.kind for op in network.ops)
    assert not {"affine", "transpose"} & set(kinds)
    assert kinds["binary"] == kinds["sign"] > 0
    assert {op.form.onnx for op in network.ops if op.form is not None} == {"Add"}


def flattened(*, through_a_product: bool) -> Program:
    """An image of a pool, flattened as the Program has it; constants of a number an element; a product."""
    random = np.random.default_rng(11)
    shape, flat = (4, 3, 5), (60,)
    pool = {"kernel": (2, 2), "stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1)}
    nodes = [
        Node("max_pool2d", ("x",), "pooled", pool),
        Node("reshape", ("pooled",), "flat", {"shape": flat}),
        Node("affine", ("flat", "scale", "shift"), "moved"),
        Node("prelu", ("moved", "slope"), "y"),
    ]
    values = {"x": f32(5, 4, 5), "pooled": f32(*shape), **dict.fromkeys(("flat", "moved", "y"), f32(*flat))}
    constants = {
        name: constant((random.integers(-8, 9, flat) / 4).astype(np.float32))
        for name in ("scale", "shift", "slope")
    }
    if through_a_product:
        constants["w"] = constant((random.integers(-8, 9, (7, 60)) / 4).astype(np.float32))
        nodes.append(Node("f32_gemm", ("y", "w"), "z"))
        values["z"] = f32(7)
    program = Program(("x",), ("z" if through_a_product else "y",), tuple(nodes), constants, values)
    verify(program)
    return program


@pytest.mark.parametrize("through_a_product", [True, False])
def test_flattened_images_keep_their_own_order(through_a_product: bool) -> None:
    """A product takes the order into its columns; an output is put in the Program's order."""
    require_onnx()
    program = flattened(through_a_product=through_a_product)
    check_peers(program, random_inputs(program, 3), "flattened")
    kinds = [op.kind for op in float_network(program).ops]
    assert ("take" in kinds) != through_a_product


def _small(name: str) -> dict[str, object]:
    return dict(models.registry.entry(name).small)


def test_random_programs_repeat_and_leave_the_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second = (random_program("lenet5_xnor", **_small("lenet5_xnor")) for _ in range(2))
    assert torch.rand(1) == expected
    assert first.constants.keys() == second.constants.keys()
    for name, stored in first.constants.items():
        np.testing.assert_array_equal(stored.array, second.constants[name].array)
    with pytest.raises(ValueError, match="'lenet'"):
        random_program("lenet")


@pytest.fixture(scope="module")
def report() -> BenchReport:
    require_onnx()
    program = random_program("bnn_convnet_cifar10", **_small("bnn_convnet_cifar10"))
    return bench_program(program, batch=2, rounds=1, seconds=0.001)


def test_convolutions_run_in_static_int8_and_say_in_which_form(report: BenchReport) -> None:
    names = {result.name for result in report.results}
    assert ONNX_INT8 in names
    assert ONNX_DYNAMIC not in names
    assert report.form_of[ONNX_INT8] in ("QOperator", "QDQ")
    assert report.form_of[PYTORCH] in ("", "channels last")
    assert report.left_out == {}
    assert report.disagreeing[PYTORCH] == report.disagreeing["ONNX Runtime float32"] == 0


def test_int8_of_convolutions_has_quantized_kernels() -> None:
    """A quantizer that left every convolution in float32 would be no int8 peer."""
    require_onnx()
    import onnx

    from onebit.bench.onnx_int8 import FORMS, static_int8_bytes
    from onebit.export.onnx.float32 import onnx_bytes

    program = random_program("bnn_convnet_cifar10", **_small("bnn_convnet_cifar10"))
    network = float_network(program)
    calibration = dict(zip(network.inputs, network.feed(random_inputs(program, 4)), strict=True))
    convolutions = sum(op.kind == "conv" for op in network.ops)
    counts = {}
    for form in FORMS:
        made = onnx.load_from_string(static_int8_bytes(onnx_bytes(network), calibration, form=form))
        counts[form] = Counter(node.op_type for node in made.graph.node)
    assert counts["QOperator"]["QLinearConv"] == convolutions
    assert counts["QDQ"]["Conv"] == convolutions
    assert counts["QDQ"]["DequantizeLinear"] >= 2 * convolutions


def test_spending_adds_up_and_knows_its_kinds() -> None:
    program = random_program("quicknet", **_small("quicknet"))
    spendings = spend(program, batch=2, repeats=2)
    assert sum(s.share for s in spendings) == pytest.approx(1)
    assert set(by_kind(spendings)) == {ONE_BIT, REAL, REST}
    for spending in spendings:
        assert (spending.peak_share is not None) == (spending.kind in (ONE_BIT, REAL))
    assert "% of its multiply-accumulates are 1-bit" in explain(program, spendings)


def test_explain_names_what_is_not_binary() -> None:
    """A network whose products are all real: the largest op is named."""
    program = random_program("alexnet_bwn", **_small("alexnet_bwn"))
    spendings = spend(program, batch=1, repeats=2)
    said = explain(program, spendings)
    largest = max(spendings, key=lambda s: s.seconds)
    assert said.startswith("0.0% of its multiply-accumulates are 1-bit")
    assert f"{largest.op} {largest.layer}" in said


def test_bench_takes_a_name_and_profiles_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "lenet5_xnor", "--batch", "1", "--rounds", "1", "--no-peers", "--profile"]) == 0
    out = capsys.readouterr().out
    assert "of attainable peak" in out
    assert "binary_conv2d" in out
    words = ["bench", "lenet5_xnor", "--batch", "1", "--rounds", "1", "--no-peers", "--profile", "--json"]
    assert main(words) == 0
    said = json.loads(capsys.readouterr().out)
    (result,) = said["results"]
    assert [c["name"] for c in result["contenders"]] == ["onebit"]
    assert any(op["kind"] == ONE_BIT and op["macs"] > 0 for op in result["profile"])
    peaks = said["attainable_peaks_gmacs"]
    for op in result["profile"]:
        share = op["gmacs"] / peaks[op["kind"]] if op["macs"] else None
        assert op["peak_share"] == pytest.approx(share)


def test_bench_of_what_is_nothing_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "quicknett"]) == 2
    assert "'quicknett' is no file, no run folder and no registered model" in (err := capsys.readouterr().err)
    assert "did you mean 'quicknet'?" in err
    assert main(["bench", "."]) == 2
    assert "holds no run" in capsys.readouterr().err
