"""Several machines: the processes of one training run on every node of the Slurm job that this process is part of."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping

_FIRST_PORT, _PORTS = 20_000, 10_000


class NodesError(RuntimeError):
    """This process is not part of a Slurm job with as many nodes as were asked for."""


def nodes_here(environment: Mapping[str, str] = os.environ) -> int | None:
    """How many machines the Slurm job has that this process is part of; None where it is part of none."""
    found = environment.get("SLURM_JOB_NUM_NODES", "")
    return int(found) if found.isdigit() else None


def missing_nodes(nodes: int, found: int | None) -> list[str]:
    """What is missing to train on `nodes` machines where `found` are there (None: no Slurm job), with the remedy."""
    if nodes in (1, found):
        return []
    here = "this is no Slurm job" if found is None else f"this one has {found}"
    return [
        f"trainer.nodes={nodes}: expected a Slurm job of as many nodes, {here}; submit with "
        "hydra/launcher=slurm_nodes or resources=by_stage (docs/cluster.md)"
    ]


def on_every_node(torchrun: list[str], nodes: int) -> list[str]:
    """The command that starts `torchrun` once on each of `nodes` machines, told who leads and who it is itself.

    This machine is the first, so that the process that writes files is where this one reads them. Raises NodesError.
    """
    if missing := missing_nodes(nodes, nodes_here()):
        raise NodesError(missing[0])
    job = int(os.environ["SLURM_JOB_ID"])
    hosts = subprocess.run(
        ["scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"]], check=True, capture_output=True, text=True
    ).stdout.split()
    srun = [
        *("srun", "--overlap", "--kill-on-bad-exit=1", "--cpu-bind=none", "--mem=0"),
        *(f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"),
        f"--cpus-per-task={os.environ.get('SLURM_CPUS_ON_NODE', '1')}",
    ]
    python, *arguments = torchrun
    leader = ["--nnodes", str(nodes), "--master-addr", hosts[0], "--master-port", str(_FIRST_PORT + job % _PORTS)]
    # torchrun reads its options from PET_ variables, too; a task's number is known to the task alone. Slurm's warning
    # signal reaches every process, but the first node's parent answers it.
    numbered = ["bash", "-c", """trap '' USR2; PET_NODE_RANK="$SLURM_NODEID" exec "$@" """, "node"]
    module = arguments.index("torch.distributed.run") + 1
    return [*srun, *numbered, python, *arguments[:module], *leader, *arguments[module:]]
