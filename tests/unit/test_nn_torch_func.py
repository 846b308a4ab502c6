"""Layers and quantizers under torch.func: gradients a sample, ensembles, state passed in."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, stack_module_state, vmap
from torch.nn import functional as F

import onebit
from onebit.nn import (
    BinaryConv1d,
    BinaryConv2d,
    BinaryLinear,
    RPReLU,
    RSign,
    ShiftBatchNorm1d,
    quantizers,
    save_bits_,
)

BOTH = ("ste_sign", "approx_sign", "swish_sign", "ede", "stochastic_sign")
FOR_INPUTS = (*BOTH, "heaviside")
FOR_WEIGHTS = (*BOTH, "magnitude_aware_sign", "libra", "recu")
SCALES = (None, "channel_mean", "channel_mean_loose", "channel_mean_detached", "learned")


def check_sample_gradients(model: nn.Module, x: Tensor) -> None:
    """vmap(grad) equals one backward pass a sample."""
    p = dict(model.named_parameters())
    y = torch.arange(len(x)) % 3

    def loss(p: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, p, (x[None],)), y[None])

    got = vmap(grad(loss), (None, 0, 0))(p, x, y)
    for i in range(len(x)):
        model.zero_grad()
        F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]).backward()
        for name, parameter in p.items():
            assert parameter.grad is not None, name
            torch.testing.assert_close(got[name][i], parameter.grad, atol=1e-5, rtol=1e-4)
    assert any(bool(g.any()) for g in got.values())


def test_every_quantizer_is_here() -> None:
    assert set(FOR_INPUTS) | set(FOR_WEIGHTS) == set(quantizers.names())


@pytest.mark.parametrize("name", FOR_INPUTS)
def test_inputs(name: str) -> None:
    torch.manual_seed(0)
    check_sample_gradients(
        nn.Sequential(nn.Linear(12, 16), BinaryLinear(16, 3, input_quantizer=name)).eval(), torch.randn(5, 12)
    )


@pytest.mark.parametrize("name", FOR_WEIGHTS)
def test_weights(name: str) -> None:
    torch.manual_seed(0)
    layers = [BinaryConv1d(4, 8, 3, weight_quantizer=name), nn.Flatten(), nn.Linear(8 * 5, 3)]
    check_sample_gradients(nn.Sequential(*layers).eval(), torch.randn(5, 4, 7))


@pytest.mark.parametrize("scale", SCALES)
def test_scales(scale: str | None) -> None:
    torch.manual_seed(0)
    layers = [
        BinaryConv2d(3, 8, 3, padding=1, weight_scale=scale, input_scale="xnor", bias=True),  # type: ignore[arg-type]
        RPReLU(8),
        RSign(8),
        nn.Flatten(),
        ShiftBatchNorm1d(8 * 16),
        BinaryLinear(8 * 16, 3, input_quantizer=None),
    ]
    check_sample_gradients(nn.Sequential(*layers).eval(), torch.randn(4, 3, 4, 4))


def test_a_model_that_saves_bits() -> None:
    """Under a transform its modules save what PyTorch saves."""
    torch.manual_seed(0)
    model = nn.Sequential(BinaryLinear(12, 16), nn.LayerNorm(16), BinaryLinear(16, 3))
    x = torch.randn(5, 12)
    assert save_bits_(model, x)
    check_sample_gradients(model.eval(), x)


def test_shift_batch_norm_in_training_mode() -> None:
    torch.manual_seed(0)
    norm, x = ShiftBatchNorm1d(4), torch.randn(6, 4)
    weights = torch.randn(6, 4)
    got = grad(lambda x: (copy.deepcopy(norm)(x) * weights).sum())(x)
    leaf = x.clone().requires_grad_()
    (norm(leaf) * weights).sum().backward()
    assert leaf.grad is not None
    assert torch.equal(got, leaf.grad)


def test_an_ensemble() -> None:
    torch.manual_seed(0)
    models = [BinaryLinear(40, 6, weight_scale="channel_mean") for _ in range(3)]
    parameters, buffers = stack_module_state(models)  # type: ignore[arg-type]
    x = torch.randn(5, 40)
    got = vmap(lambda p, b: functional_call(models[0], (p, b), (x,)))(parameters, buffers)
    assert torch.equal(got, torch.stack([model(x) for model in models]))


def test_a_jacobian() -> None:
    torch.manual_seed(0)
    model, x = BinaryLinear(4, 3), torch.tensor([0.5, -2.0, 0.0, 1.0])
    want = model.weight.sign() * (x.abs() <= 1)
    assert torch.equal(jacrev(model)(x), want)


def test_noise_needs_a_rule_for_randomness() -> None:
    """Each sample its own noise where vmap is told so, as with torch's dropout."""
    x = torch.zeros(1000)
    with pytest.raises(RuntimeError, match="randomness"):
        vmap(quantizers.stochastic_sign)(x)
    drawn = vmap(quantizers.stochastic_sign, randomness="different")(x)
    assert 300 < int((drawn > 0).sum()) < 700


@pytest.mark.parametrize("options", [{}, {"weight_scale": "channel_mean", "bias": True}])
def test_packed_layers(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    layers = [BinaryConv2d(5, 40, 3, **options), nn.Flatten(), BinaryLinear(160, 3, **options)]  # type: ignore[arg-type]
    model = nn.Sequential(*layers).eval()
    packed, x = onebit.pack(model), torch.randn(6, 5, 4, 4)
    with torch.no_grad():
        want = model(x)
        state = {**dict(packed.named_parameters()), **dict(packed.named_buffers())}
        assert torch.equal(functional_call(packed, state, (x,)), want)
        assert torch.equal(vmap(packed, chunk_size=4)(x[:, None])[:, 0], want)
