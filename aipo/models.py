"""Where a policy's weights lie, and how they are loaded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class PolicyRef:
    """A causal language model in a Hugging Face folder or on the hub: safetensors only, no remote code unless asked."""

    path: str
    """A local folder, or a hub id such as `mistralai/Mistral-7B-Instruct-v0.2`."""
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    attn_implementation: str = "sdpa"
    trust_remote_code: bool = False
    chat_template: str | None = None
    """A Jinja chat template that replaces the tokenizer's own (for base models that ship none)."""

    def identity(self) -> dict[str, str]:
        """What pins the content beyond the settings: for a local folder, a hash of its weights and tokenizer."""
        folder = Path(self.path)
        if not folder.is_dir():
            return {}
        digest = hashlib.sha256()
        for path in sorted(folder.iterdir()):
            if path.suffix in (".safetensors", ".json", ".jinja", ".model"):
                digest.update(path.name.encode())
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        return {"sha256": digest.hexdigest()}

    def load_model(self) -> PreTrainedModel:
        """The model, in `dtype`, in evaluation mode, on the CPU."""
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        model = AutoModelForCausalLM.from_pretrained(
            self.path,
            revision=self.revision,
            dtype=getattr(torch, self.dtype),
            attn_implementation=self.attn_implementation,
            use_safetensors=True,
            trust_remote_code=self.trust_remote_code,
        )
        return model.eval()

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer that belongs to the model."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(
            self.path, revision=self.revision, trust_remote_code=self.trust_remote_code
        )
        if self.chat_template is not None:
            tokenizer.chat_template = self.chat_template
        return tokenizer
