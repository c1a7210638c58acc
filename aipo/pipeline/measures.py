"""What is measured of a policy beside its benchmark scores, as stages of their own: KL divergence and proxy scores.

Nothing that trains a policy reads them, so they may be left out and made later.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from aipo.artifacts import Artifact, StageReport
from aipo.benchmarks.benchmark import PromptBenchmark
from aipo.data.context import fit_context
from aipo.iteration import KL_COMPLETIONS
from aipo.pipeline.answers import read_answers
from aipo.pipeline.draws import derived_seed, slice_of_pool
from aipo.pipeline.kinds import ranker_content
from aipo.pipeline.stages import Policy, Stages, completion_counts
from aipo.rankers.ranker import InformedRanker
from aipo.rankers.ranking import informed
from aipo.records import Candidates, Decoding, Example, RankedPrompt, read_parquet, to_row, write_parquet

logger = logging.getLogger("aipo")


def kl(stages: Stages, pool: Artifact, policy: Policy, base: Policy, previous: Policy) -> Artifact | None:
    """How far the policy is from the base model and from the policy before it; None where kl_prompts is 0.

    Estimated on prompts of the pool that are the same for every policy, seed and objective, from completions drawn for
    this alone. A job of seed 0 that trains on the pool's prompts meets them in its first round. The next round's
    candidates would cost nothing, but Self-Instruct draws their prompts anew from the policy itself, they may be drawn
    at another temperature, and the last round has none.
    """
    if not stages.run.kl_prompts:
        return None
    limit = stages.iteration.decoding.max_new_tokens
    decoding = Decoding(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=limit)

    def build(folder: Path) -> StageReport:
        from aipo.models.kl import measure_kls

        prompts = [example.prompt for example in read_parquet(pool.path / "pool.parquet", Example)]
        if (wanted := stages.run.kl_prompts) > len(prompts):
            logger.warning("kl_prompts=%d: the pool has %d prompts, and KL is measured on these", wanted, len(prompts))
        chosen = slice_of_pool(prompts, min(wanted, len(prompts)), 0, 0)
        chosen, dropped = fit_context(chosen, policy.ref)
        seed = derived_seed(stages.seed, "kl", policy.iteration)
        chats = [prompt.chat for prompt in chosen]
        completions = stages.sampler(policy, folder).sample(chats, decoding, n=KL_COMPLETIONS, seed=seed)
        stages.serving.stop()
        drawn = [Candidates(prompt, tuple(group)) for prompt, group in zip(chosen, completions, strict=True)]
        others = {"base": base, "previous": previous} if previous != base else {"base": base}
        found = dict(zip(others, measure_kls(policy.ref, [other.ref for other in others.values()], drawn), strict=True))
        found.setdefault("previous", found["base"])
        (folder / "kl.json").write_text(json.dumps(to_row(found), indent=1), encoding="utf-8")
        counts: dict[str, float | int] = {}
        for name, estimate in found.items():
            counts |= {name: estimate.nats, f"{name}_standard_error": estimate.standard_error}
        return StageReport(counts | completion_counts(drawn), dropped)

    content = {"sampler": stages.run.content["sampler"], "prompts": stages.run.kl_prompts, "max_new_tokens": limit}
    content |= {"completions": KL_COMPLETIONS, "seed": stages.seed}
    parents = {"pool": pool.fingerprint, "policy": policy.fingerprint}
    parents |= {"base": base.fingerprint, "previous": previous.fingerprint}
    return stages.make("kl", content, parents, build, policy.iteration, resumable=True)


def proxy(stages: Stages, benchmark: str, answers: Artifact, iteration: int) -> Artifact | None:
    """The ranker's own score of every answer to a benchmark: what training climbs, beside what is true.

    None for a ranker whose scores compare the candidates of one prompt only, for data that brings its own ranking, and
    for a benchmark that does not give its prompts, or not what they ask for where the ranker needs to know.
    """
    component, ranker = stages.run.benchmarks[benchmark], stages.run.ranker
    if stages.recipe.ranking != "ranker" or not ranker.scores_alone or not isinstance(component, PromptBenchmark):
        return None
    if isinstance(ranker, InformedRanker) and ranker.needs_constraints and not component.brings_constraints:
        return None

    def build(folder: Path) -> StageReport:
        prompts, rows = component.prompts(), read_answers(answers)
        chats = {prompt.prompt_id: prompt.chat for prompt in prompts}
        told = informed(stages.ranker, prompts) if component.brings_constraints else stages.ranker
        scored = told.rank([chats[row.question_id] for row in rows], [[row.turns[0].text] for row in rows])
        found = [RankedPrompt(row.question_id, tuple(scores)) for row, scores in zip(rows, scored, strict=True)]
        write_parquet(folder / "proxy.parquet", found)
        return StageReport({"proxy_score": sum(row.scores[0] for row in found) / len(found)})

    return stages.make(
        "proxy", ranker_content(stages.run), {"answers": answers.fingerprint}, build, iteration, name=benchmark
    )
