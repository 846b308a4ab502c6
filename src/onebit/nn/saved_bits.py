"""Training that saves bits and small integers for its backward pass, instead of floats.

What autograd keeps of a binary network between forward and backward is mostly redundant. Of a layer
conv → max-pool → BatchNorm → sign it keeps, in float32: the convolution's input, which is ±1; the pool's
input and 64-bit indices; BatchNorm's input, a sum of ±1 products, so a small integer; and sign's input, of
which the straight-through estimator only asks whether |x| <= window. `save_bits_` has it keep instead

    the product's ±1 input, and its ±1 weight       1 bit an element
    the estimator's mask |x| <= window              1 bit
    the place of a maximum within its window        8 bits
    BatchNorm's input, where it is an integer (or a multiple of 1/256, behind ScalePixels)   8 or 16 bits

and restores the floats when their turn comes, one layer at a time. They are the same floats and go through
the same PyTorch kernels, so gradients are the same bits (on the CPU; cuDNN's BatchNorm, which this does not
use, may round differently).

Which tensor holds what is not guessed from values: `save_bits_` runs the model, in eval mode and in training
mode, since what changes nothing in one (dropout) may in the other, and follows each tensor from the module
that returns it to the module that takes it. What a module gets from anywhere else (a residual sum, say), or
not in both modes, is taken to be real and kept as it is.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from onebit.nn.activations import RSign
from onebit.nn.binary_layer import BinaryLayer
from onebit.nn.binary_linear import BinaryLinear
from onebit.nn.convolution import BinaryConv1d, BinaryConv2d, _BinaryConvNd
from onebit.nn.markers import emits_markers
from onebit.nn.modes import modes_kept
from onebit.nn.pixels import ScalePixels
from onebit.nn.quantizers import EDE, ApproxSign, SteSign, StochasticSign, SwishSign
from onebit.nn.quantizers_weight import ReCU
from onebit.nn.saved_functions import PIXELS, SIGNS, SavedGrid, batch_norm, max_pool2d, product, sign
from onebit.nn.tracing import in_torch_func, is_traced, one_node

__all__ = ["save_bits_"]


class _SavedProduct(BinaryLayer):
    """What the products share: `grid` is that of their input, None where it is real."""

    grid: SavedGrid | None

    def product(self, q: Tensor, weight: Tensor) -> Tensor:
        if not _saves(q):
            return super().product(q, weight)
        weight_grid = SIGNS if _has_sign_weights(self) else None
        return product(q, weight, self.grid, weight_grid, self._how())

    def _how(self) -> tuple[Any, ...] | None:
        return None


class SavedBinaryLinear(_SavedProduct, BinaryLinear):
    """`BinaryLinear` that saves its input and its weights as bits."""


class _SavedConv(_SavedProduct, _BinaryConvNd):
    def _how(self) -> tuple[Any, ...]:
        ends = self.padding_before, self.padding_after
        return self.padding_value, self.stride, ends[0], self.dilation, self.groups, ends[1]


class SavedBinaryConv1d(_SavedConv, BinaryConv1d):
    """`BinaryConv1d` that saves its input and its weights as bits."""


class SavedBinaryConv2d(_SavedConv, BinaryConv2d):
    """`BinaryConv2d` that saves its input and its weights as bits."""


class SavedSteSign(SteSign):
    """`SteSign` that saves a mask of bits."""

    def forward(self, x: Tensor) -> Tensor:
        if is_traced(x):
            return one_node(self, x)
        return sign(x, self.window) if _saves(x) else super().forward(x)


class _SavedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm over an input on `grid`, which it saves as integers."""

    grid: SavedGrid

    def forward(self, x: Tensor) -> Tensor:
        if is_traced(x):
            return one_node(self, x)
        mean, var, factor = self.running_mean, self.running_var, self.momentum
        if not (self.training and _saves(x)) or mean is None or var is None or factor is None:
            return super().forward(x)
        self._check_input_dim(x)  # type: ignore[no-untyped-call]
        y, new_mean, new_var = batch_norm(x, self.weight, self.bias, mean, var, factor, self.eps, self.grid)
        with torch.no_grad():
            mean.copy_(new_mean)
            var.copy_(new_var)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        return y


