"""Which arguments of `vllm serve` may change what is drawn: those are part of what an artifact is."""

from __future__ import annotations

from collections.abc import Sequence

HARMLESS = frozenset(
    """
    tensor-parallel-size tp pipeline-parallel-size pp data-parallel-size dp data-parallel-size-local dpl
    data-parallel-start-rank dpr data-parallel-address dpa data-parallel-rpc-port dpp data-parallel-backend dpb
    data-parallel-rank data-parallel-hybrid-lb decode-context-parallel-size dcp enable-expert-parallel
    distributed-executor-backend master-addr master-port nnodes node-rank n r headless max-parallel-loading-workers
    disable-custom-all-reduce api-server-count asc
    max-num-seqs max-num-batched-tokens max-model-len max-num-partial-prefills max-long-partial-prefills
    long-prefill-token-threshold enable-chunked-prefill enable-prefix-caching prefix-caching-hash-algo
    async-scheduling scheduling-policy stream-interval
    gpu-memory-utilization kv-cache-memory-bytes swap-space cpu-offload-gb block-size num-gpu-blocks-override
    enforce-eager
    host port uds root-path api-key ssl-keyfile ssl-certfile ssl-ca-certs ssl-cert-reqs enable-ssl-refresh
    allow-credentials allowed-origins allowed-methods allowed-headers
    disable-log-stats disable-log-requests enable-log-requests enable-log-outputs max-log-len disable-uvicorn-access-log
    uvicorn-log-level log-config-file disable-fastapi-docs enable-request-id-headers enable-server-load-tracking
    show-hidden-metrics-for-version otlp-traces-endpoint collect-detailed-traces
    download-dir hf-token use-tqdm-on-load disable-frontend-multiprocessing
    """.split()
)
"""Names without dashes, `no-` of a switch left out. They decide where and how fast vLLM computes, or what it logs:
completions change by rounding alone. `--seed` is not here: nor is anything that vLLM may get later."""


def drawing_arguments(arguments: Sequence[str]) -> list[str]:
    """The arguments that may change what is drawn, in the order of their names; all that are not known to be harmless.

    A value stands behind its name with `=`, whichever way it was given, and `_` in a name is a dash, as for vLLM.
    """
    found: list[str] = []
    for item in map(str, arguments):
        if item.startswith("-") and not _is_number(item):
            name, equals, value = item.partition("=")
            found.append(name.replace("_", "-") + equals + value)
        elif found:  # values of the argument before, one or several
            found[-1] += (" " if "=" in found[-1] else "=") + item
        else:
            found.append(item)
    return sorted((item for item in found if _name(item) not in HARMLESS), key=_name)


def _name(argument: str) -> str:
    return argument.partition("=")[0].lstrip("-").removeprefix("no-")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
