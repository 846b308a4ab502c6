"""Whole programs on the GPU engine, its kernels run by the emulator: equal to the reference, bit for bit."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

import onebit
from cuda_emulation.compile import compiler
from cuda_emulation.device import EmulatedDevice, EmulatedKernel
from onebit.program import DType, Node, Program, ProgramError, TensorType, execute, verify
from onebit.runtime import EngineError
from onebit.runtime.builder import ENGINE_OPS
from onebit.runtime.cuda.engine.cuda_engine import CudaEngine
from onebit.runtime.cuda.kernels.catalog import entries
from parity.agreement_engine import compare
from parity.random_images import ImageMaker
from parity.random_programs import ProgramMaker
from program_samples import (
    bits,
    bits_constant,
    bytes_mlp,
    constant,
    conv_zoo,
    f32,
    feed,
    float_zoo,
    i32,
    signs,
    u8,
)
from support import require, sweep

CAPABILITIES = ((9, 0), (8, 0), (7, 5))
PROGRAM_SEEDS = (1, 2, 3, 4, 9, 11, 12, 13)
IMAGE_SEEDS = (3, 4, 6, 8, 10, 14)


@dataclass
class Spy(EmulatedDevice):
    """An emulated device that remembers what it was asked to compile."""

    asked: set[tuple[Any, ...]] = field(default_factory=set)

    def kernel(self, file: str, name: str, defines: dict[str, int | str]) -> EmulatedKernel:  # type: ignore[override]
        self.asked.add((file, name, tuple(sorted(defines.items()))))
        return super().kernel(file, name, defines)


@pytest.fixture(autouse=True)
def _needs_a_compiler() -> None:
    require(compiler(), "g++, which compiles kernels for the emulator")


def cuda(program: Program, capability: tuple[int, int] = (9, 0), **options: Any) -> CudaEngine:
    """An engine on an emulated GPU."""
    return CudaEngine(program, device=EmulatedDevice(capability=capability), **options)


def tensors(program: Program, batch: int, seed: int = 0) -> list[torch.Tensor]:
    return [torch.from_numpy(x) for x in feed(program, batch, seed)]


def chain(
    *nodes: tuple[str, tuple[str, ...], TensorType], **inputs: TensorType
) -> tuple[tuple[Node, ...], Any]:
    """Nodes without attributes, and the types of all values."""
    values = {**inputs, **{out: type_ for out, _, type_ in nodes}}
    return tuple(Node(out.rstrip("0123456789"), names, out) for out, names, _ in nodes), values


@sweep(
    ("maker", "seed"),
    [(ProgramMaker, seed) for seed in PROGRAM_SEEDS] + [(ImageMaker, seed) for seed in IMAGE_SEEDS],
    keep=[(ProgramMaker, 9), (ImageMaker, 4), (ImageMaker, 8)],  # a capability each
)
def test_random_programs_equal_the_reference(maker: type[ProgramMaker], seed: int) -> None:
    made = maker(seed)
    program = made.make(ops=14)
    verify(program)
    seen = program.with_outputs(*(node.output for node in program.nodes))
    capability = CAPABILITIES[seed % 3]
    for version in (program, seen):  # some values fused away; every value kept
        with cuda(version, capability) as engine:
            for batch in (1, 3):
                compare(version, engine, made.feed(batch), f"{maker.__name__} seed {seed}, batch {batch}")


def test_the_seeds_cover_every_op() -> None:
    ops: Counter[str] = Counter()
    for maker, seeds in ((ProgramMaker, PROGRAM_SEEDS), (ImageMaker, IMAGE_SEEDS)):
        for seed in seeds:
            ops.update(node.op for node in maker(seed).make(ops=14).nodes)
    assert set(ops) == ENGINE_OPS


@sweep("capability", CAPABILITIES, keep=[(9, 0)])
def test_an_mlp_on_tensors_of_any_batch(capability: tuple[int, int]) -> None:
    program = bytes_mlp(70, 65, 10)
    with cuda(program, capability) as engine:
        for batch in (0, 1, 3, 33):
            (x,) = tensors(program, batch)
            y = engine(x)
            assert isinstance(y, torch.Tensor)
            assert y.dtype == torch.float32
            np.testing.assert_array_equal(y.numpy(), execute(program, x.numpy())["y"], strict=True)


def test_a_convnet_on_arrays_and_tensors() -> None:
    program = conv_zoo()
    with cuda(program) as engine:
        for batch in (0, 2):
            (x,) = feed(program, batch)
            wanted = execute(program, x)
            arrays, made = engine(x), engine(torch.from_numpy(x))
            for name, array, tensor in zip(program.outputs, arrays, made, strict=True):
                assert type(array) is np.ndarray
                assert array.dtype == wanted[name].dtype
                assert array.tobytes() == tensor.numpy().tobytes()
                np.testing.assert_allclose(array, wanted[name], rtol=1e-5, atol=1e-5)  # sums of real numbers
            np.testing.assert_array_equal(arrays[1], wanted["twice"])


def test_chunks_equal_one_pass() -> None:
    """With little memory a batch goes in parts, also where a part's outputs begin at an odd address."""
    program = bytes_mlp(70, 65, 3)
    x = feed(program, 36)[0]
    with cuda(program) as engine:
        whole, memory = engine(x), engine.memory
    per_sample, fixed = memory.arena // 36, memory.weights + memory.constants
    for samples in (9, 20):
        with cuda(program, max_memory=fixed + samples * per_sample) as small:
            assert small.memory.chunk == (samples if samples < 16 else 16)
            assert small(x).tobytes() == whole.tobytes()
            assert small(torch.from_numpy(x)).numpy().tobytes() == whole.tobytes()
            assert small.memory.total <= fixed + samples * per_sample
    with pytest.raises(EngineError, match=r"one sample needs .* more than max_memory"):
        cuda(program, max_memory=fixed + per_sample - 1)


