"""The ranker that knows the truth of verifiable prompts, and sees it as well or as badly as its dials say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from aipo.components import require_range
from aipo.constraints import VERSION, Constraint, constraints_of, share_met
from aipo.rankers.noise import NoisyRater, content_noise
from aipo.records import Chat, Prompt


class UnknownTruthError(ValueError):
    """A prompt has no constraints that code could check."""


@dataclass(frozen=True)
class VerifiableRanker(NoisyRater):
    """score = gold + length_bias_per_word * words + noise_sd * z, with z fixed by prompt, completion and seed.

    Gold is the share of the prompt's constraints that the completion meets (`aipo.constraints`), in [0, 1]. Words are
    what white space divides.
    """

    length_bias_per_word: float
    """Gold points that one more word is worth; 0 sees no length."""
    noise_sd: float
    """Standard deviation of the noise, in gold points."""
    seed: int = 0
    name: str = "verifiable"
    known: Mapping[Chat, tuple[Constraint, ...]] = field(default_factory=dict, compare=False)
    """The constraints of each prompt. No setting: `knowing` fills it."""

    gives_win_probability: ClassVar[bool] = True
    scores_alone: ClassVar[bool] = True
    needs_world: ClassVar[bool] = False
    needs_constraints: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_range("ranker", self, length_bias_per_word=(-100, 100), noise_sd=(0, 1000))

    def identity(self) -> dict[str, str]:
        """The truth it sees follows from the code of the checks."""
        return {"constraints": VERSION}

    def knowing(self, prompts: Sequence[Prompt]) -> VerifiableRanker:
        """The same ranker, told what each prompt asks for. UnknownTruthError where a prompt does not say."""
        known: dict[Chat, tuple[Constraint, ...]] = {}
        for prompt in prompts:
            if prompt.meta is None:
                raise UnknownTruthError(
                    f"prompt {prompt.prompt_id} has no constraints (Prompt.meta), which ranker {self.name} needs; "
                    "use data/source=constraints with data=pairrm_gen_uf, or another ranker"
                )
            asked = constraints_of(prompt.meta)
            if known.setdefault(prompt.chat, asked) != asked:
                raise UnknownTruthError(f"prompt {prompt.prompt_id}: the same chat comes with two lists of constraints")
        return replace(self, known=known)

    def score(self, prompt: Chat, completion: str) -> float:
        """This ranker's score of one completion."""
        if (asked := self.known.get(prompt)) is None:
            raise UnknownTruthError(
                f"ranker {self.name} was not told what this prompt asks for: {prompt[-1].content[:80]!r}"
            )
        noise = content_noise(*(message.content for message in prompt), completion, seed=self.seed)
        length = self.length_bias_per_word * len(completion.split())
        return share_met(asked, completion) + length + self.noise_sd * noise
