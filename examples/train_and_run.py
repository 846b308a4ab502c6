"""The whole path in one file: train a binarized network in plain PyTorch, pack it, run it without PyTorch.

    python examples/train_and_run.py

Uses the 8×8 digits that come with scikit-learn, so nothing is downloaded. Takes a few seconds.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

import onebit
from onebit import nn as bnn

torch.manual_seed(1)
torch.set_num_threads(1)  # so small a network is fastest on one
digits = onebit.data.load("digits")  # uint8 images (N, 1, 8, 8), int64 labels

# 1. An ordinary PyTorch model. BinaryLinear keeps float weights to learn with and multiplies by their signs;
#    its input is binarized too, except in the first layer, which takes the pixels as they are.
model = torch.nn.Sequential(
    bnn.ScalePixels(),  # uint8 → (2x − 255)/256, exact in float32
    torch.nn.Flatten(),
    bnn.BinaryLinear(64, 256, input_quantizer=None),
    torch.nn.BatchNorm1d(256),
    bnn.BinaryLinear(256, 256),
    torch.nn.BatchNorm1d(256),
    bnn.BinaryLinear(256, 10),
    torch.nn.BatchNorm1d(10),
)

# 2. An ordinary training loop, with one line more.
epochs, batch_size = 20, 50
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.8)
for epoch in range(epochs):
    for index in torch.randperm(len(digits.train)).split(batch_size):
        loss = bnn.square_hinge(model(digits.train.images[index]), digits.train.labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        onebit.optim.clip_latent_weights_(model)  # keeps the float weights in [−1, 1]
    schedule.step()
    print(f"epoch {epoch + 1}: loss {loss.item():.3f}")

# 3. Pack it. The example input gives the shape of one sample and its type; any batch size runs later.
program = onebit.convert(model.eval(), torch.zeros(1, 1, 8, 8, dtype=torch.uint8))
path = Path(tempfile.mkdtemp()) / "digits.onebit"
program.save(path)
print(program.summary())

# 4. Run it: NumPy in, NumPy out. From here on PyTorch is needed only to compare.
engine = onebit.Engine(path, threads=1)
scores = engine(digits.test.images.numpy())

with torch.no_grad():
    expected = model(digits.test.images)
labels = digits.test.labels.numpy()
print(f"accuracy: PyTorch {(expected.argmax(1).numpy() == labels).mean():.2%}, ", end="")
print(f"packed {(scores.argmax(1) == labels).mean():.2%}")
print(f"scores that differ: {(expected.numpy() != scores).sum()} of {scores.size}")