class SavedBatchNorm1d(_SavedBatchNorm, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` that saves its input as integers."""


class SavedBatchNorm2d(_SavedBatchNorm, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` that saves its input as integers."""


class SavedMaxPool2d(nn.MaxPool2d):
    """`torch.nn.MaxPool2d` that saves one byte an output, and not its input."""

    def forward(self, x: Tensor) -> Tensor:
        if is_traced(x):
            return one_node(self, x)
        if not _saves(x):
            return cast(Tensor, super().forward(x))
        pairs = (self.kernel_size, self.stride, self.padding, self.dilation)
        how = (*(n if isinstance(n, tuple) else (n, n) for n in pairs), self.ceil_mode)
        return max_pool2d(x, how)


def _saves(x: Tensor) -> bool:
    """Whether to save in our way: in a training step in float32. Autocast casts what it likes, and under
    torch.func's transforms a tensor has no bits of its own: not then."""
    if torch.is_autocast_enabled(x.device.type) or in_torch_func():
        return False
    return torch.is_grad_enabled() and x.dtype == torch.float32 and not emits_markers()


_SIGN_QUANTIZERS = (SteSign, StochasticSign, ApproxSign, SwishSign, EDE, RSign, ReCU)
_PRODUCTS: dict[type[nn.Module], type[nn.Module]] = {
    BinaryLinear: SavedBinaryLinear,
    BinaryConv1d: SavedBinaryConv1d,
    BinaryConv2d: SavedBinaryConv2d,
}
_NORMS: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: SavedBatchNorm1d,
    nn.BatchNorm2d: SavedBatchNorm2d,
}
_KEEP_VALUES = (nn.Flatten, nn.Identity, nn.MaxPool1d, nn.MaxPool2d, nn.Unflatten)


def _gives_signs(module: nn.Module | None) -> bool:
    """Whether the module's output is +1 and -1 and nothing else, in the mode that it is in."""
    if isinstance(module, StochasticSign) and module.real_in_eval:
        return module.training
    return isinstance(module, _SIGN_QUANTIZERS)


def _has_sign_weights(layer: BinaryLayer) -> bool:
    """Whether the layer's product sees weights of ±1; a quantizer with `factors` hands it those."""
    return _gives_signs(layer.weight_quantizer) or hasattr(layer.weight_quantizer, "factors")


