"""Official questions, judge prompts, references and baselines: where they come from, and where they lie here.

They are other people's texts, so they are fetched by URL and SHA-256 into a cache folder and never part of this
repository. Fetching is a step of its own (`python -m aipo.benchmarks assets`): nothing is downloaded while a
benchmark runs, and offline every message says which file to put where.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ALPACA_EVAL = "https://raw.githubusercontent.com/tatsu-lab/alpaca_eval/cd543a149df89434d8a54582c0151c0b945c3d20"
_FASTCHAT = (
    "https://raw.githubusercontent.com/lm-sys/FastChat/0e6d3e4beaab66f4d3f93db72541a4abab8af28d/fastchat/llm_judge"
)
_ARENA_HARD = "https://raw.githubusercontent.com/lm-sys/arena-hard-auto/efc012e192b88024a5203f5a28ec8fc0342946df"
_AIPO = "https://raw.githubusercontent.com/bytedance/AIPO/3217a735b4cf4131f21d1b287fd8d6698a454173/alignment/tools/evaluation"
_GAMED = "https://huggingface.co/datasets/tatsu-lab/alpaca_eval/resolve/2edc6fad8be6b14ea7230aabfd08188da6b8b814"
CL100K_URL = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"


class MissingAsset(FileNotFoundError):
    """An official file is not in the cache."""


class WrongAsset(ValueError):
    """A file's content is not the pinned one."""


@dataclass(frozen=True)
class Asset:
    """One official file. `path` is relative to the cache folder."""

    path: str
    url: str
    sha256: str


