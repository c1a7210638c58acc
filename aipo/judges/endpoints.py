"""Where a judge model answers, and what it costs. Keys come from the environment alone, and no identity holds one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from aipo.remote.probe import PROBE_S, probe
from aipo.remote.redaction import keep_secret, redact, require_no_key

if TYPE_CHECKING:
    from openai import OpenAI

_START = "start it, or set judge.endpoint"


class Endpoint(Protocol):
    """An address that speaks the OpenAI protocol."""

    def identity(self) -> str:
        """The address, without any key."""
        ...

    def missing(self) -> list[str]:
        """What the environment lacks."""
        ...

    def probe(self) -> list[str]:
        """Why nothing can be asked there, once nothing is missing: a line, or none when it answers within 5 s."""
        ...

    def connect(self, timeout_s: float) -> OpenAI:
        """A client that never retries by itself."""
        ...


@dataclass(frozen=True)
class OpenAIEndpoint:
    """OpenAI's own API, or any server with its protocol: vLLM, Ollama, `transformers serve`."""

    base_url: str = "https://api.openai.com/v1"
    """Up to and with `/v1`."""
    key_variable: str | None = "OPENAI_API_KEY"
    """The environment variable that holds the key. None: the server asks for none."""

    def __post_init__(self) -> None:
        _require_url("base_url", self.base_url)
        keep_secret(self.key_variable)

    def identity(self) -> str:
        """The base URL."""
        return self.base_url

    def missing(self) -> list[str]:
        """The key, where one is needed."""
        return _missing_key(self.key_variable)

    def probe(self) -> list[str]:
        """Ask for its models."""
        with self.connect(PROBE_S) as client:
            return probe(client, "judge", self.base_url, self.key_variable, _START)

    def connect(self, timeout_s: float) -> OpenAI:
        """A client for the base URL."""
        from openai import OpenAI

        key = os.environ[self.key_variable] if self.key_variable else "none"
        return OpenAI(api_key=key, base_url=self.base_url, timeout=timeout_s, max_retries=0)


@dataclass(frozen=True)
class AzureEndpoint:
    """Azure OpenAI. The judge's `model` is the deployment's name."""

    azure_endpoint: str
    """https://<resource>.openai.azure.com"""
    api_version: str
    key_variable: str = "AZURE_OPENAI_API_KEY"

    def __post_init__(self) -> None:
        _require_url("azure_endpoint", self.azure_endpoint)
        keep_secret(self.key_variable)

    def identity(self) -> str:
        """The resource and the API version."""
        return f"{self.azure_endpoint} {self.api_version}"

    def missing(self) -> list[str]:
        """The key."""
        return _missing_key(self.key_variable)

    def probe(self) -> list[str]:
        """Ask for its models."""
        with self.connect(PROBE_S) as client:
            return probe(client, "judge", self.azure_endpoint, self.key_variable, _START)

    def connect(self, timeout_s: float) -> OpenAI:
        """A client for the resource."""
        from openai import AzureOpenAI

        return AzureOpenAI(
            api_key=os.environ[self.key_variable],
            azure_endpoint=self.azure_endpoint,
            api_version=self.api_version,
            timeout=timeout_s,
            max_retries=0,
        )


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens."""

    input_per_million: float
    output_per_million: float
    source: str
    """Where the figures were read, and when."""

    def __post_init__(self) -> None:
        for name in ("input_per_million", "output_per_million"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"judge.price.{name} must be at least 0 and finite, got {getattr(self, name)}")

    def dollars(self, input_tokens: float, output_tokens: float) -> float:
        """The price of one request."""
        return (input_tokens * self.input_per_million + output_tokens * self.output_per_million) / 1e6


@runtime_checkable
class Priced(Protocol):
    """A judge that says what it costs."""

    @property
    def price(self) -> Price | None:
        """None: not known."""
        ...


def _require_url(name: str, url: str) -> None:
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"judge.endpoint.{name}: expected a URL with http:// or https://, got {redact(url)!r}")
    require_no_key(f"judge.endpoint.{name}", url)


def _missing_key(variable: str | None) -> list[str]:
    if variable is None or os.environ.get(variable):
        return []
    return [f"key: the environment variable {variable} is not set; export it (it is never written anywhere)"]
