"""Signals that come at a bad moment."""

from __future__ import annotations

import importlib
import signal
import sys
import time
from pathlib import Path

import pytest

from aipo.pipeline.cluster.job import ClusterSignals
from aipo.pipeline.ends import TOLD_TO_END, EndsWhenTold, Terminated

MODULE = """
import os, time
os.kill(os.getpid(), {number})
time.sleep(0.01)  # the handler runs here, if anywhere
loaded = True
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    monkeypatch.syspath_prepend(tmp_path)
    name = f"told_meanwhile_{int(request.param)}"
    (tmp_path / f"{name}.py").write_text(MODULE.format(number=int(request.param)))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


@pytest.mark.parametrize("module", [*TOLD_TO_END, signal.SIGINT], indirect=True)
def test_a_signal_during_an_import_waits_for_its_end(module: str) -> None:
    """An exception in the middle of torch's own import aborts the process."""
    with pytest.raises((Terminated, KeyboardInterrupt)), EndsWhenTold():
        found = importlib.import_module(module)
        assert found.loaded
        time.sleep(5)
    assert sys.modules[module].loaded


@pytest.mark.parametrize("module", [signal.SIGUSR2], indirect=True)
def test_so_does_a_clusters(module: str) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    try:
        ClusterSignals()
        with pytest.raises(Terminated) as told:
            found = importlib.import_module(module)
            assert found.loaded
            time.sleep(5)
        assert told.value.status == "requeued"
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
