"""The diagnostic judge: the longer answer wins. Beside a real judge, its score shows what length alone would buy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from aipo.judges.reading import JudgePrompt, read_judge_prompt
from aipo.records import Chat, JudgeReply


@dataclass(frozen=True)
class LengthOnlyJudge:
    """Prefers the answer with more characters, whatever it says; equal lengths tie where the format has a tie.

    A rating has nothing to compare with: it grows by one per `characters_per_point`, from 1 to 10. Where log-probs are
    asked for, the verdict is certain: P = 1, or 1/2 each for equal lengths. The order of the answers never matters.
    """

    characters_per_point: int = 200
    """Characters that one more point of a 1-10 rating takes."""
    name: str = "length_only"

    def __post_init__(self) -> None:
        if self.characters_per_point < 1:
            raise ValueError(
                f"LengthOnlyJudge: expected characters_per_point of 1 or more, got {self.characters_per_point}"
            )

    needs_world: ClassVar[bool] = False
    answers_any_chat: ClassVar[bool] = False
    keeps_replies: ClassVar[bool] = False
    asks_per_verdict: ClassVar[int] = 1

    def identity(self) -> dict[str, str]:
        """Its one setting."""
        return {"judge": "length_only", "characters_per_point": str(self.characters_per_point)}

    def reply(
        self, chats: Sequence[Chat], *, max_tokens: int, temperature: float = 0.0, top_logprobs: int = 0
    ) -> list[JudgeReply]:
        """One verdict per prompt. JudgeError for a prompt in none of the official structures."""
        return [self._reply(read_judge_prompt(chat), top_logprobs) for chat in chats]

    def _reply(self, prompt: JudgePrompt, top_logprobs: int) -> JudgeReply:
        lengths = [len(answer) for _, answer in prompt.answers]
        if prompt.verdict == "rating":
            return self._text(f"Rating: [[{1 + min(lengths[0] // self.characters_per_point, 9)}]]")
        gap = lengths[0] - lengths[1]
        sign = (gap > 0) - (gap < 0)
        if prompt.verdict == "identifier":
            # Without log-probs the format has no tie; the first answer gets equal lengths, in every order alike.
            logprobs = {1: {"m": 0.0}, -1: {"M": 0.0}, 0: {"m": -0.6931471805599453, "M": -0.6931471805599453}}[sign]
            return JudgeReply("M" if sign < 0 else "m", logprobs if top_logprobs else None, self.name)
        labels = ("B>A", "A=B", "A>B") if prompt.verdict == "game" else ("B", "C", "A")
        return self._text(f"[[{labels[sign + 1]}]]")

    def _text(self, text: str) -> JudgeReply:
        return JudgeReply(text, None, self.name)
