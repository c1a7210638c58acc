"""Absurd configs, made by a seed: wrong types, impossible sizes, swapped roles, foreign targets, holes."""

from __future__ import annotations

import copy
import functools
import math
import random
from collections.abc import Iterator
from typing import Any

from composing import composed
from omegaconf import DictConfig, OmegaConf

PRESETS: tuple[tuple[str, ...], ...] = (
    (),
    ("objective=simpo", "data=pairrm_gen_uf"),
    ("data=uf", "benchmark=[mini_mt_bench]", "objective=dpo"),
    ("ranker=llm_judge", "judge@ranker.judge=length_only", "objective=dpo", "tracker=wandb"),
    ("judge=gpt_4", "sampler=server", "benchmark=[mini_alpaca_eval]", "sampler.base_url=http://127.0.0.1:1/v1"),
    ("data/self_instruct=official_tfidf", "sampler=vllm", "objective=kto", "iteration.candidates=2"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 10**6, 10**12, 10**21, 10**23, -(10**23), 10**400, 0.5, -0.5, 1e-300, 1e300),
    *(math.inf, -math.inf, math.nan, "", " ", "x", "many", "1", "true", "???", "\0", "a\ud800b", "日本語", "a" * 5000),
    *("../../x", "/", "null", "é" * 300, "<script>", "{}", "%s{0}", [], [1], ["x", None], [[[[1]]]], {}, {"a": 1}),
    *(
        {"_target_": "os.system", "command": "touch absurd"},
        {"_target_": ""},
        {"_target_": 5},
        {"_target_": "sys.exit"},
    ),
    *(
        {"_target_": "builtins.dict"},
        {"_target_": "sys.exit"},
        {"_target_": "subprocess.Popen", "args": ["touch", "absurd"]},
        {1: 2},
    ),
    *({"_target_": "aipo.training.Lora", "rank": 8}, {"_target_": "no.such.thing"}, {"_target_": "aipo.rankers"}),
)


def absurd_configs(count: int, seed: int = 0) -> Iterator[tuple[str, DictConfig]]:
    """`count` configs with what was done to each."""
    draw = random.Random(seed)
    for _ in range(count):
        plain = copy.deepcopy(_preset(draw.randrange(len(PRESETS))))
        done = [_spoil(draw, plain) for _ in range(draw.choice((1, 1, 1, 2, 3)))]
        yield "; ".join(done), OmegaConf.create(plain, flags={"allow_objects": True})


@functools.cache
def _preset(number: int) -> dict[str, Any]:
    found = OmegaConf.to_container(composed(*PRESETS[number], "sweep=absurd"), resolve=True)
    assert isinstance(found, dict)
    return found


def _spoil(draw: random.Random, config: dict[str, Any]) -> str:
    places = list(_places(config, ()))
    path, holder, key = draw.choice(places)
    name = ".".join(map(str, (*path, key)))
    kind = draw.random()
    if kind < 0.06:
        del holder[key]
        return f"{name} deleted"
    if kind < 0.12 and isinstance(holder, dict):
        added = draw.choice(("bta", "sede", "日本", "_args_", "_convert_", "_partial_", "_recursive_", "a.b", ""))
        holder[added] = copy.deepcopy(draw.choice(VALUES))
        return f"{'.'.join(map(str, path))} + {added}={holder[added]!r:.60}"
    if kind < 0.25:
        other, other_holder, other_key = draw.choice(places)
        holder[key] = copy.deepcopy(other_holder[other_key])
        return f"{name} = what is at {'.'.join(map(str, (*other, other_key)))}"
    holder[key] = copy.deepcopy(draw.choice(VALUES))
    return f"{name} = {holder[key]!r:.60}"


def _places(node: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any, Any]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield path, node, key
        yield from _places(value, (*path, key))
