"""The command line `aipo`. Every command imports what it needs when it is called, so that help is quick."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
"""For commands whose arguments are read by somebody else."""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Iterative preference optimization: train with an objective round by round, judge every policy, compare.",
    epilog="Each command has its own --help. The pages are in docs/.",
)
Sweep = Annotated[Path, typer.Argument(help="A sweep's folder, as results/<sweep>.", show_default=False)]
Job = Annotated[Path, typer.Argument(help="A job's folder, as results/<sweep>/jobs/<job>.", show_default=False)]


@app.command(context_settings=PASSED_ON)
def run(context: typer.Context) -> None:
    """Run a job, or with -m a sweep: the same as `python run.py`."""
    _run(context.args)


@app.command(context_settings={**PASSED_ON, "help_option_names": ["--help"]})
def search(
    context: typer.Context,
    trials: Annotated[int, typer.Option(help="How many trials the sweep has in the end.")] = 20,
    prune: Annotated[bool, typer.Option(help="Give up a trial that is below the median after a round.")] = True,
    search_seed: Annotated[int, typer.Option(help="Of the choice of settings.")] = 0,
) -> None:
    """Try settings with Optuna, for a higher score, or score at a length (returns_at_length=...): `run` with ranges.

    aipo search sweep=rates 'trainer.learning_rate=tag(log,interval(1e-4,1e-2))' objective=aipo,dpo --trials 12
    """
    from aipo.command.search import command

    raise typer.Exit(_told(command, context.args, trials, prune, search_seed))


@app.command(context_settings=PASSED_ON)
def plan(context: typer.Context) -> None:
    """What `run` would do with these arguments: stages, hours, memory, judge cost, what is missing. Runs nothing."""
    _run([*context.args, "plan=true"])


@app.command()
def status(
    sweep: Sweep,
    watch: Annotated[float | None, typer.Option(help="Print again after so many seconds, while jobs run.")] = None,
) -> None:
    """How each job of a sweep stands, and why: done, running, pending, requeued, failed, timed out, cancelled, lost."""
    from aipo.command.sweeps import show_status

    _told(show_status, sweep, watch)


@app.command()
def rerun(
    sweep: Sweep,
    failed: Annotated[bool, typer.Option("--failed", help="Jobs that failed, were interrupted or got lost.")] = False,
    missing: Annotated[bool, typer.Option("--missing", help="Jobs that never started.")] = False,
    dry: Annotated[bool, typer.Option("--dry-run", help="Only list them.")] = False,
    here: Annotated[bool, typer.Option("--here", help="In this process, though the sweep went to Slurm.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Submit to Slurm, and do not wait.")] = False,
) -> None:
    """Run exactly the jobs that did not finish (default: both kinds). Finished jobs are left as they are.

    A sweep that went to Slurm goes there again, with its launcher's settings and the code and configs of now.
    """
    from aipo.command import sweeps
    from aipo.jobs import states

    both = not (failed or missing)
    jobs = sweeps.to_run_again(_told(states, sweep), failed=failed or both, missing=missing or both)
    if not jobs or dry:
        print("\n".join(job.folder for job in jobs) or "nothing to run again")
        raise typer.Exit(0)
    if sweeps.submitted_before(sweep) and not here:
        raise typer.Exit(_told(sweeps.resubmit, sweep, jobs, detach=detach))
    raise typer.Exit(1 if _told(sweeps.rerun, sweep, jobs) else 0)


@app.command()
def analyse(sweep: Sweep) -> None:
    """A sweep's tables, plots and page again, from what is on disk."""
    from analysis.__main__ import analyse_sweep

    raise typer.Exit(analyse_sweep(sweep))


