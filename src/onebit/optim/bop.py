"""Bop, the binary optimizer (Helwegen et al. 2019, arXiv 1906.02107, algorithm 1): only flips.

    m_t = (1 - γ)·m_{t-1} + γ·g_t
    w_t = -w_{t-1} where |m_t| > τ and sign(m_t) = sign(w_{t-1}),  else w_{t-1};   that is, where w·m > τ

A weight is +1 or -1 and nothing else; there is no latent one. It flips when the gradient has, on average
over some 1/γ steps, asked for it by more than τ. That is what the latent weights of other optimizers really
are, the authors argue: inertia.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import ParamsT

from onebit.optim.latent import latent_parameters
from onebit.optim.stepping import SteppingOptimizer

__all__ = ["Bop", "binarize_latent_weights_"]


@torch.no_grad()
def binarize_latent_weights_(model: nn.Module) -> None:
    """Replace every latent weight by its sign, +1 or -1, in place: the start of a training with `Bop`.

    sign(0) = +1. The network computes what it did before, except where a scale is the mean of the latent
    weights' sizes: that becomes 1.
    """
    for _, parameter in latent_parameters(model):
        parameter.copy_(torch.where(parameter >= 0, 1.0, -1.0))


class Bop(SteppingOptimizer):
    """Bop (arXiv 1906.02107, algorithm 1): flips one-bit weights; formulas at the top of its file.

    params: one-bit weights only, parameters or groups of them; every element must be +1 or -1. Everything
        else in the network (BatchNorms, scales, real layers) takes an optimizer of its own:

            binarize_latent_weights_(model)
            bits = [p for _, p in latent_parameters(model)]
            ids = {id(p) for p in bits}
            bop = Bop(bits)
            adam = torch.optim.Adam(p for p in model.parameters() if id(p) not in ids)

        Do not clip or centre the weights; quantizers that standardise (libra, recu) have no use for it.
    gamma: γ, how fast m forgets; 1e-4 in the paper, lowered as training goes on. There is no learning rate.
    threshold: τ, how much it takes to flip a weight; 1e-8 in the paper. Both may be changed between steps,
        in `param_groups`.

    The weight quantizer must pass the gradient of a weight of ±1 on as it is: "ste_sign" does, the slope of
    "approx_sign" is 0 there, that of "swish_sign" negative.

    State: "exp_avg" (m). ValueError for arguments outside the above and, when it is added, for a parameter
    with other values; RuntimeError for sparse gradients.
    """

    def __init__(self, params: ParamsT, gamma: float = 1e-4, threshold: float = 1e-8) -> None:
        if not 0 < gamma <= 1:
            raise ValueError(f"gamma must lie in (0, 1]; got {gamma!r}")
        if not threshold >= 0:
            raise ValueError(f"threshold must be at least 0; got {threshold!r}")
        super().__init__(params, {"gamma": gamma, "threshold": threshold})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As for every optimizer; ValueError if a parameter holds anything but +1 and -1."""
        super().add_param_group(param_group)
        for p in self.param_groups[-1]["params"]:
            if not bool((p.detach().abs() == 1).all()):
                self.param_groups.pop()
                raise ValueError(
                    f"Bop flips weights of +1 and -1, and a parameter of shape {tuple(p.shape)} holds other "
                    "numbers: call onebit.optim.binarize_latent_weights_(model) first, and give it one-bit "
                    "weights only"
                )

    def _update(self, parameters: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        for p in parameters:
            if not self.state[p]:
                self.state[p]["exp_avg"] = torch.zeros_like(p)
        averages = [self.state[p]["exp_avg"] for p in parameters]
        torch._foreach_lerp_(averages, gradients, group["gamma"])
        for p, m in zip(parameters, averages, strict=True):
            p.copy_(torch.where(p * m > group["threshold"], -p, p))