ASSETS: dict[str, tuple[Asset, ...]] = {
    "mt_bench": (
        Asset(
            "mt_bench/question.jsonl",
            f"{_FASTCHAT}/data/mt_bench/question.jsonl",
            "119565adbab82227089cefdb44c8d7e2cf04dc0a0ec233634c82e7d4e2a944f7",
        ),
        Asset(
            "mt_bench/judge_prompts.jsonl",
            f"{_FASTCHAT}/data/judge_prompts.jsonl",
            "fd283293406d024f44c174b094ef48031d0687a4682fd3a56b29b138f80281b6",
        ),
        Asset(
            "mt_bench/reference_answer/gpt-4.jsonl",
            f"{_FASTCHAT}/data/mt_bench/reference_answer/gpt-4.jsonl",
            "f957a5bc977badb66885ec970e6cd08527845780313f0995764260e5777b9b3f",
        ),
        # The references AIPO made for its GPT-4-Turbo judge.
        Asset(
            "mt_bench/reference_answer/gpt-4-1106-preview.jsonl",
            f"{_AIPO}/mt_bench/reference_answer/gpt-4-1106-preview.jsonl",
            "fe030678a33dbbd3d729e7569375150b8830a53f5b11f820a75b630db317f56f",
        ),
    ),
    "alpaca_eval": (
        Asset(
            "alpaca_eval/gpt4_1106_preview.json",
            f"{_ALPACA_EVAL}/results/gpt4_1106_preview/model_outputs.json",
            "83db546b872ddebee8965fd05fa48461ee3c32bc695c62fb57f2d214ff741ec4",
        ),
        Asset(
            "alpaca_eval/alpaca_eval_clf.txt",
            f"{_ALPACA_EVAL}/src/alpaca_eval/evaluators_configs/alpaca_eval_clf_gpt4_turbo/alpaca_eval_clf.txt",
            "784227e6dc2832fc08c43d2c8ea3a308e7523780187a1aaad2f85e30bac85f62",
        ),
        # Not verified: the hash was handed down with the protocol's description, the file itself was never at hand.
        Asset(
            "alpaca_eval/df_gamed.csv",
            f"{_GAMED}/df_gamed.csv",
            "97aeec3f1c7de6dee6fd31fe66f1702623f4614c3efe1c6fc5f4927cd5fd674d",
        ),
    ),
    "arena_hard": (
        Asset(
            "arena_hard/question.jsonl",
            f"{_ARENA_HARD}/data/arena-hard-v0.1/question.jsonl",
            "4daad38811161c3ba5c248f26b90c3cef89634f4c772002ed9138c1e13f63e9f",
        ),
        Asset(
            "arena_hard/model_answer/gpt-4-0314.jsonl",
            f"{_ARENA_HARD}/data/arena-hard-v0.1/model_answer/gpt-4-0314.jsonl",
            "245109b8fe7c3bef0304f1c559d29da377f97f61535ad1170b46a61a08eb9ac7",
        ),
        Asset(
            "arena_hard/judge_config.yaml",
            f"{_ARENA_HARD}/config/judge_config.yaml",
            "6e001736bacacdb1591ffca7eec953a7089f8f5604872d1ca4f9a6f9de1ee451",
        ),
        # Not verified here: the hash is the one tiktoken 0.14 itself pins. The name is the one tiktoken looks for.
        Asset(
            f"tiktoken/{hashlib.sha1(CL100K_URL.encode()).hexdigest()}",
            CL100K_URL,
            "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        ),
    ),
}


def asset(path: str) -> Asset:
    """The asset with this cache path."""
    return next(found for group in ASSETS.values() for found in group if found.path == path)


@dataclass(frozen=True)
class AssetCache:
    """The cache folder: `root`, else $AIPO_ASSETS, else ~/.cache/aipo."""

    root: str | None = None

    @property
    def folder(self) -> Path:
        """Where the files lie."""
        return Path(self.root or os.environ.get("AIPO_ASSETS") or Path.home() / ".cache" / "aipo").expanduser()

    def path(self, wanted: Asset) -> Path:
        """The local file, its content checked. Never downloads: MissingAsset and WrongAsset say what to do."""
        file = self.folder / wanted.path
        if not file.is_file():
            raise MissingAsset(
                f"{file} is missing. With a network: python -m aipo.benchmarks assets. Without: download {wanted.url} "
                f"elsewhere and put it there; its SHA-256 must be {wanted.sha256}"
            )
        _verify(wanted, file.read_bytes(), str(file))
        return file

    def missing(self, wanted: Sequence[Asset]) -> list[Asset]:
        """Those that are not there."""
        return [one for one in wanted if not (self.folder / one.path).is_file()]

    def fetch(self, wanted: Asset, *, timeout_s: float = 60.0) -> Path:
        """The local file, downloaded first where it is missing; a wrong download is never kept."""
        file = self.folder / wanted.path
        if file.is_file():
            return self.path(wanted)
        import pooch

        pooch.get_logger().setLevel("ERROR")  # what is where is said by the caller
        downloader = pooch.HTTPDownloader(timeout=timeout_s, progressbar=sys.stderr.isatty())
        try:
            pooch.retrieve(
                wanted.url, f"sha256:{wanted.sha256}", fname=file.name, path=file.parent, downloader=downloader
            )
        except ValueError as error:
            raise WrongAsset(f"{wanted.url}: this is not the pinned version. {error}") from error
        except OSError as error:
            raise MissingAsset(
                f"cannot download {wanted.url} ({error}). Put the file at {file} by hand; its SHA-256 must be "
                f"{wanted.sha256}"
            ) from error
        return file


def _verify(wanted: Asset, content: bytes, where: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != wanted.sha256:
        raise WrongAsset(
            f"{where}: expected SHA-256 {wanted.sha256}, got {found}; this is not the pinned version of {wanted.url}. "
            "Remove the file and fetch it again"
        )


def cl100k_asset() -> Asset:
    """tiktoken's cl100k_base, under the name that tiktoken looks for."""
    return asset(f"tiktoken/{hashlib.sha1(CL100K_URL.encode()).hexdigest()}")


def load_cl100k(cache: AssetCache) -> Any:
    """tiktoken's cl100k_base encoding, from the cache alone. Raises MissingAsset."""
    file = cache.path(cl100k_asset())
    import tiktoken

    before = os.environ.get("TIKTOKEN_CACHE_DIR")
    os.environ["TIKTOKEN_CACHE_DIR"] = str(file.parent)
    try:
        return tiktoken.get_encoding("cl100k_base")
    finally:
        if before is None:
            del os.environ["TIKTOKEN_CACHE_DIR"]
        else:
            os.environ["TIKTOKEN_CACHE_DIR"] = before


def main(arguments: Sequence[str] | None = None, program: str = "python -m aipo.benchmarks assets") -> int:
    """Fetch what is missing; with --list, only say what is where. Returns the exit status.

    `program` is what the user typed, for the help.
    """
    parser = argparse.ArgumentParser(prog=program, description="Fetch the official benchmark files into the cache.")
    parser.add_argument("benchmark", nargs="*", metavar="BENCHMARK", help=f"{', '.join(ASSETS)} (default: all)")
    parser.add_argument("--folder", help="cache folder (default: $AIPO_ASSETS, else ~/.cache/aipo)")
    parser.add_argument("--list", action="store_true", help="show every file, its hash and whether it is there")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.benchmark) - set(ASSETS)):
        parser.error(f"unknown benchmark(s) {', '.join(unknown)}; choose from {', '.join(ASSETS)}")
    cache = AssetCache(options.folder)
    failures = 0
    for name in options.benchmark or ASSETS:
        for wanted in ASSETS[name]:
            if options.list:
                state = "missing" if cache.missing([wanted]) else "there"
                print(f"{state:8}{wanted.sha256}  {cache.folder / wanted.path}  {wanted.url}")
                continue
            try:
                print(f"there   {cache.fetch(wanted)}")
            except (MissingAsset, WrongAsset) as error:
                failures += 1
                print(f"failed  {error}", file=sys.stderr)
    return 1 if failures else 0
