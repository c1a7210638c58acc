"""Every judge that conf offers passes the check, builds without network, and says what it lacks."""

from __future__ import annotations

from pathlib import Path

import pytest
from composing import composed
from omegaconf import OmegaConf

from aipo.components import build_component
from aipo.pipeline.check import ConfigError, check
from aipo.records import Message

ROOT = Path(__file__).resolve().parents[2]
REQUIRED = {
    "openai_compatible": ["judge.model=llama"],
    "azure": ["judge.model=deployment", "judge.endpoint.azure_endpoint=https://name.openai.azure.com"],
    "local": ["judge.model.path=/nowhere/at/all"],
    "replay": ["judge.path=/nowhere/at/all"],
}
LACKS = {
    "gpt_4": "OPENAI_API_KEY is not set",
    "gpt_4_turbo": "OPENAI_API_KEY is not set",
    "gpt_4_1106_preview": "OPENAI_API_KEY is not set",
    "azure": "AZURE_OPENAI_API_KEY is not set",
    "local": "no such folder",
    "replay": "no judge.json",
    "openai_compatible": "http://localhost:8000/v1: it does not answer",
}
NAMES = sorted(path.stem for path in (ROOT / "conf" / "judge").glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_binds_and_builds(name: str, monkeypatch) -> None:
    for variable in ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    alone = ["benchmark=[gold]"] if name == "none" else []
    plain = check(composed(f"judge={name}", *alone, *REQUIRED.get(name, [])))
    judge = build_component(plain["judge"])
    missing = judge.missing() if hasattr(judge, "missing") else []
    assert len(missing) == (name in LACKS)
    if missing:
        assert LACKS[name] in missing[0]
    if name != "replay":
        assert all(isinstance(value, str) for value in judge.identity().values())


@pytest.mark.parametrize("scale", ["miniature", "paper", "single_gpu"])
def test_the_diagnostic_judge_tells_the_scales_answers_apart(scale: str) -> None:
    """At paper scale it had the miniature's characters a point: MT-Bench's column of what length buys was 10."""
    config = composed(f"scale={scale}").diagnostic_judge.length_only
    judge = build_component(OmegaConf.to_container(config))
    lengths = (60, 140, 220, 300) if scale == "miniature" else (600, 1500, 2500, 4000)
    prompt = "[Question]\nQ\n\n[The Start of Assistant's Answer]\n{a}\n[The End of Assistant's Answer]"
    chats = [(Message("user", prompt.format(a="x" * length)),) for length in lengths]
    assert len({reply.text for reply in judge.reply(chats, max_tokens=8)}) == 4


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_a_value_that_only_the_user_knows_is_asked_for(name: str) -> None:
    with pytest.raises(ConfigError, match="a value is required"):
        check(composed(f"judge={name}"))
