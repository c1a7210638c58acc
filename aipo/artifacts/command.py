"""`python -m aipo.artifacts`: look into a store, verify it, exchange artifacts, and remove what nothing needs."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from aipo.artifacts.claims import LockKind
from aipo.artifacts.exchange import pull_whole, push_all
from aipo.artifacts.files import StaleArtifactError, StoreError, missing_weights
from aipo.artifacts.garbage import ALSO, Keep, Sweeps, carry_out, plan
from aipo.artifacts.inventory import Entry, Inventory, size_bytes


def main(arguments: Sequence[str] | None = None, program: str = "python -m aipo.artifacts") -> int:
    """Run one command; 0, or 1 with an error on stderr, or 1 when `verify` found a changed artifact.

    `program` is what the user typed, for the help.
    """
    options = _parser(program).parse_args(arguments)
    try:
        status = options.run(options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # as of `aipo ls | head`: what reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (StoreError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser(program: str) -> argparse.ArgumentParser:
    about = "Look into a store, verify it, exchange artifacts, and remove what nothing needs."
    parser = argparse.ArgumentParser(prog=program, description=about)
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(name: str, help: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help, description=help)
        command.add_argument(
            "--store", type=Path, default=Path("outputs"), help="the store's folder (default: outputs)"
        )
        command.set_defaults(run=run)
        return command

    listing = add("ls", "List the finished artifacts, oldest first.", _ls)
    listing.add_argument("stage", nargs="?", help="of this stage alone")
    add("du", "Tell how much space every stage takes.", _du)
    show = add("show", "Print an artifact's manifest: settings, parents, machine, counts, files.", _show)
    show.add_argument("fingerprint", help="or as many of its first digits as make it unique")
    verify = add("verify", "Compare every byte of every artifact with its manifest.", _verify)
    verify.add_argument("fingerprint", nargs="*", help="only these (default: all)")
    push = add("push", "Send all finished artifacts and kept replies to a remote store.", _push)
    push.add_argument("fingerprint", nargs="*", help="only these artifacts (default: all)")
    pull = add("pull", "Bring artifacts from a remote store, with their weights.", _pull)
    pull.add_argument("fingerprint", nargs="+", help="which; or as many of its first digits as make it unique")
    for command in (push, pull):
        command.add_argument("--remote", required=True, help="its URL, as store.remote")
    pull.add_argument("--lock", choices=get_args(LockKind), default="flock", help="the store's lock (store.lock)")
    gc = add("gc", "Tell what no sweep needs, and remove it with --delete.", _gc)
    results = "the folders of all sweeps that use the store, those of other checkouts too (default: results)"
    gc.add_argument("--results", type=Path, nargs="+", default=[Path("results")], help=results)
    gc.add_argument("--delete", action="store_true", help="remove it; without this nothing is changed")
    gc.add_argument("--also", choices=ALSO, nargs="+", default=[], help="remove these too, which otherwise stay")
    gc.add_argument(
        "--weights",
        choices=get_args(Keep),
        default="all",
        help="of the rounds that sweeps reached, keep all weights, those of each job's last round, or those of its "
        "best by the primary metric of its first benchmark; a round's other files stay, so nothing runs again",
    )
    gc.add_argument("--lock", choices=get_args(LockKind), default="flock", help="the store's lock (store.lock)")
    return parser


def _ls(options: argparse.Namespace) -> int:
    entries = list(Inventory.of(options.store).entries.values())
    if options.stage:
        known = sorted({entry.artifact.stage for entry in entries})
        if options.stage not in known:
            raise ValueError(f"no artifact of stage {options.stage!r}; there are: {', '.join(known) or 'none'}")
        entries = [entry for entry in entries if entry.artifact.stage == options.stage]
    for entry in sorted(entries, key=lambda entry: (entry.manifest or {}).get("created", "")):
        manifest = entry.manifest
        said = _said(entry) if manifest else "its manifest cannot be read"
        created, seconds = (manifest["created"], f"{manifest['seconds']:9.1f} s") if manifest else ("", " " * 11)
        digest, stage = entry.artifact.fingerprint, entry.artifact.stage
        print(f"{digest}  {stage:<11} {created:<20} {seconds} {_size(entry.size_bytes):>10}  {said}")
    return 0


def _du(options: argparse.Namespace) -> int:
    store = Inventory.of(options.store)
    sizes: dict[str, list[int]] = {}
    for entry in store.entries.values():
        sizes.setdefault(entry.artifact.stage, []).append(entry.size_bytes)
    for name, paths in (
        ("unfinished", store.partials),
        ("set aside", store.aside),
        ("replies", store.replies),
        ("locks", store.locks),
        ("incoming", store.incoming),
    ):
        if paths:
            sizes[name] = [size_bytes(path) for path in paths]
    for name, found in sorted(sizes.items(), key=lambda item: -sum(item[1])):
        print(f"{_size(sum(found)):>10}  {name:<11} {len(found)}")
    print(f"{_size(sum(sum(found) for found in sizes.values())):>10}  in all")
    return 0


def _show(options: argparse.Namespace) -> int:
    (entry,) = _chosen(Inventory.of(options.store), [options.fingerprint])
    print(entry.artifact.path)
    print(json.dumps(entry.artifact.manifest(), indent=1, ensure_ascii=False))
    return 0


def _verify(options: argparse.Namespace) -> int:
    store = Inventory.of(options.store)
    entries = _chosen(store, options.fingerprint) if options.fingerprint else list(store.entries.values())
    changed = 0
    for entry in entries:
        try:
            entry.artifact.verify()
        except StaleArtifactError as error:
            changed += 1
            print(f"changed: {error}")
    checked = sum(entry.size_bytes for entry in entries)
    print(f"{len(entries) - changed} of {len(entries)} artifacts are as they were made ({_size(checked)})")
    return 1 if changed else 0


def _push(options: argparse.Namespace) -> int:
    store = Inventory.of(options.store)
    entries = _chosen(store, options.fingerprint) if options.fingerprint else list(store.entries.values())
    print(push_all(options.store, options.remote, entries))
    return 0


def _pull(options: argparse.Namespace) -> int:
    for folder in pull_whole(options.store, options.remote, options.fingerprint, options.lock):
        print(folder)
    return 0


def _gc(options: argparse.Namespace) -> int:
    if absent := [folder for folder in options.results if not folder.is_dir()]:
        raise ValueError(f"{absent[0]}: no such folder; without the sweeps' folder everything would look unneeded")
    store = Inventory.of(options.store)
    planned = plan(store, Sweeps.of(*options.results), options.also, options.weights)
    locks = [removal for removal in planned.removals if removal.path in store.locks]
    for removal in planned.removals:
        if removal not in locks:
            print(f"{_size(removal.size_bytes):>10}  {removal.path}: {removal.why}")
    if locks:
        print(f"{_size(sum(lock.size_bytes for lock in locks)):>10}  {len(locks)} locks, if nobody holds them")
    for path, why in planned.kept:
        print(f"{'kept':>10}  {path}: {why}")
    if not options.delete:
        print(f"{_size(planned.size_bytes):>10}  could be removed; nothing was. Repeat with --delete to remove it")
        return 0
    done = carry_out(store, planned, options.lock)
    print(f"{_size(sum(removal.size_bytes for removal in done)):>10}  removed")
    if len(done) < len(planned.removals):
        print(f"{len(planned.removals) - len(done)} stay: a process works on them")
    return 0


def _chosen(store: Inventory, wanted: Sequence[str]) -> list[Entry]:
    chosen = []
    for digits in wanted:
        found = [entry for digest, entry in store.entries.items() if digest.startswith(digits)]
        if len(found) != 1:
            begin = f"{digits}: {len(found)} artifacts begin with it in {store.root}"
            raise ValueError(f"{begin}; expected one; `aipo ls` lists them")
        chosen += found
    return chosen


def _said(entry: Entry) -> str:
    said = "weights pruned  " if missing_weights(entry.artifact.path) else ""
    counts = (entry.manifest or {})["counts"]
    return said + " ".join(f"{name}={value:.4g}" for name, value in list(counts.items())[:4])


def _size(size: int) -> str:
    value = float(size)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
