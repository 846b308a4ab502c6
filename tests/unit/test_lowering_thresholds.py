"""The threshold pass against the float32 chain that it replaces, for every value an accumulator can take."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from onebit.lowering.emit.program_builder import ProgramBuilder
from onebit.lowering.passes.cleanup import remove_dead_code
from onebit.lowering.passes.thresholds import ALWAYS, make_thresholds
from onebit.program import DType, Program, TensorType, execute, unpack_bits, verify

CHANNELS = 33


def _constant(builder: ProgramBuilder, *values: float) -> str:
    return builder.floats(np.array(values, dtype=np.float32), "c")


def _random(builder: ProgramBuilder, rng: np.random.Generator, scale: float = 1.0) -> str:
    return builder.floats((rng.standard_normal(CHANNELS) * scale).astype(np.float32), "c")


def _sums(builder: ProgramBuilder, rng: np.random.Generator, k: int) -> str:
    x = builder.input("x", TensorType(DType.BITS, (k,)))
    return builder.node("binary_gemm", x, builder.signs(rng.random((CHANNELS, k)) < 0.5, "w"), layer="linear")


def _program(k: int, chain: Callable[[ProgramBuilder, np.random.Generator, str], str]) -> Program:
    builder, rng = ProgramBuilder(), np.random.default_rng(k)
    x = builder.node("to_float", _sums(builder, rng, k), layer="norm")
    bits = builder.node("sign", chain(builder, rng, x), layer="act")
    program = builder.program((bits,), {})
    verify(program)
    return program


def _node(op: str, *constants: object, first: bool = True, **attrs: float) -> Callable[..., str]:
    def add(builder: ProgramBuilder, rng: np.random.Generator, x: str) -> str:
        names = [c(builder, rng) if callable(c) else _constant(builder, float(c)) for c in constants]
        inputs = (x, *names) if first else (*names, x)
        return builder.node(op, *inputs, layer="norm", attrs=attrs)

    return add


def _then(*steps: Callable[..., str]) -> Callable[..., str]:
    def add(builder: ProgramBuilder, rng: np.random.Generator, x: str) -> str:
        for step in steps:
            x = step(builder, rng, x)
        return x

    return add


def _vector(scale: float) -> Callable[..., str]:
    return lambda builder, rng: _random(builder, rng, scale)


def _some_zero(builder: ProgramBuilder, rng: np.random.Generator) -> str:
    values = rng.standard_normal(CHANNELS) * (rng.random(CHANNELS) < 0.5)
    return builder.floats(values.astype(np.float32), "c")


def _positive(builder: ProgramBuilder, rng: np.random.Generator) -> str:
    return builder.floats(np.abs(rng.standard_normal(CHANNELS)).astype(np.float32), "c")


CHAINS: dict[str, Callable[..., str]] = {
    "nothing": lambda builder, rng, x: x,
    "batch norm": _node("affine", _vector(1), _vector(20)),
    "batch norm, γ often 0": _node("affine", _some_zero, _vector(1)),
    "batch norm, far away": _node("affine", _vector(1), _vector(1e6)),
    "batch norm, tiny scale": _node("affine", _vector(1e-30), _vector(1e-29)),
    "batch norm, subnormal": _node("affine", _vector(1e-40), _vector(1e-39)),
    "add": _node("add", 0.1),
    "sub": _node("sub", _vector(9)),
    "sub, turned round": _node("sub", _vector(9), first=False),
    "mul by a negative": _node("mul", -0.3),
    "div": _node("div", _vector(3)),
    "relu: always +1": _node("relu"),
    "relu, then down": _then(_node("relu"), _node("sub", 3.5)),
    "hardtanh, then down": _then(_node("hardtanh", min=-2.0, max=5.0), _node("add", -4.9)),
    "hardtanh below 0: always −1": _node("hardtanh", min=-2.0, max=-1.0),
    "prelu": _then(_node("prelu", _positive), _node("add", _vector(4))),
    "everything": _then(
        _node("mul", _vector(2)),
        _node("affine", _vector(1), _vector(5)),
        _node("prelu", 0.25),
        _node("sub", 1.7, first=False),
        _node("hardtanh", min=-3.0, max=3.0),
        _node("div", -1.3),
        _node("add", _vector(1)),
    ),
}


@pytest.mark.parametrize("k", [1, 2, 33, 512])
@pytest.mark.parametrize("chain", CHAINS)
def test_threshold_equals_the_chain_on_every_accumulator(chain: str, k: int) -> None:
    program = _program(k, CHAINS[chain])
    lowered = remove_dead_code(make_thresholds(program))
    verify(lowered)
    assert [node.op for node in lowered.nodes] == ["binary_gemm", "threshold"]
    before = _after_the_product(program)
    after = _after_the_product(lowered)
    every = np.repeat(np.arange(-k, k + 1, dtype=np.int32)[:, None], CHANNELS, axis=1)
    expected = execute(before, every)[before.outputs[0]]
    assert np.array_equal(expected, execute(after, every)[after.outputs[0]])


def _after_the_product(program: Program) -> Program:
    """The program with the accumulator as its input."""
    gemm = program.nodes[0]
    assert gemm.op == "binary_gemm"
    rest = Program(
        (gemm.output,),
        program.outputs,
        program.nodes[1:],
        {n: c for n, c in program.constants.items() if n != gemm.inputs[1]},
        {n: t for n, t in program.values.items() if n != "x"},
    )
    verify(rest)
    return rest


def _thresholds(program: Program) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    node = next(node for node in program.nodes if node.op == "threshold")
    flip = program.constants[node.inputs[2]]
    return program.constants[node.inputs[1]].array, unpack_bits(flip.array, flip.type.channels)


def test_constant_channels_are_always_reached() -> None:
    for chain, flipped in ((_node("add", 1e6), False), (_node("sub", 1e6), True)):
        thresholds, flip = _thresholds(make_thresholds(_program(33, chain)))
        assert (thresholds == ALWAYS).all()
        assert (flip == flipped).all()


def test_a_falling_chain_sets_flip() -> None:
    thresholds, flip = _thresholds(make_thresholds(_program(33, _node("mul", -1.0))))
    assert flip.all()  # −x >= 0 up to x = 0, so the bit falls at 1
    assert (thresholds == 1).all()


NOT_MONOTONE: dict[str, Callable[..., str]] = {
    "prelu with a negative slope": _node("prelu", -0.5),
    "prelu with one negative slope": _node("prelu", _vector(1)),
    "a constant over the sum": _node("div", 1.0, first=False),
    "overflow to infinity": _then(_node("mul", 1e38), _node("mul", 1e38), _node("add", 1.0)),
    "division by 0": _node("div", 0.0),
    "a square": lambda builder, rng, x: builder.node("mul", x, x, layer=""),
}


@pytest.mark.parametrize("chain", NOT_MONOTONE)
def test_what_is_not_monotone_stays_float(chain: str) -> None:
    program = _program(33, NOT_MONOTONE[chain])
    assert [node.op for node in make_thresholds(program).nodes] == [node.op for node in program.nodes]


def test_a_constant_that_differs_along_other_axes_stays_float() -> None:
    builder, rng = ProgramBuilder(), np.random.default_rng(0)
    x = builder.input("x", TensorType(DType.BITS, (2, 32)))
    sums = builder.node("binary_gemm", x, builder.signs(rng.random((5, 32)) < 0.5, "w"), layer="")
    floats = builder.node("to_float", sums, layer="")
    for shape, expected in (((2, 1), "sign"), ((1, 5), "threshold"), ((1, 1), "threshold")):
        constant = builder.floats(rng.standard_normal(shape).astype(np.float32), "c")
        bits = builder.node("sign", builder.node("add", floats, constant, layer=""), layer="")
        lowered = make_thresholds(builder.program((bits,), {}))
        verify(lowered)
        assert next(n for n in lowered.nodes if n.output == bits).op == expected


def test_bytes_reach_beyond_a_16_bit_accumulator() -> None:
    """Σ of 784 pixels reaches ±199,920; the thresholds found there need more than 16 bits."""
    builder, rng = ProgramBuilder(), np.random.default_rng(3)
    x = builder.input("x", TensorType(DType.U8, (784,)))
    weights = builder.signs(np.ones((CHANNELS, 784), dtype=bool), "w")
    sums = builder.node("u8_gemm", x, weights, layer="", attrs={"multiplier": 2, "offset": -255})
    shift = _random(builder, rng, 1e5)
    bits = builder.node(
        "sign", builder.node("add", builder.node("to_float", sums, layer=""), shift, layer=""), layer=""
    )
    program = builder.program((bits,), {})
    lowered = remove_dead_code(make_thresholds(program))
    thresholds, _ = _thresholds(lowered)
    assert np.abs(thresholds[thresholds != ALWAYS]).max() > 2**15
    images = (np.ones((256, 784)) * np.arange(256)[:, None]).astype(np.uint8)
    assert np.array_equal(execute(program, images)[bits], execute(lowered, images)[lowered.outputs[0]])


@pytest.mark.parametrize("op", ["avg_pool2d", "channel_mean"])
def test_an_op_that_mixes_elements_ends_a_chain_although_it_is_monotone(op: str) -> None:
    """A mean rises with each of its inputs, but it is no function of one sum."""
    builder, rng = ProgramBuilder(), np.random.default_rng(0)
    x = builder.input("x", TensorType(DType.BITS, (4, 4, 8)))
    window = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1, "padding_value": 0}
    sums = builder.node(
        "binary_conv2d", x, builder.signs(rng.random((8, 1, 1, 8)) < 0.5, "w"), layer="conv", attrs=window
    )
    pool = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0, 0, 0), "count_include_pad": 1}
    floats = builder.node("to_float", sums, layer="conv")
    means = builder.node(op, floats, layer="mean", attrs=pool if op == "avg_pool2d" else {})
    program = builder.program((builder.node("sign", means, layer="act"),), {})
    assert [node.op for node in make_thresholds(program).nodes][-2:] == [op, "sign"]
