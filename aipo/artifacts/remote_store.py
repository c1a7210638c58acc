"""A second place for a store: an object store, or a folder elsewhere, that fsspec reaches by its URL.

It has a store's own layout, so a folder that somebody's `store.root` names can be read as one. A finished artifact is
sent whole, its manifest last: without a manifest nothing there is an artifact. What is fetched is compared with the
manifest, byte for byte, before it is put into place. fsspec is imported at the first use.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from aipo.artifacts.files import MANIFEST, StaleArtifactError, StoreError, hash_file
from aipo.artifacts.manifest import manifest_of
from aipo.artifacts.points import reached
from aipo.remote import redact

S3 = ("s3", "s3a")
S3_PATIENCE = {"config_kwargs": {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 3}}}
"""With a server that does not answer at once."""
Result = TypeVar("Result")


class RemoteStore:
    """The store at `url`. With `push` false nothing is ever written there."""

    def __init__(self, url: str, push: bool = True) -> None:
        self.url = url.rstrip("/")
        self.shown = redact(self.url)
        self.push = push
        self.protocol = url.partition("://")[0] if "://" in url else "file"
        self.name = hashlib.sha256(self.url.encode()).hexdigest()[:16]
        """Stands for the URL in names of files."""
        self._open: tuple[int, Any, str] | None = None

    def missing(self) -> list[str]:
        """Why it cannot be read, or written where `push` says so. Writes an object of a few bytes and removes it."""
        if self.protocol in S3 and find_spec("s3fs") is None:
            return [
                "package s3fs, for store.remote: pip install -e '.[s3]', without constraints.txt: it needs older ones"
            ]
        probe = f".probe-{secrets.token_hex(4)}"
        try:
            if self.push:
                self._call("write to", lambda files, root: files.pipe_file(f"{root}/{probe}", b"aipo"))
                self._call("remove from", lambda files, root: files.rm_file(f"{root}/{probe}"))
            else:
                self._call("read", lambda files, root: files.ls(root, detail=False))
        except StoreError as error:
            return [str(error)]
        return []

    def manifest(self, stage: str, digest: str) -> tuple[bytes, dict[str, Any]] | None:
        """The manifest of a finished artifact there, as it is stored and as it is read; None where there is none.

        Raises StoreError when it is not as it was written."""
        text = self._read(f"{stage}/{digest}/{MANIFEST}")
        if text is None:
            return None
        try:
            return text, manifest_of(text, f"{self.shown}/{stage}/{digest}/{MANIFEST}", stage, digest)
        except StaleArtifactError as error:
            raise self._changed(error.what, stage, digest) from error

    def fetch(self, stage: str, digest: str, names: Iterable[str], records: Mapping[str, Any], target: Path) -> None:
        """Bring files of an artifact into the folder `target`; what is there with the right hash stays.

        Raises StoreError for one that is not as its record says.
        """
        for name in names:
            path, record = target / name, records[name]
            if path.exists() and path.stat().st_size == record["bytes"] and hash_file(path) == record["sha256"]:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            reached("remote.fetch", path)
            self.fetch_file(f"{stage}/{digest}/{name}", path)
            if (found := hash_file(path)) != record["sha256"]:
                path.unlink()
                told = f"{self.shown}/{stage}/{digest}/{name}: the manifest lists SHA-256 {record['sha256']}"
                raise self._changed(f"{told}, it has {found}", stage, digest)

    def local_folder(self, stage: str, digest: str) -> Path | None:
        """Where an artifact lies, if this store is a folder of this machine that is only read."""
        if self.push or self.protocol not in ("file", "local"):
            return None
        _, root = self._files()
        return Path(root) / stage / digest

    def send(self, stage: str, digest: str, folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any] | None:
        """Send a finished artifact, its manifest last. Returns the manifest of the one that is there already, if any;
        nothing is sent then."""
        if (there := self.manifest(stage, digest)) is not None:
            return there[1]
        for name in manifest["files"]:
            reached("remote.send", folder / name)
            self.send_file(folder / name, f"{stage}/{digest}/{name}")
            reached("remote.sent", folder / name)
        sizes = self.sizes(f"{stage}/{digest}")
        for name, record in manifest["files"].items():
            if sizes.get(name) != record["bytes"]:
                raise StoreError(
                    f"{self.shown}/{stage}/{digest}/{name}: {record['bytes']} bytes were sent, {sizes.get(name)} are "
                    "there. The artifact is whole in the local store; run the same command again, which sends it again"
                )
        reached("remote.manifest", folder / MANIFEST)
        self._write(f"{stage}/{digest}/{MANIFEST}", (folder / MANIFEST).read_bytes())
        reached("remote.complete", folder / MANIFEST)
        return None

    def sizes(self, prefix: str) -> dict[str, int]:
        """The files below a prefix, by their names below it, with their sizes in bytes."""

        def listed(files: Any, root: str) -> dict[str, int]:
            place = f"{root}/{prefix}"
            try:
                found = files.find(place, detail=True)
            except FileNotFoundError:
                return {}
            return {os.path.relpath(name, place): int(info["size"]) for name, info in found.items()}

        return self._call("list", listed)

    def fetch_file(self, name: str, path: Path) -> None:
        """Bring one file to `path`."""
        self._call("read", lambda files, root: files.get_file(f"{root}/{name}", str(path)))

    def send_file(self, path: Path, name: str) -> None:
        """Send one file."""
        self._call("write to", lambda files, root: files.put_file(str(path), f"{root}/{name}"))

    def _read(self, name: str) -> bytes | None:
        def read(files: Any, root: str) -> bytes | None:
            try:
                content: bytes = files.cat_file(f"{root}/{name}")
                return content
            except FileNotFoundError:
                return None

        return self._call("read", read)

    def _write(self, name: str, content: bytes) -> None:
        """An object store shows an object whole or not at all; a file system is made to."""

        def write(files: Any, root: str) -> None:
            if self.protocol not in ("file", "local"):
                files.pipe_file(f"{root}/{name}", content)
                return
            files.pipe_file(f"{root}/{name}.tmp", content)
            os.replace(f"{root}/{name}.tmp", f"{root}/{name}")

        self._call("write to", write)

    def _files(self) -> tuple[Any, str]:
        """fsspec's file system and the root's path in it; another one after a fork, which takes no threads along."""
        if self._open is None or self._open[0] != os.getpid():
            from fsspec.core import url_to_fs

            options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
            if self.protocol in S3:
                options |= S3_PATIENCE
            if self.protocol in ("file", "local"):
                options["auto_mkdir"] = True
            files, root = url_to_fs(self.url, **options)
            self._open = os.getpid(), files, root
        return self._open[1:]

    def _call(self, what: str, call: Callable[[Any, str], Result]) -> Result:
        with self._explained(what):
            return call(*self._files())

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each protocol's library has errors of its own
            said = " ".join(str(error).split()) or type(error).__name__
            raise StoreError(
                redact(f"store.remote={self.url}: cannot {what} it: {said[:300]}. ")
                + "Check the URL, the network and the keys (for s3:// the environment's AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL), or set store.remote=null. Nothing that is finished is lost"
            ) from error

    def _changed(self, what: str, stage: str, digest: str) -> StoreError:
        return StoreError(
            f"{what}. It was changed after it was sent, and is not used. Remove {self.shown}/{stage}/{digest} and run "
            "the same command again: the artifact is made, or sent from a store that has it, anew"
        )
