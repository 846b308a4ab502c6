"""Listen to a recording with a packed keyword spotter, a window at a time, as a wearable does. NumPy only.

    onebit train bnn-fsdd --data-dir FOLDER --run-dir runs/fsdd     # FOLDER: WAV files, see onebit.data.audio
    onebit convert runs/fsdd -o words.onebit
    python examples/keyword_spotting.py words.onebit recording.wav

The network takes samples: what it hears in them (filters, loudness, time) is inside the file.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import onebit
from onebit.data.wav import SAMPLE_RATE, fitted, read_wav

if len(sys.argv) != 3:
    sys.exit(__doc__)
program = onebit.load(sys.argv[1])
window = program.values[program.inputs[0]].shape[-1]  # samples that the network takes at once
rate = int(program.text("sample_rate") or SAMPLE_RATE)  # Hz, as in training
engine = onebit.Engine(program, threads=1)

sound = read_wav(Path(sys.argv[2]), rate)
if len(sound) < window:
    sound = fitted(sound, window)  # in the middle of zeros, as in training and in `onebit run`
step = window // 4
for start in range(0, len(sound) - window + 1, step):
    samples = sound[start : start + window]
    if not samples.any():
        continue  # nothing to hear
    scores = engine(samples[None, None])[0]  # float32 (1, 1, window) in, (1, classes) out
    probability = np.exp(scores - scores.max())
    probability /= probability.sum()
    best = int(probability.argmax())
    name = program.classes[best] if program.classes else f"class {best}"
    print(f"{start / rate:6.2f} s  {name}  {probability[best]:.0%}")
