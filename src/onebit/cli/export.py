"""Write a packed network in a form that other programs read.

  onebit export onnx digits.onebit -o digits.onnx     for ONNX Runtime and its kin
  onebit export onnx runs/bnn-digits                  a run folder, packed on the fly; RUN/model.onnx

An ONNX file has the same inputs and outputs, uses standard operators only, and keeps one-bit weights as bits,
which a runtime unpacks when it loads the file. It computes in float32: where a .onebit file runs, that is
faster. docs/export.md says what is equal bit for bit.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from onebit.cli.errors import UserError, did_you_mean, writable_file
from onebit.cli.options import positive
from onebit.cli.runs import read_program
from onebit.cli.show import print_json, size

HELP = "write a network as an ONNX file"

FORMS = ("onnx",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("form", metavar="FORM", help="the form to write: onnx")
    parser.add_argument("file", metavar="FILE", help="a .onebit file, or a run folder")
    parser.add_argument("-o", "--output", metavar="PATH", help="the file to write (default: beside FILE)")
    parser.add_argument(
        "--opset",
        type=positive,
        metavar="N",
        help="version of ONNX's operators (default: one that most runtimes have)",
    )
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")


def run(args: argparse.Namespace) -> int:
    """Load or pack, write, say how large it is."""
    if args.form not in FORMS:
        raise UserError(f"no form {args.form!r}{did_you_mean(args.form, FORMS)}")
    from onebit.export.onnx import DEFAULT_OPSET, check_opset, save_onnx

    opset = DEFAULT_OPSET if args.opset is None else args.opset
    check_opset(opset)
    source = Path(args.file)
    beside = source / "model.onnx" if source.is_dir() else source.with_suffix(".onnx")
    program = None if source.is_dir() else read_program(args.file)  # a wrong FILE is named before a wrong -o
    target = writable_file("-o", args.output or str(beside), example=beside.name)
    from onebit.program import summarize

    program = program or read_program(args.file)
    nbytes = save_onnx(program, target, opset=opset)
    packed = summarize(program).file_bytes
    if args.json:
        print_json({"file": str(target), "bytes": nbytes, "onebit_bytes": packed, "opset": opset})
        return 0
    print(f"{target}: {size(nbytes)}, opset {opset}; as a .onebit file it takes {size(packed)}")
    return 0