class _Flow:
    """Which grid each tensor of a forward pass is on, as far as modules hand it to one another."""

    def __init__(self) -> None:
        self.inputs: dict[nn.Module, SavedGrid | None] = {}
        # By identity: the tensors are kept, so that no identity is given twice, with the version they had.
        self._known: dict[int, tuple[Tensor, int, SavedGrid | None]] = {}

    def watch(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """A forward hook."""
        if not args or not isinstance(args[0], Tensor) or not isinstance(output, Tensor):
            return
        grid = self._grid_of(args[0])
        self.inputs[module] = grid if self.inputs.get(module, grid) == grid else None  # called more than once
        if self._is_container(module):
            return  # its output is that of a child, or comes from elsewhere
        self._known[id(output)] = output, output._version, self._after(module, grid)

    def _grid_of(self, x: Tensor) -> SavedGrid | None:
        tensor, version, grid = self._known.get(id(x), (None, 0, None))
        return grid if tensor is not None and tensor._version == version else None

    @staticmethod
    def _is_container(module: nn.Module) -> bool:
        return next(module.children(), None) is not None and not isinstance(module, BinaryLayer)

    @staticmethod
    def _after(module: nn.Module, grid: SavedGrid | None) -> SavedGrid | None:
        if _gives_signs(module):
            return SIGNS
        if isinstance(module, ScalePixels):
            return PIXELS
        if isinstance(module, BinaryLayer):
            return _sum_grid(module, _product_grid(module, grid))
        return grid if type(module) in _KEEP_VALUES else None


def _product_grid(layer: BinaryLayer, grid: SavedGrid | None) -> SavedGrid | None:
    """What a layer's product sees, of an input on `grid`."""
    if layer.input_quantizer is None:
        return grid
    return SIGNS if _gives_signs(layer.input_quantizer) else None


def _sum_grid(layer: BinaryLayer, grid: SavedGrid | None) -> SavedGrid | None:
    """What a layer gives: a sum of K numbers of the grid, unless a factor or a bias comes after it."""
    after = (layer.weight_scale, layer.input_scale, layer.bias)
    own_factor = hasattr(layer.weight_quantizer, "factors")
    if grid is None or own_factor or not _has_sign_weights(layer) or any(part is not None for part in after):
        return None
    return SavedGrid(grid.quantum, grid.bound * layer.weight[0].numel())


def save_bits_(model: nn.Module, *example: Tensor) -> dict[str, str]:
    """Change the model in place to save bits and small integers for its backward pass; see above.

    example: what the model is called with, a batch of two samples or more (BatchNorm needs them); it is run
        twice, without gradients.

    Returns the name of each changed module → what it saves now. Parameters, buffers, modes, torch's
    generators, values, gradients and state dict stay as they are; what is not in this dictionary saves what
    it did. Under autocast and in other dtypes than float32 the changed modules work as before. Restoring
    costs a little time: benchmarks/saved_bits.py measures memory and time.
    """
    flow = _followed(model, example)
    of_weights = {layer.weight_quantizer for layer in model.modules() if isinstance(layer, BinaryLayer)}
    changed = {}
    for name, module in model.named_modules():
        if module in flow.inputs and module not in of_weights:
            text = _change(module, flow.inputs[module])
            if text:
                changed[name] = text
    return changed


@torch.no_grad()
def _followed(model: nn.Module, example: tuple[Tensor, ...]) -> _Flow:
    """The flow that holds in eval mode and in training mode; the model is left as it was."""
    flow = _Flow()
    devices = list({x.device for x in example if x.device.type == "cuda"})
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    hooks = [module.register_forward_hook(flow.watch) for module in model.modules()]
    try:
        with modes_kept(model), torch.random.fork_rng(devices=devices):
            model.eval()(*example)
            model.train()(*example)
    finally:
        for hook in hooks:
            hook.remove()
        for buffer, before in buffers:
            buffer.copy_(before)
    return flow


def _change(module: nn.Module, grid: SavedGrid | None) -> str:
    """Give the module the class that saves less, if there is one; returns what it saves then."""
    kind = type(module)
    if kind in _PRODUCTS:
        product = _product_grid(cast(BinaryLayer, module), grid)
        module.__class__, module.grid = _PRODUCTS[kind], product  # type: ignore[assignment]
        weight = SIGNS if _has_sign_weights(cast(BinaryLayer, module)) else None
        return f"input {_stored(product)}, weight {_stored(weight)}"
    if kind in _NORMS and grid is not None and grid.dtype is not None:
        module.__class__, module.grid = _NORMS[kind], grid  # type: ignore[assignment]
        return f"input {_stored(grid)}"
    if kind is SteSign:
        module.__class__ = SavedSteSign
        return "mask 1 bit"
    if isinstance(module, nn.MaxPool2d) and kind is nn.MaxPool2d and _places(module) <= 256:
        module.__class__ = SavedMaxPool2d
        return "places uint8"
    return ""


def _stored(grid: SavedGrid | None) -> str:
    if grid == SIGNS:
        return "1 bit"
    return "as it is" if grid is None or grid.dtype is None else str(grid.dtype).removeprefix("torch.")


def _places(pool: nn.MaxPool2d) -> int:
    size = pool.kernel_size
    return math.prod(size) if isinstance(size, tuple) else int(size) ** 2
