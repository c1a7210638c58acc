"""How far a sampler's own log-probs are from the trainer's: `OMP_NUM_THREADS=1 python speed/sampler_logps.py`.

The sampler decodes token by token through a key-value cache, the trainer scores a pair's whole row at once. Both run
the same random model of 19.5 M parameters, its head scaled so that a token costs a few nats, on the same completions.
What a preference objective would see of the difference is that of the margin, log p(chosen) - log p(rejected).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sampling import make_prompts, save_model

from aipo.models.policy import PolicyRef
from aipo.records import Decoding, Pair, markdown_header, markdown_row
from aipo.samplers.hf import HFSampler
from aipo.training.reference import compute_reference_logps

PROMPTS = 24
DECODING = Decoding(temperature=0.7, top_p=1.0, top_k=50, max_new_tokens=220)


def sharpen(folder: Path) -> None:
    """Logits of a standard deviation of about 3, as trained models have them."""
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] *= 10
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    torch.set_num_threads(1)
    names = (
        "dtype",
        "nats/token",
        "difference of a completion: mean abs., max",
        "of a margin: sd",
        "signs that differ",
    )
    print(markdown_header(names, text_columns=1))
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder))
        sharpen(Path(folder))
        prompts = make_prompts(PROMPTS, 64, 192, seed=0)
        for dtype in ("float32", "bfloat16"):
            policy = PolicyRef(folder, dtype=dtype)
            rows = HFSampler(policy)._run(prompts, DECODING, 2, 0, ())
            pairs = [
                Pair(str(number), str(number), prompt, chosen, rejected, 1.0, 0.0)
                for number, (prompt, (chosen, rejected)) in enumerate(zip(prompts, rows, strict=True))
            ]
            scored = compute_reference_logps(policy, pairs, progress=False)
            ours = torch.tensor([[row.chosen, row.rejected] for row in scored], dtype=torch.float64)
            drawn = torch.tensor([[pair.chosen.logp, pair.rejected.logp] for pair in pairs], dtype=torch.float64)
            error = (drawn - ours).abs()
            margins, drawn_margins = ours[:, 0] - ours[:, 1], drawn[:, 0] - drawn[:, 1]
            nats, spread = -ours.mean() / DECODING.max_new_tokens, (drawn_margins - margins).std()
            differing = f"{int((margins * drawn_margins < 0).sum())} of {PROMPTS}"
            print(
                markdown_row(
                    (dtype, f"{nats:.2f}", f"{error.mean():.2g}, {error.max():.2g}", f"{spread:.2g}", differing)
                )
            )


if __name__ == "__main__":
    main()
