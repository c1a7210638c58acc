"""What all tests of plans share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _any_model_may_be_asked_about_the_miniatures_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large models are planned here with the miniature's pool, which a run refuses: only the sizes matter."""
    monkeypatch.setattr("aipo.pipeline.conflicts.knows_world", lambda model: True)
