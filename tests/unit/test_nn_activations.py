"""RSign and RPReLU against their formulas, element by element."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.export import Dim

from onebit.nn import RPReLU, RSign, SteSign

SHAPES = [(4, 3), (2, 3, 5), (2, 3, 4, 5)]


def data(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 1.5


def channel_of(shape: tuple[int, ...]) -> torch.Tensor:
    """The channel of each element, shaped (1, channels, 1, ...) and spread to `shape`."""
    return torch.arange(shape[1]).reshape(1, -1, *[1] * (len(shape) - 2)).expand(shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_rsign_compares_with_its_shift(shape: tuple[int, ...]) -> None:
    layer, x, shift = RSign(3), data(shape), torch.tensor([-0.5, 0.0, 0.75])
    with torch.no_grad():
        layer.shift.copy_(shift)
        x.view(-1)[:3] = torch.tensor([-0.5, 0.0, 0.75])
    x[0, 2] = 0.75  # on the threshold: +1
    pairs = zip(x.flatten(), channel_of(shape).flatten(), strict=True)
    expected = [1.0 if v >= shift[c] else -1.0 for v, c in pairs]
    assert layer(x).flatten().tolist() == expected
    assert (layer(x)[0, 2] == 1).all()


def test_rsign_is_exact_beside_its_threshold() -> None:
    """x - α rounds, yet its sign is that of x >= α, down to the neighbouring and the subnormal float."""
    for threshold in (0.1, 1e-40, -3.3e38, 1e30, 0.0):
        alpha = torch.tensor(threshold)
        near = torch.stack([torch.nextafter(alpha, torch.tensor(s)) for s in (-torch.inf, torch.inf)])
        layer = RSign(1)
        with torch.no_grad():
            layer.shift.fill_(threshold)
        assert layer(torch.stack([near[0], alpha, near[1]])[:, None]).flatten().tolist() == [-1.0, 1.0, 1.0]


@pytest.mark.parametrize("shape", SHAPES)
def test_rsign_gradient(shape: tuple[int, ...]) -> None:
    layer, x, g = RSign(3), data(shape).requires_grad_(), data(shape, seed=1)
    with torch.no_grad():
        layer.shift.copy_(torch.tensor([-0.5, 0.0, 0.75]))
    layer(x).backward(g)
    channel = channel_of(shape)
    z = x.detach() - layer.shift.detach()[channel]
    slope = torch.where((z > -1) & (z < 0), 2 + 2 * z, torch.where((z >= 0) & (z < 1), 2 - 2 * z, 0.0))
    torch.testing.assert_close(x.grad, slope * g)
    for c in range(3):
        torch.testing.assert_close(layer.shift.grad[c], -(slope * g)[channel == c].sum())


def test_rsign_takes_another_quantizer() -> None:
    layer = RSign(2, quantizer="ste_sign")
    assert isinstance(layer.quantizer, SteSign)
    x = torch.tensor([[0.99, 1.01]], requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.tolist() == [[1.0, 0.0]]
    with pytest.raises(TypeError, match="quantizer must be a name"):
        RSign(2, quantizer=None)


@pytest.mark.parametrize("shape", SHAPES)
def test_rprelu_value_and_gradient(shape: tuple[int, ...]) -> None:
    layer, g = RPReLU(3).double(), data(shape, seed=1).double()
    x = data(shape).double().requires_grad_()
    gamma, beta, zeta = (data((3,), seed=s).double() for s in (2, 3, 4))
    with torch.no_grad():
        for parameter, value in ((layer.shift_in, gamma), (layer.slope, beta), (layer.shift_out, zeta)):
            parameter.copy_(value)
    y = layer(x)
    y.backward(g)
    channel = channel_of(shape)
    z = x.detach() - gamma[channel]
    factor = torch.where(z > 0, 1.0, beta[channel])
    torch.testing.assert_close(y.detach(), factor * z + zeta[channel])
    torch.testing.assert_close(x.grad, factor * g)
    for c in range(3):
        here = channel == c
        torch.testing.assert_close(layer.shift_in.grad[c], -(factor * g)[here].sum())
        torch.testing.assert_close(layer.slope.grad[c], (z.clamp(max=0) * g)[here].sum())
        torch.testing.assert_close(layer.shift_out.grad[c], g[here].sum())


def test_starts() -> None:
    assert RSign(3).shift.tolist() == [0, 0, 0]
    layer = RPReLU(2)
    assert [p.tolist() for p in (layer.shift_in, layer.slope, layer.shift_out)] == [
        [0, 0],
        [0.25, 0.25],
        [0, 0],
    ]


@pytest.mark.parametrize("layer", [RSign(3), RPReLU(3)])
def test_wrong_channels_are_named(layer: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"\(3\) takes inputs of .*batch, 3, \.\.\.\); got \(2, 4, 5"):
        layer(torch.zeros(2, 4, 5))
    with pytest.raises(ValueError, match="channels must be a positive integer; got 0"):
        type(layer)(0)


def test_export_shows_a_subtraction_and_the_marker() -> None:
    model = nn.Sequential(RSign(3), RPReLU(3)).eval()
    x = data((2, 3, 4, 5))
    exported = torch.export.export(model, (x,), dynamic_shapes=({0: Dim.DYNAMIC},), strict=False)
    targets = [str(node.target) for node in exported.run_decompositions({}).graph.nodes]
    assert targets.index("aten.sub.Tensor") < targets.index("onebit.sign.default")
    assert targets.count("aten.prelu.default") == 1
    assert torch.equal(exported.module()(x), model(x))


@pytest.mark.parametrize("layer", [RSign(33), RPReLU(33)])
def test_compiled_equals_eager(layer: nn.Module) -> None:
    torch.compiler.reset()
    results = []
    for function in (layer, torch.compile(layer, backend="aot_eager", fullgraph=True)):
        layer.zero_grad()
        x = data((2, 33, 3, 5)).requires_grad_()
        y = function(x)
        y.backward(data(tuple(y.shape), seed=1))
        results.append([y.detach(), x.grad, *(p.grad.clone() for p in layer.parameters())])
    for eager, fast in zip(*results, strict=True):
        assert torch.equal(eager, fast)
        assert eager.count_nonzero() > 0
