"""Rankers that are made on this machine: `python -m aipo.rankers learned --model <folder> --out <folder>`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from aipo.artifacts import StoreError, check_folder
from aipo.constraints import draw_tasks, meta_of
from aipo.models import PolicyRef
from aipo.models.weights import ModelError
from aipo.rankers.learned import Learned, LearnedError, Lesson, train_reward_model
from aipo.records import Candidates, Decoding, Message, Prompt, read_parquet

PROMPT_SEED = 1
"""Of the prompts that are sampled here. The pool's is 0 (conf/data/source/constraints.yaml), so others are ranked."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the reward model; 2 where something that the user can mend is wrong."""
    options = _parser().parse_args(arguments)
    try:
        lesson = Lesson(**{field.name: getattr(options, field.name) for field in fields(Lesson)})
        if options.prompts < 1 or options.n < 2:
            raise LearnedError(f"--prompts and -n: expected at least 1 and 2, got {options.prompts} and {options.n}")
        decoding = Decoding(options.temperature, 1.0, options.top_k, options.max_new_tokens)
        import torch

        torch.set_num_threads(options.cpu_threads)
        base = PolicyRef(options.model)
        if missing := base.missing():
            raise LearnedError("; ".join(missing))
        if options.candidates:
            rows = [row for folder in options.candidates for row in _kept(folder)]
        else:
            rows = _sampled(base, options.prompts, options.n, decoding, options.seed)
        learned = train_reward_model(base, rows, lesson, options.out)
    except (LearnedError, ModelError, StoreError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(_told(learned, lesson))
    print(f"{options.out}: ready; python run.py scale=laptop ranker=learned ranker.path={options.out}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m aipo.rankers", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    learned = kinds.add_parser(
        "learned",
        help="a reward model that learns checkers' verdicts and a planted liking for length",
        description="Samples candidates of a model for prompts whose answers code can check (aipo.constraints), orders "
        "them by constraints met plus a liking for length, and trains a reward model on the order.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    learned.add_argument("--model", required=True, help="a folder: sampled, and its first layers are where it starts")
    learned.add_argument("--out", type=Path, required=True, help="the folder to write, which must not be there yet")
    learned.add_argument(
        "--candidates", type=Path, nargs="+", metavar="outputs/candidates/<fingerprint>",
        help="candidates of runs with data/source=constraints, in place of sampling",
    )  # fmt: skip
    learned.add_argument("--prompts", type=int, default=128, help="to sample for")
    learned.add_argument("-n", type=int, default=4, help="candidates of a prompt")
    learned.add_argument("--temperature", type=float, default=0.8)
    learned.add_argument("--top-k", type=int, default=50)
    learned.add_argument("--max-new-tokens", type=int, default=256)
    learned.add_argument("--cpu-threads", type=int, default=1, help="sums of floats depend on it")
    for field in fields(Lesson):
        option = f"--{field.name.replace('_', '-')}"
        learned.add_argument(option, type=type(field.default), default=field.default, help=" ")
    return parser


def _kept(folder: Path) -> list[Candidates]:
    """The rows of a candidates artifact, whose files are checked."""
    check_folder(folder)
    return read_parquet(folder / "candidates.parquet", Candidates)


def _sampled(base: PolicyRef, n_prompts: int, n: int, decoding: Decoding, seed: int) -> list[Candidates]:
    from aipo.samplers import HFSampler

    prompts = [
        Prompt(f"task-{place:05d}", (Message("user", task.text),), "pool", meta_of(task.constraints))
        for place, task in enumerate(draw_tasks(n_prompts, PROMPT_SEED, held_out=False))
    ]
    found = HFSampler(base).sample([prompt.chat for prompt in prompts], decoding, n=n, seed=seed)
    return [Candidates(prompt, tuple(completions)) for prompt, completions in zip(prompts, found, strict=True)]


def _told(learned: Learned, lesson: Lesson) -> str:
    def percent(share: float | None) -> str:
        return "unknown" if share is None else f"{100 * share:.1f} %"

    worth = learned.word_worth_learned
    return (
        f"trained on {learned.training_pairs} pairs of {learned.training_prompts} prompts; loss "
        f"{learned.last_loss:.3f}, 0.693 is guessing\n"
        f"on {learned.held_out_pairs} pairs of {learned.held_out_prompts} other prompts it agrees with the "
        f"annotator in {percent(learned.agrees_with_annotator)}, with gold in {percent(learned.agrees_with_gold)} (the "
        f"annotator: {percent(learned.annotator_agrees_with_gold)})\n"
        f"a word is worth {'unknown' if worth is None else f'{worth:.4f}'} gold points to it, "
        f"{lesson.length_bias_per_word:g} to the annotator"
    )


if __name__ == "__main__":
    sys.exit(main())
