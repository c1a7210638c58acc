"""The constraints benchmark: its questions, and its metrics by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aipo.benchmarks import ConstraintBenchmark
from aipo.constraints import constraints_of, draw_tasks, share_met
from aipo.data import ConstraintPrompts
from aipo.records import Answer, Completion, Decoding, Example, Prompt, read_parquet, write_parquet

BENCHMARK = ConstraintBenchmark(n_questions=8, question_seed=0, decoding=Decoding(0.7, 1.0, 50, 16))


class Echo:
    """Answers with the question."""

    def sample(self, chats, decoding, *, n, seed):
        assert n == 1 and decoding.max_new_tokens == 16
        return [[Completion(chat[-1].content, (5, 6, 2), "stop")] for chat in chats]


def test_metrics_by_hand():
    answers = BENCHMARK.answer(Echo(), seed=0)
    answers[0] = Answer(answers[0].question_id, (Completion("", (), "length"),))
    metrics = {found.name: found for found in BENCHMARK.score(answers, [])}
    tasks = draw_tasks(8, 0, held_out=True)
    shares = [0.0] + [share_met(task.constraints, task.text) for task in tasks[1:]]
    assert metrics["constraints_met"].value == pytest.approx(sum(shares) / 8)
    assert metrics["constraints_met_known_kinds"].value == pytest.approx(sum(shares[0::2]) / 4)
    assert metrics["constraints_met_new_kinds"].value == pytest.approx(sum(shares[1::2]) / 4)
    assert metrics["all_met_share"].value == pytest.approx(100 * shares.count(1.0) / 8)
    assert metrics["mean_words"].value == pytest.approx(sum(len(task.text.split()) for task in tasks[1:]) / 8)
    # An answer without a token counts as one of length 0; Echo's others have two and the end of turn.
    assert metrics["mean_tokens"].value == pytest.approx(2 * 7 / 8)
    assert metrics["truncated_share"].value == pytest.approx(100 / 8)
    low, high = metrics["constraints_met"].ci95
    assert 0 <= low <= metrics["constraints_met"].value <= high <= 1
    assert BENCHMARK.primary_metric in metrics
    rows = BENCHMARK.question_scores(answers, [])
    assert [row.value for row in rows] == shares


def test_truncated_answers_are_counted():
    answers = [replace(answer, turns=(Completion("a", (5,), "length"),)) for answer in BENCHMARK.answer(Echo(), seed=0)]
    metrics = {found.name: found.value for found in BENCHMARK.score(answers, [])}
    assert metrics["truncated_share"] == 100 and metrics["mean_tokens"] == 1


def test_the_questions_bring_their_constraints_and_none_is_a_training_prompt():
    prompts = BENCHMARK.prompts()
    assert [prompt.prompt_id for prompt in prompts] == list(BENCHMARK.user_turns())
    assert [constraints_of(prompt.meta) for prompt in prompts] == [
        task.constraints for task in draw_tasks(8, 0, held_out=True)
    ]
    pool, dropped = ConstraintPrompts(n_prompts=1500).load()
    assert len({example.prompt.chat for example in pool}) == 1500 and not dropped
    assert not {example.prompt.chat for example in pool} & {prompt.chat for prompt in prompts}


def test_constraints_survive_parquet_and_older_files_without_them_are_read(tmp_path):
    pool, _ = ConstraintPrompts(n_prompts=5).load()
    mixed = [*pool, Example(Prompt("plain", pool[0].prompt.chat, "pool"))]
    for rows in (pool, mixed, mixed[-1:]):
        write_parquet(tmp_path / "pool.parquet", rows)
        assert read_parquet(tmp_path / "pool.parquet", Example) == rows
    old = [{"prompt_id": "p", "chat": [{"role": "user", "content": "x"}], "source": "pool"}]
    write_parquet(tmp_path / "old.parquet", old)
    assert read_parquet(tmp_path / "old.parquet", Prompt)[0].meta is None


@pytest.mark.parametrize("size", [1, 5001])
def test_sizes_out_of_range_are_refused(size):
    with pytest.raises(ValueError, match="n_questions"):
        replace(BENCHMARK, n_questions=size)
