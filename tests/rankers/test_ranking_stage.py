"""The ranking stage with a ranker that compares, and the pairs that are made of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from composing import composed
from tiny_pairrm import write_pairrm

from aipo.pipeline.check import check
from aipo.pipeline.run import build_run
from aipo.pipeline.stages import CHANCES, Stages
from aipo.rankers.pairrm import PairRM
from aipo.records import Candidates, Pair, WinProbabilities, read_parquet


def test_pairs_ask_pairrm_nothing_that_ranking_has_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pairrm(tmp_path / "pairrm")
    asked: list[int] = []
    whole = PairRM._logits

    def counted(self, prompts, candidates, comparisons):
        asked.append(len(comparisons))
        return whole(self, prompts, candidates, comparisons)

    monkeypatch.setattr(PairRM, "_logits", counted)
    given = ["ranker=pairrm", f"ranker.path={tmp_path}/pairrm", "ranker.revision=null", "objective=sppo"]
    given += ["data=pairrm_gen_uf", "iteration.prompts=6", "iteration.candidates=3", "iteration.iterations=1"]
    run = build_run(check(composed(*given, f"store.root={tmp_path}/outputs", "benchmark=[gold]")))
    stages = Stages(run)
    policy, pool = stages.base_model(), stages.pool()
    prompts = stages.prompts(pool, policy, 0)
    candidates = stages.candidates(pool, prompts, policy, 0)
    ranking = stages.ranking(candidates, 0)
    (compared,) = asked
    assert 6 < compared <= 6 * 3 * 2
    pairs = read_parquet(stages.pairs(candidates, ranking, policy, 0).path / "pairs.parquet", Pair)
    assert asked == [compared], "the pairs' stage asked again"

    kept = read_parquet(ranking.path / CHANCES, WinProbabilities)
    rows = read_parquet(candidates.path / "candidates.parquet", Candidates)
    assert [found.prompt_id for found in kept] == [row.prompt.prompt_id for row in rows]
    chats = {row.prompt.prompt_id: row.prompt.chat for row in rows}
    again = run.ranker.win_probabilities(
        [chats[pair.prompt_id] for pair in pairs], [(pair.chosen.text, pair.rejected.text) for pair in pairs]
    )
    assert [pair.win_probability for pair in pairs] == pytest.approx(again, abs=1e-6)
    assert all(chance > 0.5 for chance in again) and len(pairs) > 2
    if run.objective.uses_win_shares:
        assert all(pair.chosen_win_share > pair.rejected_win_share for pair in pairs)
