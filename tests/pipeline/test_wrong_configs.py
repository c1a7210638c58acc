"""Wrong roles, values that a run would find out late, misspelt options, absurd configs: all refused by the check."""

from __future__ import annotations

import copy
import functools
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from absurd import absurd_configs
from composing import CONF, composed
from omegaconf import DictConfig, OmegaConf, open_dict

from aipo.components import build_component
from aipo.pipeline.check import ConfigError, check
from aipo.pipeline.options import explain, replaced
from aipo.pipeline.roles import COLLECTIONS, PARTIAL, ROLES, object_problem
from aipo.pipeline.sweep import SweepCallback, combinations

ROOT = Path(__file__).resolve().parents[2]
SECONDS_PER_CHECK = 1.0


@functools.cache
def _base() -> DictConfig:
    return composed("sweep=wrong")


def _with(changes: dict[str, Any]) -> DictConfig:
    config = copy.deepcopy(_base())
    with open_dict(config):
        for key, value in changes.items():
            OmegaConf.update(config, key, value, merge=False, force_add=True)
    return config


def _problems(config: DictConfig) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check(config)
    return caught.value.problems


# --- Roles ------------------------------------------------------------------------------------------------------------

WRONG_ROLES = [  # where, what stands there instead, what is said
    ("ranker", "judge", "ranker: expected Ranker, got aipo.miniature.gold_judge.GoldJudge, which lacks"),
    ("ranker", "diagnostic_judge.length_only", "it belongs to judge or diagnostic_judge"),
    ("ranker", "benchmark.gold", "it belongs to benchmark"),
    ("ranker", "data.source", "ranker: expected Ranker, got aipo.miniature.source.MiniatureSource"),
    ("judge", "ranker", "judge: expected Judge, got aipo.miniature.proxy.ProxyRanker, which lacks"),
    ("judge", "benchmark.gold", "judge: expected Judge, got aipo.miniature.gold_benchmark.GoldBenchmark"),
    ("diagnostic_judge.length_only", "ranker", "diagnostic_judge.length_only: expected Judge"),
    ("benchmark.gold", "judge", "benchmark.gold: expected Benchmark"),
    ("benchmark.alpaca_eval.assets", "benchmark.mt_bench.decoding", "benchmark.alpaca_eval.assets: expected"),
    ("benchmark.alpaca_eval.annotator", "judge", "benchmark.alpaca_eval.annotator: expected Annotator"),
    ("benchmark.gold.decoding", "iteration", "benchmark.gold.decoding: expected Decoding"),
    ("data", "data.source", "data: expected Recipe, got aipo.miniature.source.MiniatureSource"),
    ("data.source", "ranker", "data.source: expected Source, got aipo.miniature.proxy.ProxyRanker, which lacks"),
    ("data.filters", "iteration.decoding", "data.filters: expected PairFilters, got aipo.records"),
    ("data.self_instruct", "data.filters", "data.self_instruct: expected SelfInstruct"),
    ("sampler", "ranker", "sampler._partial_: got false; set _partial_: true"),
    ("trainer", "iteration", "trainer: expected Trainer, got aipo.iteration.Iteration; it belongs to iteration"),
    ("iteration", "trainer", "iteration: expected Iteration"),
    ("objective", "objective.loss", "objective._partial_: got true; take _partial_ out"),
    ("objective.loss", "ranker", "objective.loss"),
    ("model", "iteration", "model: expected PolicyRef or BaseModel, got aipo.iteration.Iteration"),
    ("store", "hardware", "store: expected Store"),
    ("hardware", "workload", "hardware: expected Hardware"),
    ("workload", "hardware", "workload: expected Workload"),
    ("tracker", "judge", "tracker: expected"),
]


@pytest.mark.parametrize(("place", "instead", "said"), WRONG_ROLES)
def test_a_wrong_role_is_named_before_anything_is_built(place: str, instead: str, said: str) -> None:
    config = _with({place: copy.deepcopy(OmegaConf.select(_base(), instead))})
    problems = _problems(config)
    assert any(said in problem for problem in problems), problems


def test_everything_that_ships_fits_its_role() -> None:
    config = check(copy.deepcopy(_base()))
    for group, kinds in ROLES.items():
        nodes = config[group].values() if group in COLLECTIONS else [config[group]]
        for node in nodes:
            if group not in PARTIAL:
                assert object_problem(build_component(node), kinds) is None


