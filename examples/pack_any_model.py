"""Pack a model that no converter covers: an LSTM beside binary layers, and a loop that stops when it is sure.

    python examples/pack_any_model.py

`onebit.convert` needs a graph that is the same for every input. `onebit.pack` does not: it puts packed layers
in the place of the binary ones and leaves everything else to PyTorch. Uses the 8×8 digits that come with
scikit-learn; takes some seconds.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

import onebit
from onebit import nn as bnn


class EarlyExit(nn.Module):
    """Reads an image row by row, then thinks in steps until one class leads by a margin."""

    def __init__(self, width: int = 512, steps: int = 4) -> None:
        super().__init__()
        self.read = nn.LSTM(8, width // 2, batch_first=True, bidirectional=True)
        self.steps = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm1d(width), bnn.BinaryLinear(width, width, weight_scale="channel_mean"), nn.PReLU()
            )
            for _ in range(steps)
        )
        self.answer = nn.Sequential(nn.BatchNorm1d(width), bnn.BinaryLinear(width, 10, bias=True))

    def forward(self, images: Tensor, margin: float = 100.0) -> tuple[Tensor, int]:
        """uint8 images (N, 1, 8, 8) → scores (N, 10), and how many steps it took."""
        rows, _ = self.read(images[:, 0].float() / 16)
        x = rows[:, -1]
        taken = 0
        for step in self.steps:
            taken += 1
            x = x + step(x)
            scores = self.answer(x)
            best = scores.topk(2).values
            if not self.training and bool((best[:, 0] - best[:, 1] > margin).all()):
                break  # the numbers decide: no export can write this down
        return scores, taken


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float, float]:
    """Share of right answers one image at a time, mean steps, milliseconds an image."""
    right, steps, start = 0, 0, time.perf_counter()
    with torch.inference_mode():
        for image, label in zip(images, labels, strict=True):
            scores, taken = model(image[None])
            right, steps = right + int(scores.argmax() == label), steps + taken
    seconds = time.perf_counter() - start
    return right / len(images), steps / len(images), 1e3 * seconds / len(images)


torch.manual_seed(1)
torch.set_num_threads(1)
digits = onebit.data.load("digits")
model = EarlyExit()
optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
for _ in range(5):
    for index in torch.randperm(len(digits.train)).split(64):
        scores, _ = model(digits.train.images[index])
        loss = nn.functional.cross_entropy(scores / 16, digits.train.labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        onebit.optim.clip_latent_weights_(model)
model.eval()

packed = onebit.pack(model)  # a copy; the model itself can be trained on
print(onebit.ops.report(packed))

images, labels = digits.test.images[:200], digits.test.labels[:200]
for name, network in (("PyTorch", model), ("packed", packed)):
    share, steps, milliseconds = accuracy(network, images, labels)
    print(f"{name:8} {share:.1%} right, {steps:.2f} steps and {milliseconds:.2f} ms an image")
with torch.inference_mode():
    same = all(torch.equal(model(image[None])[0], packed(image[None])[0]) for image in images)
print("every score is the same bit for bit" if same else "scores differ")
