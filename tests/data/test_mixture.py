"""Mixtures: exact ratios, seeded draws, nothing twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from composing import composed
from hypothesis import given
from hypothesis import strategies as st

from aipo.data.local import SourceError
from aipo.data.mixture import Mixture
from aipo.records import Example, Message, Prompt


@dataclass(frozen=True)
class Numbers:
    """`size` prompts; two of these with the same name have the same prompts."""

    name: str
    size: int

    def identity(self) -> Mapping[str, str]:
        return {"size": str(self.size)}

    def load(self) -> tuple[list[Example], dict[str, int]]:
        chats = [(Message("user", f"{self.name} {number}"),) for number in range(self.size)]
        return [Example(Prompt(str(place), chat, "pool")) for place, chat in enumerate(chats)], {"repeated": 1}


def sides(mixture: Mixture) -> Counter[str]:
    return Counter(example.prompt.prompt_id.split("/")[0] for example in mixture.load()[0])


def test_ratio_and_counts() -> None:
    examples, dropped = Mixture(Numbers("a", 30), Numbers("b", 100), 0.25).load()
    assert len(examples) == 120 and dropped == {
        "in_both": 0, "beyond_ratio": 10, "first/repeated": 1, "second/repeated": 1
    }  # fmt: skip
    assert sides(Mixture(Numbers("a", 30), Numbers("b", 100), 0.25)) == {"first": 30, "second": 90}
    assert sides(Mixture(Numbers("a", 30), Numbers("b", 100), 0.2, n_prompts=10)) == {"first": 2, "second": 8}


def test_what_both_have_counts_once() -> None:
    examples, dropped = Mixture(Numbers("a", 10), Numbers("a", 30), 0.5).load()
    assert dropped["in_both"] == 10 and len(examples) == 20
    assert len({example.prompt.chat for example in examples}) == 20


def test_the_seed_decides() -> None:
    def ids(seed: int) -> list[str]:
        mixture = Mixture(Numbers("a", 30), Numbers("b", 30), 0.5, n_prompts=20, seed=seed)
        return [example.prompt.prompt_id for example in mixture.load()[0]]

    assert ids(1) == ids(1) != ids(2)
    assert set(ids(1)) != set(ids(2))


def test_too_much_asked() -> None:
    with pytest.raises(SourceError, match=r"40 prompts with first_share=0.5 need 20 of the first source, which has 5"):
        Mixture(Numbers("a", 5), Numbers("b", 30), 0.5, n_prompts=40).load()


@pytest.mark.parametrize(("share", "count"), [(0.0, None), (1.0, None), (0.5, 1)])
def test_bad_settings_are_refused(share: float, count: int | None) -> None:
    with pytest.raises(ValueError, match="must be"):
        Mixture(Numbers("a", 5), Numbers("b", 5), share, count)


def test_identity_and_nesting() -> None:
    inner = Mixture(Numbers("a", 8), Numbers("b", 8), 0.5)
    outer = Mixture(inner, Numbers("c", 16), 0.5)
    assert outer.identity() == {"first/first/size": "8", "first/second/size": "8", "second/size": "16"}
    assert sides(outer) == {"first": 16, "second": 16}
    assert outer.missing() == []


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.05, 0.95))
def test_all_that_the_ratio_allows(first: int, second: int, share: float) -> None:
    try:
        found = sides(Mixture(Numbers("a", first), Numbers("b", second), share))
    except SourceError:
        pytest.fail("without n_prompts there is always enough")
    total = sum(found.values())
    assert abs(found["first"] - total * share) <= 0.5 + 1e-6
    assert first - found["first"] <= 2 / (1 - share) or second - found["second"] <= 2 / share


def test_the_preset_mixes_two_sources_and_tells_what_both_miss(tmp_path: Path) -> None:
    from hydra.utils import instantiate

    overrides = ["data=uf", "data/source=mixture", "data/source@data.source.first=local", "data.source.n_prompts=2"]
    overrides += [f"data.source.{side}.path={tmp_path / side}.jsonl" for side in ("first", "second")]
    node = composed(*overrides).data.source
    mixture = instantiate(node, _convert_="all")
    assert [line.split(":")[0] for line in mixture.missing()] == ["first source", "second source"]
    for side in ("first", "second"):
        (tmp_path / f"{side}.jsonl").write_text(f'{{"prompt": "{side}"}}\n')
    assert mixture.missing() == [] and len(mixture.load()[0]) == 2