@app.command()
def view(sweep: Sweep, port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free port.")] = 0) -> None:
    """Serve a sweep's page on this machine alone, until Ctrl-C."""
    from aipo.command.viewing import serve

    _told(serve, sweep, port)


@app.command()
def compare(first: Job, second: Job) -> None:
    """Two jobs: the settings in which they differ, and their last scores."""
    from aipo.command import looking

    _told(looking.compare, first, second)


@app.command()
def sample(
    artifact: Annotated[Path, typer.Argument(help="A job's folder, or an artifact's: outputs/<stage>/<fingerprint>.")],
    number: Annotated[int, typer.Option("-n", min=1, help="How many rows.")] = 3,
    search: Annotated[str | None, typer.Option(help="Only rows that hold this text.")] = None,
    stage: Annotated[str | None, typer.Option(help="Of a job: pairs (default), prompts, judgments, ...")] = None,
    of_round: Annotated[int | None, typer.Option("--round", help="Of a job, from 1 (default: the last).")] = None,
) -> None:
    """Rows of a job or an artifact as text: prompts, candidates, pairs, answers, judgments, scores."""
    from aipo.command.looking import artifact_folder, show_rows

    _told(show_rows, _told(artifact_folder, artifact, stage, of_round), number, search)


@app.command()
def chat(
    policy: Annotated[Path, typer.Argument(help="A job's folder, a train artifact, or a model folder.")],
    of_round: Annotated[int | None, typer.Option("--round", help="Of a job, from 1 (default: the last).")] = None,
    temperature: float = 0.7,
    max_new_tokens: int = 256,
    seed: int = 0,
) -> None:
    """Talk with a trained policy."""
    from aipo.command import looking

    folder = _told(looking.policy_folder, policy, of_round)
    _told(looking.chat, folder, temperature=temperature, max_new_tokens=max_new_tokens, seed=seed)


@app.command(context_settings=PASSED_ON)
def export(context: typer.Context) -> None:
    """A trained policy as a Hugging Face folder with a model card."""
    from analysis.model_card import main as command

    raise typer.Exit(command(context.args, program="aipo export"))


@app.command("eval-logs")
def eval_logs(
    sweep: Sweep,
    out: Annotated[Path | None, typer.Option(help="Where to (default: the sweep's folder eval_logs).")] = None,
) -> None:
    """A sweep's judged answers as inspect_ai logs, which `inspect view` shows. Needs the extra `inspect`."""
    from analysis.eval_logs import export

    _told(export, sweep, out)


@app.command("lm-eval")
def lm_eval(
    sweep: Sweep,
    tasks: Annotated[str, typer.Option(help="The harness's tasks, with commas: arc_challenge,gsm8k.")],
    every_round: Annotated[bool, typer.Option("--every-round", help="Not the last policies alone.")] = False,
    arguments: Annotated[list[str] | None, typer.Argument(help="After --: handed to lm_eval as they are.")] = None,
) -> None:
    """What training cost elsewhere: lm-evaluation-harness on a sweep's policies. Needs the extra `lm_eval`."""
    from aipo.command.lm_eval import evaluate

    _told(evaluate, sweep, tasks.split(","), arguments or [], every_round)


@app.command(context_settings=PASSED_ON)
def score(context: typer.Context) -> None:
    """Score files that the official tools wrote."""
    from aipo.benchmarks.official.command import main as command

    raise typer.Exit(command(["score", *context.args], program="aipo"))


@app.command(context_settings=PASSED_ON)
def assets(context: typer.Context) -> None:
    """Fetch the official benchmark files, or list them with --list."""
    from aipo.benchmarks.official.assets import main as command

    raise typer.Exit(command(context.args, program="aipo assets"))


@app.command(context_settings=PASSED_ON)
def store(context: typer.Context) -> None:
    """The artifact store: ls, du, show, verify, push, pull, gc."""
    from aipo.artifacts.command import main as command

    raise typer.Exit(command(context.args, program="aipo store"))


@app.command("ls", context_settings=PASSED_ON)
def list_artifacts(context: typer.Context) -> None:
    """The artifacts of the store, oldest first: the same as `store ls`."""
    from aipo.artifacts.command import main as command

    raise typer.Exit(command(["ls", *context.args], program="aipo store"))


@app.command(context_settings=PASSED_ON)
def show(context: typer.Context) -> None:
    """Where an artifact lies, and its manifest: the same as `store show`."""
    from aipo.artifacts.command import main as command

    raise typer.Exit(command(["show", *context.args], program="aipo store"))


@app.command()
def doctor(root: Annotated[Path, typer.Option("--store", help="The store's folder.")] = Path("outputs")) -> None:
    """What this machine has of all that a run may need."""
    from aipo.command.doctor import show

    show(root)


def _run(arguments: Sequence[str]) -> None:
    if {"--help", "-h"} & set(arguments):
        from aipo.command.options import help_text

        print(help_text())
        return
    from aipo.command.run import command

    sys.argv = ["aipo run", *arguments]
    command()


def _told(call: Any, *arguments: Any, **options: Any) -> Any:
    """Call; what a user can cause is one line on stderr and exit status 1."""
    from aipo.artifacts import StoreError
    from analysis.collect import AnalysisError

    try:
        return call(*arguments, **options)
    except (ValueError, OSError, StoreError, AnalysisError) as error:
        from aipo.remote import redact

        print(f"error: {redact(str(error))}", file=sys.stderr)
        raise typer.Exit(1) from error


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point."""
    app(args=None if arguments is None else list(arguments), prog_name="aipo")