def test_no_target_is_called_that_cannot_be_what_its_place_needs(tmp_path: Path) -> None:
    mark = tmp_path / "called"
    for target in ("os.system", "subprocess.Popen", "subprocess.check_call"):
        for place in ("ranker", "judge", "data.source", "iteration.decoding", "objective", "tracker.x", "store"):
            _problems(_with({place: {"_target_": target, "args": f"touch {mark}", "command": f"touch {mark}"}}))
    assert not mark.exists()


# --- Values that a run would find out late ----------------------------------------------------------------------------

WRONG_VALUES: list[tuple[dict[str, Any], str]] = [
    ({"trainer.lora": 8}, "trainer.lora: expected"),
    ({"trainer.lora": {"rank": 8, "aplha": 1}}, "trainer.lora.aplha: unknown setting"),
    ({"trainer.lora": {"rank": "eight"}}, "trainer.lora.rank must be a whole number"),
    ({"trainer.processes": 10**6}, "trainer.processes must be"),
    ({"trainer.max_length": 1}, "trainer.max_length must be"),
    ({"trainer.max_length": 150}, "tokens through (prompt and completion), and a longer pair"),
    (
        {"trainer.max_length": 384, "data.prompts": "pool", "data.responses": "dataset"},
        "let pairs of 385 tokens through",  # 128 of the prompt, 256 of the answer, and the end of its turn
    ),
    ({"trainer.evaluate_every_steps": 2}, "trainer.evaluation_share=0 holds out none"),
    ({"trainer.learning_rate": math.inf}, "trainer.learning_rate: expected a number that is finite, got inf"),
    ({"trainer.learning_rate": 1e30}, "trainer.learning_rate must be"),
    ({"trainer.betas": [0.9]}, "trainer.betas: expected a list of 2: a number, a number, got [0.9]"),
    ({"trainer.strategy": "zero3"}, "trainer.strategy: expected ddp or fsdp2, got 'zero3'"),
    ({"objective.loss.beta": math.inf}, "objective.loss.beta: expected a number that is finite, got inf"),
    ({"objective.loss.alpha": math.nan}, "objective.loss.alpha: expected a number that is finite, got nan"),
    ({"objective.loss.beta": 1e308}, "objective: objective aipo: "),
    ({"iteration.decoding.temperature": math.inf}, "iteration.decoding.temperature: expected a number that is finite"),
    ({"iteration.decoding.temperature": 1e-9}, "temperature must be 0, or from 0.001 to 100"),
    ({"iteration.decoding.max_new_tokens": 10**9}, "max_new_tokens must be from 1 to 1000000"),
    ({"iteration.candidates": 10**21}, "iteration.candidates: expected a whole number of at most 2^53"),
    ({"iteration.candidates": 10**9}, "iteration.candidates must be at most 1000"),
    ({"iteration.iterations": 10**6}, "iteration.iterations must be at most 1000"),
    ({"iteration.prompts": 2001, "data.prompts": "pool"}, "asks for more than the 2000 prompts of data.source"),
    ({"data.source.n_prompts": 3}, "data.self_instruct.demonstrations=4 is more than the 3 prompts"),
    ({"data.prompts": "pol"}, "data.prompts: expected pool or self_instruct, got 'pol'"),
    ({"data.source.seed": -1}, "data.source.seed: expected a whole number from 0 to 4294967295, got -1"),
    ({"seed": 10**23}, "seed: expected a whole number from 0 to 4294967295"),
    ({"model.seed": 10**12}, "model.seed: expected a whole number from 0 to 4294967295"),
    ({"model.batch": 10**12}, "MiniatureModel.batch must be at most 10000"),
    ({"benchmark.gold.bootstrap_rounds": -1}, "gold.bootstrap_rounds must be at least 1, got -1"),
    ({"benchmark.mt_bench.bootstrap_rounds": 10**9}, "mt_bench.bootstrap_rounds must be at most 100000"),
    ({"benchmark.arena_hard.judge_max_tokens": 0}, "arena_hard.judge_max_tokens must be at least 1"),
    ({"benchmark.alpaca_eval.max_unscored_share": 2.0}, "max_unscored_share: expected a share in [0, 1]"),
    ({"benchmark.alpaca_eval.annotator.top_logprobs": 0}, "annotator.top_logprobs must be at least 1"),
    ({"benchmark": 5}, "benchmark: expected a component"),
    ({"benchmark.gold": None}, "benchmark.gold: expected a component with a _target_, got None"),
    ({"sampler.cache_tokens": 0}, "sampler.cache_tokens must be at least 1, got 0"),
    ({"sampler._partial_": False}, "sampler._partial_: got false"),
    ({"store.root": ""}, "store.root must name a folder, got ''"),
    ({"store.root": "a" * 300}, "store: store.root: no file can have so long a name (File name too long): aaa"),
    ({"store.root": "a\0b"}, "store.root: expected text that UTF-8 can hold"),
    ({"store.lock": "nfs"}, "store.lock"),
    ({"judge.name": 4}, "judge.name: expected text, got 4"),
    ({"objective.name": "r_dpo/flipped"}, "objective.name: it names the folders of jobs, so expected at most 100"),
    ({"objective.name": "é" * 60}, "objective.name: it names the folders of jobs"),
    ({"objective.name": ".."}, "objective.name: it names the folders of jobs"),
    ({"ranker.noise_sd": -1}, "noise_sd must be at least 0"),
    ({"cpu_threads": 10**6}, "cpu_threads: expected a whole number from 1 to 1024"),
    ({"sweep": ""}, "sweep: expected the name of a folder"),
    ({"sweep": None}, "sweep: expected the name of a folder"),
    ({"sweep": "."}, "sweep: expected the name of a folder below results/"),
    ({"sweep": "../outside"}, "sweep: expected the name of a folder below results/, without '..' and 'jobs', got"),
    ({"sweep": "a/../../b"}, "sweep: expected the name of a folder below results/"),
    ({"sweep": "/elsewhere/x"}, "sweep: expected the name of a folder below results/"),
    ({"sweep": "smoke/jobs"}, "sweep: expected the name of a folder below results/"),
    ({"ranker._target_": "aipo.rankers.PairRN"}, "no such name in aipo.rankers (did you mean PairRM?)"),
    ({"ranker._target_": "aipo.rankers"}, "ranker._target_: cannot import 'aipo.rankers': is no class or function"),
    ({"ranker._args_": [1]}, "ranker: expected arguments by name"),
    ({"workload.prompt_tokens": 0}, "workload.prompt_tokens must be positive"),
]