def test_values_that_are_inputs_views_or_named_twice_come_out() -> None:
    """An input, its view, a view of a result and a packed value: each is a tensor of its own."""
    nodes = (
        Node("reshape", ("x",), "flat", {"shape": (6,)}),
        Node("relu", ("flat",), "r"),
        Node("reshape", ("r",), "square", {"shape": (2, 3)}),
        Node("sign", ("r",), "b"),
        Node("reshape", ("b",), "b2", {"shape": (3, 2)}),
    )
    values = {
        "x": f32(3, 2),
        "flat": f32(6),
        "r": f32(6),
        "square": f32(2, 3),
        "b": bits(6),
        "b2": bits(3, 2),
    }
    program = Program(("x",), ("x", "flat", "r", "square", "b", "b2"), nodes, {}, values)
    (x,) = tensors(program, 3)
    with cuda(program) as engine:
        compare(program, engine, [x.numpy()], "views")
        found = engine(x)
    assert len({y.data_ptr() for y in (*found, x)}) == 7
    assert all(y.is_contiguous() for y in found)


def residual(channels: int) -> Program:
    """A block as in Bi-Real Net: the sum goes on as float, and its signs into the next product."""
    rng = np.random.default_rng(channels)
    constants = {name: bits_constant(signs(rng, channels, channels)) for name in ("w0", "w1")} | {
        name: constant(rng.normal(size=channels).astype(np.float32)) for name in ("s0", "t0", "s1", "t1")
    }
    nodes, values = chain(
        ("sign0", ("x",), bits(channels)),
        ("binary_gemm0", ("sign0", "w0"), i32(channels)),
        ("to_float0", ("binary_gemm0",), f32(channels)),
        ("affine0", ("to_float0", "s0", "t0"), f32(channels)),
        ("add0", ("affine0", "x"), f32(channels)),
        ("sign1", ("add0",), bits(channels)),
        ("binary_gemm1", ("sign1", "w1"), i32(channels)),
        ("to_float1", ("binary_gemm1",), f32(channels)),
        ("affine1", ("to_float1", "s1", "t1"), f32(channels)),
        ("add1", ("affine1", "add0"), f32(channels)),
        x=f32(channels),
    )
    return Program(("x",), ("add1",), nodes, constants, values)


@sweep("channels", [4, 31, 64, 132], keep=[31])
def test_floats_and_their_signs_are_made_in_one_pass(channels: int) -> None:
    program = residual(channels)
    verify(program)
    with cuda(program) as engine:
        assert [op.op for op in engine.ops] == [
            "sign",
            "binary_gemm+to_float+affine",
            "add+sign",
            "binary_gemm+to_float+affine",
            "add",
        ]
        for batch in (1, 3):
            compare(program, engine, feed(program, batch), f"{channels} channels, batch {batch}")


def test_a_chain_longer_than_a_kernel_takes_goes_in_two() -> None:
    names = [f"add{i}" for i in range(30)]
    steps = [(name, (before, "c"), f32(5)) for before, name in zip(["x", *names], names, strict=False)]
    nodes, values = chain(*steps, x=f32(5))
    program = Program(("x",), (names[-1],), nodes, {"c": constant(np.float32(0.25))}, values)
    with cuda(program) as engine:
        assert [op.op.count("add") for op in engine.ops] == [12, 12, 6]
        compare(program, engine, feed(program, 2), "a long chain")


