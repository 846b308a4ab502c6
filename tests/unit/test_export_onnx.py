"""`onebit.export.onnx`: every op has a form, its numbers are the Program's, and the file stays small."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from float_modes import MODES, mode
from onebit.export import ExportError
from onebit.export.onnx import MAX_OPSET, MIN_OPSET, model_builder, rounding, save_onnx, to_onnx
from onebit.export.onnx.convert import RULES
from onebit.program import OPS, Node, Program, TensorType, execute, save, unpack_bits, verify
from onebit.program.numerics import fma
from onebit.program.ops import FloatKind
from onnx_runtime import assert_equal, require_onnx, run, session
from program_samples import (
    HURTING,
    bits,
    bits_constant,
    bytes_mlp,
    constant,
    conv_zoo,
    f32,
    feed,
    float_zoo,
    i32,
    one_op,
    signs,
    u8,
)

IMAGE = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1)}


@pytest.fixture(autouse=True)
def _needs_onnx() -> None:
    require_onnx()


def test_every_op_has_an_onnx_form() -> None:
    """Its float form says which rule of `onebit.export.onnx` writes it."""
    assert set(RULES) == set(FloatKind) == {op.float_form.kind for op in OPS.values()}


@pytest.mark.parametrize("opset", range(MIN_OPSET, MAX_OPSET + 1))
def test_every_op_runs_in_every_opset(opset: int) -> None:
    import onnx

    seen = set()
    for program in (bytes_mlp(), float_zoo(), conv_zoo()):
        model = to_onnx(program, opset=opset)
        expected = execute(program, *(inputs := feed(program, 3)))
        for _, got in run(model, program, inputs):
            for name, array in expected.items():
                np.testing.assert_allclose(got[name], array, rtol=1e-5, atol=1e-5)
        assert [o.version for o in onnx.load_from_string(model).opset_import] == [opset]
        seen |= {node.op for node in program.nodes}
    assert seen == set(OPS)


def test_names_types_and_metadata_are_those_of_the_program() -> None:
    import onnx

    program = conv_zoo()
    program = Program(
        program.inputs,
        program.outputs,
        program.nodes,
        program.constants,
        program.values,
        {"name": "zoo", "data": "cifar10"},
    )
    model = onnx.load_from_string(to_onnx(program))
    onnx.checker.check_model(model, full_check=True)
    assert (model.producer_name, model.graph.name) == ("onebit", "zoo")
    assert {p.key: p.value for p in model.metadata_props} == {"name": "zoo", "data": "cifar10"}
    assert {o.domain for o in model.opset_import} == {""}
    types = {"image": ("UINT8", ["batch", 2, 5, 5])}
    types |= {"y": ("FLOAT", ["batch", 7, 3, 10]), "twice": ("INT8", ["batch", 3, 10, 14])}
    for info in (*model.graph.input, *model.graph.output):
        tensor = info.type.tensor_type
        shape = [d.dim_param or d.dim_value for d in tensor.shape.dim]
        assert (onnx.TensorProto.DataType.Name(tensor.elem_type), shape) == types.pop(info.name)
    assert not types


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_one_file_serves_every_batch(batch: int) -> None:
    program = bytes_mlp(k=784, hidden=65, classes=10)
    assert_equal(to_onnx(program), program, feed(program, batch))


@pytest.mark.parametrize("k", HURTING)
@pytest.mark.parametrize("n", [1, 33])
def test_signs_of_sums_for_every_threshold(k: int, n: int) -> None:
    """Thresholds on, beside and far outside what a sum can reach, with and without flip."""
    rng = np.random.default_rng(k)
    sums = np.array([-(2**31), -k - 1, -k, -1, 0, 1, k, k + 1, 2**31 - 1], np.int64)
    constants = {
        "w": bits_constant(signs(rng, n, k)),
        "t": constant(rng.choice(sums, n).astype(np.int32)),
        "f": bits_constant(signs(rng, n)),
    }
    nodes = (Node("binary_gemm", ("x", "w"), "a"), Node("threshold", ("a", "t", "f"), "y"))
    program = Program(("x",), ("y",), nodes, constants, {"x": bits(k), "a": i32(n), "y": bits(n)})
    x = signs(rng, 64, k)
    x[0] = np.where(unpack_bits(constants["w"].array[0], k), 1, -1)  # the largest sum
    x[1] = -x[0]
    assert_equal(to_onnx(program), program, [x])
    for opened in (("a", "y"), ("a",)):  # the sums too, so that nothing is fused
        assert_equal(to_onnx(program.with_outputs(*opened)), program.with_outputs(*opened), [x])


def test_weights_of_every_size_unpack_in_order() -> None:
    """x picks single weights: the identity of K bytes gives the matrix back, row by row."""
    for n, k in ((1, 1), (1, 7), (3, 5), (8, 1), (5, 16), (9, 33)):
        rng = np.random.default_rng(n * k)
        weights = signs(rng, n, k)
        program = one_op(
            "u8_gemm", {"x": u8(k)}, {"w": bits_constant(weights)}, i32(n), multiplier=1, offset=0
        )
        for _, got in run(to_onnx(program), program, [np.eye(k, dtype=np.uint8)]):
            np.testing.assert_array_equal(got["y"], weights.T)


@pytest.mark.parametrize("threshold", [False, True])
@pytest.mark.parametrize(("multiplier", "offset"), [(2, -255), (1, -128), (-3, 1), (2, 0)])
def test_sums_beyond_float32_are_exact(multiplier: int, offset: int, threshold: bool) -> None:
    """Extreme bytes under weights of one sign: sums up to 2^27, all odd or ending anywhere."""
    k, n = 180_001, 3
    rng = np.random.default_rng(3)
    weights = signs(rng, n, k)
    weights[0] = 1
    constants = {"w": bits_constant(weights)}
    nodes = [Node("u8_gemm", ("x", "w"), "a", {"multiplier": multiplier, "offset": offset})]
    if threshold:
        x = np.full((1, k), 250, np.uint8)
        sums = Program(("x",), ("a",), tuple(nodes), constants, {"x": u8(k), "a": i32(n)})
        first = int(execute(sums, x)["a"][0, 0])
        assert abs(first) > 2**24
        constants |= {
            "t": constant(np.array([first, 0, 0], np.int32)),
            "f": bits_constant(np.array([-1, 1, -1])),
        }
        nodes.append(Node("threshold", ("a", "t", "f"), "y"))
    else:
        nodes.append(Node("to_float", ("a",), "y"))
    out = bits(n) if threshold else f32(n)
    program = Program(("x",), ("y",), tuple(nodes), constants, {"x": u8(k), "a": i32(n), "y": out})
    if threshold:
        below = x.copy()
        below[0, 0] -= 1
        inputs = [np.concatenate([x, below])]
    else:
        drawn = rng.integers(0, 256, (4, k), dtype=np.uint8)
        drawn[0] = 255
        inputs = [drawn]
    assert_equal(to_onnx(program), program, inputs)


def test_convolutions_beyond_float32_know_their_border() -> None:
    """The offset counts the taps inside the image only."""
    rng = np.random.default_rng(5)
    constants = {"w": bits_constant(signs(rng, 4, 3, 3, 4000))}
    attrs = {**IMAGE, "groups": 1, "multiplier": 4, "offset": -401}
    pool = {"kernel": (2, 2), **IMAGE}
    nodes = (Node("u8_conv2d", ("x", "w"), "a", attrs), Node("max_pool2d", ("a",), "y", pool))
    values = {"x": u8(4, 3, 4000), "a": i32(4, 3, 4), "y": i32(5, 4, 4)}
    program = Program(("x",), ("a", "y"), nodes, constants, values)
    assert 9 * 4000 * (4 * 255 - 401) > 2**24
    x = rng.integers(0, 256, (2, 4, 3, 4000), dtype=np.uint8)
    x[0] = 255
    assert_equal(to_onnx(program), program, [x])


def test_int32_inputs_keep_every_bit() -> None:
    """Beside 2^24 and at the ends of int32, where float32 has gaps."""
    edge = np.array([2**24 - 1, 2**24, 2**24 + 1, 2**31 - 1, -(2**24) - 1, -(2**31), 0, 5], np.int64)
    constants = {"t": constant(edge.astype(np.int32)), "f": bits_constant(np.array([1, -1] * 4))}
    nodes = (
        Node("threshold", ("x", "t", "f"), "bits"),
        Node("to_float", ("x",), "floats"),
        Node("reshape", ("x",), "image", {"shape": (2, 2, 2)}),
        Node("max_pool2d", ("image",), "largest", {"kernel": (2, 1), **IMAGE, "padding": (0, 1, 0, 0)}),
    )
    values = {"x": i32(8), "bits": bits(8), "floats": f32(8), "image": i32(2, 2, 2), "largest": i32(2, 2, 2)}
    program = Program(("x",), ("bits", "floats", "largest"), nodes, constants, values)
    x = (edge + np.array([[-1], [0], [1]])).clip(-(2**31), 2**31 - 1).astype(np.int32)
    assert_equal(to_onnx(program), program, [x])


SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, 1e-45, -1e-45, 3.0, -3.0, 3.4e38], np.float32)


@pytest.mark.parametrize("op", ["sign", "relu", "abs", "hardtanh", "prelu"])
def test_special_numbers(op: str) -> None:
    """Zeros of both signs, infinities and the smallest numbers, down to the sign of a zero."""
    constants = {"slope": constant(np.full(9, -0.5, np.float32))} if op == "prelu" else {}
    attrs = {"min": -1.0, "max": 0.5} if op == "hardtanh" else {}
    out = bits(9) if op == "sign" else f32(9)
    program = one_op(op, {"x": f32(9)}, constants, out, **attrs)
    for _, got in run(to_onnx(program), program, [SPECIAL[None]]):
        expected = execute(program, SPECIAL[None])["y"]
        assert got["y"].tobytes() == expected.tobytes()


def test_the_callers_floating_point_mode_changes_nothing() -> None:
    """A shift of −1e-40 is none for who flushes subnormals; which sums tie is a matter of rounding."""
    scale, shift = [1.0, 15610967 * 2.0**-35], [-1e-40, 2.0**24 + 2]
    constants = {"w": bits_constant(np.ones((2, 2201))), "none": constant(np.float32([-1e-40]))}
    constants |= {"scale": constant(np.float32(scale)), "shift": constant(np.float32(shift))}
    nodes = (
        Node("binary_gemm", ("x", "w"), "a"),
        Node("to_float", ("a",), "f"),
        Node("affine", ("f", "scale", "shift"), "y"),
        Node("add", ("z", "none"), "moved"),
        Node("affine", ("z", "scale", "tiny"), "scaled"),
    )
    constants["tiny"] = constant(np.float32([-1e-40, -1e-40]))
    floats = dict.fromkeys(("z", "f", "y", "moved", "scaled"), f32(2))
    values = {"x": bits(2201), "a": i32(2), **floats}
    program = Program(("x", "z"), ("y", "moved", "scaled"), nodes, constants, values)
    expected = to_onnx(program)
    for name in MODES:
        with mode(name):
            assert to_onnx(program) == expected, name


def test_nan_that_arises_inside_has_no_positive_sign() -> None:
    nodes = (Node("sub", ("x", "z"), "d"), Node("sign", ("d",), "y"))
    values = {"x": f32(9), "z": f32(9), "d": f32(9), "y": bits(9)}
    program = Program(("x", "z"), ("d", "y"), nodes, {}, values)
    assert_equal(to_onnx(program), program, [SPECIAL[None], SPECIAL[None]])


# a·b + c whose float64 lies exactly between two float32: a·b is 1 − 2^-46 (1 − 2^-35), a little less than
# half the distance of float32 numbers at 2^24. Rounding twice takes the even one, rounding once the nearer.
TIES = [(1 + 2**-23, (1 - 2**-23) * side, (2.0**24 + 2) * sign) for side in (1, -1) for sign in (1, -1)] + [
    (2201, 15610967 * 2.0**-35 * side, (2.0**24 + 2) * sign) for side in (1, -1) for sign in (1, -1)
]


def test_fma_is_rounded_once() -> None:
    """Random numbers, special ones, and ties that float64 and then float32 breaks the wrong way."""
    rng = np.random.default_rng(1)
    x, scale, shift = (rng.normal(size=60) for _ in range(3))
    special = np.full(len(SPECIAL), 1e-7), np.full(len(SPECIAL), 1e-45)
    parts = zip((x, scale, shift), zip(*TIES, strict=True), (SPECIAL, *special), strict=True)
    x, scale, shift = (np.concatenate(part).astype(np.float32) for part in parts)
    twice = (x.astype(np.float64) * scale + shift).astype(np.float32)
    assert (twice != fma(x, scale, shift)).sum() == len(TIES)
    constants = {"scale": constant(scale), "shift": constant(shift)}
    program = one_op("affine", {"x": f32(len(x))}, constants, f32(len(x)))
    assert_equal(to_onnx(program), program, [x[None]])


def test_the_short_form_is_taken_only_where_no_sum_ties() -> None:
    """2201 · scale + shift is a tie, and no smaller integer's is."""
    import onnx

    scale = np.array([1, 15610967 * 2.0**-35], np.float32)
    shift = np.array([0.1, 2.0**24 + 2], np.float32)
    assert rounding.never_ties(scale, shift, 2200)
    assert not rounding.never_ties(scale, shift, 2201)
    assert not rounding.never_ties(scale, shift, None)
    for k, ties in ((2200, False), (2201, True)):
        nodes = (
            Node("binary_gemm", ("x", "w"), "a"),
            Node("to_float", ("a",), "f"),
            Node("affine", ("f", "scale", "shift"), "y"),
        )
        constants = {"w": bits_constant(np.ones((2, k))), "scale": constant(scale), "shift": constant(shift)}
        values = {"x": bits(k), "a": i32(2), "f": f32(2), "y": f32(2)}
        program = Program(("x",), ("y",), nodes, constants, values)
        model = to_onnx(program)
        kinds = Counter(node.op_type for node in onnx.load_from_string(model).graph.node)
        assert (kinds["Where"] > 0) == ties
        assert_equal(model, program, [np.ones((1, k), np.int8)])


