"""Sampling that was stopped goes on with the next batch, to the same completions."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_models import chat, save, tiny

from aipo.models.policy import PolicyRef
from aipo.records import Decoding
from aipo.samplers import KeepingSampler, hf
from aipo.samplers.hf import HFSampler

DECODING = Decoding(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=12)
CHATS = [chat(*range(1, 2 + number % 5)) for number in range(24)]
BATCH_TOKENS = 2 * 4 * (7 + 12)
"""Two to four prompts of two completions each."""


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> PolicyRef:
    return PolicyRef(save(tiny("Llama", 13), tmp_path_factory.mktemp("llama")))


class Stopping:
    """Counts the batches that are decoded, and stops before one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches, self.stop_before = 0, 10**9
        run = hf._Decoder.run

        def counted(decoder: hf._Decoder, prompts, keys):
            if self.batches == self.stop_before:
                raise KeyboardInterrupt
            self.batches += 1
            return run(decoder, prompts, keys)

        monkeypatch.setattr(hf._Decoder, "run", counted)


def _sample(policy: PolicyRef, folder: Path | None, chats=CHATS, seed: int = 3):
    sampler = HFSampler(policy, cache_tokens=BATCH_TOKENS)
    assert isinstance(sampler, KeepingSampler)
    return (sampler.keeping(folder) if folder else sampler).sample(chats, DECODING, n=2, seed=seed)


def test_stopped_sampling_draws_no_batch_twice_and_gives_the_same(
    policy: PolicyRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoding = Stopping(monkeypatch)
    undisturbed = _sample(policy, None)
    batches, decoding.batches = decoding.batches, 0
    assert batches >= 6
    for stop in (3, 5):
        decoding.stop_before = stop
        with pytest.raises(KeyboardInterrupt):
            _sample(policy, tmp_path / "drawn")
    decoding.stop_before = 10**9
    (last,) = [sorted((tmp_path / "drawn").iterdir())[-1]]
    last.write_bytes(last.read_bytes()[:-7])  # killed while it wrote: that batch is drawn again
    assert _sample(policy, tmp_path / "drawn") == undisturbed
    assert decoding.batches == batches + 1
    assert _sample(policy, tmp_path / "drawn") == undisturbed and decoding.batches == batches + 1


def test_what_was_kept_belongs_to_its_seed_and_neighbours(
    policy: PolicyRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoding = Stopping(monkeypatch)
    _sample(policy, tmp_path / "drawn")
    batches = decoding.batches
    assert _sample(policy, tmp_path / "drawn", seed=4) == _sample(policy, None, seed=4)
    assert decoding.batches == 3 * batches
    few = _sample(policy, tmp_path / "drawn", chats=CHATS[:3])
    assert few == _sample(policy, None, chats=CHATS[:3]) and decoding.batches > 3 * batches
