"""The reference executor as a whole, and what it accepts as input."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from onebit.program import Program, ProgramError, check_inputs, execute
from program_samples import bits, bytes_mlp, f32, feed, float_zoo, i32, one_op, u8

MLP = bytes_mlp()


def by_hand(program: Program, x: np.ndarray) -> dict[str, list[list[float]]]:
    """bytes_mlp in plain integers, from the packed words."""

    def sign(name: str, n: int, k: int) -> int:
        word = int(program.constants[name].array[n, k // 32])
        return 1 if word >> (k % 32) & 1 else -1

    flips = [int(program.constants["f0"].array[n // 32]) >> (n % 32) & 1 for n in range(33)]
    thresholds = program.constants["t0"].array.tolist()
    found: dict[str, list[list[float]]] = {"a0": [], "h0": [], "a1": []}
    for row in x.tolist():
        a0 = [sum(sign("w0", n, k) * (2 * row[k] - 255) for k in range(70)) for n in range(33)]
        h0 = [1 if (v >= t) != bool(f) else -1 for v, t, f in zip(a0, thresholds, flips, strict=True)]
        found["a0"].append(a0)
        found["h0"].append(h0)
        found["a1"].append([sum(sign("w1", n, k) * h0[k] for k in range(33)) for n in range(3)])
    return found


def test_a_whole_network_against_plain_integers() -> None:
    (x,) = feed(MLP, batch=3)
    got = execute(MLP, x, keep="all")
    assert list(got) == ["y", "x", "a0", "h0", "a1", "r1"]
    for name, expected in by_hand(MLP, x).items():
        assert got[name].tolist() == expected, name
    assert got["h0"].dtype == np.int8
    assert got["a0"].dtype == np.int32
    assert got["y"].dtype == np.float32


def test_keep_returns_outputs_first_and_what_was_named() -> None:
    (x,) = feed(MLP)
    assert list(execute(MLP, x)) == ["y"]
    assert list(execute(MLP, x, keep=("h0", "x"))) == ["y", "h0", "x"]
    assert list(execute(MLP.with_outputs("h0", "a1"), x)) == ["h0", "a1"]
    for name in ("ghost", "w0"):
        with pytest.raises(ProgramError, match=f"keep: found '{name}', expected values among x, a0"):
            execute(MLP, x, keep=[name])
    assert list(MLP.run(x)) == ["y"]


def test_a_sample_does_not_see_its_neighbours() -> None:
    for program, tolerance in ((MLP, 0.0), (float_zoo(), 1e-5)):  # float64 sums may group by batch size
        inputs = feed(program, batch=5)
        whole = execute(program, *inputs, keep="all")
        for i in range(5):
            one = execute(program, *(x[i : i + 1] for x in inputs), keep="all")
            for name, got in one.items():
                np.testing.assert_allclose(got[0], whole[name][i], rtol=tolerance, err_msg=name)


def test_two_inputs_and_two_outputs() -> None:
    program = float_zoo()
    got = execute(program, *feed(program, batch=4))
    assert {name: (y.shape, y.dtype.name) for name, y in got.items()} == {
        "r": ((4, 4), "float32"),
        "b": ((4, 4), "int8"),
    }
    assert set(np.unique(got["b"])) == {-1, 1}


def test_an_empty_batch_gives_empty_outputs() -> None:
    assert execute(MLP, np.zeros((0, 70), np.uint8))["y"].shape == (0, 3)
    assert execute(float_zoo(), *feed(float_zoo(), batch=0))["b"].shape == (0, 4)


def test_an_input_may_be_an_output_and_is_not_changed() -> None:
    (x,) = feed(MLP)
    before = x.copy()
    got = execute(MLP.with_outputs("x", "y"), x)
    assert (got["x"] == before).all()
    assert (x == before).all()


def test_inputs_need_not_be_contiguous() -> None:
    x = feed(MLP, batch=6)[0]
    wide = np.empty((6, 140), np.uint8)
    wide[:, ::2] = x
    (got,) = check_inputs(MLP, [wide[:, ::2]])
    assert got.flags.c_contiguous
    assert (execute(MLP, wide[:, ::2])["y"] == execute(MLP, x)["y"]).all()


def test_infinities_are_numbers() -> None:
    x = np.array([[np.inf, -np.inf]], np.float32)
    assert execute(one_op("sign", {"x": f32(2)}, {}, bits(2)), x)["y"].tolist() == [[1, -1]]


FLOATS = one_op("relu", {"x": f32(2, 3)}, {}, f32(2, 3))
BITS = one_op("to_float", {"x": bits(3)}, {}, f32(3))
PAIR = one_op("add", {"a": f32(3), "b": f32(3)}, {}, f32(3))


def with_nan() -> np.ndarray:
    x = np.zeros((4, 2, 3), np.float32)
    x[3, 1, 2] = np.nan
    return x


REFUSED: dict[str, tuple[Program, Callable[[], list[object]], str]] = {
    "none": (MLP, list, "number of inputs: found 0, expected 1 (x u8[70])"),
    "two": (MLP, lambda: feed(MLP) * 2, "number of inputs: found 2, expected 1 (x u8[70])"),
    "a list": (MLP, lambda: [[[0] * 70]], "input 'x': type: found builtins.list, expected a NumPy array"),
    "a NumPy scalar": (MLP, lambda: [np.uint8(3)], "input 'x': type: found numpy.uint8, expected a NumPy"),
    "floats for bytes": (
        MLP,
        lambda: [np.zeros((1, 70))],
        "input 'x': dtype: found float64, expected uint8 for u8[70]; convert it, e.g. x.astype('uint8')",
    ),
    "float64 for float32": (FLOATS, lambda: [np.zeros((1, 2, 3))], "dtype: found float64, expected float32"),
    "other byte order": (FLOATS, lambda: [np.zeros((1, 2, 3), ">f4")], "dtype: found >f4, expected float32"),
    "bool for bits": (BITS, lambda: [np.ones((1, 3), bool)], "dtype: found bool, expected int8 for bits[3]"),
    "no batch axis": (
        MLP,
        lambda: [np.zeros(70, np.uint8)],
        "input 'x': shape: found (70,), expected (batch, 70); add the batch axis: x[None]",
    ),
    "wrong size": (MLP, lambda: [np.zeros((2, 71), np.uint8)], "shape: found (2, 71), expected (batch, 70)"),
    "wrong rank": (FLOATS, lambda: [np.zeros((1, 6), np.float32)], "found (1, 6), expected (batch, 2, 3)"),
    "NaN": (FLOATS, lambda: [with_nan()], "input 'x': NaN: found one at index (3, 1, 2), expected numbers"),
    "0 in bits": (
        BITS,
        lambda: [np.array([[1, 0, -1]], np.int8)],
        "values: found 0 at index (0, 1), expected",
    ),
    "two batches": (
        PAIR,
        lambda: [np.zeros((2, 3), np.float32), np.zeros((4, 3), np.float32)],
        "input 'b': batch: found 4, expected 2 as in input 'a'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_input_gets_one_clear_error(name: str) -> None:
    program, build, message = REFUSED[name]
    with pytest.raises(ProgramError, match=re.escape(message)):
        execute(program, *build())
    with pytest.raises(ProgramError, match=re.escape(message)):
        check_inputs(program, build())


def test_a_broken_program_is_refused_before_it_runs() -> None:
    broken = one_op("sign", {"x": u8(3)}, {}, bits(3))
    with pytest.raises(ProgramError, match="dtype of x"):
        execute(broken, np.zeros((1, 3), np.uint8))


def test_constants_are_left_alone() -> None:
    before = {name: c.array.copy() for name, c in MLP.constants.items()}
    execute(MLP, *feed(MLP))
    assert all((MLP.constants[name].array == array).all() for name, array in before.items())


def test_intermediate_results_of_i32_inputs() -> None:
    program = one_op("to_float", {"x": i32(2)}, {}, f32(2))
    assert execute(program, np.array([[5, -7]], np.int32))["y"].tolist() == [[5.0, -7.0]]
