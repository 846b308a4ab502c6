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
os.environ["ONEBIT_SHARING"] = "always"  # every thread does its share of every op, however small the test

from collections.abc import Iterator

import pytest

from onebit.runtime import available_isas
from onebit.runtime.library import Library, ThreadPool


@pytest.fixture(params=available_isas())
def isa(request: pytest.FixtureRequest) -> str:
    """Every instruction set that this machine can run, one test each."""
    name: str = request.param
    return name


@pytest.fixture(autouse=True)
def threads_that_work(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test that makes a pool of several threads must see at least two of one pool do shares of its ops.

    One that means none to work, or does not run what it makes, says so: `@pytest.mark.idle_threads`.
    """
    pools: list[ThreadPool] = []  # kept alive until one is seen at work, and no longer: each has threads
    seen = False
    make = ThreadPool.__init__

    def record(self: ThreadPool, lib: Library, threads: int) -> None:
        nonlocal seen
        make(self, lib, threads)
        if threads > 1 and not seen:
            seen = any(two_at_work(pool) for pool in pools)
            pools[:] = [] if seen else [*pools, self]

    def two_at_work(pool: ThreadPool) -> bool:
        return sum(share > 0 for share in pool.shares()) > 1

    monkeypatch.setattr(ThreadPool, "__init__", record)
    yield
    if pools and request.node.get_closest_marker("idle_threads") is None:
        assert any(map(two_at_work, pools)), f"of {len(pools)} pools of several threads none had two at work"