def test_what_is_no_form_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = bytes_mlp()
    for opset in (12, MAX_OPSET + 1, 17.0, "17"):
        with pytest.raises(ExportError, match=f"opset {opset!r} is not written here; 13 to 21 are"):
            to_onnx(program, opset=opset)  # type: ignore[arg-type]
    k = 2**24 + 1
    wide = one_op("binary_gemm", {"x": bits(k)}, {"w": bits_constant(np.ones((1, k), np.int8))}, i32(1))
    with pytest.raises(ExportError, match=f"layer 'layer': binary_gemm sums {k} products"):
        to_onnx(wide)
    monkeypatch.setattr(model_builder, "MAX_BYTES", 100)
    with pytest.raises(ExportError, match="at most 100 fit"):
        to_onnx(program)


def test_without_onnx_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ExportError, match=r"pip install 'onebit\[onnx\]'"):
        save_onnx(bytes_mlp(), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_an_older_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"older")
    with pytest.raises(ExportError):
        save_onnx(bytes_mlp(), path, opset=1)
    assert path.read_bytes() == b"older"
    assert save_onnx(bytes_mlp(), path) == path.stat().st_size
    assert path.read_bytes() == to_onnx(bytes_mlp())
    with pytest.raises(OSError, match="nowhere"):
        save_onnx(bytes_mlp(), tmp_path / "nowhere" / "model.onnx")
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


