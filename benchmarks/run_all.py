"""The CPU tables of docs/performance.md, one script after the other, each alone on the machine: `make bench`.

What needs data, a GPU or hours stands elsewhere: docs/results.md, docs/training.md, docs/packing.md and
docs/gpu.md name the command of each number.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPTS = ("binary_gemm.py", "binary_conv.py", "f32_conv.py", "mnist_mlp.py", "networks.py")


def main() -> None:
    """Stop at the first script that fails."""
    for script in SCRIPTS:
        print(f"==== {script}", flush=True)
        subprocess.run([sys.executable, Path(__file__).with_name(script)], check=True)


if __name__ == "__main__":
    main()
