"""The learned ranker: what its annotator prefers, what a tiny model learns of it, equal bits, and what is refused."""

from __future__ import annotations

import hashlib
import json
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_reward_model import write

from aipo.constraints import Constraint, meta_of
from aipo.models import PolicyRef
from aipo.rankers import RewardModel
from aipo.rankers.__main__ import main
from aipo.rankers.learned import LearnedError, Lesson, _groups, _loss, train_reward_model
from aipo.rankers.measured import Rated, agreement, worth_of_a_word
from aipo.records import Candidates, Completion, Message, Prompt

SKY = meta_of([Constraint("use", ("sky",)), Constraint("avoid", ("green",))])
LESSON = Lesson(layers=2, epochs=6, prompts_per_step=4, learning_rate=3e-3, length_bias_per_word=0.02)


def completion(text: str) -> Completion:
    return Completion(text, (8,), "stop")


def rows(n: int = 80, seed: int = 0) -> list[Candidates]:
    """Prompts with four random texts each of 1 to 12 words, of which about every second says sky."""
    rng = random.Random(seed)

    def text() -> str:
        words = [rng.choice(["red", "blue", "is", "the", "green"]) for _ in range(rng.randint(1, 12))]
        if rng.random() < 0.5:
            words[rng.randrange(len(words))] = "sky"
        return " ".join(words)

    return [
        Candidates(
            Prompt(f"p{place}", (Message("user", f"is the {place}"),), "pool", SKY),
            tuple(completion(text()) for _ in range(4)),
        )
        for place in range(n)
    ]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> PolicyRef:
    return PolicyRef(str(write(tmp_path_factory.mktemp("base"), head=False)))


