"""Choices that a run would find out late, after hours or paid replies: each is in the list before anything runs."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from composing import composed
from omegaconf import OmegaConf

from aipo.pipeline.check import ConfigError, check

LOCAL = ["data=uf", "data/source=local", "ranker=length_only", "judge=length_only", "benchmark=[]"]
CHAT = ["sampler=server", "sampler.protocol._target_=aipo.samplers.ChatMessages"]
ASSETS = {"mt_bench": "MTBench", "alpaca_eval": "AlpacaEval", "arena_hard": "ArenaHard"}


def _problems(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check(composed(*overrides))
    return caught.value.problems


@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize(("benchmark", "given"), list(itertools.permutations(ASSETS, 2)))
def test_assets_of_another_benchmark_are_refused(benchmark: str, given: str, official: bool) -> None:
    config = composed()
    theirs = OmegaConf.create({"_target_": f"aipo.benchmarks.official.Official{ASSETS[given]}"})
    config.benchmark[benchmark].assets = theirs if official else config.benchmark[given].assets
    with pytest.raises(ConfigError) as caught:
        check(config)
    (problem,) = caught.value.problems
    assert problem.startswith(f"benchmark.{benchmark}: {benchmark}.assets: expected {ASSETS[benchmark]}Assets, but")
    assert problem.endswith(f" has {ASSETS[given]}Assets")


REFUSED: list[tuple[list[str], str]] = [
    # A benchmark with assets that bring no baseline, and none to answer for them.
    (["benchmark.alpaca_eval.needs_baseline=false"], "brings no answers of a baseline; set needs_baseline: true"),
    (["benchmark.arena_hard.needs_baseline=false"], "brings no answers of a baseline; set needs_baseline: true"),
    (["benchmark.alpaca_eval.assets.n_questions=4"], "the length model needs at least 5 items, got 4"),
    (["benchmark.alpaca_eval.length_metric=mean_words"], "expected mean_chars or mean_tokens, got 'mean_words'"),
    (["benchmark.mt_bench.length_metric=chars"], "expected mean_chars or mean_tokens, got 'chars'"),
    # Judges that cannot answer what they are asked.
    (["ranker=llm_judge", "judge@ranker.judge=none", "objective=dpo"], "none does not answer this ranker's question"),
    (["ranker=llm_judge", "judge@ranker.judge=gold", "objective=dpo"], "gold does not answer this ranker's question"),
    (["ranker=llm_judge", "judge@ranker.judge=length_only", "objective=dpo"], "does not answer this ranker's question"),
    (["judge=none"], "judge=none answers nothing, but benchmark alpaca_eval, mt_bench, arena_hard asks a judge"),
    (["+judge@diagnostic_judge.silent=none"], "diagnostic_judge.silent answers nothing, but benchmark alpaca_eval"),
    # The truth of a world that the data does not come from.
    (
        [
            *LOCAL,
            "data=pairrm_gen_uf",
            "data.source.path=x",
            "+judge@diagnostic_judge.truth=gold",
            "benchmark=alpaca_eval",
        ],
        "diagnostic_judge.truth: aipo.miniature.GoldJudge knows the truth of the miniature's world only",
    ),
    # Responses and ratings that a source does not bring.
    (["data=uf", "data/source=constraints"], "data.responses=dataset takes two responses to a prompt, which"),
    (["data=pairrm_uf", "data/source=constraints"], "data.responses=dataset takes two responses to a prompt, which"),
    # What a sampler cannot do.
    (["sampler=server", "iteration.reference_logps=sampler"], "this sampler notes no log-probs; choose sampler=hf"),
    (["sampler=vllm", "iteration.reference_logps=sampler"], "this sampler notes no log-probs; choose sampler=hf"),
    (
        [*CHAT, "iteration.decoding.top_k=50"],
        "iteration.decoding.top_k=50, data.self_instruct.decoding.top_k=50: this sampler's",
    ),
    ([*CHAT, "data.self_instruct.decoding.top_k=50"], "data.self_instruct.decoding.top_k=50: this sampler"),
    ([*CHAT, "benchmark.alpaca_eval.decoding.top_k=50"], "benchmark.alpaca_eval: top_k=50: this sampler's server is"),
    # More prompts than there are.
    (["data.source.n_prompts=40", "kl_prompts=41"], "kl_prompts=41 asks for more than the 40 prompts of data.source"),
    # A number format in which training is not possible.
    (["model=local", "model.path=a/b", "model.dtype=float16"], "training in float16 is not supported"),
]


@pytest.mark.parametrize(("overrides", "said"), REFUSED, ids=[" ".join(overrides) for overrides, _ in REFUSED])
def test_what_cannot_work_together_is_refused(overrides: list[str], said: str) -> None:
    problems = _problems(*overrides)
    assert any(said in problem for problem in problems), problems


@pytest.mark.parametrize(
    "overrides",
    [
        ["sampler=vllm", "iteration.reference_logps=sampler", "sampler.protocol.logprobs=true"],
        [*CHAT, "data.self_instruct.decoding.top_k=0", "iteration.decoding.top_k=0"],
        ["benchmark=gold", "judge=none", "diagnostic_judge=none"],
    ],
)
def test_what_can_is_not(overrides: list[str]) -> None:
    check(composed(*overrides))


def test_local_rows_are_asked_for_responses_and_ratings(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    given = [*LOCAL, f"data.source.path={rows}", "iteration.prompts=null", "objective=dpo"]
    rows.write_text('{"prompt": "Say it."}\n')
    assert any("data.responses=dataset takes two responses" in problem for problem in _problems(*given))
    rows.write_text('{"prompt": "Say it.", "responses": ["It.", "That."]}\n')
    assert any("data.ranking=dataset takes the ratings of responses" in problem for problem in _problems(*given))
    rows.write_text('{"prompt": "Say it.", "responses": ["It.", "That."], "scores": [1, 2]}\n')
    check(composed(*given))
