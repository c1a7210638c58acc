"""Samplers: prompts in, completions out."""

from aipo.samplers.hf import HFSampler
from aipo.samplers.protocols import VLLM, ChatMessages, TransformersServe
from aipo.samplers.sampler import KeepingSampler, Sampler
from aipo.samplers.server import ServerSampler
from aipo.samplers.vllm_server import VLLMServer

__all__ = [
    "ChatMessages",
    "HFSampler",
    "KeepingSampler",
    "Sampler",
    "ServerSampler",
    "TransformersServe",
    "VLLM",
    "VLLMServer",
]
