"""Shift-based AdaMax (BNN, arXiv 1602.02830, algorithm 4): AdaMax whose multiplications are shifts.

    m_t = β1·m_{t-1} + (1 - β1)·g_t
    v_t = max(β2·v_{t-1}, |g_t|)
    θ_t = θ_{t-1} - AP2(α / (1 - β1^t)) · m_t / max(AP2(v_t), ε)         AP2(x) = sign(x)·2^round(log2 |x|)

with α = 2^-10, 1 - β1 = 2^-3, 1 - β2 = 2^-10 in the paper. It writes the quotients as shifts in either
direction; that the operands are rounded to powers of two first is read from the authors' Torch7 code
(adaMax_binary_clip_shift.lua). Two things are ours. ε: the paper has none, their code adds 2^-27 to AP2(v),
which then is no power of two; here ε = 2^-27 is the least divisor. And their code keeps AP2(v) as the next
v, where it can never decay (2^k·(1 - 2^-10) rounds back to 2^k); the paper's v_t, kept here, does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from onebit.optim.stepping import SteppingOptimizer

__all__ = ["ShiftAdaMax"]


def _power_of_two(x: Tensor) -> Tensor:
    # exp2 of an integer is exact; exp2(-inf) is 0.
    return torch.copysign(torch.exp2(torch.round(torch.log2(x.abs()))), x)


class ShiftAdaMax(SteppingOptimizer):
    """Shift-based AdaMax (BNN, arXiv 1602.02830, algorithm 4); formulas at the top of its file.

    params: parameters, or groups of them, as for every torch.optim optimizer.
    lr: α; the step α/(1 - β1^t) is rounded to a power of two, so a rate between two powers acts as one of
        them, and Glorot-scaled rates do too. 2^-10 in the paper, 2^-6 halved every 50 epochs in its code.
    betas: (β1, β2), each in [0, 1).
    eps: the smallest divisor, positive.

    Latent weights must be clipped after each step, as with any optimizer: `clip_latent_weights_(model)`.
    State: "step" (a tensor on the parameter's device, so that steps can be captured as a CUDA graph),
    "exp_avg" (m), "exp_inf" (v). ValueError for arguments outside the above; RuntimeError for sparse
    gradients.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 2**-10,
        betas: tuple[float, float] = (1 - 2**-3, 1 - 2**-10),
        eps: float = 2**-27,
    ) -> None:
        if not lr > 0:
            raise ValueError(f"lr must be positive; got {lr!r}")
        if not (len(betas) == 2 and all(0 <= b < 1 for b in betas)):
            raise ValueError(f"betas must be two numbers in [0, 1); got {betas!r}")
        if not eps > 0:
            raise ValueError(f"eps must be positive; got {eps!r}")
        # "capturable" is what load_state_dict asks to put "step" back on the parameter's device.
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "capturable": True})

    def _update(self, parameters: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        for p in parameters:
            if not self.state[p]:
                self.state[p]["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
                self.state[p]["exp_avg"] = torch.zeros_like(p)
                self.state[p]["exp_inf"] = torch.zeros_like(p)
        steps = [self.state[p]["step"] for p in parameters]
        averages = [self.state[p]["exp_avg"] for p in parameters]
        maxima = [self.state[p]["exp_inf"] for p in parameters]
        torch._foreach_add_(steps, 1)
        torch._foreach_lerp_(averages, gradients, 1 - beta1)
        torch._foreach_mul_(maxima, beta2)
        torch._foreach_maximum_(maxima, torch._foreach_abs(gradients))
        for p, step, m, v in zip(parameters, steps, averages, maxima, strict=True):
            rate = _power_of_two(group["lr"] / (1 - beta1**step))
            p.sub_(rate * (m / _power_of_two(v).clamp(min=group["eps"])))
