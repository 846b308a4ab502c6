"""All GPU checks and benchmarks in one call of under eight minutes; the table comes last.

    python benchmarks/gpu/check.py --out results           on a machine with an NVIDIA GPU
    python benchmarks/gpu/check.py --dry --out results     anywhere: tiny sizes, kernels run by the emulator

It needs PyTorch with CUDA and `pip install 'onebit[cuda]'` (or this source tree and the package cuda-core).
Each section is a process of its own with a time of its own: one that hangs, crashes or runs out of time costs
itself alone. Findings are lines of JSON in the folder of --out, written as they come. The table has all bars.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from importlib import import_module, metadata
from pathlib import Path

from record import Recorder, line, read, table

ROOT = Path(__file__).resolve().parents[2]

# Section → (module, function, most seconds). Their order is that of what matters most.
SECTIONS = {
    "compile": ("kernels", "run", 45),
    "exact": ("correctness", "run_products", 60),
    "product": ("products", "run", 75),
    "paper": ("products", "run_paper", 35),
    "mnist": ("whole", "run_mnist", 75),
    "images": ("whole", "run_images", 110),
    "programs": ("correctness", "run_programs", 35),
}
SANITIZER = ("memcheck", "racecheck")  # tools, each of which watches SMALL, with the time that is left
SMALL = ("correctness", "run_small", 90)
ON_DEMAND = {"tune": ("products", "run_tune", 200)}  # sections that only --only names
TOTAL = 470
PACKAGES = ("torch", "triton", "numpy", "safetensors", "cuda-core", "cuda-bindings", "nvidia-cuda-nvrtc")


def version(package: str) -> str:
    """The installed version, or "missing"."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def machine(dry: bool) -> list[str]:
    """What the numbers stand beside."""
    found = [f"python {platform.python_version()}, {platform.system()} {platform.release()}"]
    found += [", ".join(f"{name} {version(name)}" for name in PACKAGES)]
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    found += [f"commit {commit.stdout.strip() or 'unknown'}"]
    if not dry and shutil.which("nvidia-smi"):
        query = "--query-gpu=name,driver_version,clocks.sm,clocks.mem,power.limit"
        done = subprocess.run(
            ["nvidia-smi", query, "--format=csv"], capture_output=True, text=True, check=False
        )
        found += done.stdout.strip().splitlines()
    return found


def missing_parts(dry: bool) -> str:
    """What stops every section, in a sentence; empty if nothing."""
    try:
        import torch
    except ImportError:
        return "PyTorch is not installed: see https://pytorch.org/get-started"
    if dry:
        return (
            "" if shutil.which("g++") else "a dry run compiles the kernels with g++, which is not installed"
        )
    if version("cuda-core") == "missing":
        return "the package cuda-core is not installed: pip install 'onebit[cuda]'"
    if not torch.cuda.is_available():
        return f"PyTorch {torch.__version__} sees no NVIDIA GPU here; --dry needs none"
    return ""


def run_section(name: str, path: Path, seconds: float, *, dry: bool, seed: int) -> int:
    """Do one section in this process."""
    from setup import OutOfTime, Setup, emulated_device, real_device

    module, function, _ = SMALL if name == "small" else (SECTIONS | ON_DEMAND)[name]
    record = Recorder(path, name, judge=not dry)
    device = emulated_device() if dry else real_device()
    setup = Setup(device, record, time.monotonic() + seconds, dry, seed)
    try:
        getattr(import_module(module), function)(setup)
    except OutOfTime:
        record.remark("out of time", f"after {seconds:.0f} s; what follows was not done")
    return 0


def child(arguments: argparse.Namespace, name: str, findings: Path, seconds: float, *prefix: str) -> str:
    """Do one section in a process of its own; what went wrong, or nothing."""
    command = [*prefix, sys.executable, __file__, "--section", name, "--seconds", str(seconds)]
    command += ["--out", str(findings), "--seed", str(arguments.seed)] + ["--dry"] * arguments.dry
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    log = findings.with_name(f"{findings.stem}-{name}.log")
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(seconds + 15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the process and what it started
            process.wait()
            return f"killed after {seconds + 15:.0f} s; see {log.name}"
    tail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    return "" if code == 0 else f"exit code {code}: {' '.join(tail)[-300:]}; see {log.name}"


def run_all(arguments: argparse.Namespace, path: Path) -> None:
    """Every section in turn, as long as there is time."""
    end = time.monotonic() + arguments.total
    for name in arguments.only or SECTIONS:
        seconds = min((SECTIONS | ON_DEMAND)[name][2], end - time.monotonic() - 15)
        record = Recorder(path, name, judge=not arguments.dry)
        if seconds < 5:
            record.check("was not begun", False, "out of time")
            continue
        seen = len(read(path))
        problem = child(arguments, name, path, seconds)
        print("\n".join(map(line, read(path)[seen:])), flush=True)
        if problem:
            record.check("came to its end", False, problem)
    if not (arguments.only or arguments.dry):
        sanitize(arguments, path, end)


def sanitize(arguments: argparse.Namespace, path: Path, end: float) -> None:
    """The small section under each tool of compute-sanitizer, if that is installed."""
    record = Recorder(path, "sanitizer", judge=True)
    program = shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path="/usr/local/cuda/bin"
    )
    for index, tool in enumerate(SANITIZER):
        seconds = min(SMALL[2], (end - time.monotonic()) / (len(SANITIZER) - index) - 15)
        if program is None or seconds < 15:
            record.remark(tool, "compute-sanitizer is not installed" if program is None else "out of time")
            continue
        apart = path.with_name(f"{tool}.jsonl")  # what the watched section itself finds
        apart.unlink(missing_ok=True)
        problem = child(arguments, "small", apart, seconds, program, "--tool", tool, "--error-exitcode", "9")
        checks = [finding for finding in read(apart) if finding.ok is not None]
        record.check(
            f"{tool} is clean", not problem and len(checks) > 0, f"{len(checks)} checks watched {problem}"
        )


def main() -> int:
    """Run, and print the table. The exit code is 0 if every bar and check holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for the findings")
    parser.add_argument(
        "--dry", action="store_true", help="tiny sizes on the emulator; no number means anything"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[*SECTIONS, *ON_DEMAND],
        metavar="SECTION",
        help=f"of {', '.join([*SECTIONS, *ON_DEMAND])}",
    )
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000, help="of all random inputs")
    parser.add_argument(
        "--total", type=float, default=TOTAL, help="seconds for everything (default: %(default)s)"
    )
    parser.add_argument("--section", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.section:  # in a process that `child` started; --out is the file then
        dry, seed = arguments.dry, arguments.seed
        return run_section(arguments.section, arguments.out, arguments.seconds, dry=dry, seed=seed)
    problem = missing_parts(arguments.dry)
    if problem:
        print(f"nothing can be measured: {problem}", file=sys.stderr)
        return 2
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "findings.jsonl"
    path.unlink(missing_ok=True)
    start = time.monotonic()
    print("\n".join(f"# {text}" for text in machine(arguments.dry)))
    print(f"# seed {arguments.seed}", flush=True)
    run_all(arguments, path)
    findings = read(path)
    clocks = machine(arguments.dry)[-1]  # at the end: the last line of nvidia-smi
    print(f"\n# {clocks}\n# {time.monotonic() - start:.0f} s\n{table(findings)}")
    return 0 if findings and all(finding.ok is not False for finding in findings) else 1


if __name__ == "__main__":
    sys.exit(main())