def test_every_sum_of_a_product_reaches_the_next_one() -> None:
    """Products in a row count their ones for each other; a value whose rows change shape is counted anew."""
    rng = np.random.default_rng(0)
    constants = {
        "w0": bits_constant(signs(rng, 128, 128)),
        "t0": constant(np.zeros(128, np.int32)),
        "f0": bits_constant(signs(rng, 128)),
        "w1": bits_constant(signs(rng, 40, 128)),
        "w2": bits_constant(signs(rng, 7, 256)),
    }
    nodes = (
        Node("binary_gemm", ("x", "w0"), "a"),
        Node("threshold", ("a", "t0", "f0"), "b"),
        Node("binary_gemm", ("b", "w1"), "y"),
        Node("reshape", ("b",), "flat", {"shape": (256,)}),
        Node("binary_gemm", ("flat", "w2"), "z"),
    )
    values = {"x": bits(2, 128), "a": i32(2, 128), "b": bits(2, 128), "y": i32(2, 40)}
    values |= {"flat": bits(256), "z": i32(7)}
    program = Program(("x",), ("y", "z"), nodes, constants, values)
    for capability in CAPABILITIES:
        with cuda(program, capability) as engine:
            for batch in (1, 17):
                compare(program, engine, feed(program, batch), f"{capability}, batch {batch}")


def test_only_catalogued_kernels_are_asked_for() -> None:
    """CI compiles the catalog for every target; an engine must not need anything beside it."""
    known = {(e.file, e.name, tuple(sorted(e.defines.items()))) for e in entries()}
    asked: set[tuple[Any, ...]] = set()
    for program in (bytes_mlp(), float_zoo(), conv_zoo(), residual(4)):
        device = Spy()
        CudaEngine(program, device=device)(*tensors(program, 2))
        asked |= device.asked
    assert len(asked) > 10
    assert asked <= known


@pytest.mark.parametrize(
    ("program", "inputs", "message"),
    [
        ("mlp", [torch.zeros(2, 71, dtype=torch.uint8)], r"shape: found \(2, 71\), expected \(batch, 70\)"),
        ("mlp", [torch.zeros(70, dtype=torch.uint8)], r"add the batch axis: x\[None\]"),
        (
            "mlp",
            [torch.zeros(2, 70)],
            r"dtype: found torch.float32, expected torch.uint8.*x.to\(torch.uint8\)",
        ),
        ("mlp", [torch.zeros(2, 70, dtype=torch.uint8, device="meta")], r"found meta, expected cpu; move it"),
        ("mlp", [], r"number of inputs: found 0, expected 1"),
        ("mlp", [np.zeros((2, 70), np.float32)], r"dtype: found float32, expected uint8"),
        ("mlp", [[1, 2]], r"found builtins.list, expected a NumPy array"),
        (
            "zoo",
            [torch.zeros(2, 1, 2, 3, dtype=torch.uint8), torch.zeros(3, 6)],
            r"batch: found 3, expected 2",
        ),
        (
            "zoo",
            [torch.zeros(2, 1, 2, 3, dtype=torch.uint8), np.zeros((2, 6), np.float32)],
            r"expected a tensor",
        ),
    ],
)
def test_wrong_inputs_are_refused(program: str, inputs: list[Any], message: str) -> None:
    with (
        cuda(bytes_mlp() if program == "mlp" else float_zoo()) as engine,
        pytest.raises(ProgramError, match=message),
    ):
        engine(*inputs)


def test_a_nan_and_what_is_no_sign_are_found_on_the_device() -> None:
    program = residual(4)
    (x,) = tensors(program, 3)
    x[2, 1] = np.nan
    with cuda(program) as engine:
        for wrong in (x, x.numpy()):
            with pytest.raises(ProgramError, match=r"input 'x': NaN: found one at index \(2, 1\)"):
                engine(wrong)
        x[2, 1] = np.inf
        assert engine(x).shape == (3, 4)
    nodes = (Node("to_float", ("x",), "y"),)
    signs_only = Program(("x",), ("y",), nodes, {}, {"x": bits(3), "y": f32(3)})
    with (
        cuda(signs_only) as engine,
        pytest.raises(ProgramError, match=r"found 0 at index \(1, 2\), expected −1 or"),
    ):
        engine(torch.tensor([[1, 1, -1], [1, -1, 0]], dtype=torch.int8))
    with cuda(signs_only, trust_inputs=True) as engine:
        assert engine(torch.tensor([[1, 1, -1], [1, -1, 0]], dtype=torch.int8)).tolist()[0] == [1, 1, -1]


