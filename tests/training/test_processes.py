"""Several processes, on one machine or several: the same numbers as one process gives, and told beforehand when not."""

from __future__ import annotations

import math
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file
from test_trainer import PAIRS, ROOT, TRAINER, equal, objective, run, weights
from tiny_models import build

from aipo.models.policy import PolicyRef
from aipo.training.processes import nodes
from aipo.training.processes.nodes import NodesError, missing_nodes, nodes_here, on_every_node
from aipo.training.reference import compute_reference_logps
from aipo.training.trainer import Trainer


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> PolicyRef:
    return build("llama", tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def reference(policy: PolicyRef):
    return compute_reference_logps(policy, PAIRS, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
@pytest.mark.parametrize("name", ["aipo", "aot"])
def test_two_processes_train_the_same_model(
    strategy: str, name: str, policy: PolicyRef, reference, tmp_path: Path
) -> None:
    """20 pairs in steps of 6: uneven lengths, a last step of 2; one epoch with one process and with two."""
    small = replace(TRAINER, learning_rate=1e-3)
    alone, _ = run(policy, reference, tmp_path / "one", small, objective(name))
    rows, summary = run(
        policy, reference, tmp_path / "two", replace(small, processes=2, strategy=strategy), objective(name)
    )
    for one, other in zip(alone, rows, strict=True):
        for key in ("loss", "reward_margin", "reward_accuracy", "chosen_tokens", "grad_norm", "reference_margin"):
            if key == "reward_accuracy" and abs(one["reward_margin"]) < 1e-5:
                continue  # the weights have not moved yet: rounding decides each margin's sign
            assert other[key] == pytest.approx(one[key], abs=1e-5, rel=1e-4), key
    assert equal(weights(tmp_path / "one"), weights(tmp_path / "two"), 1e-5)
    assert summary["steps"] == 4


@pytest.mark.slow
def test_a_world_of_another_size_is_refused() -> None:
    code = "from aipo.training.processes.world import World; World.join(3)"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    result = subprocess.run([*command, sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode != 0 and "trainer.processes=3, but this run has 2 process(es)" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
@pytest.mark.parametrize("family", ["llama_tied", "gemma2", "gpt2"])
def test_two_processes_find_the_same_reference(strategy: str, family: str, tmp_path: Path) -> None:
    """Tied and own heads, buffers that no file holds (rotary frequencies, gemma2's scale), an odd number of batches."""
    start = build(family, tmp_path / "policy")
    alone = compute_reference_logps(start, PAIRS, progress=False)
    trainer = replace(TRAINER, processes=2, strategy=strategy)
    found = trainer.reference(policy=start, pairs=PAIRS, out=tmp_path / "work")
    assert [row.pair_id for row in found] == [pair.pair_id for pair in PAIRS]
    for one, other in zip(alone, found, strict=True):
        assert vars(other) == pytest.approx(vars(one), abs=1e-5)
    assert not list((tmp_path / "work").iterdir())


SCRIPT = """
import pickle, sys
arguments = pickle.load(open(sys.argv[1], "rb"))
trainer = arguments.pop("trainer")
trainer.run(**arguments, log=lambda row: print(row["step"], flush=True))
"""


def _start(folder: Path, trainer: Trainer, policy: PolicyRef, reference: list) -> subprocess.Popen[str]:
    """A training run in a process group of its own that prints its steps; it writes to folder / "broken"."""
    arguments = {"trainer": trainer, "policy": policy, "pairs": PAIRS, "reference": reference, "seed": 0}
    arguments |= {"objective_config": objective(), "out": folder / "broken"}
    (folder / "arguments.pickle").write_bytes(pickle.dumps(arguments))
    command = [sys.executable, "-c", SCRIPT, str(folder / "arguments.pickle")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_a_cluster_warns_all_processes_twice_and_the_state_is_saved(
    strategy: str, policy: PolicyRef, reference, tmp_path: Path
) -> None:
    trainer = replace(TRAINER, processes=2, strategy=strategy, epochs=100, checkpoint_every_seconds=None)
    process = _start(tmp_path, trainer, policy, reference)
    while int(process.stdout.readline()) < 5:
        pass
    for _ in range(2):
        os.killpg(process.pid, signal.SIGUSR2)
        time.sleep(0.05)
    assert process.wait(60) == -signal.SIGUSR2  # nobody else wanted the signal: it ends the process
    process.stdout.close()
    (saved,) = (tmp_path / "broken" / "checkpoints").iterdir()
    rows = (tmp_path / "broken" / "metrics.jsonl").read_text().splitlines()
    assert saved.name == f"step-{len(rows):08d}" and 5 <= len(rows) < 400


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_sharded_run_that_was_killed_goes_on(dtype: str, tmp_path: Path) -> None:
    """Tied weights, two epochs, killed in the second."""
    start = replace(build("llama_tied", tmp_path / "policy"), dtype=dtype)
    cached = compute_reference_logps(start, PAIRS, progress=False)
    trainer = replace(TRAINER, processes=2, strategy="fsdp2", epochs=2, checkpoint_every_steps=1)
    rows, _ = run(start, cached, tmp_path / "whole", trainer)
    rounding = 1e-5 if dtype == "float32" else 1e-3  # bfloat16's depends on who shares a batch
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=rounding)
    process = _start(tmp_path, trainer, start, cached)
    while int(process.stdout.readline()) < 5:
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    time.sleep(3)  # its children are told to end, and save nothing more
    assert any((tmp_path / "broken" / "checkpoints").glob("step-*"))
    again, _ = run(start, cached, tmp_path / "broken", trainer)
    assert [row["step"] for row in again] == list(range(1, 9))
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "broken"))
    assert "lm_head.weight" not in weights(tmp_path / "broken")  # still tied


@pytest.mark.slow
@pytest.mark.parametrize("here", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_sharded_checkpoint_of_two_goes_on_with_any_number(here: int, dtype: str, tmp_path: Path) -> None:
    """Saved in shards by two processes, stopped by a loss that is not finite; then one, two or three go on.

    No process ever holds more than its part: the checkpoint's files are one per process, and none has a whole tensor.
    """
    start = replace(build("llama_tied", tmp_path / "policy"), dtype=dtype)
    cached = compute_reference_logps(start, PAIRS, progress=False)
    two = replace(TRAINER, processes=2, strategy="fsdp2", learning_rate=1e-3)
    rows, _ = run(start, cached, tmp_path / "whole", two)
    process = _start(tmp_path, replace(two, checkpoint_every_steps=2), start, cached)
    while int(process.stdout.readline()) < 3:
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    time.sleep(3)
    (saved,) = (tmp_path / "broken" / "checkpoints").glob("step-????????")
    parts = [load_file(file) for file in sorted(saved.glob("*.safetensors"))]
    whole = weights(tmp_path / "whole")
    assert len(parts) == 2 and saved.name == "step-00000002"
    for name in parts[0].keys() & parts[1].keys():
        kind, weight = name.split(".", 1)
        assert kind in ("weight", "exp_avg", "exp_avg_sq")
        assert sum(part[name].shape[0] for part in parts) == whole[weight].shape[0]
    again, summary = run(start, cached, tmp_path / "broken", replace(two, processes_here=here))
    assert summary["processes_here"] == here
    assert [row["step"] for row in again] == [1, 2, 3, 4]
    rounding = 1e-5 if dtype == "float32" else 2e-3
    for one, other in zip(rows, again, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], abs=rounding)
    assert equal(whole, weights(tmp_path / "broken"), rounding)


def test_nodes_are_asked_of_slurm_and_told_when_they_are_not_there() -> None:
    assert missing_nodes(1, None) == [] == missing_nodes(2, 2)
    assert "trainer.nodes=2: expected a Slurm job of as many nodes, this is no Slurm job" in missing_nodes(2, None)[0]
    assert "this one has 3" in missing_nodes(2, 3)[0]
    assert nodes_here({}) is None and nodes_here({"SLURM_JOB_NUM_NODES": "3"}) == 3
    with pytest.raises(ValueError, match="trainer.nodes must be a divisor of trainer.processes=4, got 3"):
        replace(TRAINER, processes=4, nodes=3)


def test_one_torchrun_per_node_and_the_first_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    torchrun = ["python", "-m", "torch.distributed.run", "--nproc-per-node", "8", "-m", "worker", "train"]
    monkeypatch.delenv("SLURM_JOB_NUM_NODES", raising=False)
    with pytest.raises(NodesError, match="no Slurm job"):
        on_every_node(torchrun, 2)
    for name, value in {
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_ID": "123456",
        "SLURM_JOB_NODELIST": "n[7-8]",
        "SLURM_CPUS_ON_NODE": "64",
    }.items():
        monkeypatch.setenv(name, value)
    answer = subprocess.CompletedProcess([], 0, stdout="n7\nn8\n")
    monkeypatch.setattr(nodes.subprocess, "run", lambda command, **kwargs: answer)
    command = on_every_node(torchrun, 2)
    assert command[0] == "srun" and {"--overlap", "--nodes=2", "--ntasks=2", "--cpus-per-task=64"} <= set(command)
    assert command[command.index("python") :] == [
        *("python", "-m", "torch.distributed.run"),
        *("--nnodes", "2", "--master-addr", "n7", "--master-port", "23456"),
        *("--nproc-per-node", "8", "-m", "worker", "train"),
    ]
