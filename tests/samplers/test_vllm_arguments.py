"""Arguments of vLLM: which of them tell artifacts and kept answers apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from composing import composed

from aipo.components import content_of
from aipo.models.policy import PolicyRef
from aipo.pipeline.check import check
from aipo.pipeline.run import content
from aipo.records import Decoding
from aipo.samplers.protocols import VLLM
from aipo.samplers.server import ServerSampler
from aipo.samplers.vllm_arguments import drawing_arguments
from aipo.samplers.vllm_server import VLLMServer

DECODING = Decoding(temperature=0.7, top_p=0.9, top_k=0, max_new_tokens=8)
DOCUMENTED = [
    *("--tensor-parallel-size=8", "--max-model-len=8192", "--no-enable-chunked-prefill"),
    *("--max-num-batched-tokens=1024", "--max-num-seqs=16", "--enforce-eager"),
]
"""Of conf/sampler/vllm.yaml and docs/models.md."""


@pytest.mark.parametrize(
    ("given", "drawing"),
    [
        ([], []),
        (DOCUMENTED, []),
        (["-tp", "4", "--swap_space", "8", "--api-key", "k", "--port=1", "--disable-log-requests", "-dp=2"], []),
        (["--no-enable-prefix-caching", "--gpu-memory-utilization", "0.8"], []),
        (["--quantization=fp8", "-tp=2", "--kv-cache-dtype", "fp8"], ["--kv-cache-dtype=fp8", "--quantization=fp8"]),
        (["--kv_cache_dtype=fp8", "--quantization", "fp8"], ["--kv-cache-dtype=fp8", "--quantization=fp8"]),
        (["--dtype", "float16", "--enforce-eager"], ["--dtype=float16"]),
        (["--seed", "-1"], ["--seed=-1"]),
        (["--lora-modules", "a=b", "c=d", "-tp", "2"], ["--lora-modules=a=b c=d"]),
        (["--of-next-year"], ["--of-next-year"]),
    ],
)
def test_what_is_not_known_to_be_harmless_may_draw_otherwise(given: list[str], drawing: list[str]) -> None:
    assert drawing_arguments(given) == drawing


def _sampler(*arguments: str) -> dict:
    given = ["scale=paper", "benchmark=[]", "judge=none", "diagnostic_judge=none", "data=pairrm_gen_uf"]
    return content(check(composed(*given, f"sampler.server.arguments={json.dumps(arguments)}")))["sampler"]


def test_only_those_are_part_of_a_stage() -> None:
    """A run with 8-bit weights met the artifacts of one in bfloat16."""
    plain = _sampler()
    assert plain == _sampler(*DOCUMENTED) and sorted(plain) == ["_partial_", "_target_", "protocol"]
    found = _sampler("--quantization=fp8", *DOCUMENTED, "--kv-cache-dtype=fp8")
    assert found == plain | {"server": {"arguments": ["--kv-cache-dtype=fp8", "--quantization=fp8"]}}
    assert content_of(found) == found
    assert "server" not in content(check(composed("sampler=server")))["sampler"]


def test_answers_are_kept_apart_by_them(tmp_path: Path) -> None:
    def folder(*arguments: str, dtype: str = "bfloat16") -> Path:
        policy, server = PolicyRef("a/b", "0" * 40, dtype=dtype), VLLMServer(arguments=arguments)  # type: ignore[arg-type]
        sampler = ServerSampler(policy, VLLM(), server=server, resume_folder=str(tmp_path))
        journal = sampler._journal(DECODING, 2, 0, ())
        assert journal is not None
        return journal.folder

    plain = folder()
    assert plain == folder(*DOCUMENTED) == folder("--port=8000")
    others = {folder("--quantization=fp8"), folder("--quantization=awq"), folder(dtype="float32")}
    assert len(others | {plain}) == 4


def test_answers_of_a_server_of_ones_own_are_found_as_before(tmp_path: Path) -> None:
    sampler = ServerSampler(PolicyRef("a/b"), VLLM(), base_url="http://x/v1", resume_folder=str(tmp_path))
    journal = sampler._journal(DECODING, 2, 0, ())
    assert journal is not None and journal.folder.name == "3b5a459e157ffff6e3aa0577571d271e"
