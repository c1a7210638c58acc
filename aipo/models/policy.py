"""Where a policy's weights lie, what is missing to load them, and how they are loaded."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from aipo.models.shape import ModelShape
from aipo.models.weights import ModelError, check_names, load_checked
from aipo.records import Message

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

DTYPES = ("float32", "bfloat16", "float16")
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_TIMEOUT_S = 10.0
_HASHED = frozenset({".safetensors", ".json", ".jinja", ".model"})
_WORD_LISTS = ("merges.txt", "vocab.txt", ".tiktoken")
"""Of tokenizers that have no tokenizer.json."""


class BaseModel(Protocol):
    """A base model that is made on this machine."""

    def identity(self) -> Mapping[str, str]:
        """What pins its weights beyond its settings."""
        ...

    def build(self, folder: Path) -> dict[str, float | int]:
        """Write a Hugging Face folder; returns counts for the manifest."""
        ...


@dataclass(frozen=True)
class PolicyRef:
    """A causal language model in a Hugging Face folder or on the hub: safetensors only, no remote code unless asked."""

    path: str
    """A local folder, or a hub id such as `mistralai/Mistral-7B-Instruct-v0.2`."""
    revision: str | None = None
    """The commit of a hub model. Required there: a branch moves, and artifacts would meet other weights unnoticed."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """What the policy is sampled in, and trained in unless `trainer.dtype` says otherwise."""
    attn_implementation: str = "sdpa"
    trust_remote_code: bool = False
    masters: str | None = None
    """A folder with the same weights in float32, where training goes on from: a trained policy's. None: `path`."""
    chat_template: str | None = None
    """A Jinja chat template that replaces the tokenizer's own (for base models that ship none)."""
    shape: ModelShape | None = field(default=None, compare=False)
    """For the planner, which must not download anything. It changes nothing that is computed."""

    OPERATIONAL: ClassVar[tuple[str, ...]] = ("shape",)

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"model.dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")

    def missing(self) -> list[str]:
        """What the model lacks, one line each with its remedy. Asks the hub (10 s at most) for what is not here.

        Of a local folder, the names and sizes of all tensors are compared with its config.json, and one user's turn is
        written by its chat template; no weight is read.
        """
        lines = self.missing_files()
        folder = Path(self.path)
        if lines or not folder.is_dir():
            return lines
        try:
            check_names(self.path, trust_remote_code=self.trust_remote_code)
        except ModelError as error:
            return [str(error)]
        except Exception as error:  # a config.json of any content
            reason = " ".join(str(error).split())[:300]
            return [f"{folder}: transformers cannot load it as a causal language model ({reason})"]
        return self._missing_for_chats()

    def _missing_for_chats(self) -> list[str]:
        from aipo.models.tokens import TokenizerError, prompt_token_ids

        try:
            prompt_token_ids(self.load_tokenizer(), (Message("user", "a"),))
        except TokenizerError as error:
            return [" ".join(str(error).split())]
        except Exception as error:  # files of any content, and a template may raise anything
            reason = " ".join(str(error).split())[:300]
            return [
                f"{self.path}: its tokenizer writes no chat ({type(error).__name__}: {reason}); save it there again "
                "with save_pretrained, or set model.chat_template"
            ]
        return []

    def config_problem(self) -> str | None:
        """Why the config.json of a local folder cannot be read; None where it can, or there is none."""
        path = Path(self.path) / "config.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            return f"{path} cannot be read ({error}); copy it from the model that these weights are of"
        if not isinstance(found, dict):
            return (
                f"{path}: expected a JSON object, got {type(found).__name__}; copy it from the model of these weights"
            )
        return None

    def missing_files(self) -> list[str]:
        """The part of `missing` that is true of any kind of model: its files, without a look at their content."""
        folder = Path(self.path)
        if folder.is_dir():
            return _missing_from_folder(folder)
        if not HUB_ID.fullmatch(self.path):
            return [f"model folder {self.path}: no such folder; set model.path to a Hugging Face folder or a hub id"]
        if self.revision is None or not COMMIT.fullmatch(self.revision):
            return [
                f"model.revision: expected the 40-digit commit of {self.path} (if that is a hub id, not a folder that "
                f"should be here), got {self.revision!r}"
            ]
        return [] if _is_cached(self.path, self.revision) else _missing_from_hub(self.path, self.revision)

    def identity(self) -> dict[str, str]:
        """What pins the content beyond the settings: for a local folder, a hash of the files that a model is made of.

        Those are weights, settings, chat templates and the tokenizer: its word lists, too, where there is no
        tokenizer.json; and code, where it may be run. No file of a folder inside it.
        """
        folder = Path(self.path)
        if not folder.is_dir():
            return {}
        suffixes = _HASHED | ({".py"} if self.trust_remote_code else set())
        has_word_lists = not (folder / "tokenizer.json").exists()
        digest = hashlib.sha256()
        for path in sorted(folder.iterdir()):
            if path.suffix in suffixes or (has_word_lists and path.name.endswith(_WORD_LISTS)):
                digest.update(path.name.encode())
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        return {"sha256": digest.hexdigest()}

    def load_model(self) -> PreTrainedModel:
        """The model, in `dtype`, in evaluation mode, on the CPU.

        A folder that is not complete, or holds weights that are not finite, raises ModelError.
        """
        return self._load(self.path, self.dtype)

    def load_masters(self) -> PreTrainedModel:
        """The same model in float32: with the weights of `masters`, or, where there are none, those of `path`."""
        if self.masters is not None and not Path(self.masters).is_dir():
            raise ModelError(
                f"{self.masters}: the float32 weights that training goes on from are not there; make the round before "
                "again, or go on from its rounded weights with trainer.keep_masters=false"
            )
        return self._load(self.masters or self.path, "float32")

    def _load(self, path: str, dtype: str) -> PreTrainedModel:
        if Path(self.path).is_dir() and (missing := _missing_from_folder(Path(self.path))):
            raise ModelError("; ".join(missing))
        import torch

        model = load_checked(
            path,
            revision=self.revision,
            dtype=getattr(torch, dtype),
            attn_implementation=self.attn_implementation,
            trust_remote_code=self.trust_remote_code,
        )
        _validate(model.generation_config)
        return model.eval()

    def load_outline(self, dtype: torch.dtype) -> PreTrainedModel:
        """The model without its weights, which are on the meta device: for code that gives each process a part."""
        from accelerate import init_empty_weights
        from transformers import AutoModelForCausalLM

        with init_empty_weights(include_buffers=False):
            model = AutoModelForCausalLM.from_config(
                self._load_config(),
                dtype=dtype,
                attn_implementation=self.attn_implementation,
                trust_remote_code=self.trust_remote_code,
            )
        model.tie_weights()
        return model.eval()

    def context_tokens(self) -> int | None:
        """The longest text, prompt and answer together, that the model has positions for; None where none is stated."""
        config = self._load_config().get_text_config()
        return getattr(config, "max_position_embeddings", None)

    def load_generation_config(self) -> GenerationConfig:
        """The generation config saved with the model, or the one that follows from its config (for its EOS)."""
        from transformers import GenerationConfig

        try:
            return GenerationConfig.from_pretrained(self.path, revision=self.revision)
        except OSError:
            return GenerationConfig.from_model_config(self._load_config())

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer that belongs to the model."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(
            self.path, revision=self.revision, trust_remote_code=self.trust_remote_code
        )
        if self.chat_template is not None:
            tokenizer.chat_template = self.chat_template
        return tokenizer

    def _load_config(self) -> PretrainedConfig:
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(self.path, revision=self.revision, trust_remote_code=self.trust_remote_code)