@pytest.mark.parametrize(("changes", "said"), WRONG_VALUES, ids=[said[:60] for _, said in WRONG_VALUES])
def test_a_value_that_a_run_would_find_out_late(changes: dict[str, Any], said: str) -> None:
    problems = _problems(_with(changes))
    assert any(said in problem for problem in problems), problems


def test_a_local_pool_is_counted_before_a_run(tmp_path: Path) -> None:
    rows = tmp_path / "prompts.jsonl"
    rows.write_text("".join(f'{{"prompt": "Say {number}."}}\n' for number in range(5)))
    given = ["data=pairrm_gen_uf", "data/source=local", f"data.source.path={rows}", "ranker=length_only"]
    given += ["judge=length_only", "benchmark=[]", "objective=dpo"]
    (problem,) = _problems(composed(*given, "iteration.prompts=6"))
    assert problem.startswith("iteration.prompts=6 asks for more than the 5 prompts of data.source")
    check(composed(*given, "iteration.prompts=5"))
    rows.write_text('{"prompt": "Say it."}\n')  # the count follows the file
    assert "than the 1 prompts" in _problems(composed(*given, "iteration.prompts=5"))[0]


# --- Options that Hydra cannot compose --------------------------------------------------------------------------------

MISSPELT = [
    ("objctive=aipo", "objctive: unknown key or group (did you mean objective?)"),
    ("objective=aip", "objective=aip: no such option (did you mean aipo?); choose from aipo, alpha_dpo"),
    ("objective=ipo", "objective=ipo: no such option; use objective=identity_po (the identity objective"),
    ("judge=gpt4", "judge=gpt4: no such option (did you mean gpt_4?)"),
    ("benchmark=[gold,mtbench]", "benchmark=mtbench: no such option (did you mean mt_bench?)"),
    ("data/source=ultrafedback", "data/source=ultrafedback: no such option (did you mean ultrafeedback?)"),
    ("+experiment=headlin", "experiment=headlin: no such option (did you mean headline?)"),
    ("objective=null", "objective=null: no such option"),
    ("trainer.learnin_rate=1", "trainer.learnin_rate: unknown key (did you mean learning_rate?); trainer takes"),
    ("trainer.lr=1e-3", "trainer.lr: unknown key; use learning_rate"),
    ("objective.loss.lambda=0.1", "objective.loss.lambda: unknown key; use nll_weight"),
    ("iteration.decoding.temprature=1", "iteration.decoding.temprature: unknown key (did you mean temperature?)"),
    ("ranker.name=x", "ranker.name: left at its default by the config; set it with +ranker.name=..."),
    ("seed.x=1", "seed is no mapping here"),
    ("trainer={a", "trainer={a: cannot be read"),
    ("~nothing", "nothing: unknown key or group"),
    ("alone", "alone: expected key=value"),
    ("objective=aipo,dpo", "several values are a sweep, which needs -m"),
]


