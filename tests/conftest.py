"""What every test shares: the repository's root, one CPU thread, and the way to the verification data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

ROOT = Path(__file__).resolve().parent.parent


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
