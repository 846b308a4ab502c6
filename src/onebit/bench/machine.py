"""What a measured number must stand beside: the machine and the versions."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

PACKAGES = ("onebit", "numpy", "torch", "onnx", "onnxruntime")


def _cpuinfo() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo; empty where the system has none."""
    path = Path("/proc/cpuinfo")
    fields: dict[str, str] = {}
    if path.exists():
        for line in path.read_text().splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    return fields


def cpu_name() -> str:
    """The CPU's own name, or the architecture where the system does not tell."""
    fields = _cpuinfo()
    if "model name" not in fields:
        return platform.processor() or platform.machine()
    model = "/".join(fields[key] for key in ("cpu family", "model") if key in fields)
    return f"{fields['model name']} (family/model {model})" if model else fields["model name"]


def cpu_flags() -> frozenset[str]:
    """What Linux lists as this CPU's features; empty where it lists none."""
    fields = _cpuinfo()
    return frozenset((fields.get("flags") or fields.get("Features", "")).split())  # x86, ARM


def usable_cpus() -> int:
    """CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def package_versions(names: tuple[str, ...] = PACKAGES) -> dict[str, str | None]:
    """Installed version of each package, None where it is missing. Imports nothing."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def describe_machine() -> dict[str, str]:
    """CPU, usable CPUs, system and Python, in words."""
    return {
        "cpu": cpu_name(),
        "cpus": str(usable_cpus()),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
    }
