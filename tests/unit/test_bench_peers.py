"""The float networks that `onebit bench` compares with compute what the Program does."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from onebit.bench import Contender, bench_program, contest
from onebit.bench.packed import random_inputs
from onebit.export import FloatNetwork, NotComparable, float_network
from onebit.program import Constant, DType, Node, Program, TensorType, execute, pack_bits, verify
from support import require


class Build:
    """A Program written down op by op; every op keeps its last axis unless told otherwise."""

    def __init__(self, dtype: DType, shape: tuple[int, ...], seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.values = {"x": TensorType(dtype, shape)}
        self.constants: dict[str, Constant] = {}
        self.nodes: list[Node] = []
        self.last = "x"

    def constant(self, array: npt.NDArray[np.float32] | npt.NDArray[np.int32]) -> str:
        name = f"c{len(self.constants)}"
        kind = DType.F32 if array.dtype == np.float32 else DType.I32
        self.constants[name] = Constant(TensorType(kind, array.shape), array)
        return name

    def bits(self, *shape: int) -> str:
        name = f"c{len(self.constants)}"
        packed = pack_bits(self.random.integers(0, 2, shape).astype(bool))
        self.constants[name] = Constant(TensorType(DType.BITS, shape), packed)
        return name

    def op(
        self, op: str, *others: str, to: DType, shape: tuple[int, ...] | None = None, **attrs: object
    ) -> Build:
        output = f"v{len(self.nodes)}"
        self.nodes.append(Node(op, (self.last, *others), output, attrs))
        self.values[output] = TensorType(to, shape or self.values[self.last].shape)
        self.last = output
        return self

    def gemm(self, n: int) -> Build:
        dtype, k = self.values[self.last].dtype, self.values[self.last].channels
        op, attrs, to = {
            DType.U8: ("u8_gemm", {"multiplier": 2, "offset": -255}, DType.I32),
            DType.BITS: ("binary_gemm", {}, DType.I32),
            DType.F32: ("f32_binary_gemm", {}, DType.F32),
        }[dtype]
        return self.op(op, self.bits(n, k), to=to, shape=(n,), **attrs)

    def threshold(self) -> Build:
        channels = self.values[self.last].channels
        levels = self.random.integers(-9, 9, channels).astype(np.int32)
        levels[0] = np.iinfo(np.int32).min  # "always"
        return self.op("threshold", self.constant(levels), self.bits(channels), to=DType.BITS)

    def reshape(self, *shape: int) -> Build:
        self.op("reshape", to=self.values[self.last].dtype, shape=shape)
        node = self.nodes.pop()
        self.nodes.append(Node("reshape", node.inputs, node.output, {"shape": shape}))
        return self

    def floats(self, *shape: int) -> str:
        return self.constant((self.random.integers(-64, 65, shape) / 32).astype(np.float32))

    def done(self) -> Program:
        program = Program(("x",), (self.last,), tuple(self.nodes), self.constants, self.values)
        verify(program)
        return program


def hidden_bits() -> Program:
    """Bytes → bits → bits → floats: what a BNN becomes."""
    build = Build(DType.U8, (35,), 1).gemm(33).threshold().gemm(65).threshold().gemm(7)
    build.op("to_float", to=DType.F32)
    return build.op("affine", build.floats(7), build.floats(7), to=DType.F32).done()


def real_activations() -> Program:
    """Floats with every activation: what BinaryConnect's network becomes."""
    build = Build(DType.F32, (19,), 2).gemm(31)
    build.op("affine", build.floats(31), build.floats(31), to=DType.F32).op("relu", to=DType.F32).gemm(33)
    build.op("prelu", build.floats(33), to=DType.F32).op("hardtanh", to=DType.F32, min=-8.0, max=8.0)
    build.op("sign", to=DType.BITS).gemm(6).op("to_float", to=DType.F32)
    build.op("mul", build.constant(np.array([0.25], np.float32)), to=DType.F32)
    return build.op("add", build.floats(6), to=DType.F32).op("sub", build.floats(6), to=DType.F32).done()


