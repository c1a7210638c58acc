"""Where the verification data lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def data() -> Path:
    folder = Path(os.environ.get("AIPO_VERIFICATION_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "fixtures").is_dir():
        pytest.skip(f"no verification data at {folder}; name the folder in AIPO_VERIFICATION_DATA")
    return folder
