"""The same networks in PyTorch, in the form that is fastest there: see onebit.export.float_network."""

from __future__ import annotations

import numpy as np
import torch

from onebit.bench.torch_peer import PER_CHANNEL, apply_op
from onebit.export.float_network import FloatNetwork, float_network
from onebit.export.float_ops import spread
from onebit.program import Program


class TorchNetwork(torch.nn.Module):
    """The float network of a Program as a module; BatchNorm and scales are folded into its weights."""

    def __init__(
        self, program: Program, dtype: torch.dtype, device: torch.device, channels_last: bool
    ) -> None:
        super().__init__()
        self.network: FloatNetwork = float_network(program)
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.own: list[dict[str, torch.Tensor]] = []
        for op in self.network.ops:
            tensors = {}
            for name, array in op.arrays.items():
                wide = spread(array, op, self.network.shapes) if name in PER_CHANNEL else array
                made = torch.tensor(np.asarray(wide), device=device)
                made = made.to(dtype) if made.is_floating_point() else made
                tensors[name] = self._laid_out(made)
            self.own.append(tensors)

    def _laid_out(self, x: torch.Tensor) -> torch.Tensor:
        return x.contiguous(memory_format=self.layout) if x.dim() == 4 else x

    def prepare(self, pixels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """A Program's u8 input as this network takes it: scaled already, which is not timed."""
        (name,) = self.network.inputs
        x = pixels.to(torch.float32)
        if name in self.network.prepared:
            scale, shift = (torch.from_numpy(np.array(a)).to(x.device) for a in self.network.prepared[name])
            x = x * scale + shift
        return self._laid_out(x.to(dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The network's first output."""
        values = {self.network.inputs[0]: x}
        for op, tensors in zip(self.network.ops, self.own, strict=True):
            values[op.output] = apply_op(op, tensors, [values[name] for name in op.inputs])
        return values[self.network.outputs[0]]
