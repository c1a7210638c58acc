"""What is known of each kind of stage beforehand."""

from __future__ import annotations

import json
from pathlib import Path

from composing import composed

from aipo.pipeline import kinds
from aipo.pipeline.check import check
from aipo.pipeline.folders import named
from aipo.pipeline.kinds import LOADED, VERSIONS, ranker_content, without_place
from aipo.pipeline.run import build_run, content
from aipo.planning import idle


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


def test_jobs_whose_rankers_ask_different_judges_are_different_jobs() -> None:
    """In a stage's hash the judge's identity stands for its settings; the job's folder and variant need them."""
    asked = ["ranker=llm_judge", "judge@ranker.judge=openai_compatible", "ranker.judge.endpoint.base_url=http://x/v1"]
    jobs = [check(composed(*asked, f"ranker.judge.model={model}")) for model in ("one", "other")]
    jobs.append(check(composed(*asked, "ranker.judge.model=one", "ranker.judge.max_concurrent=3")))
    one, other, faster = (named(job) for job in jobs)
    assert one != other and one == faster
    contents = [ranker_content(build_run(job)) for job in jobs]
    assert contents[0] != contents[1] and contents[0] == contents[2]
    assert "judge" not in contents[0]["ranker"]


def test_another_number_of_kl_prompts_is_another_job(repository: Path) -> None:
    """It had the same folder, and replaced the record there. The committed names stay: they are of the usual number."""
    smoke = [named(check(composed("+experiment=smoke", *more))) for more in ([], ["kl_prompts=5"], ["kl_prompts=8"])]
    assert smoke[0] != smoke[1] and smoke[0] == smoke[2]
    record = repository / "results/miniature_reference/jobs/aipo-seed1-45967e59/run.json"
    overrides = json.loads(record.read_text(encoding="utf-8"))["overrides"]
    assert named(check(composed(*overrides))) == named(check(composed(*overrides, "kl_prompts=320")))
    assert (
        named(check(composed(*overrides))) == record.parent.name != named(check(composed(*overrides, "kl_prompts=0")))
    )
    for scale, usual in (("laptop", 32), ("paper", 0), ("single_gpu", 0), ("miniature", 320)):
        config = composed(f"scale={scale}")
        assert config.kl_prompts == usual and "kl_prompts" not in content(check(config))


def test_the_plan_and_the_run_agree_on_what_stops_a_server() -> None:
    assert (idle.DRAWS, idle.BESIDE_A_SERVER) == (kinds.DRAWS, kinds.BESIDE_A_SERVER)
