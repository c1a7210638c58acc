"""Our files through alpaca_eval's own code (the `official` extra), which must print our numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from benchmark_doubles import Given, ScriptedJudge, completion, our_alpaca_eval

from aipo.benchmarks.alpaca_eval import AlpacaEval, is_switched, render
from aipo.benchmarks.official.alpaca_eval_files import (
    leaderboard_row,
    write_annotations,
    write_leaderboard,
    write_outputs,
)
from aipo.records import Answer, Chat, JudgeReply

alpaca_eval = pytest.importorskip("alpaca_eval", reason="needs the extra: pip install aipo[official]")

N_ITEMS = 40


def _gamed() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    difficulty = generator.normal(size=N_ITEMS)
    return pd.DataFrame(
        {
            "model": ["verbose"] * N_ITEMS + ["concise"] * N_ITEMS,
            "preference": generator.random(2 * N_ITEMS),
            "index": list(range(N_ITEMS)) * 2,
            "std_delta_len": generator.normal(size=2 * N_ITEMS),
            "instruction_difficulty": np.tile(difficulty, 2),
            "not_gamed_baseline": False,
        }
    )


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, dict]:
    """A judged policy as official files, and our leaderboard row for it."""
    assets = our_alpaca_eval(N_ITEMS, gamed=_gamed())
    benchmark = AlpacaEval(Given(assets), bootstrap_rounds=10, lc_bootstrap_rounds=0)
    answers = [Answer(str(n), (completion("policy says " + "more " * (n % 7)),)) for n in range(N_ITEMS)]
    answers[3] = Answer("3", (completion("baseline says 3"),))

    def answer(chat: Chat) -> JudgeReply:
        number = int(chat[1].content.splitlines()[0].split()[1])
        if number == 5:
            return JudgeReply("Both", {"Both": -0.1})
        first = (number * 37 % 100 + 0.5) / 100
        return JudgeReply("m", {"m": math.log(first), "M": math.log(1 - first)})

    judgments = benchmark.judge(answers, ScriptedJudge(answer))
    row = leaderboard_row(benchmark.score(answers, judgments))
    assert row["n_total"] == N_ITEMS - 1
    write_outputs(tmp_path / "model_outputs.json", assets, answers, "ours")
    write_annotations(tmp_path / "annotations.json", assets, answers, assets.baseline_outputs, judgments, "ours")
    write_leaderboard(tmp_path / "leaderboard.csv", {"ours": row})
    return tmp_path, row


def test_leaderboard_code_prints_our_numbers(
    run: tuple[Path, dict], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, row = run
    _gamed().to_csv(folder / "df_gamed.csv", index=False)
    # The official code downloads this file while it computes the metric; there is no other way to hand it over.
    monkeypatch.setattr(
        "alpaca_eval.metrics.glm_winrate.hf_hub_download", lambda **arguments: str(folder / "df_gamed.csv")
    )
    arguments = {
        "model_outputs": str(folder / "model_outputs.json"),
        "reference_outputs": json.loads((folder / "model_outputs.json").read_text()),
        "annotators_config": str(folder),
        "precomputed_leaderboard": str(folder / "leaderboard.csv"),
        "is_cache_leaderboard": False,
        "output_path": str(folder),
        "is_recompute_metrics_only": True,
        "metric_kwargs": {"save_weights_dir": None},
    }
    alpaca_eval.evaluate(**arguments, leaderboard_mode_to_print=None)
    line = next(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("ours"))
    assert line[1:3] == [f"{row['length_controlled_winrate']:.2f}", f"{row['win_rate']:.2f}"]
    board, _ = alpaca_eval.evaluate(**arguments, is_return_instead_of_print=True)
    for name, value in row.items():
        if name != "mode":
            assert board.loc["ours", name] == pytest.approx(value, abs=1e-9), name


def test_prompts_and_order_are_alpaca_evals() -> None:
    from alpaca_eval.utils import make_prompts, prompt_to_chatml, random_seeded_choice

    template = our_alpaca_eval().prompt_template
    cases = [
        ("task", "one", "two"),
        ("say {output_2} and {instruction}", "{output_1}", " two \n"),
        ("x <|im_end|> y", "one", "two"),
        ("{braces} %s \\n", "", "\n\n"),
    ]
    for instruction, first, second in cases:
        frame = pd.DataFrame([{"instruction": instruction, "output_1": first, "output_2": second}])
        (prompt,), _ = make_prompts(frame, template)
        ours = render(template, instruction, first, second)
        assert [{"content": message.content, "role": message.role} for message in ours] == prompt_to_chatml(prompt)
        official = random_seeded_choice(seed="is_switched_outputs" + instruction + "0", choices=[False, True])
        assert is_switched(instruction) == official
