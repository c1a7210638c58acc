"""Samplers: prompts in, completions out."""

from aipo.samplers.hf import HFSampler
from aipo.samplers.protocols import VLLM, ChatMessages, TransformersServe
from aipo.samplers.sampler import Sampler
from aipo.samplers.server import ServerSampler
from aipo.samplers.vllm_server import VLLMServer

__all__ = [
    "ChatMessages",
    "HFSampler",
    "Sampler",
    "ServerSampler",
    "TransformersServe",
    "VLLM",
    "VLLMServer",
]
