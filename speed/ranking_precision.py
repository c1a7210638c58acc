"""How often PairRM's ranks change when its backbone multiplies in TF32 or bfloat16 instead of float32.

    OMP_NUM_THREADS=1 python speed/ranking_precision.py

The published weights are no part of this repository, so a small PairRM is trained first: of two candidates the one with
more tokens of a good kind is better. Then the candidates of new prompts are ranked in each precision. TF32 is what its
definition says, factors rounded to 10 bits of fraction and products summed in float32, so that no GPU is needed.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DebertaV2Config

from aipo.rankers.pairrm_model import PairRMModel
from aipo.rankers.pairrm_scoring import Comparison, comparison_batches, comparison_logits, join

CLS, SEP, SOURCE, FIRST, SECOND, WORDS = 1, 2, 3, 4, 5, 6
VOCABULARY = 206
GOOD = range(WORDS, WORDS + 40)
PRODUCTS = {getattr(torch.ops.aten, name).default for name in ("mm", "addmm", "bmm", "baddbmm")}


class RoundedProducts(TorchDispatchMode):
    """Every factor of a matrix product is rounded to TF32 first."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func in PRODUCTS:
            kept = len(args) - 2
            args = (*args[:kept], *(to_tf32(factor) for factor in args[kept:]))
        return func(*args, **(kwargs or {}))


def to_tf32(values: Tensor) -> Tensor:
    """Rounded to the nearest float32 with 10 bits of fraction, ties to even."""
    bits = values.contiguous().view(torch.int32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


def build(layers: int, width: int) -> PairRMModel:
    """An untrained PairRM of that size."""
    config = DebertaV2Config(
        vocab_size=VOCABULARY, hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 16,
        intermediate_size=4 * width, relative_attention=True, position_buckets=32, pos_att_type=["p2c", "c2p"],
        norm_rel_ebd="layer_norm", share_att_key=True, position_biased_input=False, max_position_embeddings=256,
        type_vocab_size=0, attn_implementation="eager",
    )  # fmt: skip
    config.source_prefix_id, config.cand1_prefix_id, config.cand2_prefix_id = SOURCE, FIRST, SECOND
    config.drop_out, config.n_tasks = 0.0, 1
    return PairRMModel(config).eval()


def segment(rng: random.Random, marker: int, longest: int) -> list[int]:
    """Random words behind a marker."""
    share = rng.random()
    words = [
        rng.choice(GOOD) if rng.random() < share else rng.randrange(GOOD.stop, VOCABULARY)
        for _ in range(rng.randint(5, longest))
    ]
    return [CLS, marker, *words, SEP]


def worth(candidate: list[int]) -> int:
    """The truth: how many words are good."""
    return sum(token in GOOD for token in candidate)


def train(model: PairRMModel, steps: int, rng: random.Random) -> None:
    """Logistic loss on which of two candidates is worth more, 32 comparisons a step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 20) * (1 - step / steps)
        rows, better = [], []
        while len(rows) < 32:
            one, other = (segment(rng, FIRST, 24) for _ in range(2))
            if worth(one) != worth(other):
                rows.append(join(segment(rng, SOURCE, 10), one, other, SECOND))
                better.append(float(worth(one) > worth(other)))
        length = max(len(row.ids) for row in rows)
        ids = torch.tensor([[*row.ids, *[0] * (length - len(row.ids))] for row in rows])
        logits = model(ids, (ids > 0).long(), torch.tensor([row.markers for row in rows]))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor(better))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def gaps(model: PairRMModel, rows: list[Comparison], dtype: str) -> Tensor:
    """(prompts, 5, 5): logit of i before j less that of j before i."""
    logits = torch.zeros(len(rows), dtype=torch.float64)
    for batch, values in comparison_logits(model, 0, rows, comparison_batches(rows, 2**19), dtype):
        logits[list(batch)] = torch.tensor(values, dtype=torch.float64)
    matrix = torch.zeros(len(rows) // 20, 5, 5, dtype=torch.float64)
    for place, (one, other) in enumerate(itertools.permutations(range(5), 2)):
        matrix[:, one, other] = logits[place::20]
    return matrix - matrix.transpose(1, 2)


def main() -> None:
    """Train, rank, compare; print a row for each precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=64)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    rng = random.Random(0)
    model = build(arguments.layers, arguments.width)
    train(model, arguments.steps, rng)
    prompts = [[segment(rng, FIRST, 24) for _ in range(5)] for _ in range(arguments.prompts)]
    rows = [
        join(source, one, other, SECOND)
        for candidates in prompts
        for source in [segment(rng, SOURCE, 10)]
        for one, other in itertools.permutations(candidates, 2)
    ]
    truth = torch.tensor([[worth(candidate) for candidate in candidates] for candidates in prompts])

    def tf32() -> Tensor:
        with RoundedProducts():
            return gaps(model, rows, "float32")

    def bfloat16() -> Tensor:
        model.pretrained_model.to(torch.bfloat16)
        return gaps(model, rows, "bfloat16")

    found: dict[str, Tensor] = {}
    sides: dict[str, Callable[[], Tensor]] = {
        "float32": lambda: gaps(model, rows, "float32"), "TF32": tf32, "bfloat16": bfloat16,
    }  # fmt: skip
    upper = torch.triu_indices(5, 5, 1)
    for name, side in sides.items():
        started = time.process_time()
        found[name] = side()
        seconds = time.process_time() - started
        scores, exact = found[name].mean(2), found["float32"].mean(2)
        order = (scores[:, upper[0]] - scores[:, upper[1]]).sign()
        same = order == (exact[:, upper[0]] - exact[:, upper[1]]).sign()
        apart = truth[:, upper[0]] != truth[:, upper[1]]
        right = (order == (truth[:, upper[0]] - truth[:, upper[1]]).sign())[apart]
        ends = (scores.argmax(1) == exact.argmax(1)) & (scores.argmin(1) == exact.argmin(1))
        chance = (torch.sigmoid(found[name]) - torch.sigmoid(found["float32"])).abs()
        print(
            f"{name:9} order as float32 {same.double().mean():.4%}, best and worst as float32 "
            f"{ends.double().mean():.2%}, truth's order {right.double().mean():.2%}, win probability differs by "
            f"{chance.mean():.1e} on average, {chance.max():.1e} at most; {seconds:.1f} s of CPU",
            flush=True,
        )


if __name__ == "__main__":
    main()