def content(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_the_annotator_prefers_what_meets_more_and_then_what_is_longer():
    texts = ["sky", "the sky is blue", "red", "green", "sky"]
    row = Candidates(rows(1)[0].prompt, tuple(map(completion, texts)))
    (group,) = _groups([row], Lesson(length_bias_per_word=0.02))
    assert group.texts == ("sky", "the sky is blue", "red", "green")  # one of two equal texts
    assert group.gold == (1.0, 1.0, 0.5, 0.0)
    assert group.annotated == pytest.approx((1.02, 1.08, 0.52, 0.02))
    assert group.preferred() == [(0, 2), (0, 3), (1, 0), (1, 2), (1, 3), (2, 3)]
    assert _groups([row], Lesson(length_bias_per_word=0.0))[0].preferred() == [(0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    (longest,) = _groups([row], Lesson(length_bias_per_word=1.0))
    assert longest.preferred()[0] == (0, 2) and (1, 0) in longest.preferred()
    alone = Candidates(row.prompt, (completion("sky"), completion("sky")))
    assert _groups([alone], Lesson()) == []


def test_the_loss_is_that_of_the_scores_by_hand():
    class Fixed(torch.nn.Module):
        device, config = torch.device("cpu"), type("Config", (), {"pad_token_id": 0})

        def forward(self, input_ids, attention_mask):
            return type("Output", (), {"logits": input_ids[:, :1] / 10})

    row = Candidates(rows(1)[0].prompt, tuple(map(completion, ["sky", "red", "green"])))
    (group,) = _groups([row], Lesson(length_bias_per_word=0.0))  # 1, 0.5 and 0
    found = _loss(Fixed(), [[[5], [9], [2]]], [group])  # scores 0.5, 0.9 and 0.2
    expected = sum(math.log1p(math.exp(-gap)) for gap in (0.5 - 0.9, 0.5 - 0.2, 0.9 - 0.2)) / 3
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_agreement_and_the_worth_of_a_word_by_hand():
    assert agreement([[3.0, 2.0, 2.0]], [[1.0, 0.5, 0.0]]) == (2.5 / 3, 3)
    assert agreement([[1.0, 2.0], [1.0, 2.0]], [[0.0, 0.0], [1.0, 0.0]]) == (0.0, 1)
    assert agreement([[1.0]], [[1.0]]) == (None, 0)
    gold, words = ((0.0, 0.5, 1.0, 0.5), (1.0, 0.0, 0.5, 0.5)), ((3, 9, 4, 1), (2, 8, 5, 5))
    rated = [
        Rated(g, w, tuple(constant + 4 * x + 0.1 * y for x, y in zip(g, w, strict=True)))
        for g, w, constant in zip(gold, words, (-7.0, 30.0), strict=True)
    ]
    assert worth_of_a_word(rated) == pytest.approx(0.025)  # whatever each prompt's constant
    assert worth_of_a_word([replace(one, scores=tuple(-score for score in one.scores)) for one in rated]) is None
    assert worth_of_a_word([Rated((1.0, 1.0, 1.0), (1, 2, 3), (1.0, 2.0, 3.0))]) is None
    assert worth_of_a_word([]) is None


def test_a_tiny_model_learns_the_verdicts_and_the_planted_liking_for_length(base: PolicyRef, tmp_path: Path):
    learned = train_reward_model(base, rows(), LESSON, tmp_path / "biased")
    assert learned.held_out_prompts == 16 and learned.training_prompts == 64 and learned.held_out_pairs > 60
    assert learned.last_loss < 0.5 < math.log(2) and learned.agrees_with_annotator > 0.75
    assert json.loads((tmp_path / "biased" / "training.json").read_text())["result"]["last_loss"] == learned.last_loss
    blind = train_reward_model(base, rows(), replace(LESSON, length_bias_per_word=0.0), tmp_path / "unbiased")
    assert blind.agrees_with_gold > 0.85 and blind.annotator_agrees_with_gold == 1.0
    assert learned.word_worth_learned > 0.01 > blind.word_worth_learned

    chat = rows(1)[0].prompt.chat
    ranker = RewardModel(str(tmp_path / "biased"))
    ((short, long),) = ranker.rank([chat], [["red is sky", "red is sky the blue is red the blue is"]])
    ((with_sky, without),) = ranker.rank([chat], [["red is sky", "red is blue"]])
    assert long > short and with_sky > without
    assert ranker.identity() != RewardModel(str(tmp_path / "unbiased")).identity()  # what a stage's fingerprint holds


def test_equal_settings_give_equal_folders_and_the_seed_another(base: PolicyRef, tmp_path: Path):
    lesson = replace(LESSON, epochs=1)
    for name, chosen in (("first", lesson), ("again", lesson), ("other", replace(lesson, seed=1))):
        torch.manual_seed(len(name))  # the process's own generator has no part in it
        train_reward_model(base, rows(24), chosen, tmp_path / name)
    first = content(tmp_path / "first")
    assert {"model.safetensors", "config.json", "tokenizer.json", "training.json"} < set(first)
    assert content(tmp_path / "again") == first
    assert content(tmp_path / "other")["model.safetensors"] != first["model.safetensors"]
    assert not list(tmp_path.glob("*.partial"))


def test_fewer_layers_are_the_first_ones_and_embeddings_stay(base: PolicyRef, tmp_path: Path):
    from safetensors.torch import load_file

    train_reward_model(base, rows(24), replace(LESSON, layers=1, learning_rate=1e-8), tmp_path / "one")
    before, after = load_file(Path(base.path) / "model.safetensors"), load_file(tmp_path / "one" / "model.safetensors")
    assert not [name for name in after if ".layers.1." in name] and after["score.weight"].shape == (1, 16)
    assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])
    first = "model.layers.0.mlp.up_proj.weight"
    assert torch.allclose(before[first], after[first], atol=1e-6)


@pytest.mark.parametrize(
    ("given", "lesson", "message"),
    [
        ([], LESSON, "expected at least 4 prompts on whose candidates .* got 0; give more prompts"),
        (rows(4), LESSON, "beside 1 held out, got 3"),
        ([replace(row, completions=row.completions[:1]) for row in rows(9)], LESSON, "got 0"),
        ([replace(row, prompt=replace(row.prompt, meta=None)) for row in rows(9)], LESSON, "prompt p0 has no constrai"),
        (rows(12), replace(LESSON, layers=3), "--layers: expected at most the 2 of .*, got 3"),
    ],
)
def test_what_does_not_serve_is_refused(base, tmp_path: Path, given, lesson, message):
    with pytest.raises(LearnedError, match=message):
        train_reward_model(base, given, lesson, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_settings_and_folders_that_do_not_serve_are_refused(base: PolicyRef, tmp_path: Path):
    for setting in ({"layers": 0}, {"epochs": 0}, {"held_out_share": 1.0}, {"learning_rate": math.nan}):
        with pytest.raises(ValueError, match=f"reward model.{next(iter(setting))} must be"):
            Lesson(**setting)
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(LearnedError, match="choose another --out"):
        train_reward_model(base, rows(12), LESSON, tmp_path)
    with pytest.raises(LearnedError, match="no such folder"):
        train_reward_model(PolicyRef(str(tmp_path / "absent")), rows(12), LESSON, tmp_path / "out")
    plain = write(tmp_path / "plain", head=False, template=None)
    with pytest.raises(LearnedError, match="no chat template; set model.chat_template"):
        train_reward_model(PolicyRef(str(plain)), rows(24), LESSON, tmp_path / "out")


def test_the_command_samples_trains_and_tells(base: PolicyRef, tmp_path: Path, capsys):
    arguments = ["learned", "--model", base.path, "--out", str(tmp_path / "out"), "--prompts", "12", "-n", "3"]
    arguments += ["--max-new-tokens", "6", "--layers", "1", "--prompts-per-step", "2", "--epochs", "1"]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert "gold points to it, 0.005 to the annotator" in told and "ranker=learned ranker.path=" in told
    assert main(arguments) == 2 and "choose another --out" in capsys.readouterr().err
    assert main([*arguments[:4], str(tmp_path / "new"), "--layers", "0"]) == 2
    assert "reward model.layers must be at least 1" in capsys.readouterr().err
    assert main([*arguments[:4], str(tmp_path / "new"), "--candidates", str(tmp_path)]) == 2
    assert "error: " in capsys.readouterr().err and not (tmp_path / "new").exists()
