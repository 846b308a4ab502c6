"""A warning where latent weights have left [−1, 1] because nobody clips them.

Most quantizers for weights say `wants_clipping`: their straight-through estimator passes no gradient where
|w| > 1, so a weight out there can never come back (quantizers.py has the formulas). Who writes his own loop
and forgets `onebit.optim.clip_latent_weights_` sees nothing of that but a worse result.

Looked at is each layer that goes from training to eval mode, as every loop lets it before a test: a step
costs nothing, and no graph is captured there.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator
from types import FrameType

from torch import nn

__all__ = ["warn_if_unclipped"]


def warn_if_unclipped(layer: nn.Module) -> None:
    """Called by a layer's `train(False)`. One UserWarning for the model that it is switched with.

    Silent if `clip_latent_weights_` was ever called on the layer (it may stand before the step), and if the
    model has been warned about.
    """
    if getattr(layer, "unclipped_told", False) or not _reach(layer) > 1:
        return
    owners = list(_switching(sys._getframe(1)))
    found = {}
    for name, module in owners[-1].named_modules():
        if hasattr(module, "latent_parameters"):
            if (reach := _reach(module)) > 1:
                found[name or type(layer).__name__] = reach
            module.unclipped_told = True
    first, *others = found
    more = f" and of {len(others)} more layer{'s' * (len(others) > 1)}" if others else ""
    warnings.warn(
        f"nobody clips the latent weights of {first!r}{more}: they have left [-1, 1], up to "
        f"|w| = {max(found.values()):.3g}, and out there get no gradient that could bring them back. Call "
        "onebit.optim.clip_latent_weights_(model) after each optimizer.step().",
        stacklevel=len(owners) + 2,
    )


def _reach(layer: nn.Module) -> float:
    """The largest |w| of the latent weights that should be clipped, and are not; 0 without such.

    NaN where one is NaN. Weights without numbers here (meta, fake and distributed tensors) are not looked at.
    """
    wants = getattr(getattr(layer, "weight_quantizer", None), "wants_clipping", False)
    if not wants or getattr(layer, "latent_clipped", False):
        return 0.0
    weights: Iterable[nn.Parameter] = layer.latent_parameters()  # type: ignore[operator]
    return max((_size(w) for w in weights if w.requires_grad and _has_numbers(w)), default=0.0)


def _has_numbers(weight: nn.Parameter) -> bool:
    return type(weight) is nn.Parameter and not weight.is_meta and weight.numel() > 0


def _size(weight: nn.Parameter) -> float:
    low, high = weight.detach().aminmax()
    return max(-low.item(), high.item())


def _switching(frame: FrameType | None) -> Iterator[nn.Module]:
    """The modules whose `train` or `eval` is under way, innermost first: a frame each."""
    while frame is not None and frame.f_code.co_name in ("train", "eval"):
        owner = frame.f_locals.get("self")
        if not isinstance(owner, nn.Module):
            return
        yield owner
        frame = frame.f_back