def pixels_scaled() -> Program:
    """ScalePixels as floats, a float product, a division, and a reshape."""
    build = Build(DType.U8, (2, 6), 3).op("scale_pixels", to=DType.F32)
    build.reshape(12)
    build.op("f32_gemm", build.floats(5, 12), to=DType.F32, shape=(5,))
    return build.op("div", build.constant(np.array([4], np.float32)), to=DType.F32).done()


PROGRAMS = (hidden_bits, real_activations, pixels_scaled)


@pytest.fixture(params=PROGRAMS, ids=lambda make: make.__name__)
def program(request: pytest.FixtureRequest) -> Program:
    made: Program = request.param()
    return made


def _expected(
    program: Program, batch: int
) -> tuple[FloatNetwork, list[npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
    inputs = random_inputs(program, batch)
    network = float_network(program)
    return network, network.feed(inputs), execute(program, *inputs)[program.outputs[0]]


def test_torch_peer_computes_the_program(program: Program) -> None:
    pytest.importorskip("torch")
    from onebit.bench.torch_peer import torch_peers

    network, feed, expected = _expected(program, 9)
    peers = torch_peers(network)
    assert peers
    for peer in peers.values():
        np.testing.assert_allclose(peer(*feed), expected, rtol=1e-5, atol=1e-4)


def test_onnx_peer_computes_the_program(program: Program) -> None:
    for package in ("onnx", "onnxruntime"):
        require(_installed(package), f"{package} is not installed")
    from onebit.bench.onnx_session import session
    from onebit.export.onnx.float32 import onnx_bytes

    network, feed, expected = _expected(program, 9)
    run = session(onnx_bytes(network), network.outputs[0], threads=1)
    got = run(dict(zip(network.inputs, feed, strict=True)))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)


def _installed(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None


def test_a_hidden_layer_is_one_product_and_one_sign() -> None:
    """The peers get thresholds folded away: nothing of ours makes them slower."""
    kinds = [op.kind for op in float_network(hidden_bits()).ops]
    assert kinds == ["linear", "signum", "linear", "signum", "linear"]


def test_parameter_bytes_count_weights_and_biases() -> None:
    assert float_network(hidden_bits()).parameter_bytes == 4 * (35 * 33 + 33 + 33 * 65 + 65 + 65 * 7 + 7)


def test_an_unknown_op_is_named() -> None:
    program = hidden_bits()
    odd = Node("conv", program.nodes[0].inputs, "v0", layer="features.3")
    broken = Program(
        program.inputs, program.outputs, (odd, *program.nodes[1:]), program.constants, program.values
    )
    with pytest.raises(NotComparable, match=r"'conv'.*'features\.3'"):
        float_network(broken)


def test_report_has_every_installed_contender() -> None:
    report = bench_program(hidden_bits(), batch=5, rounds=2, seconds=0.001)
    names = {result.name for result in report.results}
    assert "onebit" in names
    expected = {"onebit"}
    if _installed("torch"):
        expected.add("PyTorch float32")
    if _installed("onnx") and _installed("onnxruntime"):
        expected |= {f"ONNX Runtime {kind}" for kind in ("float32", "int8 static", "int8 dynamic")}
    assert names == expected
    assert all(result.rounds == 2 and result.seconds > 0 for result in report.results)
    assert report.disagreeing["PyTorch float32"] == 0
    assert report.speedup("onebit") == 1


def test_contest_calls_everyone_in_every_round() -> None:
    calls: list[str] = []
    contenders = [Contender(name, lambda name=name: calls.append(name)) for name in "ab"]  # type: ignore[misc]
    results = contest(contenders, rounds=3, seconds_a_round=0.0)
    assert [result.name for result in results] == ["a", "b"]
    assert calls[4:] == ["a", "a", "b", "b"] * 3, "one call to warm up and one counted, in turn"
    with pytest.raises(ValueError, match="rounds=0"):
        contest(contenders, rounds=0)