@pytest.mark.parametrize(("override", "said"), MISSPELT)
def test_a_misspelt_option_is_explained(override: str, said: str) -> None:
    with pytest.raises(Exception) as caught:
        composed(override)
        if "," in override:
            raise ValueError("Ambiguous value")  # compose takes a sweep's first value; a command line does not
    explained = explain(caught.value, [override], CONF)
    assert explained is not None
    (problem,) = explained.problems
    assert said in problem


def test_all_wrong_overrides_are_listed_at_once_and_right_ones_are_not() -> None:
    given = ["objective=dpo", "objctive=aipo", "trainer.lr=1", "seed=1", "+objective.loss.foo=1", "judge=god"]
    explained = explain(ValueError("any"), given, CONF)
    assert explained is not None and len(explained.problems) == 3
    assert explain(ValueError("a bug of ours"), ["seed=1"], CONF) is None


def test_options_of_a_folder_elsewhere_are_known(tmp_path: Path) -> None:
    """Beside a misspelt key, every right option of `--config-dir` was called wrong, and the flag's value as well."""
    (tmp_path / "ranker").mkdir()
    (tmp_path / "ranker" / "shortest.yaml").write_text("_target_: aipo.rankers.LengthOnlyRanker\nlonger: true\n")
    explained = explain(ValueError("any"), ["ranker=shortest", "ranker.lnger=1", "trainer.lr=1"], CONF, tmp_path)
    assert explained is not None
    first, second = explained.problems
    assert first == "ranker.lnger: unknown key (did you mean longer?); ranker takes longer, name"
    assert second.startswith("trainer.lr: unknown key; use learning_rate")
    misspelt = explain(ValueError("any"), ["ranker=shortes"], CONF, tmp_path)
    assert misspelt is not None and "ranker=shortes: no such option (did you mean shortest?)" in misspelt.problems[0]
    absent = explain(ValueError("any"), ["ranker=shortest"], CONF, tmp_path / "none")
    assert absent is not None and absent.problems == [f"{tmp_path}/none: no such folder of configs"]


def test_options_of_a_list_that_replace_each_other_are_told() -> None:
    """MT-Bench in the official and in the paper's way were one benchmark, the last one named."""
    given = ["benchmark=[mt_bench,gold,mt_bench_aipo]", "seed=1", "benchmark=[gold,mt_bench]", "tracker=[jsonl,wandb]"]
    (problem,) = replaced(given, CONF)
    assert problem.startswith(
        "benchmark=[mt_bench,mt_bench_aipo]: both are benchmark.mt_bench, where one would replace"
    )
    assert problem.endswith("sweep over both: -m benchmark=[mt_bench],[mt_bench_aipo]")


@pytest.mark.parametrize("name", ["tracker", "benchmark", "diagnostic_judge"])
def test_a_list_of_parts_that_is_not_there_is_told(name: str) -> None:
    config = composed()
    with open_dict(config):
        del config[name]
    with pytest.raises(ConfigError) as caught:
        check(config)
    assert caught.value.problems == [f"{name}: missing; {{}} for none"]


def test_every_alias_names_an_option_that_is_there() -> None:
    from aipo.pipeline.options import OPTION_ALIASES

    for (group, alias), meant in OPTION_ALIASES.items():
        assert not (CONF / group / f"{alias}.yaml").exists()
        assert (CONF / group / f"{meant.split()[0].rstrip(',')}.yaml").exists(), meant


# --- The command ------------------------------------------------------------------------------------------------------


