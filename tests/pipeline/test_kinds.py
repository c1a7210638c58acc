"""What is known of each kind of stage beforehand."""

from __future__ import annotations

from pathlib import Path

from composing import composed

from aipo.pipeline.check import check
from aipo.pipeline.kinds import LOADED, VERSIONS, ranker_content, without_place
from aipo.pipeline.run import build_run


def test_weights_are_verified_for_known_stages_alone() -> None:
    assert set(LOADED) < set(VERSIONS)


def test_where_files_lie_is_not_hashed_what_they_hold_is(tmp_path: Path) -> None:
    contents, rankers = [], []
    for user in ("one", "two"):
        folder = tmp_path / user
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        node = {"_target_": "x", "path": str(folder), "max": 1, "inner": {"path": str(folder), "revision": None}}
        contents.append(without_place(node, {"sha256": "abc"}))
        assert without_place(node, {}) == node
        config = composed("ranker=reward_model", f"ranker.path={folder}")
        rankers.append(ranker_content(build_run(check(config))))
    assert contents[0] == contents[1] == {"_target_": "x", "max": 1, "inner": {"revision": None}}
    assert rankers[0] == rankers[1] and len(rankers[0]["identity"]["sha256"]) == 64
    hub = {"path": "hub/model", "revision": "0" * 40}
    assert without_place(hub, {"sha256": "abc"}) == hub
