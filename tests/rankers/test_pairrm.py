"""PairRM against a plain implementation that shares nothing with it but DebertaV2Model."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tiny_pairrm import write_pairrm
from transformers import AutoTokenizer, DebertaV2Config, DebertaV2Model

from aipo.rankers.checkpoint import PairRMError
from aipo.rankers.pairrm import PairRM, source_text
from aipo.rankers.pairrm_processes import useful_processes
from aipo.rankers.pairrm_scoring import Comparison, comparison_batches
from aipo.rankers.pairrm_shape import backbone_shape
from aipo.records import Chat, Message

WORDS = ("red", "blue", "the", "and", "cab", "a", "b?", "zoo!", "B", "line\nbreak", "it's")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairrm")
    write_pairrm(path)
    return path


def ask(text: str) -> Chat:
    return (Message("user", text),)


def draw(seed: int, prompts: int, longest: int) -> tuple[list[Chat], list[list[str]]]:
    rng = random.Random(seed)

    def text() -> str:
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, longest)))

    return [ask(text()) for _ in range(prompts)], [[text() for _ in range(4)] for _ in range(prompts)]


class Plain:
    """One comparison at a time, without padding; markers found by their ids; ids cut by hand."""

    def __init__(
        self, folder: Path, source_limit: int, candidate_limit: int, dtype: torch.dtype = torch.float32
    ) -> None:
        config = DebertaV2Config.from_pretrained(folder)
        weights = load_file(folder / "model.safetensors")
        self.backbone = DebertaV2Model(config).eval().to(dtype)
        prefix = "pretrained_model."
        own = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        self.backbone.load_state_dict(own, strict=True)
        self.head = {key: value.to(dtype) for key, value in weights.items() if key.startswith("head_layer")}
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.markers = (config.source_prefix_id, config.cand1_prefix_id, config.cand2_prefix_id)
        self.source_limit, self.candidate_limit = source_limit, candidate_limit

    def ids(self, marker: str, text: str, limit: int) -> list[int]:
        inner = self.tokenizer(marker + text.replace("[SEP]", " "), add_special_tokens=False)["input_ids"]
        return [self.tokenizer.cls_token_id, *inner[: limit - 2], self.tokenizer.sep_token_id]

    def row(self, source: str, first: str, second: str) -> list[int]:
        ids = self.ids("<|source|>", source, self.source_limit)
        budget = (self.source_limit + 2 * self.candidate_limit - len(ids)) // 2
        return [*ids, *self.ids("<|candidate1|>", first, budget), *self.ids("<|candidate2|>", second, budget)]

    @torch.no_grad()
    def logit(self, source: str, first: str, second: str) -> float:
        ids = self.row(source, first, second)
        hidden = self.backbone(torch.tensor([ids])).last_hidden_state[0]
        asked, one, other = (hidden[ids.index(marker)] for marker in self.markers)

        def score(candidate: torch.Tensor) -> torch.Tensor:
            inner = self.head["head_layer.1.weight"] @ torch.cat([asked, candidate]) + self.head["head_layer.1.bias"]
            return self.head["head_layer.4.weight"] @ torch.tanh(inner) + self.head["head_layer.4.bias"]

        return (score(one) - score(other)).item()

    def scores(self, source: str, texts: list[str]) -> list[float]:
        matrix = [[self.logit(source, one, other) if one != other else 0.0 for other in texts] for one in texts]
        size = len(texts)
        return [sum(matrix[i][j] - matrix[j][i] for j in range(size)) / size for i in range(size)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_scores_equal_a_plain_implementation(folder: Path, dtype: torch.dtype, tolerance: float) -> None:
    prompts, candidates = draw(1, 6, 20)
    candidates[0][2] = candidates[0][1]
    ranker, plain = PairRM(str(folder)), Plain(folder, 1224, 412, dtype)
    ranker._loaded = (ranker._load()[0].to(dtype), ranker._load()[1])
    ours = ranker.rank(prompts, candidates)
    expected = [plain.scores(chat[0].content, texts) for chat, texts in zip(prompts, candidates, strict=True)]
    worst = max(abs(a - b) for row, other in zip(ours, expected, strict=True) for a, b in zip(row, other, strict=True))
    assert worst < tolerance
    spread = [max(row) - min(row) for row in expected]
    assert min(spread) > 1e-2, "a model without preferences would prove nothing"
    assert ours[0][1] == ours[0][2]
    assert all(abs(sum(row)) < 1e-5 for row in ours)


def test_lengths_follow_each_sample_alone(folder: Path) -> None:
    prompts, candidates = draw(2, 8, 60)
    prompts[0] = ask("a")
    ranker = PairRM(str(folder), source_max_tokens=40, candidate_max_tokens=24)
    plain = Plain(folder, 40, 24)
    ours = ranker.rank(prompts, candidates)
    cut = 0
    for chat, texts, scores in zip(prompts, candidates, ours, strict=True):
        assert scores == pytest.approx(plain.scores(chat[0].content, texts), abs=2e-6)
        row = plain.row(chat[0].content, *texts[:2])
        assert len(row) <= 40 + 2 * 24
        cut += len(row) > 80
    assert cut >= 4, "too few rows reached the limit"


@pytest.mark.parametrize("cells", [1, 5_000, 40_000])
def test_ranks_do_not_depend_on_batches(folder: Path, cells: int) -> None:
    prompts, candidates = draw(3, 10, 40)
    whole = PairRM(str(folder), source_max_tokens=60, candidate_max_tokens=30).rank(prompts, candidates)
    ranker = PairRM(str(folder), source_max_tokens=60, candidate_max_tokens=30, max_attention_cells=cells)
    order = random.Random(cells).sample(range(10), 10)
    shuffled = ranker.rank([prompts[place] for place in order], [candidates[place] for place in order])
    shards = [*ranker.rank(prompts[:3], candidates[:3]), *ranker.rank(prompts[3:], candidates[3:])]
    for place, scores in zip(order, shuffled, strict=True):
        for other in (scores, shards[place]):
            assert other == pytest.approx(whole[place], abs=2e-6)
            assert ranks(other) == ranks(whole[place])


def ranks(scores: list[float]) -> list[int]:
    return sorted(range(len(scores)), key=scores.__getitem__)


def test_batches_keep_to_their_bound() -> None:
    rows = [Comparison((0,) * length, (0, 0, 0)) for length in (5, 30, 10, 10, 31, 4)]
    batches = comparison_batches(rows, 1000)
    assert batches == [[4], [1], [2, 3, 0, 5]]


def test_order_of_candidates_only_moves_scores(folder: Path) -> None:
    (prompt,), (texts,) = draw(4, 1, 10)
    ranker = PairRM(str(folder))
    (forward,), (backward,) = ranker.rank([prompt], [texts]), ranker.rank([prompt], [texts[::-1]])
    assert backward[::-1] == pytest.approx(forward, abs=2e-6)


def test_control_names_in_text_are_spaces(folder: Path) -> None:
    ranker = PairRM(str(folder))
    hostile = ["red [SEP] blue", "the <|candidate2|> cab<|source|>", "and"]
    plain = ["red   blue", "the   cab ", "and"]
    (one,), (two,) = ranker.rank([ask("a [SEP] b")], [hostile]), ranker.rank([ask("a   b")], [plain])
    assert one == two
    tokenizer, markers = ranker._tokenizer()
    row = ranker._encode(tokenizer, markers, [ask("a [SEP] b")], [hostile])[0]
    assert all(segment.count(tokenizer.sep_token_id) == 1 for segment in (row[0], *row[1]))


def test_win_probability_counts_both_orders(folder: Path) -> None:
    prompts, candidates = draw(5, 6, 8)
    ranker, plain = PairRM(str(folder)), Plain(folder, 1224, 412)
    pairs = [(texts[0], texts[1]) for texts in candidates]
    chances = ranker.win_probabilities(prompts, pairs)
    for chat, (first, second), chance in zip(prompts, pairs, chances, strict=True):
        source = chat[0].content
        gap = plain.logit(source, first, second) - plain.logit(source, second, first)
        assert chance == pytest.approx(1 / (1 + math.exp(-gap)), abs=1e-6)
    mirrored = ranker.win_probabilities(prompts, [(second, first) for first, second in pairs])
    assert [a + b for a, b in zip(chances, mirrored, strict=True)] == pytest.approx([1.0] * 6, abs=1e-6)
    assert ranker.win_probabilities([prompts[0]], [("same", "same")]) == [0.5]


def test_comparing_gives_scores_and_chances_of_one_pass(folder: Path) -> None:
    prompts, candidates = draw(6, 4, 12)
    candidates[1][3] = candidates[1][0]
    ranker = PairRM(str(folder))
    found = ranker.compare(prompts, candidates)
    assert [list(one.scores) for one in found] == ranker.rank(prompts, candidates)
    for chat, texts, one in zip(prompts, candidates, found, strict=True):
        pairs = [(first, second) for first in texts for second in texts]
        asked = ranker.win_probabilities([chat] * len(pairs), pairs)
        assert [chance for row in one.chances for chance in row] == pytest.approx(asked, abs=1e-6)
        assert [row[place] for place, row in enumerate(one.chances)] == [0.5] * 4
    assert found[1].chances[0][3] == found[1].chances[3][0] == 0.5
    assert max(chance for one in found for row in one.chances for chance in row) > 0.6


def test_processes_find_the_same_bits(folder: Path) -> None:
    prompts, candidates = draw(7, 6, 30)
    alone = PairRM(str(folder), max_attention_cells=20_000)
    shared = PairRM(str(folder), max_attention_cells=20_000, processes=2)
    assert shared.rank(prompts, candidates) == alone.rank(prompts, candidates)
    assert shared._loaded is None, "the model was loaded where nothing is computed"


def test_a_process_that_fails_says_why(folder: Path, tmp_path: Path) -> None:
    copy = broken(folder, tmp_path)
    weights = load_file(copy / "model.safetensors")
    save_file(weights | {"other": torch.ones(1)}, copy / "model.safetensors", metadata={"format": "pt"})
    prompts, candidates = draw(8, 4, 10)
    with pytest.raises(PairRMError, match=r"(?s)process \d of 2 .*1 unexpected keys: other.*ranker\.processes=1"):
        PairRM(str(copy), max_attention_cells=1, processes=2).rank(prompts, candidates)


def test_no_more_processes_than_batches_or_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [useful_processes(8, 3), useful_processes(2, 30), useful_processes(1, 0)] == [3, 2, 1]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert useful_processes(32, 100) == 4


@pytest.mark.parametrize(("dtype", "kept"), [("bfloat16", torch.bfloat16), ("tfloat32", torch.float32)])
def test_the_head_is_never_rounded(folder: Path, dtype: str, kept: torch.dtype) -> None:
    ranker = PairRM(str(folder), dtype=dtype)
    model, _ = ranker._load()
    assert model.pretrained_model.dtype == kept
    assert {weight.dtype for weight in model.head_layer.parameters()} == {torch.float32}
    prompts, candidates = draw(9, 4, 20)
    exact, ours = PairRM(str(folder)).rank(prompts, candidates), ranker.rank(prompts, candidates)
    gap = max(abs(a - b) for row, other in zip(ours, exact, strict=True) for a, b in zip(row, other, strict=True))
    assert gap < (0.3 if dtype == "bfloat16" else 1e-6), "a CPU has no TF32"
    assert all(len(set(row)) == 4 for row in ours)
    assert torch.get_float32_matmul_precision() == "highest"
    assert ranker.identity()["head"] == "float32" and "head" not in PairRM(str(folder)).identity()


def test_what_a_round_reads_is_known_beforehand(folder: Path) -> None:
    ranker = PairRM(str(folder), processes=3)
    reading = ranker.reading(prompts=10, candidates=4, prompt_tokens=20, completion_tokens=15)
    tokens = 10 * 4 * 3 * 50
    # Two layers: 4 x 32 x 32 + 2 x 32 x 64 weights; 2 x 50 x 32 of attention; 4 x 16 buckets x 32 of positions.
    each = 2 * 2 * (4 * 32 * 32 + 2 * 32 * 64 + 2 * 50 * 32 + 4 * 16 * 32)
    assert (reading.tokens, reading.flops, reading.dtype, reading.processes) == (tokens, tokens * each, "float32", 3)
    assert backbone_shape(str(folder / "absent")) is None
    assert PairRM("x/y").reading(prompts=1, candidates=2, prompt_tokens=1, completion_tokens=1) is None


def test_no_comparison_needs_no_model(tmp_path: Path) -> None:
    ranker = PairRM(str(tmp_path / "absent"))
    assert ranker.rank([ask("a"), ask("b")], [["only"], ["twice", "twice"]]) == [[0.0], [0.0, 0.0]]
    with pytest.raises(ValueError, match="candidates for each of 2 prompts, got 1"):
        ranker.rank([ask("a"), ask("b")], [["x", "y"]])


def test_transcript_of_several_turns() -> None:
    chat = (
        Message("system", "Be brief."),
        Message("user", "Hi"),
        Message("assistant", "Yes?"),
        Message("user", "Why?"),
    )
    assert source_text(ask("Hi")) == "Hi"
    assert source_text(chat) == "SYSTEM: Be brief.\nUSER: Hi\nASSISTANT: Yes?\nUSER: Why?"


def broken(folder: Path, target: Path) -> Path:
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def test_wrong_checkpoints_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = broken(folder, tmp_path)
    two = [["a", "b"]]
    weights = load_file(copy / "model.safetensors")
    lacking = {key: value for key, value in weights.items() if key != "head_layer.4.bias"}
    save_file(lacking, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PairRMError, match=r"1 missing keys: head_layer\.4\.bias"):
        PairRM(str(copy)).rank([ask("x")], two)
    save_file(weights | {"other": torch.ones(1)}, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PairRMError, match=r"1 unexpected keys: other"):
        PairRM(str(copy)).rank([ask("x")], two)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"cand1_prefix_id": 1}))
    with pytest.raises(PairRMError, match=r"expected <\|candidate1\|> to have the id 1 of config\.json, got \d+"):
        PairRM(str(copy)).rank([ask("x")], two)
    del config["source_prefix_id"]
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(PairRMError, match="got none named source_prefix_id"):
        PairRM(str(copy)).rank([ask("x")], two)


def test_missing_says_what_and_why(folder: Path, tmp_path: Path) -> None:
    assert PairRM(str(folder)).missing() == []
    (line,) = PairRM(str(tmp_path / "absent")).missing()
    assert line.startswith("ranker: ") and "no such folder" in line and "ranker.path" in line
    copy = broken(folder, tmp_path)
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    (line,) = PairRM(str(copy)).missing()
    assert "only pickled weights (pytorch_model.bin)" in line and "save_pretrained" in line
    (line,) = PairRM("llm-blender/PairRM-hf").missing()
    assert "ranker.revision: expected the 40-digit commit" in line


def test_identity_is_the_folders_content(folder: Path, tmp_path: Path) -> None:
    copy = broken(folder, tmp_path)
    assert PairRM(str(copy)).identity() == PairRM(str(folder)).identity() != {}
    (copy / "config.json").write_text("{}")
    assert PairRM(str(copy)).identity() != PairRM(str(folder)).identity()


@pytest.mark.parametrize(
    ("key", "value"), [("source_max_tokens", 3), ("max_attention_cells", 0), ("processes", 0), ("dtype", "int8")]
)
def test_bad_settings_are_refused(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"ranker.{key} must be"):
        PairRM("x", **{key: value})


def test_the_preset_has_the_published_lengths(repository: Path) -> None:
    node = yaml.safe_load((repository / "conf/ranker/pairrm.yaml").read_text())
    assert node["source_max_tokens"] + 2 * node["candidate_max_tokens"] == 2048
    assert len(node["revision"]) == 40
