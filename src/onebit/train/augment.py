"""Augmentation in batches on the device, without state.

What happens to each sample of an epoch is drawn at once, before the epoch, by the generator that also draws
the order (`draw`). A batch then applies its rows (`augment`). So a run that resumes in the middle of an epoch
needs nothing but that generator as it stood at the epoch's start, and any number of processes, each taking
its rows, does together what one does alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from onebit.errors import TrainError
from onebit.train.fields import AugmentRecipe

COLUMNS = 5  # flip, down, right, square's row, square's column


def check(recipe: AugmentRecipe, inputs: Tensor) -> None:
    """Raise `TrainError` where the recipe does not suit inputs of this shape, (N, …), and dtype."""
    if not recipe.any:
        return
    shape = tuple(inputs.shape[1:])
    if len(shape) != 3:
        raise TrainError(
            f"augment: flip, crop and cutout are for images (channels, height, width), not {shape}"
        )
    if recipe.crop >= min(shape[1:]):
        raise TrainError(
            f"augment.crop = {recipe.crop}: less than the image's {shape[1]}×{shape[2]} is needed"
        )
    if not inputs.dtype.is_floating_point:
        range_ = torch.iinfo(inputs.dtype)
        if not (float(recipe.fill).is_integer() and range_.min <= recipe.fill <= range_.max):
            raise TrainError(
                f"augment.fill = {recipe.fill}: a whole number from {range_.min} to {range_.max} is needed,"
                f" since the inputs are {str(inputs.dtype).removeprefix('torch.')}"
            )


def draw(recipe: AugmentRecipe, inputs: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """What will happen to `count` samples: int32 (count, COLUMNS), on the CPU.

    `inputs`, (N, …), only tells the shape. A recipe without augmentation draws nothing and gives (count, 0).
    """
    if not recipe.any:
        return torch.empty(count, 0, dtype=torch.int32)
    height, width = inputs.shape[-2:]
    lows = [0, -recipe.crop, -recipe.crop, 0, 0]
    highs = [int(recipe.flip), recipe.crop, recipe.crop, height - 1, width - 1]
    columns = [
        torch.randint(low, high + 1, (count,), generator=generator, dtype=torch.int32)
        for low, high in zip(lows, highs, strict=True)
    ]
    return torch.stack(columns, dim=1)


def augment(recipe: AugmentRecipe, inputs: Tensor, draws: Tensor) -> Tensor:
    """The samples changed as `draws`, int32 (N, COLUMNS) on their device, says; a new tensor if anything is.

    inputs: (N, C, H, W), any dtype, which the result keeps. Output pixel (y, x) is
    input pixel (y + down, x' + right) with x' = W - 1 - x if flipped: the window of an image padded by
    `crop`. Where that lies outside, and inside the `cutout` square around its drawn centre, it is `fill`.
    """
    if not recipe.any:
        return inputs
    flip, down, right, row, column = draws.long().unbind(1)
    height, width = inputs.shape[-2:]
    y = torch.arange(height, device=inputs.device)
    x = torch.arange(width, device=inputs.device)
    source_y = y + down[:, None]  # (N, H)
    source_x = torch.where(flip[:, None] == 1, width - 1 - x, x) + right[:, None]  # (N, W)
    keep = _inside(source_y, height)[:, :, None] & _inside(source_x, width)[:, None, :]
    if recipe.cutout:
        near_y = _inside(y - row[:, None] + recipe.cutout // 2, recipe.cutout)
        near_x = _inside(x - column[:, None] + recipe.cutout // 2, recipe.cutout)
        keep &= ~(near_y[:, :, None] & near_x[:, None, :])
    index = source_y.clamp(0, height - 1)[:, :, None] * width + source_x.clamp(0, width - 1)[:, None, :]
    flat = inputs.flatten(2)
    moved = flat.gather(2, index.flatten(1)[:, None].expand_as(flat)).view_as(inputs)
    return moved.masked_fill_(~keep[:, None], recipe.fill)


def _inside(position: Tensor, size: int) -> Tensor:
    return (position >= 0) & (position < size)
