"""What this machine and this installation can do, and how to get what is missing.

Ends with exit code 1 if no engine can run: the compiled library does not load, or ONEBIT_ISA is wrong.
"""

from __future__ import annotations

import argparse
import os
import re
from importlib import metadata
from typing import TYPE_CHECKING, Any

from onebit import __version__
from onebit.cli.show import print_json

if TYPE_CHECKING:
    from onebit.runtime.library import Isa

HELP = "show CPU features, the chosen kernels, versions, and what is missing"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--json", action="store_true", help="the same as JSON")


def run(args: argparse.Namespace) -> int:
    """Ask the library, the system and the package list; print; fail if the engine cannot run."""
    library = _library()
    facts: dict[str, Any] = {
        "onebit": __version__,
        "machine": _machine(library.pop("features", ())),
        "library": library,
        "environment": {
            key: os.environ[key]
            for key in ("ONEBIT_ISA", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "ATEN_CPU_CAPABILITY")
            if key in os.environ
        },
        "extras": _extras(),
    }
    if args.json:
        print_json(facts)
    else:
        _print(facts)
    return 0 if facts["library"]["runs"] else 1


def _machine(features: tuple[str, ...]) -> dict[str, Any]:
    """CPU, system and Python; which of `features`, on which the choice of kernels rests, the CPU has."""
    from onebit.bench.machine import cpu_flags, describe_machine

    flags = cpu_flags()
    return {
        **describe_machine(),
        "features": {name: name in flags for name in features} if flags else {},
    }


def _library() -> dict[str, Any]:
    """Whether the compiled library loads, where it is, and what it runs on this CPU."""
    from onebit import runtime

    try:
        library = runtime.library()
        facts: dict[str, Any] = {"loads": True, "path": library.path, "features": _features(library.isas)}
        facts["available"] = list(runtime.available_isas())
    except runtime.EngineError as error:
        return {"loads": False, "runs": False, "error": str(error)}
    try:
        facts["isa"] = runtime.choose_isa()
        facts["kernels"] = _kernels()
    except runtime.EngineError as error:  # ONEBIT_ISA asks for what is not here
        return {**facts, "runs": False, "error": str(error)}
    return {**facts, "runs": True}


def _features(isas: tuple[Isa, ...]) -> tuple[str, ...]:
    """What the instruction sets of this architecture need of a CPU, each once."""
    return tuple(dict.fromkeys(name for isa in isas if isa.native for name in isa.features))


def _kernels() -> dict[str, str]:
    """Product → the kernel that an engine chooses here, read off an engine that has one of each."""
    import numpy as np

    from onebit.program import Constant, DType, Node, Program, TensorType, pack_bits
    from onebit.runtime import Engine

    size = 64
    bits = Constant(TensorType(DType.BITS, (size, size)), pack_bits(np.ones((size, size), bool)))
    floats = Constant(TensorType(DType.F32, (size, size)), np.ones((size, size), np.float32))
    inputs = {kind.value: TensorType(kind, (size,)) for kind in (DType.BITS, DType.U8, DType.F32)}
    nodes = (
        Node("binary_gemm", ("bits", "w"), "a"),
        Node("u8_gemm", ("u8", "w"), "b", {"multiplier": 2, "offset": -255}),
        Node("f32_binary_gemm", ("f32", "w"), "c"),
        Node("f32_gemm", ("f32", "wf"), "d"),
    )
    results = {
        node.output: TensorType(DType.F32 if node.op.startswith("f32") else DType.I32, (size,))
        for node in nodes
    }
    constants = {"w": bits, "wf": floats}
    program = Program(tuple(inputs), tuple(results), nodes, constants, {**inputs, **results})
    with Engine(program) as engine:
        return {node.op: engine.variants[node.op] for node in nodes}


def _extras() -> dict[str, dict[str, str | None]]:
    """For each extra of the installed package: its packages and their versions, None where missing."""
    try:
        wanted = metadata.requires("onebit") or []
    except metadata.PackageNotFoundError:
        return {}
    extras: dict[str, dict[str, str | None]] = {"(needed)": {}}
    for requirement in wanted:
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        if name is None or name.group() == "onebit":
            continue
        marker = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", requirement)
        extra = marker.group(1) if marker else "(needed)"
        extras.setdefault(extra, {})[name.group()] = _version(name.group())
    return {extra: packages for extra, packages in extras.items() if extra != "all"}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _print(facts: dict[str, Any]) -> None:
    machine, library = facts["machine"], facts["library"]
    print(f"onebit {facts['onebit']}, Python {machine['python']}, {machine['system']}")
    print(f"CPU: {machine['cpu']}, {machine['cpus']} usable")
    if machine["features"]:
        missing = [name for name, here in machine["features"].items() if not here]
        print(
            f"CPU features: {', '.join(name for name, here in machine['features'].items() if here) or 'none'}"
        )
        print(f"  not here: {', '.join(missing)}" if missing else "  all that the kernels can use")
    if library["runs"]:
        forced = " (forced by ONEBIT_ISA)" if facts["environment"].get("ONEBIT_ISA") else ""
        print(f"instruction set: {library['isa']}{forced}, of {', '.join(library['available'])}")
        print(f"kernels: {', '.join(library['kernels'].values())}")
        print(f"library: {library['path']}")
    else:
        trouble = "NO ENGINE CAN RUN" if library["loads"] else "DOES NOT LOAD"
        print(f"library: {trouble}: {library['error']}")
    for key, value in facts["environment"].items():
        print(f"{key}={value}")
    rows = []
    for extra, packages in facts["extras"].items():
        missing = [package for package, version in packages.items() if version is None]
        here = ", ".join(f"{package} {version}" for package, version in packages.items() if version)
        get = f"missing {', '.join(missing)}: pip install 'onebit[{extra}]'" if missing else "complete"
        rows.append((extra, here or "–", get))
    if rows:
        print()
        for extra, here, get in rows:
            print(f"{extra:12} {get}")
            print(f"{'':12} {here}")
    else:
        print("extras: unknown, since onebit is not installed as a package (pip install -e .)")