def mlp(*widths: int) -> Program:
    """Bytes through dense layers and thresholds to scores, with random weights: the shape of bnn-mnist."""
    rng = np.random.default_rng(0)
    values: dict[str, TensorType] = {"x": u8(widths[0])}
    constants, nodes, last = {}, [], "x"
    for i, (k, n) in enumerate(pairwise(widths)):
        constants[f"w{i}"] = bits_constant(signs(rng, n, k))
        op, attrs = ("u8_gemm", {"multiplier": 2, "offset": -255}) if i == 0 else ("binary_gemm", {})
        nodes.append(Node(op, (last, f"w{i}"), f"a{i}", attrs, f"layers.{3 * i}"))
        values[f"a{i}"] = i32(n)
        if i == len(widths) - 2:
            break
        constants[f"t{i}"] = constant(rng.integers(-99, 99, n).astype(np.int32))
        constants[f"f{i}"] = bits_constant(signs(rng, n))
        nodes.append(Node("threshold", (f"a{i}", f"t{i}", f"f{i}"), f"h{i}", layer=f"layers.{3 * i + 1}"))
        values[f"h{i}"], last = bits(n), f"h{i}"
    made = Program(("x",), (nodes[-1].output,), tuple(nodes), constants, values)
    verify(made)
    return made


