"""Threads and vector instructions of a job: what float sums depend on."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from composing import composed

from aipo.artifacts import provenance
from aipo.pipeline import cpu

X86 = frozenset({"sse2", "avx2", "avx512f"})
AFTER = """
import os
from aipo.artifacts.provenance import instruction_set
from aipo.pipeline import cpu
cpu.limit(1, {value!r})
before = instruction_set()
import torch
print(before, instruction_set(), torch.backends.cpu.get_cpu_capability(), torch.get_num_threads())
"""


@pytest.fixture
def no_caps(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*cpu.CAPS, cpu.OURS, "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")  # so that what `limit` sets is taken back
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("no_caps")
@pytest.mark.parametrize("value", cpu.INSTRUCTIONS)
def test_torch_keeps_to_what_is_asked_for(value: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", AFTER.format(value=value)]
    before, after, used, threads = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=120
    ).stdout.split()
    assert before == after == used and threads == "1"
    if value == "avx2":
        assert used != "AVX512"
    elif provenance.has_instructions("avx512vl"):
        assert used == "AVX512"


@pytest.mark.usefixtures("no_caps")
@pytest.mark.parametrize(
    ("flags", "asked", "expected"),
    [
        (X86, "avx2", {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}),
        (X86, "all", {}),
        (frozenset({"sse2"}), "avx2", {}),  # an x86 CPU from before 2013
        (frozenset({"asimd", "bf16"}), "avx2", {}),  # ARM, where torch would not know the word
    ],
)
def test_only_a_cpu_that_has_them_is_held_to_them(
    monkeypatch: pytest.MonkeyPatch, flags: frozenset[str], asked: str, expected: dict[str, str]
) -> None:
    monkeypatch.setattr(provenance, "_cpu_flags", lambda: flags)
    cpu.limit(1, asked)
    assert {name: os.environ[name] for name in cpu.CAPS if name in os.environ} == expected


@pytest.mark.usefixtures("no_caps")
def test_a_job_for_all_instructions_lifts_what_one_before_it_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_cpu_flags", lambda: X86)
    cpu.limit(1, "avx2")
    cpu.limit(1, "avx2")
    assert os.environ[provenance.CAPABILITY] == "avx2"
    cpu.limit(1, "all")
    assert not {*cpu.CAPS, cpu.OURS} & set(os.environ)
    monkeypatch.setenv(provenance.CAPABILITY, "avx2")  # the user's own
    cpu.limit(1, "all")
    assert os.environ[provenance.CAPABILITY] == "avx2"


@pytest.mark.usefixtures("no_caps")
def test_a_first_job_keeps_to_them_although_its_objective_is_tried_before(repository: Path, tmp_path: Path) -> None:
    """Trying the loss imports torch, which a later job of this machine does not do again."""
    command = [
        *(sys.executable, "-P", str(repository / "run.py"), "objective=dpo", "benchmark=[]", "kl_prompts=0"),
        *("iteration.iterations=1", "iteration.prompts=16", "live_page=false", "sweep=first"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(repository), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=300, capture_output=True)
    (manifest,) = tmp_path.glob("outputs/train/*/manifest.json")
    assert '"instruction_set": "AVX512"' not in manifest.read_text(encoding="utf-8")


def test_what_the_environment_says_already_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_cpu_flags", lambda: X86)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv(provenance.CAPABILITY, "default")
    cpu.limit(1, "avx2")
    assert os.environ[provenance.CAPABILITY] == "default"


@pytest.mark.parametrize(
    ("flags", "asked", "expected"),
    [
        (X86, "", "AVX512"),
        (X86, "avx2", "AVX2"),
        (X86, "default", "DEFAULT"),
        (X86 - {"avx512f"}, "avx512", "AVX2"),  # no CPU is given what it lacks
        (frozenset({"sse2"}), "avx2", "DEFAULT"),
        (frozenset({"asimd"}), "", "ASIMD"),
    ],
)
def test_the_record_says_what_torch_will_use_before_it_is_there(
    monkeypatch: pytest.MonkeyPatch, flags: frozenset[str], asked: str, expected: str
) -> None:
    monkeypatch.setattr(provenance, "_cpu_flags", lambda: flags)
    monkeypatch.setenv(provenance.CAPABILITY, asked)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert provenance.instruction_set() == expected


def test_the_miniature_alone_is_held_to_avx2() -> None:
    assert composed().cpu_instructions == "avx2"
    assert {composed(f"scale={name}").cpu_instructions for name in ("laptop", "single_gpu", "paper")} == {"all"}


@pytest.mark.slow
@pytest.mark.skipif("AMD" not in provenance.cpu_model(), reason="the committed rows were made on an AMD CPU with AVX2")
@pytest.mark.usefixtures("no_caps")
def test_rows_made_on_a_cpu_without_avx512_come_out_again_digit_for_digit(repository: Path, tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-P", str(repository / "run.py"), "-m", "+experiment=league", "objective=dpo"),
        *("trainer.learning_rate=3e-4", "seed=1000,1001", "sweep=again", "live_page=false"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=900)

    def measured(folder: Path) -> list[list[str]]:
        with (folder / "tables/gold.csv").open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["objective"] == "dpo"]
        names = ("round", "score", "score_sd", "length", "length_sd", "fingerprints")
        return [[row[name] for name in names] for row in rows if row["variant"] in ("", "trainer.learning_rate=0.0003")]

    committed = measured(repository / "results/league_tuning")
    assert len(committed) == 3 and measured(tmp_path / "results/again") == committed
