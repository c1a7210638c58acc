"""What every test shares: the repository's root, one CPU thread, and the way to the verification data."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from aipo.artifacts.provenance import has_instructions
from aipo.pipeline.cpu import CAPS

os.environ.setdefault("OMP_NUM_THREADS", "1")
if has_instructions("avx2"):  # as in the miniature's jobs, so that those beside the tests and in them give equal bits
    os.environ.update({name: os.environ.get(name, value) for name, value in CAPS.items()})
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

# `nohup pytest &` ignores these two: the tests of Ctrl-C, and of a terminal that goes away, would wait for ever.
for _number, _default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _default)

settings.register_profile("any_machine", deadline=None)  # a busy one is no failure
settings.load_profile("any_machine")

ROOT = Path(__file__).resolve().parent.parent
LONG = frozenset(
    """analysis/test_alignment_tax.py analysis/test_findings.py analysis/test_league.py analysis/test_page.py
    analysis/test_report.py command/test_sweeps.py command/test_warm.py judges/test_interrupted.py
    judges/test_planted_keys.py pipeline/test_hand_over.py pipeline/test_laptop.py pipeline/test_late_errors.py
    pipeline/test_parts.py pipeline/test_pipeline.py pipeline/test_wrong_configs.py rankers/test_pairrm.py
    test_commands.py test_experiments.py test_extending.py""".split()
)
"""The files whose tests run whole jobs, sweeps, plans or pages: two thirds of all CPU time. Marked `long` below."""
MARKS_OF_THEIR_OWN = ("slow", "gpu", "slurm", "vllm", "browser")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of LONG, before `-m` chooses."""
    for item in items:
        name = item.path.relative_to(ROOT / "tests").as_posix()
        if name in LONG and not any(map(item.get_closest_marker, MARKS_OF_THEIR_OWN)):
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout's root."""
    return ROOT


@pytest.fixture(scope="session")
def verification_data() -> Path:
    """Official files with expected values, beside the checkout or at AIPO_VERIFICATION_DATA; never in it."""
    folder = Path(os.environ.get("AIPO_VERIFICATION_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no verification data at {folder}; set AIPO_VERIFICATION_DATA")
    return folder
