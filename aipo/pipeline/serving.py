"""A policy's sampler for all stages that draw from it in a row, where it has a server to start."""

from __future__ import annotations

from collections.abc import Callable

from aipo.models.policy import PolicyRef
from aipo.samplers.sampler import Sampler


class Serving:
    """Keeps the last sampler that starts a server, so that the server loads its policy once. A sampler stops its server
    when nobody has it any more."""

    def __init__(self, make: Callable[..., Sampler]) -> None:
        self._make = make
        self._kept: tuple[str, Sampler] | None = None

    def sampler(self, policy: PolicyRef, fingerprint: str) -> Sampler:
        """The policy's; a server that holds another one is stopped before."""
        if self._kept is not None and self._kept[0] == fingerprint:
            return self._kept[1]
        self.stop()
        sampler = self._make(policy=policy)
        if getattr(sampler, "server", None) is not None:
            self._kept = fingerprint, sampler
        return sampler

    def stop(self) -> None:
        """Free the devices that a server holds."""
        self._kept = None
