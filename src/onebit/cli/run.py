"""Run a .onebit file on a .npy file (a sample or a batch), images or sounds; print or save what comes out.

onebit run mnist.onebit seven.png
onebit run mnist.onebit batch.npy -o scores.npy
onebit run fsdd.onebit seven.wav
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onebit.cli.errors import UserError, existing_file
from onebit.cli.options import add_threads
from onebit.cli.runs import prepared_as
from onebit.cli.show import print_json

if TYPE_CHECKING:
    import numpy.typing as npt

HELP = "run a .onebit file on an array, on images or on sounds"

_MAX_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("file", metavar="FILE", help="a .onebit file")
    parser.add_argument("inputs", metavar="INPUT", nargs="+", help="one .npy file, or images, or WAV files")
    parser.add_argument(
        "-o", "--output", metavar="OUT.npy", help="save the output array instead of printing it"
    )
    parser.add_argument(
        "--resize", action="store_true", help="bring images to the size the network takes, as in training"
    )
    parser.add_argument("--json", action="store_true", help="print the outputs as JSON")
    add_threads(parser)


def run(args: argparse.Namespace) -> int:
    """Load, check the input, run, show."""
    path = existing_file(args.file, what="a .onebit file", suffix=".onebit")
    if args.output and not args.output.endswith(".npy"):
        raise UserError(f"-o {args.output!r}: the output is an array; name a file ending in .npy")
    if args.output and not Path(args.output).parent.is_dir():
        raise UserError(f"-o {args.output!r}: the folder {str(Path(args.output).parent)!r} does not exist")
    from onebit.cli.samples import read_inputs
    from onebit.program import DType, load

    program = load(path)
    if len(program.inputs) != 1 or len(program.outputs) != 1:
        counts = f"{len(program.inputs)} inputs and {len(program.outputs)} outputs"
        raise UserError(
            f"{args.file!r} has {counts}; `onebit run` takes one of each: use onebit.Engine in Python"
        )
    kind = program.values[program.inputs[0]]
    batch = read_inputs(
        args.inputs,
        kind.shape,
        bytes_in=kind.dtype is DType.U8,
        resize=args.resize,
        windowed=program.text("stream") == "1",
        sample_rate=prepared_as(program, "sample_rate"),
    )
    from onebit.runtime import Engine

    output = Engine(program, threads=args.threads)(batch)
    if args.output:
        import numpy as np

        np.save(args.output, output, allow_pickle=False)
        if not args.json:
            print(f"{args.output}: {output.dtype} {tuple(output.shape)}")
    if args.json:
        document = {"output": program.outputs[0], "shape": output.shape, "values": output.tolist()}
        print_json({**document, **_named(output, args.inputs, program.classes)})
    elif not args.output:
        _show(output, args.inputs, program.classes)
    return 0


def _named(output: npt.NDArray[Any], inputs: list[str], classes: Sequence[str]) -> dict[str, Any]:
    """What --json says beyond numbers where the file names its classes: whose highest score is which."""
    if not classes or output.ndim != 2:
        return {}
    highest = output.argmax(axis=1).tolist()
    samples = [
        {"input": _name_of(index, len(output), inputs), "class": number, "name": classes[number]}
        for index, number in enumerate(highest)
    ]
    return {"classes": classes, "samples": samples}


def _name_of(index: int, samples: int, inputs: list[str]) -> str:
    """The file that a sample is, or its number in the one file that holds them all."""
    return inputs[index] if len(inputs) == samples else f"sample {index}"


def _show(output: npt.NDArray[Any], inputs: list[str], classes: Sequence[str]) -> None:
    """One line a sample: the class with the highest score, then the scores."""
    if output.ndim != 2:
        print(output)
        return
    for index, scores in enumerate(output[:_MAX_SHOWN]):
        name = _name_of(index, len(output), inputs)
        best = int(scores.argmax())
        named = classes and classes[best] != str(best)  # digits are called by their numbers
        title = f"{best} ({classes[best]})" if named else f"{best}"
        values = " ".join(f"{value:.4g}" for value in scores[:_MAX_SHOWN])
        more = " …" if len(scores) > _MAX_SHOWN else ""
        print(f"{name}: class {title}   scores {values}{more}")
    if len(output) > _MAX_SHOWN:
        print(f"… {len(output) - _MAX_SHOWN} more; -o FILE.npy saves all")
