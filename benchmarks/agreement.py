"""A trained run, packed, against PyTorch on every test image: each hidden bit, each score, each prediction.

    .venv/bin/python benchmarks/agreement.py runs/bnn-mnist-small --data-dir FOLDER

For each instruction set of this machine, with one thread and with two. Where every path to a sign is integer
the counts must all be 0 (docs/numerics.md), and the exit status says so; a network with real activations
(BinaryConnect) has no hidden bits, and its scores differ within float32 rounding: the largest difference is
printed and predictions that differ are counted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

import onebit
from onebit.nn import quantizers
from onebit.program import DType, Program
from onebit.runtime import Engine, available_isas
from onebit.train import load_model, run_recipe

BATCH = 500


def hidden_signs(model: torch.nn.Module, images: torch.Tensor) -> tuple[list[np.ndarray], np.ndarray]:
    """(±1 activations of each sign in the order they run, scores), as PyTorch computes them: eager, eval."""
    signs: list[np.ndarray] = []
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output: signs.append(output.numpy()))
        for name, module in model.named_modules()
        if isinstance(module, (quantizers.SteSign, quantizers.StochasticSign)) and "weight" not in name
    ]
    with torch.inference_mode():
        scores = model(images).numpy()
    for hook in hooks:
        hook.remove()
    return signs, scores


def with_hidden_bits(program: Program) -> Program:
    """The program with every hidden bits value as an output before its own."""
    hidden = [node.output for node in program.nodes if program.values[node.output].dtype is DType.BITS]
    return program.with_outputs(*hidden, *program.outputs)


def pairs(ours: list[np.ndarray], theirs: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each sign of PyTorch's beside the packed value that it became.

    Images are channels last in a Program. A Program may have further bits, such as those before a max-pool
    that PyTorch computes ahead of the sign; they are passed over. SystemExit if a sign finds no partner.
    """
    images_first = (np.moveaxis(bits, -1, 1) if bits.ndim == 4 else bits for bits in ours)
    found = []
    for sign in theirs:
        partner = next((bits for bits in images_first if bits.shape == sign.shape), None)
        if partner is None:
            raise SystemExit(f"no packed value of shape {sign.shape} stands for this sign of the model's")
        found.append((partner, sign))
    return found


def compare(model: torch.nn.Module, program: Program, images: torch.Tensor, isa: str, threads: int) -> dict:
    """Counts of what differs over all images."""
    counts = dict.fromkeys(("bits", "hidden bits that differ", "scores that differ", "predictions"), 0)
    largest = 0.0
    with Engine(with_hidden_bits(program), isa=isa, threads=threads) as engine:
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            signs, scores = hidden_signs(model, batch)
            outputs = engine(batch.numpy())
            *bits, packed = outputs if isinstance(outputs, tuple) else (outputs,)
            for ours, theirs in pairs(bits, signs):
                counts["bits"] += ours.size
                counts["hidden bits that differ"] += int((ours != theirs).sum())
            counts["scores that differ"] += int((packed != scores).sum())
            counts["predictions"] += int((packed.argmax(axis=1) != scores.argmax(axis=1)).sum())
            largest = max(largest, float(np.abs(packed - scores).max()))
    return {**counts, "largest difference": largest}


def main() -> None:
    """Print a line an engine; exit 1 if a network with hidden bits differs anywhere."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data-dir", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(arguments.run).eval()
    data = run_recipe(arguments.run).data
    images = onebit.data.load(data.name, arguments.data_dir).test.images
    program = onebit.convert(model, images[:1])
    exact = True
    for isa in available_isas():
        for threads in (1, 2):
            found = compare(model, program, images, isa, threads)
            print(
                f"{isa:8} {threads} thread(s): {len(images):,} images, {found['bits']:,} hidden bits, "
                f"{found['hidden bits that differ']} differ; {found['scores that differ']} scores differ "
                f"(by at most {found['largest difference']:.3g}); {found['predictions']} predictions differ"
            )
            exact &= found["bits"] == 0 or not found["hidden bits that differ"] + found["scores that differ"]
    raise SystemExit(0 if exact else 1)


if __name__ == "__main__":
    main()
