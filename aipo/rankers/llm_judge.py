"""A language model as ranker: it grades each candidate by adding up to five points.

After the additive five-point prompt of self-rewarding language models (Yuan et al. 2024, arXiv 2401.10020, figure 2);
the wording is ours.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from aipo.components import needs_of
from aipo.judges.judge import Judge
from aipo.judges.replies import ReplyStore
from aipo.judges.store import StoredJudge, stored
from aipo.records import Chat, JudgeReply, Message

logger = logging.getLogger("aipo")

PROMPT = """\
Grade the last reply to a user, on a scale that is added up. Begin with zero points and go through the five statements \
in order; every one that holds adds a single point.

(1) The reply is about what was asked and brings at least something of use, however little or incomplete.
(2) A good part of what was asked is dealt with, though gaps or detours remain.
(3) What matters most in the request is answered so that the user can do something with it.
(4) It speaks to the user as an assistant should: directly, in good order and in full, with little left to improve in \
clarity, brevity or focus.
(5) It could hardly be better: made for exactly this request, knowledgeable, without a superfluous sentence.

Length earns nothing by itself.

<conversation>
{conversation}
</conversation>

<reply>
{reply}
</reply>

Say in at most a hundred words which statements hold and why. Then write, as the last line, "Score: " and the number \
of points, a whole number from 0 to 5."""

SCORE = re.compile(r"Score:\s*+\**+\s*+(\d++(?:\.\d++)?+)\b(?!\.\d)", re.IGNORECASE)


class UnparsableScores(RuntimeError):
    """More of a judge's replies hold no score than was allowed."""


@dataclass(frozen=True)
class LLMJudgeRanker:
    """A candidate's score is the judge's points, 0 to 5. A reply without a readable score makes it NaN: not ranked.

    Such replies are counted in the log; UnparsableScores when they are more than `max_unparsable` of all.
    """

    judge: Judge
    max_tokens: int = 512
    """Of the judge's reply."""
    temperature: float = 0.0
    max_unparsable: float = 0.05
    """The share of replies without a score that is borne."""
    name: str = "llm_judge"
    store: ReplyStore | None = field(default=None, repr=False, compare=False)
    """Where replies are kept; the pipeline supplies it."""

    gives_win_probability: ClassVar[bool] = False
    scores_alone: ClassVar[bool] = False
    OPERATIONAL: ClassVar[tuple[str, ...]] = ("judge",)
    """`identity` says what of the judge matters."""

    def __post_init__(self) -> None:
        if not self.judge.answers_any_chat:
            raise ValueError(
                f"ranker.judge: {self.judge.name} does not answer this ranker's question; choose a language model, for "
                "example judge@ranker.judge=openai_compatible"
            )
        if self.max_tokens < 1:
            raise ValueError(f"ranker.max_tokens must be at least 1, got {self.max_tokens}")
        if self.temperature < 0:
            raise ValueError(f"ranker.temperature must be at least 0, got {self.temperature}")
        if not 0 <= self.max_unparsable < 1:
            raise ValueError(f"ranker.max_unparsable must be in [0, 1), got {self.max_unparsable}")

    @property
    def needs_world(self) -> bool:
        """As the judge."""
        return self.judge.needs_world

    def missing(self) -> list[str]:
        """What the judge lacks: a key, a file."""
        return [f"ranker.judge: {line}" for line in needs_of(self.judge)]

    def identity(self) -> dict[str, str]:
        """The judge's, and how often it is asked for a score."""
        return self.judge.identity() | {"asks_per_verdict": str(self.judge.asks_per_verdict)}

    def stored(self, store: ReplyStore) -> LLMJudgeRanker:
        """The same ranker, which keeps every reply in `store` and asks for none twice."""
        return replace(self, store=store)

    def rank(self, prompts: Sequence[Chat], candidates: Sequence[Sequence[str]]) -> list[list[float]]:
        """The points of every candidate, NaN where the judge gave none. Equal texts are asked about once."""
        asked = list(
            dict.fromkeys((chat, text) for chat, texts in zip(prompts, candidates, strict=True) for text in texts)
        )
        chats = [(Message("user", judge_prompt(chat, text)),) for chat, text in asked]
        replies = self._replies(chats)
        points = [parse_points(reply.text) for reply in replies]
        unread = [reply.text for reply, value in zip(replies, points, strict=True) if value is None]
        if unread:
            count = f"{len(unread)} of {len(replies)} replies of {self.judge.name} have no score from 0 to 5"
            if len(unread) > self.max_unparsable * len(replies):
                raise UnparsableScores(
                    f"{count}, more than ranker.max_unparsable={self.max_unparsable} allows; the first ends with "
                    f"{unread[0][-200:]!r}. Raise ranker.max_unparsable (nothing is asked again), have these alone "
                    "asked once more (ranker.judge.asks_per_verdict=2), raise ranker.max_tokens or choose another judge"
                )
            logger.warning("ranker: %s; their candidates take no part", count)
        scores = {key: math.nan if value is None else value for key, value in zip(asked, points, strict=True)}
        return [[scores[chat, text] for text in texts] for chat, texts in zip(prompts, candidates, strict=True)]

    def _replies(self, chats: Sequence[Chat]) -> list[JudgeReply]:
        while chats:
            judge = self.judge if self.store is None else stored(self.judge, self.store)
            replies = judge.reply(chats, max_tokens=self.max_tokens, temperature=self.temperature)
            unread = [reply for reply in replies if parse_points(reply.text) is None]
            if not isinstance(judge, StoredJudge) or not judge.ask_again(unread):
                return replies
        return []

    def win_probabilities(self, prompts: Sequence[Chat], pairs: Sequence[tuple[str, str]]) -> None:
        """None: points are not a probability."""
        return None


def judge_prompt(chat: Chat, reply: str) -> str:
    """What the judge reads."""
    conversation = "\n\n".join(f"[{message.role}]\n{message.content}" for message in chat)
    # Not str.format on the whole: braces in the texts are theirs.
    before, between, after = re.split(r"\{conversation\}|\{reply\}", PROMPT)
    return before + conversation + between + reply + after


def parse_points(text: str) -> float | None:
    """The last score of a judge's reply, or None when there is none from 0 to 5."""
    found = SCORE.findall(text)
    if not found or len(found[-1]) > 40 or not 0 <= float(found[-1]) <= 5:
        return None
    return float(found[-1])
