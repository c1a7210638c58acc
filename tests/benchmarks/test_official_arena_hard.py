"""Our files through Arena-Hard's own scripts, which must print our numbers. Needs a checkout of the official code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from benchmark_doubles import Given, ScriptedJudge, completion, our_arena_hard

from aipo.benchmarks.arena_hard import ArenaHard
from aipo.benchmarks.official.arena_hard_files import read_judgments, standings, write_answers, write_judgments
from aipo.records import Answer, JudgeReply

LABELS = ["[[A>B]]", "[[B>A]]", "[[A>>B]]", "[[A=B]]", "[[B>>A]]", "no label", "[[A<B]]"]

# show_result.py imports API clients through utils.py and uses np.NAN, which NumPy 2 removed: both are given here, in
# the process that runs the script, so that the script itself stays as it is.
RUNNER = """
import runpy, sys, types
import numpy
numpy.NAN = numpy.nan
for name in ("openai", "anthropic", "tiktoken"):
    sys.modules.setdefault(name, types.ModuleType(name))
sys.argv = ["show_result.py", "--judge-name", "judge"]
runpy.run_path("show_result.py", run_name="__main__")
"""


def test_show_result_prints_our_table(tmp_path: Path) -> None:
    checkout = os.environ.get("AIPO_ARENA_HARD")
    if not checkout:
        pytest.skip("AIPO_ARENA_HARD names no checkout of lm-sys/arena-hard-auto (at efc012e)")
    for script in ("show_result.py", "utils_math.py", "utils.py"):
        shutil.copy(Path(checkout) / script, tmp_path)
    assets = our_arena_hard(60)
    folder = tmp_path / "data/arena-hard-v0.1"
    (folder / "model_answer").mkdir(parents=True)
    (folder / "model_judgment/judge").mkdir(parents=True)
    for shift, model in enumerate(("first", "second")):
        benchmark = ArenaHard(Given(assets), bootstrap_rounds=10)
        answers = [Answer(f"q{n}", (completion(f"policy {model} says {n}"),)) for n in range(60)]

        def answer(chat: tuple, shift: int = shift) -> JudgeReply:
            number = int(chat[1].content.splitlines()[0].split()[1])
            return JudgeReply(LABELS[(number * (2 + shift) + ("[A] policy" in chat[1].content)) % len(LABELS)])

        judgments = benchmark.judge(answers, ScriptedJudge(answer, name="judge"))
        write_answers(folder / f"model_answer/{model}.jsonl", answers, model, [10 + n for n in range(60)])
        file = folder / f"model_judgment/judge/{model}.jsonl"
        write_judgments(file, assets, answers, assets.baseline_answers or {}, judgments, model)
    done = subprocess.run([sys.executable, "-c", RUNNER], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    number = r"(-?[\d.]+)"
    pattern = rf"(\S+)\s+\| score: +{number} +\| 95% CI: +\({number}, {number}\) +\| average #tokens: (\d+)"
    printed = {found[0]: found[1:] for found in re.findall(pattern, done.stdout)}
    # The official script reads the files in the order of the file system.
    import glob

    files = glob.glob(str(folder / "model_judgment/judge/*jsonl"))
    table = standings(dict(read_judgments(Path(file)) for file in files))
    assert len(table) == len(printed) == 3
    for row in table:
        score, low, high = (round(value, 2) for value in (row.win_rate, *row.interval))
        shown = [round(value, 1) for value in (score, low - score, high - score)]
        tokens = 0 if row.policy == "gpt-4-0314" else 39
        assert [float(value) for value in printed[row.policy]] == [*shown, tokens]
