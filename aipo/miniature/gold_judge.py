"""A judge that knows the truth: it reads the very prompt an API judge gets and answers in the asked verdict format."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

from aipo.judges.judge import JudgeError
from aipo.judges.reading import JudgePrompt, read_judge_prompt
from aipo.miniature.gold import count_facts
from aipo.miniature.world import count_words
from aipo.rankers.noise import content_noise
from aipo.records import Chat, JudgeReply


@dataclass(frozen=True)
class GoldJudge:
    """Values an answer at gold + length_bias_per_token * tokens + noise_sd * z, with z fixed by the text and `seed`.

    Verdicts: a rating 1-10 is 5.5 + 4.5 * value, rounded; a choice between two follows the gap of their values. The
    order of the two never matters. `temperature` is ignored: the noise is the dial.
    """

    length_bias_per_token: float = 0.0
    """Gold points that one more token is worth."""
    noise_sd: float = 0.0
    """In gold points."""
    tie_margin: float = 0.05
    """Gaps up to this are a tie, in gold points."""
    strong_margin: float = 0.5
    """Gaps from this on are a strong verdict (>>), in gold points."""
    preference_scale: float = 0.2
    """P(first is better) = sigmoid(gap / preference_scale), where the judge is asked for log-probs."""
    seed: int = 0
    name: str = "gold"

    def __post_init__(self) -> None:
        if self.noise_sd < 0 or self.preference_scale <= 0:
            raise ValueError(
                "GoldJudge: expected noise_sd at least 0 and preference_scale above 0, got "
                f"{self.noise_sd} and {self.preference_scale}"
            )
        if not 0 <= self.tie_margin < self.strong_margin:
            raise ValueError(
                f"GoldJudge: expected 0 <= tie_margin < strong_margin, got {self.tie_margin} and {self.strong_margin}"
            )

    needs_world: ClassVar[bool] = True
    answers_any_chat: ClassVar[bool] = False
    keeps_replies: ClassVar[bool] = False
    asks_per_verdict: ClassVar[int] = 1

    def identity(self) -> dict[str, str]:
        """Every dial, and `world`, which counts changes of the world's texts and of gold quality's rule."""
        return {field.name: str(getattr(self, field.name)) for field in fields(self)} | {"world": "1"}

    def reply(
        self, chats: Sequence[Chat], *, max_tokens: int, temperature: float = 0.0, top_logprobs: int = 0
    ) -> list[JudgeReply]:
        """One verdict per prompt. JudgeError for a prompt in none of the official structures."""
        return [self._reply(read_judge_prompt(chat), top_logprobs) for chat in chats]

    def _reply(self, prompt: JudgePrompt, top_logprobs: int) -> JudgeReply:
        values = [self._value(chat, answer) for chat, answer in prompt.answers]
        if prompt.verdict == "rating":
            rating = math.floor(5.5 + 4.5 * max(-1.0, min(1.0, values[0])) + 0.5)
            return self._text(f"{self._reason(prompt)} Rating: [[{min(rating, 10)}]]")
        gap = values[0] - values[1]
        if prompt.verdict == "identifier":
            return self._identifier(prompt, gap, top_logprobs)
        if prompt.verdict == "game":
            return self._text(f"{self._reason(prompt)} My verdict: [[{self._label(gap)}]]")
        if prompt.verdict == "winner":
            winner = "C" if abs(gap) <= self.tie_margin else "A" if gap > 0 else "B"
            return self._text(f"{self._reason(prompt)} [[{winner}]]")
        raise JudgeError(f"the gold judge gives no verdict of the kind {prompt.verdict!r}")

    def _value(self, chat: Chat, answer: str) -> float:
        noise = content_noise(*(message.content for message in chat), answer, "judge", seed=self.seed)
        length = self.length_bias_per_token * count_words(answer)
        return count_facts(chat, answer).quality + length + self.noise_sd * noise

    def _identifier(self, prompt: JudgePrompt, gap: float, top_logprobs: int) -> JudgeReply:
        first = 1 / (1 + math.exp(-max(-30.0, min(30.0, gap / self.preference_scale))))
        if gap == 0:
            # A one-token verdict has no word for a tie: a coin decides that depends on the two texts, not their order.
            coins = [content_noise(answer, "coin", seed=self.seed) for _, answer in prompt.answers]
            text = "m" if coins[0] >= coins[1] else "M"
        else:
            text = "m" if gap > 0 else "M"
        logprobs = {"m": math.log(first), "M": math.log1p(-first)} if top_logprobs else None
        return JudgeReply(text, logprobs, self.name)

    def _label(self, gap: float) -> str:
        if abs(gap) <= self.tie_margin:
            return "A=B"
        sign = ">>" if abs(gap) >= self.strong_margin else ">"
        return f"A{sign}B" if gap > 0 else f"B{sign}A"

    def _reason(self, prompt: JudgePrompt) -> str:
        counts = [count_facts(chat, answer) for chat, answer in prompt.answers]
        return " ".join(
            f"Answer {label}: {count.right} of {count.asked} right, {count.wrong} wrong, {count.nonsense} nonsense."
            for label, count in zip("AB", counts, strict=False)
        )

    def _text(self, text: str) -> JudgeReply:
        return JudgeReply(text, None, self.name)