def test_inputs_may_be_strided_offset_and_need_gradients() -> None:
    program = residual(31)
    (x,) = tensors(program, 6)
    with cuda(program) as engine:
        wanted = engine(x[1::2].contiguous())
        assert torch.equal(engine(x[1::2].requires_grad_()), wanted)
        shifted = torch.empty(3 * 31 + 1)[1:].view(3, 31).copy_(x[1::2])
        assert shifted.data_ptr() % 16
        assert torch.equal(engine(shifted), wanted)
        assert not engine(x.requires_grad_()).requires_grad


def test_engines_are_independent_and_close() -> None:
    first, second = cuda(bytes_mlp(seed=0)), cuda(bytes_mlp(seed=1))
    x = tensors(bytes_mlp(), 4)[0]
    one, two, clone = first(x), second(x), first.clone()
    assert not torch.equal(one, two)
    first.close()
    first.close()
    for call in (lambda: first(x), lambda: first.memory, first.clone):
        with pytest.raises(EngineError, match="this engine is closed"):
            call()
    assert torch.equal(clone(x), one)
    assert torch.equal(second(x), two)


def test_memory_made_in_inference_mode_serves_calls_outside() -> None:
    """Between the permutation, which PyTorch writes, and the relu a value lies in the engine's memory."""
    types = {"x": TensorType(DType.F32, (2, 3)), "y": TensorType(DType.F32, (3, 2))}
    nodes = (Node("permute", ("x",), "y", {"axes": (1, 0)}), Node("relu", ("y",), "z"))
    program = Program(("x",), ("z",), nodes, {}, {**types, "z": types["y"]})
    verify(program)
    x = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    with cuda(program) as engine:
        with torch.inference_mode():
            assert torch.equal(engine(x), x.mT.relu())
        assert torch.equal(engine(2 * x), 2 * x.mT.relu())


def test_what_an_engine_says_of_itself() -> None:
    program = bytes_mlp(70, 65, 3)
    with cuda(program) as engine:
        assert isinstance(engine, onebit.Engine)
        assert engine.input_types == {"x": u8(70)}
        assert engine.output_types == {"y": f32(3)}
        assert repr(engine) == "<onebit.Engine x u8[70] → y f32[3]; cpu>"
        assert [op.layer for op in engine.ops][-1] == "fc1"
        assert sum(op.macs for op in engine.ops) == 70 * 65 + 65 * 3
        engine(*tensors(program, 4))
        assert engine.memory.arena > 0
        assert engine.memory.weights >= 65 * (12 + 4) + 3 * (16 + 4)  # with what a product's epilogue takes
        runs = engine.time_ops(*tensors(program, 4), repeats=2)
        assert [len(run) for run in runs] == [len(engine.ops)] * 2
        with pytest.raises(EngineError, match="time_ops"):
            engine.profile(*tensors(program, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, r"device is 'tpu'; it must be 'cpu', 'cuda' or"),
        ({"device": 3}, r"device is 3; it must be"),
        ({"device": "cuda", "threads": 2}, r"threads and isa are for device='cpu'"),
        ({"device": "cuda", "isa": "avx2"}, r"threads and isa are for device='cpu'"),
        ({"device": "cuda", "max_memory": 0}, r"max_memory is 0"),
        ({"device": "cpu", "trust_inputs": True}, r"trust_inputs is for device='cuda'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        onebit.Engine(bytes_mlp(), **options)


def test_without_a_gpu_the_engine_says_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(EngineError, match=r"device cuda: (this PyTorch .* without CUDA|no NVIDIA GPU)"):
        onebit.Engine(bytes_mlp(), device="cuda")


def test_out_of_memory_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("tried to allocate 9 GiB")

    with cuda(bytes_mlp()) as engine:
        monkeypatch.setattr(torch, "empty", refuse)
        with pytest.raises(
            EngineError, match=r"out of memory on the GPU: tried to allocate 9 GiB. Run smaller"
        ):
            engine(*tensors(bytes_mlp(), 2))


def test_a_dtype_of_every_kind_moves() -> None:
    """i8 values do nothing but move."""
    nodes = (
        Node("permute", ("x",), "p", {"axes": (1, 0)}),
        Node("concat", ("p", "p"), "c"),
        Node("reshape", ("c",), "y", {"shape": (12,)}),
    )
    i8 = {
        name: TensorType(DType.I8, shape)
        for name, shape in (("x", (2, 3)), ("p", (3, 2)), ("c", (3, 4)), ("y", (12,)))
    }
    program = Program(("x",), ("y",), nodes, {}, i8)
    with cuda(program) as engine:
        compare(program, engine, feed(program, 3), "i8")
