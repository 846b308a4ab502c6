"""Settings that every test runs under. Helpers that tests import are in support.py."""

from __future__ import annotations

import os

# No test may reach the network, and thread counts are stated rather than inherited from the machine. These
# must stand before the first import of torch or datasets, and subprocesses inherit them.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# Workers of pytest-xdist get one thread each: two of two threads would wait for each other on two cores. They
# inherit what the controller set here, hence no setdefault.
os.environ["OMP_NUM_THREADS"] = (
    "1" if "PYTEST_XDIST_WORKER" in os.environ else os.environ.get("OMP_NUM_THREADS", "2")
)
os.environ["MKL_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"]
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.pop("ONEBIT_ISA", None)  # tests name the ISA they mean
os.environ.pop("ONEBIT_DEBUG", None)

import pytest

from onebit.runtime import available_isas


@pytest.fixture(params=available_isas())
def isa(request: pytest.FixtureRequest) -> str:
    """Every instruction set that this machine can run, one test each."""
    name: str = request.param
    return name
