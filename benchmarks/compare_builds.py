"""Two checkouts beside each other, figure by figure: has a change made anything slower?

    python benchmarks/compare_builds.py ../onebit-before . [--rounds 5] [--only networks binary_gemm]

Each round runs the kernel benchmarks and the whole networks of the one checkout and then of the other, in
turn first and second, so that a drift of the machine meets both. A figure is a time; a row shows the medians,
their ratio, and the spread of the figure: the larger of the two checkouts' (largest − smallest) / median. The
exit status is 1 where a figure grew by more than 3 % and by more than its spread.

Each checkout needs its `.venv` (`make .venv/.built`); the kernel benchmarks are built where they are missing.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median

LIMIT = 0.03
FAMILIES = ("binary_gemm", "binary_conv", "f32_conv")
WHOLE = "networks"

# Runs in each checkout's own Python: milliseconds of whole networks, bytes in, through Python.
_NETWORKS = """
import json, time
from statistics import median
from onebit.bench import random_program
from onebit.bench.packed import random_inputs
from onebit.runtime import Engine

CASES = [
    ("bnn_mlp", dict(hidden=(4096, 4096, 4096)), (1, 256), (1,)),
    ("bnn_convnet_cifar10", {}, (1,), (1, 2)),
    ("alexnet_xnor", {}, (1,), (1,)),
    ("alexnet_xnor", dict(input_scale=None), (1,), (1,)),
    ("quicknet", {}, (1,), (1,)),
    ("birealnet18", {}, (1,), (1,)),
]
for name, options, batches, counts in CASES:
    program = random_program(name, **options)
    for batch in batches:
        inputs = random_inputs(program, batch)
        for threads in counts:
            engine = Engine(program, threads=threads)
            times, end = [], time.perf_counter() + 1.0
            while time.perf_counter() < end:
                start = time.perf_counter()
                engine(*inputs)
                times.append(time.perf_counter() - start)
            label = f"{name} {options or ''} batch {batch} threads {threads}"
            print(json.dumps({"figure": label, "seconds": median(times)}), flush=True)
"""


def _output(command: list[str | Path], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command[0]} in {folder} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def build(folder: Path) -> None:
    """Build the kernel benchmarks of a checkout."""
    tools = folder.resolve() / ".venv" / "bin"
    ninja = f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}"
    _output(
        [tools / "cmake", "-S", ".", "-B", "build/bench", "-G", "Ninja", ninja, "-DONEBIT_TESTS=ON"], folder
    )
    _output([tools / "cmake", "--build", "build/bench"], folder)


def kernel_figures(folder: Path, family: str) -> dict[str, float]:
    """Seconds of each row that bench_<family> prints, by everything in the row that is not measured."""
    figures = {}
    for line in _output([folder.resolve() / "build/bench" / f"bench_{family}"], folder).splitlines():
        row = json.loads(line)
        seconds = row.get("seconds", row.get("us", 0) * 1e-6)
        if seconds:
            kind = [str(value) for value in row.values() if not isinstance(value, float)]
            figures[f"{family}: {' '.join(kind)}"] = seconds
    return figures


def network_figures(folder: Path) -> dict[str, float]:
    """Seconds of each whole network."""
    lines = _output([folder.resolve() / ".venv/bin/python", "-c", _NETWORKS], folder).splitlines()
    return {row["figure"]: row["seconds"] for row in map(json.loads, lines)}


def report(old: dict[str, list[float]], new: dict[str, list[float]]) -> int:
    """Print the table; the number of figures that grew by more than the limit and their spread."""
    worse = 0
    print(f"{'old':>10} {'new':>10} {'new/old':>8} {'spread':>7}")
    for label in sorted(set(old) | set(new)):
        if label not in old or label not in new:
            print(f"{'only in the ' + ('new' if label in new else 'old') + ' checkout':>38}  {label}")
            continue
        before, after = median(old[label]), median(new[label])
        spread = max((max(times) - min(times)) / median(times) for times in (old[label], new[label]))
        slower = after / before - 1 > max(LIMIT, spread)
        worse += slower
        mark = "  SLOWER" if slower else ""
        print(f"{before * 1e3:10.4f} {after * 1e3:10.4f} {after / before:8.3f} {spread:7.1%}  {label}{mark}")
    return worse


def main() -> None:
    """Measure, print, and say by the exit status whether anything is slower."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("old", type=Path, help="a checkout")
    parser.add_argument("new", type=Path, help="another one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=[*FAMILIES, WHOLE], metavar="FAMILY", help=f"or {WHOLE}")
    arguments = parser.parse_args()
    folders = (arguments.old, arguments.new)
    for folder in folders:
        build(folder)
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    print(f"# {cpu.group(1) if cpu else 'unknown CPU'}, {arguments.rounds} rounds, milliseconds, medians")
    times: tuple[dict[str, list[float]], ...] = (defaultdict(list), defaultdict(list))
    for turn in range(arguments.rounds):
        for part in arguments.only:
            for side in (0, 1) if turn % 2 == 0 else (1, 0):
                folder = folders[side]
                figures = network_figures(folder) if part == WHOLE else kernel_figures(folder, part)
                for label, seconds in figures.items():
                    times[side][label].append(seconds)
    sys.exit(1 if report(*times) else 0)


if __name__ == "__main__":
    main()
