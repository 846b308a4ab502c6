"""Larq Compute Engine on the networks that it shares with onebit: milliseconds an image, batch 1, one thread.

It needs an environment of its own, since it lives on TensorFlow 2.15 and Python 3.11:

    python3.11 -m venv larq-venv
    larq-venv/bin/pip install tensorflow==2.15.1 larq==0.13.3 larq-compute-engine==0.16.0 larq-zoo 'numpy<2'
    larq-venv/bin/python benchmarks/larq_peer.py

benchmarks/networks.py prints onebit's side; run both on the same idle machine.
"""

from __future__ import annotations

import time
from statistics import median

import larq
import larq_compute_engine
import larq_zoo
import numpy as np
import tensorflow as tf
from larq_compute_engine.tflite.python.interpreter import Interpreter


def convnet() -> tf.keras.Model:
    """The BNN ConvNet for CIFAR-10: 2×128C3-MP2-2×256C3-MP2-2×512C3-MP2-1024FC-1024FC-10."""
    binary = {
        "input_quantizer": "ste_sign",
        "kernel_quantizer": "ste_sign",
        "kernel_constraint": "weight_clip",
        "use_bias": False,
    }
    first = {**binary, "input_quantizer": None}
    norm = tf.keras.layers.BatchNormalization
    layers: list[tf.keras.layers.Layer] = [tf.keras.layers.InputLayer((32, 32, 3))]
    for i, width in enumerate((128, 128, 256, 256, 512, 512)):
        layers.append(
            larq.layers.QuantConv2D(width, 3, padding="same", pad_values=1, **(first if i == 0 else binary))
        )
        if i % 2:
            layers.append(tf.keras.layers.MaxPool2D(2))
        layers.append(norm(momentum=0.9, scale=False))
    layers.append(tf.keras.layers.Flatten())
    for width in (1024, 1024, 10):
        layers += [larq.layers.QuantDense(width, **binary), norm(momentum=0.9, scale=False)]
    return tf.keras.Sequential(layers)


def milliseconds(model: tf.keras.Model, shape: tuple[int, ...]) -> tuple[float, int]:
    """(median milliseconds of a call, bytes of the converted model)."""
    flatbuffer = larq_compute_engine.convert_keras_model(model)
    interpreter = Interpreter(flatbuffer, num_threads=1)
    x = np.random.default_rng(0).uniform(-1, 1, (1, *shape)).astype(np.float32)
    samples = []
    for _ in range(25):
        start = time.perf_counter()
        interpreter.predict(x, verbose=0)
        samples.append(time.perf_counter() - start)
    return median(samples[3:]) * 1e3, len(flatbuffer)


def main() -> None:
    """One line a network."""
    networks = {
        "BNN ConvNet, CIFAR-10": (convnet, (32, 32, 3)),
        "QuickNet": (lambda: larq_zoo.sota.QuickNet(weights=None), (224, 224, 3)),
    }
    for name, (build, shape) in networks.items():
        time_taken, size = milliseconds(build(), shape)
        print(f"{name:24} {time_taken:8.2f} ms  {size:,} bytes")


if __name__ == "__main__":
    main()
