"""Each figure of a diagnosis against one worked out by hand."""

from __future__ import annotations

import json
import math

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from onebit import nn as bnn  # noqa: E402


def _linear(*rows: list[float]) -> bnn.BinaryLinear:
    layer = bnn.BinaryLinear(len(rows[0]), len(rows), input_quantizer=None)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rows))
    return layer


def test_weights_of_a_linear_layer() -> None:
    layer = _linear([1.0, -1.0, 0.5, 0.0], [0.2, 0.3, 1.5, 0.4])
    (row,) = bnn.diagnose(layer).layers
    assert row.saturation == pytest.approx(3 / 8)
    three_of_four = -0.75 * math.log2(0.75) - 0.25 * math.log2(0.25)
    assert row.weight_entropy == pytest.approx(three_of_four / 2)  # the second filter is all +1
    assert row.unique_filters is None
    assert row.dead_channels is row.input_entropy is row.flip_ratio is None


def test_inputs_of_a_linear_layer_over_all_batches() -> None:
    model = nn.Sequential(bnn.SteSign(), _linear([0.1, 0.2, 0.3]))
    model.train()
    batches = [
        torch.tensor([[1.0, 1.0, -1.0], [1.0, -2.0, -1.0]]),
        torch.tensor([[3.0, 1.0, -0.5], [0.0, 1.0, -9.0]]),
    ]
    (row,) = bnn.diagnose(model, batches).layers
    assert row.layer == "1"
    assert row.dead_channels == pytest.approx(2 / 3)  # the first is always +1, the last always −1
    assert row.input_entropy == pytest.approx((-0.75 * math.log2(0.75) - 0.25 * math.log2(0.25)) / 3)
    assert model.training
    assert model[0].training


def test_channels_of_a_convolution_are_axis_one_and_count_every_place() -> None:
    layer = bnn.BinaryConv2d(2, 1, 1)
    x = torch.tensor([[[[1.0, 1.0], [1.0, -1.0]], [[-1.0, -1.0], [-1.0, -1.0]]]])
    (row,) = bnn.diagnose(layer, [x]).layers
    assert row.dead_channels == pytest.approx(0.5)
    assert row.input_entropy == pytest.approx((-0.75 * math.log2(0.75) - 0.25 * math.log2(0.25)) / 2)


def test_real_inputs_have_no_signs() -> None:
    (row,) = bnn.diagnose(_linear([0.1, 0.2]), [torch.tensor([[1.0, 0.5]])]).layers
    assert row.dead_channels is row.input_entropy is None


def test_a_kernel_and_its_inverse_are_one_filter() -> None:
    layer = bnn.BinaryConv2d(2, 2, (1, 3))
    kernels = [[0.1, -0.2, 0.3], [-0.5, 0.4, -0.1], [0.1, 0.1, 0.1], [0.9, -0.9, 0.9]]
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(kernels).reshape(2, 2, 1, 3))
    (row,) = bnn.diagnose(layer).layers
    assert row.unique_filters == pytest.approx(2 / 4)


def test_flips_count_from_look_to_look() -> None:
    layer = _linear([0.1, -0.2, 0.3, -0.4])
    flips = bnn.FlipCounter(layer)
    with torch.no_grad():
        layer.weight[0, 0] = -0.1
    kept = {name: signs.clone() for name, signs in flips.state_dict().items()}
    assert bnn.diagnose(layer, flips=flips).layers[0].flip_ratio == pytest.approx(1 / 4)
    assert flips() == {"": 0.0}
    again = bnn.FlipCounter(layer)
    again.load_state_dict(kept)
    assert again() == {"": 0.25}
    with pytest.raises(ValueError, match="other"):
        again.load_state_dict({"other": kept[""]})


@pytest.mark.parametrize("name", ["libra", "recu"])
def test_signs_are_those_that_are_packed(name: str) -> None:
    """These quantizers take the mean of a filter away first."""
    layer = bnn.BinaryLinear(4, 1, input_quantizer=None, weight_quantizer=name)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.1, 0.2, 0.3, 0.4]]))
    flips = bnn.FlipCounter(layer)
    assert bnn.diagnose(layer).layers[0].weight_entropy == pytest.approx(1.0)
    with torch.no_grad():
        layer.weight[0, 3] = 5.0  # above a mean that now lies beyond the third
    assert flips() == {"": 0.25}


def test_stochastic_signs_are_not_drawn() -> None:
    torch.manual_seed(1)
    layer = bnn.BinaryLinear(100, 3, weight_quantizer="stochastic_sign").train()
    flips = bnn.FlipCounter(layer)
    assert flips() == {"": 0.0}
    assert layer.weight_quantizer.training


def test_it_reads_as_a_table_and_as_json() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(bnn.BinaryConv2d(3, 4, 3), nn.Flatten(), bnn.BinaryLinear(4 * 9, 2))
    diagnosis = bnn.diagnose(model, [torch.randn(2, 3, 5, 5)])
    lines = str(diagnosis).splitlines()
    assert lines[0].split()[:2] == ["layer", "saturation"]
    assert [line.split()[0] for line in lines[1:]] == ["0", "2"]
    assert json.loads(json.dumps(diagnosis.to_dict()))["layers"][0]["unique_filters"] is not None


def test_a_model_without_one_bit_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear has no layer with one-bit weights"):
        bnn.diagnose(nn.Linear(2, 2))
