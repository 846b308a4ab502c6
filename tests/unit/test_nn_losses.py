"""The square hinge against an oracle written with Python floats."""

from __future__ import annotations

import pytest
import torch

from onebit.nn import SquareHingeLoss, square_hinge


def oracle(scores: list[list[float]], classes: list[int]) -> tuple[float, list[list[float]]]:
    """(loss, gradient): the mean over N·C of max(0, 1 - t·y)^2, and -2t·max(0, 1 - t·y)/(N·C)."""
    count = len(scores) * len(scores[0])
    loss, gradient = 0.0, []
    for row, label in zip(scores, classes, strict=True):
        gradient.append([])
        for j, y in enumerate(row):
            t = 1.0 if j == label else -1.0
            margin = max(0.0, 1.0 - t * y)
            loss += margin * margin / count
            gradient[-1].append(-2 * t * margin / count)
    return loss, gradient


@pytest.mark.parametrize(("n", "c"), [(1, 1), (1, 10), (7, 3), (33, 65)])
def test_value_and_gradient(n: int, c: int) -> None:
    generator = torch.Generator().manual_seed(n * 100 + c)
    scores = (torch.randn(n, c, dtype=torch.float64, generator=generator) * 2).requires_grad_()
    classes = torch.randint(0, c, (n,), generator=generator)
    loss = square_hinge(scores, classes)
    loss.backward()
    value, gradient = oracle(scores.tolist(), classes.tolist())
    torch.testing.assert_close(loss.item(), value)
    torch.testing.assert_close(scores.grad, torch.tensor(gradient, dtype=torch.float64))
    assert loss.item() > 0


def test_a_known_case() -> None:
    scores = torch.tensor([[0.5, -2.0, 1.0, 1.5], [3.0, 0.0, -0.5, -1.0]])
    # class 0: .25, 0, 4, 6.25; class 1: 16, 1, .25, 0
    assert square_hinge(scores, torch.tensor([0, 1])).item() == (0.25 + 4 + 6.25 + 16 + 1 + 0.25) / 8


def test_signed_targets_and_the_module_give_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(9, 4, generator=generator)
    classes = torch.randint(0, 4, (9,), generator=generator)
    signed = torch.where(torch.arange(4) == classes[:, None], 1.0, -1.0)
    expected = square_hinge(scores, classes)
    assert torch.equal(square_hinge(scores, signed), expected)
    assert torch.equal(SquareHingeLoss()(scores, classes), expected)


def test_scores_beyond_the_margin_cost_nothing() -> None:
    scores = torch.tensor([[1.0, -1.0], [-5.0, 9.0]], requires_grad=True)
    loss = square_hinge(scores, torch.tensor([0, 1]))
    loss.backward()
    assert loss.item() == 0
    assert scores.grad.tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("scores", "target", "error", "words"),
    [
        (torch.zeros(3), torch.zeros(3), ValueError, r"shape \(N, classes\).*got \(3,\)"),
        (torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, 2), ValueError, "floating point.*int64"),
        (torch.zeros(3, 2), torch.zeros(4, dtype=torch.int64), ValueError, r"of shape \(3,\); got \(4,\)"),
        (torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.int64), ValueError, r"got \(3, 2\)"),
        (torch.zeros(3, 2), torch.zeros(3, 1), ValueError, r"shape \(3, 2\); got \(3, 1\)"),
        (torch.zeros(3, 2), torch.zeros(3, dtype=torch.uint8), TypeError, "int64 class numbers.*torch.uint8"),
    ],
)
def test_wrong_shapes_and_dtypes_are_named(
    scores: torch.Tensor, target: torch.Tensor, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        square_hinge(scores, target)


@pytest.mark.parametrize("label", [-1, 3])
def test_a_class_out_of_range_raises(label: int) -> None:
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        square_hinge(torch.zeros(2, 3), torch.tensor([0, label]))


def test_compiled_equals_eager() -> None:
    torch.compiler.reset()
    scores = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    classes = torch.arange(9) % 4
    compiled = torch.compile(square_hinge, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(scores, classes), square_hinge(scores, classes))
