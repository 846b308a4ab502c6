"""What this machine and this installation can do, and how to get what is missing.

Ends with exit code 1 if the compiled library does not load.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
from importlib import metadata
from typing import Any

from onebit import __version__
from onebit.cli.show import print_json

HELP = "show CPU features, the chosen kernels, versions, and what is missing"

_TIERS = ("generic", "avx2", "avx512")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--json", action="store_true", help="the same as JSON")


def run(args: argparse.Namespace) -> int:
    """Ask the library, the system and the package list; print; fail if the engine cannot run."""
    facts = {
        "onebit": __version__,
        "machine": _machine(),
        "library": _library(),
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
    return 0 if facts["library"]["loads"] else 1


def _machine() -> dict[str, Any]:
    from onebit.bench.machine import describe_machine

    return describe_machine()


def _library() -> dict[str, Any]:
    """Where the compiled library is, whether it loads, and what it chose."""
    try:
        from onebit import runtime

        return {"loads": True, **runtime.describe()}
    except (ImportError, OSError, RuntimeError) as error:
        return {"loads": False, "error": str(error)}


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
    if library["loads"]:
        best, used = library["detected"], library["isa"]
        forced = " (forced by ONEBIT_ISA)" if facts["environment"].get("ONEBIT_ISA") else ""
        print(f"kernels: {used}{forced}; this machine can run {', '.join(_TIERS[: _TIERS.index(best) + 1])}")
        print(f"library: {library['path']}")
        if library.get("variants"):
            print("variants: " + ", ".join(library["variants"]))
    else:
        print(f"library: DOES NOT LOAD: {library['error']}")
        print(f"  rebuild it for {platform.machine()}: pip install --force-reinstall --no-deps onebit")
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