def _validate(config: GenerationConfig) -> None:
    """Some hub models list a temperature without `do_sample`, which transformers refuses to save after training."""
    try:
        config.validate(strict=True)
    except ValueError:
        config.do_sample = True
        config.validate(strict=True)


def _missing_from_folder(folder: Path) -> list[str]:
    if not (folder / "config.json").exists():
        return [f"{folder}/config.json: not a Hugging Face model folder; save one there with save_pretrained"]
    found = []
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
        has = f"only pickled weights ({pickled[0]}), which can run code when they are opened" if pickled else "none"
        found.append(
            f"{folder}/*.safetensors: the folder has {has}; load the model where you trust it and call "
            "save_pretrained, which writes safetensors"
        )
    if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")):
        found.append(f"{folder}/tokenizer.json: no tokenizer beside the weights; save it there with save_pretrained")
    return found


def _is_cached(hub_id: str, revision: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    def cached(name: str) -> bool:
        return isinstance(try_to_load_from_cache(hub_id, name, revision=revision), str)

    return cached("config.json") and (cached("model.safetensors") or cached("model.safetensors.index.json"))


def _missing_from_hub(hub_id: str, revision: str) -> list[str]:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    api = HfApi()
    try:
        files = {
            file.rfilename for file in api.model_info(hub_id, revision=revision, timeout=HUB_TIMEOUT_S).siblings or ()
        }
        api.auth_check(hub_id)
    except GatedRepoError:
        return [f"access to {hub_id}: accept its licence on its hub page and set HF_TOKEN to a token of that account"]
    except RevisionNotFoundError:
        return [f"model.revision: {hub_id} has no commit {revision}"]
    except RepositoryNotFoundError:
        return [f"model {hub_id}: neither a local folder nor a public hub model; a private one needs HF_TOKEN"]
    except Exception as error:  # no network, offline mode, a proxy's answer: the client's own errors vary by version
        return [
            f"model {hub_id}: not in the local cache, and the hub does not answer ({type(error).__name__}); download "
            f"it with `hf download {hub_id} --revision {revision}`, or set model.path to a folder"
        ]
    if not any(name.endswith(".safetensors") for name in files):
        return [f"model {hub_id}: the hub has no safetensors weights at {revision}; choose a revision that has"]
    return []
