"""What training keeps in a device's memory, by the same rules as `aipo.training`.

Weights: a float32 policy is trained as it is; a bfloat16 one has float32 masters beside it (`ddp`), or float32 shards
from which two layers at a time are gathered in bfloat16 (`fsdp2`). Gradients are summed in float32. AdamW keeps two
float32 moments. With adapters only those are trained.

Activations: bytes that autograd keeps per token, counted once on transformers 5.23's decoder layers with autograd's
saved-tensor hooks: norms and residuals, queries, expanded keys and values, attention output, MLP; eager attention keeps
its probabilities too.
"""

from __future__ import annotations

from dataclasses import dataclass

from aipo.models.shape import ModelShape
from aipo.planning.costs import GIB

LOGIT_TILE = 4096 * 16384
"""Logits computed at once on a GPU (`aipo.models.vocabulary.GPU_TILING`), in float32."""


@dataclass(frozen=True)
class TrainingSetup:
    """The part of model, trainer and data that memory depends on."""

    dtype: str
    """What training computes in: float32 or bfloat16."""
    attn_implementation: str
    processes: int
    sharded: bool
    """True for fsdp2: weights, gradients and moments are divided among the processes."""
    gradient_checkpointing: bool
    lora_rank: int | None
    longest_row: int
    """Tokens of the longest row: a prompt with both its completions."""
    sampled_dtype: str = "float32"
    """Of the policy on disk."""
    keep_masters: bool = True
    """True: a policy that is not sampled in float32 has its float32 weights beside it on disk."""


@dataclass(frozen=True)
class Memory:
    """GiB on each device while training."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    """Of the longest row alone; the trainer then fills what is left with more rows."""
    logits: float

    @property
    def total(self) -> float:
        """The sum of the parts."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits


def training_memory(shape: ModelShape, setup: TrainingSetup) -> Memory:
    """What one process needs, with one row in flight."""
    half = setup.dtype != "float32"
    trained = shape.parameters if setup.lora_rank is None else lora_parameters(shape, setup.lora_rank)
    shards = setup.processes if setup.sharded else 1
    if setup.lora_rank is not None:
        weights: float = shape.parameters * (2 if half else 4) + 4 * trained
    elif setup.sharded and setup.processes > 1:
        weights = 4 * trained / shards + (2 if half else 4) * _gathered(shape)
    else:
        weights = trained * (2 + 4 if half else 4)
    layer = setup.longest_row * activation_bytes(shape, setup)
    if setup.gradient_checkpointing:
        kept = setup.longest_row * shape.num_hidden_layers * shape.hidden_size * (2 if half else 4)
        activations = kept + layer
    else:
        activations = layer * shape.num_hidden_layers
    # A tile of logits, their exponentials and their gradient.
    logits = 3 * 4 * min(LOGIT_TILE, setup.longest_row * shape.vocab_size)
    parts = (weights, 4 * trained / shards, 8 * trained / shards, activations, logits)
    return Memory(*(part / GIB for part in parts))


def activation_bytes(shape: ModelShape, setup: TrainingSetup) -> float:
    """What autograd keeps of one token in one layer."""
    width, inner = shape.hidden_size, shape.intermediate_size
    attended = shape.num_attention_heads * shape.head_dim
    if setup.dtype == "float32":
        kept = 24 * width + 16 * inner + 16 * attended
    else:
        kept = 16 * width + 8 * inner + 8 * attended
    if setup.attn_implementation == "eager":
        kept += (12 if setup.dtype == "float32" else 8) * shape.num_attention_heads * setup.longest_row
    return kept


def lora_parameters(shape: ModelShape, rank: int) -> int:
    """Weights of adapters on all linear layers but the head: rank x (inputs + outputs) each."""
    h, i = shape.hidden_size, shape.intermediate_size
    queries, keys = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
    sides = 2 * (h + queries) + 2 * (h + keys) + 3 * (h + i)
    return shape.num_hidden_layers * rank * sides


def checkpoint_gib(shape: ModelShape, setup: TrainingSetup) -> float:
    """A mid-epoch checkpoint on disk: trained weights and two moments, all float32."""
    trained = shape.parameters if setup.lora_rank is None else lora_parameters(shape, setup.lora_rank)
    return 12 * trained / GIB


def policy_gib(shape: ModelShape, setup: TrainingSetup) -> float:
    """A trained policy on disk: the weights that are sampled, and their masters where these are others."""
    if setup.sampled_dtype == "float32":
        return 4 * shape.parameters / GIB
    return shape.parameters * (2 + 4 if setup.keep_masters else 2) / GIB


def average_gib(shape: ModelShape) -> float:
    """An average of policies on disk (iteration.reference=ema): float32 weights."""
    return 4 * shape.parameters / GIB


def _gathered(shape: ModelShape) -> int:
    """Weights that are whole at a time under fsdp2: this layer and the next, and embeddings and head at the ends."""
    embeddings = shape.vocab_size * shape.hidden_size * (1 if shape.tie_word_embeddings else 2)
    layers = shape.parameters - embeddings - shape.hidden_size
    return embeddings + 2 * layers // shape.num_hidden_layers