def test_bnn_mnist_keeps_its_size_and_is_unpacked_at_load(tmp_path: Path) -> None:
    """3 × 4096: at most 1.2 times the .onebit file, and what runs is four products and three clamps."""
    import onnx

    program = mlp(784, 4096, 4096, 4096, 10)
    save(program, tmp_path / "a.onebit")
    nbytes = save_onnx(program, tmp_path / "a.onnx")
    assert nbytes <= 1.2 * (tmp_path / "a.onebit").stat().st_size
    model = (tmp_path / "a.onnx").read_bytes()
    inputs = feed(program, 2)
    opened = session(model, optimize=True, save=str(tmp_path / "optimized.onnx"))
    np.testing.assert_array_equal(
        opened.run(None, {"x": inputs[0]})[0], execute(program, *inputs)[program.outputs[0]]
    )
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert kinds == {"Cast": 2, "Mul": 1, "Add": 1, "Gemm": 3, "Clip": 3, "MatMul": 1}


def test_scales_do_not_enter_an_exact_sum() -> None:
    """conv → scale, shift and residual sum: a runtime that folds them into the product rounds inside it."""
    rng = np.random.default_rng(2)
    c = 33
    attrs = {**IMAGE, "groups": 1, "padding_value": 0}
    constants = {
        "w": bits_constant(signs(rng, c, 3, 3, c)),
        "alpha": constant(rng.uniform(0.01, 0.02, c).astype(np.float32)),
        "beta": constant(rng.normal(size=c).astype(np.float32)),
    }
    nodes = (
        Node("binary_conv2d", ("x", "w"), "a", attrs),
        Node("to_float", ("a",), "f"),
        Node("mul", ("f", "alpha"), "scaled"),
        Node("add", ("scaled", "beta"), "moved"),
        Node("add", ("moved", "z"), "y"),
    )
    values = {"x": bits(6, 5, c), "z": f32(6, 5, c), "a": i32(6, 5, c)}
    values |= dict.fromkeys(("f", "scaled", "moved", "y"), f32(6, 5, c))
    for outputs in (("y",), ("scaled",), ("f", "y")):
        program = Program(("x", "z"), outputs, nodes, constants, values)
        assert_equal(to_onnx(program), program, feed(program, 4))


def test_an_input_may_be_an_output() -> None:
    nodes = (Node("relu", ("x",), "y"),)
    program = Program(("x",), ("x", "y"), nodes, {}, {"x": f32(3), "y": f32(3)})
    assert_equal(to_onnx(program), program, feed(program))