def _command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    where = [f"store.root={folder}/outputs", f"hydra.run.dir={folder}/sweep/jobs/0", f"hydra.sweep.dir={folder}/sweep"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *arguments, *where],
        capture_output=True, text=True, cwd=ROOT, env=environment, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("trainer.max_length=1", "seed=-1"), 2, "2 problem(s) in the configuration; nothing was run:"),
        (("objctive=aipo", "objective=ipo"), 2, "2 problem(s) in the configuration; nothing was run:"),
        (("-m", "objective=dpo,aip", "seed=0,-1"), 2, "objective=aip: no such option (did you mean aipo?)"),
        (("ranker=reward_model", "ranker.path=/nowhere", "objective=dpo"), 2, "missing "),
        (("-m", "seed=0,1,2", "trainer.max_length=1"), 2, "1 problem(s) in the configuration; nothing was run:"),
        (("-m", "seed=0,1,2", "trainer.max_length=1"), 2, " [all 3 jobs]"),
        (("-m", "judge=gpt_4", "seed=0,1"), 2, "OPENAI_API_KEY is not set"),
        (("--cfg", "job", "--config-dir", "conf", "objctive=aipo"), 2, "1 problem(s) in the configuration; nothing"),
        (("-m", "--config-dir", "conf", "objctive=aipo,dpo"), 2, "1 problem(s) in the configuration; nothing"),
        (("benchmark=[arena_hard,mini_arena_hard]",), 2, "both are benchmark.arena_hard, where one would replace"),
        (("-m", "benchmark=[gold],[arena_hard,mini_arena_hard]"), 2, "both are benchmark.arena_hard"),
        (("plan=true",), 0, "Missing: nothing"),
        (("plan=true", "judge=replay", "judge.path=/nowhere"), 2, "1. missing stored replies: /nowhere: expected"),
        (("-m", "seed=0,1", "plan=true", "judge=replay", "judge.path=/nowhere"), 2, "1. missing stored replies: /now"),
        (("-m", "objective=dpo,aipo", "plan=true"), 0, "Sweep of 2 jobs"),
    ],
)
def test_what_is_refused_or_planned_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], status: int, said: str
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    result = _command(tmp_path, *arguments)
    assert result.returncode == status, result.stderr
    assert said in (result.stderr if status else result.stdout)
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_whose_folder_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hydra takes what a callback raises for a warning; the job then ended with Hydra's frames."""

    def full(path: Path, **options: Any) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "mkdir", full)
    config = composed("benchmark=[gold]", f"hydra.run.dir={tmp_path}/s/jobs/one", with_hydra=True)
    with pytest.raises(SystemExit) as ended:
        SweepCallback().on_run_start(config)
    assert ended.value.code == 2
    told = f"1. {tmp_path}/s: what becomes of its jobs cannot be written there (No space left on device); make room or "
    assert told in capsys.readouterr().err


def test_a_combination_is_named_by_its_overrides() -> None:
    config = composed("scale=miniature", with_hydra=True)
    with open_dict(config):
        config.hydra.overrides.task = ["seed=0,1", "objective=dpo"]
    assert list(combinations(config)) == [["seed=0", "objective=dpo"], ["seed=1", "objective=dpo"]]


def test_a_sweep_keeps_no_jobs_config() -> None:
    """Hydra's launcher holds on to what each job gives back: 0.4 MiB of config a job, in a sweep of many."""
    from hydra.core.utils import JobReturn, JobStatus

    config = composed()
    given = JobReturn(cfg=config, hydra_cfg=config, _return_value=3.0, status=JobStatus.COMPLETED)
    SweepCallback().on_job_end(config, job_return=given)
    assert given.cfg is None and given.hydra_cfg is None and given.return_value == 3.0


# --- Absurd configs ---------------------------------------------------------------------------------------------------


def _refused_or_planned(count: int, seed: int) -> dict[str, int]:
    import openai  # noqa: F401 - imports are not on the clock, whichever config needs them first
    import torch  # noqa: F401

    from aipo.pipeline.loop import walk
    from aipo.pipeline.missing import missing_needs
    from aipo.pipeline.run import build_run

    missing_needs(build_run(check(copy.deepcopy(_base()))))
    outcomes = {"refused": 0, "planned": 0}
    for done, config in absurd_configs(count, seed):
        began = time.process_time()
        try:
            plain = check(config)
            job = build_run(plain)
            missing_needs(job)
            walk(job)
            outcome = "planned"
        except ConfigError as error:
            assert error.problems
            outcome = "refused"
        except Exception as error:
            raise AssertionError(f"{type(error).__name__} for {done}") from error
        assert time.process_time() - began < SECONDS_PER_CHECK, done
        outcomes[outcome] += 1
    return outcomes


def test_absurd_configs_are_refused_or_planned() -> None:
    outcomes = _refused_or_planned(60, seed=0)
    assert outcomes["refused"] > 45


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_many_absurd_configs_are_refused_or_planned(seed: int) -> None:
    assert sum(_refused_or_planned(500, seed).values()) == 500
