"""Draws docs/images/quantizers.png: what each quantizer does forward, and the slope that it trains with.

    python docs/plots/quantizers.py

Every curve but ReCU's window is measured on the quantizer itself, by autograd.
"""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image

from onebit import nn as bnn

TARGET = Path(__file__).resolve().parents[1] / "images" / "quantizers.png"
POINTS = 161
GREY, BLUE, ORANGE, GREEN = "#999999", "#1f6fb4", "#d9730d", "#2a8f4f"


def measured(quantizer: torch.nn.Module, reach: float = 2.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x, forward, slope) on [-reach, reach]."""
    x = torch.linspace(-reach, reach, POINTS, requires_grad=True)
    y = quantizer(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    return x.detach().numpy(), y.detach().numpy(), slope.numpy()


def panel(axes, title: str, curves: list[tuple[torch.nn.Module, str, str]]) -> None:
    """One grey step, and a slope for each (quantizer, color, label)."""
    for position, (quantizer, color, label) in enumerate(curves):
        x, y, slope = measured(quantizer)
        if position == 0:
            axes.plot(x, y, color=GREY, linewidth=1)
        axes.plot(x, slope, color=color, linewidth=1.6, label=label or None)
    axes.set_title(title, fontsize=9)
    if any(label for _, _, label in curves):
        legend(axes)


def legend(axes) -> None:
    """Above the curves."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.3 * (high - low))
    axes.legend(fontsize=7, frameon=False, loc="upper left")


def ede_at(progress: float) -> torch.nn.Module:
    module = bnn.EDE()
    module.set_progress_(progress)
    return module


def stochastic(axes) -> None:
    """The mean of 4,000 draws beside the slope."""
    x = torch.linspace(-2, 2, POINTS)
    mean = torch.stack([bnn.stochastic_sign(x) for _ in range(4000)]).mean(dim=0)
    axes.plot(x, mean, color=GREY, linewidth=1)
    axes.plot(*measured(bnn.StochasticSign())[::2], color=BLUE, linewidth=1.6)
    axes.set_title("stochastic_sign (mean forward)", fontsize=9)


def magnitude_aware(axes) -> None:
    """A filter of many weights whose mean size is about 0.5."""
    x = torch.linspace(-2, 2, POINTS)  # of mean size 1; as many zeros halve it
    w = torch.cat([x, torch.zeros(POINTS)])[None].requires_grad_()
    y = bnn.MagnitudeAwareSign()(w)
    (slope,) = torch.autograd.grad(y.sum(), w)
    axes.plot(x, y[0, :POINTS].detach(), color=GREY, linewidth=1)
    axes.plot(x, slope[0, :POINTS], color=BLUE, linewidth=1.6)
    axes.set_title("magnitude_aware_sign, α = 0.5", fontsize=9)


def recu(axes) -> None:
    """The window |v| <= Q(τ) for b = 2; v is the standardised weight."""
    v = np.linspace(-10, 10, 2 * POINTS)
    axes.plot(v, np.sign(v), color=GREY, linewidth=1)
    for tau, color in ((0.85, BLUE), (0.99, GREEN)):
        window = -2 * math.log(2 - 2 * tau)
        axes.plot(v, np.abs(v) <= window, color=color, linewidth=1.6, label=f"τ = {tau}")
    axes.set_title("recu (of the standardised weight)", fontsize=9)
    legend(axes)


def main() -> None:
    torch.manual_seed(0)
    matplotlib.use("agg")
    matplotlib.rcParams |= {"font.size": 8}
    from matplotlib import pyplot

    figure, grid = pyplot.subplots(2, 4, figsize=(11, 5), layout="constrained")
    (ste, approx, swish, ede), (heaviside, random, magnitude, clamp) = grid
    panel(ste, "ste_sign", [(bnn.SteSign(), BLUE, "")])
    panel(approx, "approx_sign", [(bnn.ApproxSign(), BLUE, "")])
    panel(
        swish, "swish_sign", [(bnn.SwishSign(beta=b), c, f"β = {b:g}") for b, c in ((5, BLUE), (2, ORANGE))]
    )
    steps = ((0.0, BLUE), (0.5, ORANGE), (0.75, GREEN))
    panel(ede, "ede", [(ede_at(p), c, f"{p:.0%} done, t = {0.1 * 100**p:.3g}") for p, c in steps])
    panel(heaviside, "heaviside", [(bnn.Heaviside(), BLUE, "")])
    stochastic(random)
    magnitude_aware(magnitude)
    recu(clamp)
    for axes in grid.flat:
        axes.grid(color="#eeeeee")
        axes.set_axisbelow(True)
    TARGET.parent.mkdir(exist_ok=True)
    figure.savefig(TARGET, dpi=100, metadata={"Software": None})
    with Image.open(TARGET) as picture:  # 32 colors are plenty, at a third of the size
        small = picture.convert("RGB").quantize(32)
    small.save(TARGET, optimize=True)
    print(f"{TARGET.name}: {TARGET.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
