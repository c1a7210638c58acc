"""Does anything grow that should not? `python speed/soak.py rounds`, `... jobs`, `... store`.

rounds: one job of 200 rounds in one process, every stage real and as small as it goes, with a judge behind a server.
jobs: a sweep of 200 jobs in one process that find every stage done.
store: what finding, checking and listing costs in a store of 100, 1,000 and 10,000 artifacts.

Of the process: its own memory (also what is swapped out), open descriptors, threads; of the disk: the store, the
results, and how many files both have. All are read by a tracker at the end of a round or job. A line is fitted to what
comes after the first quarter, which loads libraries and fills caches.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from judging import serving

MIB = 2**20
SMALL = (
    *("sweep=soak", "objective=aipo", "kl_prompts=4", "limit=5", "diagnostic_judge=length_only"),
    *(
        "iteration.prompts=8",
        "iteration.candidates=2",
        "iteration.reference=ema",
        "data.self_instruct.calls_per_round=8",
    ),
    *("iteration.decoding.max_new_tokens=64", "trainer.pairs_per_step=4", "trainer.warmup_ratio=0.0"),
    "trainer.learning_rate=1e-6",  # the policy stays as it is, and so does what it writes
    *("benchmark=[gold,mini_mt_bench]", "benchmark.gold.bootstrap_rounds=20", "benchmark.mt_bench.bootstrap_rounds=20"),
    *("benchmark.gold.decoding.max_new_tokens=32", "benchmark.mt_bench.max_new_tokens=32"),
    *("judge=openai_compatible", "judge.model=judge"),
)
FLAT_SHARE = 0.02
"""A level that the fitted line leaves by less than this, from the first quarter to the end, counts as flat."""


class Meter:
    """A tracker that notes what its process holds, and the disk under the working folder."""

    def __init__(self, path: str, when: Literal["round", "job"], every: int = 1, number: int = 0) -> None:
        self.path, self.when, self.every, self.number = Path(path), when, every, number

    def start(self, folder: Path, run: object) -> None:
        pass

    def log(self, kind: str, metrics: Mapping[str, Any]) -> None:
        pass

    def round(self, reached: Any) -> None:
        if self.when == "round" and reached.number % self.every == 0:
            self._note(reached.number)

    def finish(self) -> None:
        if self.when == "job" and self.number % self.every == 0:
            self._note(self.number)

    def _note(self, number: int) -> None:
        from aipo.artifacts.inventory import size_bytes

        lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
        status = {line[0].rstrip(":"): int(line[1]) for line in lines if line[-1] == "kB"}
        row = {
            "number": number,
            "memory_mib": sum(kib for name, kib in status.items() if name in ("RssAnon", "VmSwap")) / 1024,
            "descriptors": len(os.listdir("/proc/self/fd")) - 1,  # the one that lists them
            "threads": threading.active_count(),
            "system_threads": len(os.listdir("/proc/self/task")),
            "store_mib": size_bytes(Path("outputs")) / MIB,
            "results_mib": size_bytes(Path("results")) / MIB,
            "files": sum(len(names) for _, _, names in os.walk(".")),
            "cpu_s": time.process_time(),
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def job(folder: Path, *overrides: str, sweep: bool = False) -> None:
    """`python run.py` with these arguments, in this process."""
    from aipo.command.run import command

    os.chdir(folder)
    sys.argv[1:] = [*(["-m"] if sweep else []), *SMALL, *overrides]
    command()


def rounds(folder: Path, number: int, every: int) -> None:
    """One job of so many rounds."""
    meter = [f"+tracker.soak.path={folder / 'rows.jsonl'}", "+tracker.soak.when=round", f"+tracker.soak.every={every}"]
    with serving(0.0, "[[7]]") as url:
        job(
            folder,
            *(f"judge.endpoint.base_url={url}", f"iteration.iterations={number}"),
            *("+tracker.soak._target_=soak.Meter", *meter),
        )
    report(folder, number, "round", per_step=("store_mib", "results_mib", "files", "cpu_s"))


def jobs(folder: Path, number: int, every: int) -> None:
    """A job of two rounds, then so many that find all of it done: they differ in the meter's number alone."""
    meter = [f"+tracker.soak.path={folder / 'rows.jsonl'}", "+tracker.soak.when=job", f"+tracker.soak.every={every}"]
    with serving(0.0, "[[7]]") as url:
        job(
            folder,
            *(f"judge.endpoint.base_url={url}", "iteration.iterations=2", "jobs_at_once=1"),
            *("+tracker.soak._target_=soak.Meter", *meter, f"+tracker.soak.number=range({number + 1})"),
            sweep=True,
        )
    report(folder, number, "job", per_step=("cpu_s",))


def report(folder: Path, number: int, of: str, per_step: Sequence[str]) -> None:
    """What each quantity was at steps, and where its line goes. Those in `per_step` grow by their nature: their rates
    are looked at instead."""
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    names = [name for name in rows[0] if name != "number"]
    print("  ".join(f"{name:>14}" for name in (of, *names)))
    for row in rows[:: max(1, len(rows) // 10)]:
        print("  ".join(f"{row[name]:14.1f}" for name in ("number", *names)))
    late = [row for row in rows if row["number"] >= number / 4]
    for name in names:
        if name in per_step:
            pairs = zip(late, late[1:], strict=False)
            values = [((two[name] - one[name]) / (two["number"] - one["number"])) for one, two in pairs]
            at, unit = [row["number"] for row in late[1:]], f"{name} per {of}"
        else:
            values, at, unit = [row[name] for row in late], [row["number"] for row in late], name
        print(judgement(unit, at, values, of))


def judgement(name: str, at: Sequence[float], values: Sequence[float], of: str) -> str:
    """The line through the values, and whether it is flat: within `FLAT_SHARE` of the level over its whole length, or
    within its own error (95 %)."""
    slope, _ = statistics.linear_regression(at, values)
    level, span = statistics.fmean(values), at[-1] - at[0]
    middle = statistics.fmean(at)
    rest = [value - level - slope * (x - middle) for x, value in zip(at, values, strict=True)]
    spread = sum((x - middle) ** 2 for x in at)
    error = 1.96 * math.sqrt(sum(value**2 for value in rest) / max(1, len(at) - 2) / spread)
    flat = abs(slope) * span <= FLAT_SHARE * abs(level) or abs(slope) <= error
    return (
        f"{name}: {level:.3f} on average, {slope:+.6f} (+- {error:.6f}) a {of}, "
        f"{slope * span:+.3f} over {span:.0f} {of}s: {'flat' if flat else 'falls' if slope < 0 else 'GROWS'}"
    )


def store(folder: Path, sizes: Sequence[int]) -> None:
    """CPU milliseconds of each operation in a store that grows, every one 200 times but for the listing."""
    from aipo.artifacts import StageReport, Store

    growing = Store(folder / "outputs")

    def build(place: Path) -> StageReport:
        (place / "rows.txt").write_text("a row of text\n" * 100)
        return StageReport({"rows": 100})

    def make(number: int) -> Any:
        return growing.run("answers", version=1, config={"number": number}, parents={}, build=build)

    made: list[Any] = []
    for size in sizes:
        made += [make(number) for number in range(len(made), size)]
        print(
            f"{size:6} artifacts:  {warm(growing, [made[index * (size // 100) % size] for index in range(200)], size)}"
        )


def warm(store: Any, some: Sequence[Any], size: int) -> str:
    """The operations on some artifacts of a store that holds so many."""
    from aipo.artifacts.inventory import Inventory

    figures = {
        "find": clock(lambda one: store.find("answers", one.fingerprint), some),
        "check": clock(lambda one: one.check(), some),
        "verify": clock(lambda one: one.verify(), some),
        "run of a stage that is done": clock(
            lambda one: store.run("answers", version=1, config=one.manifest()["config"], parents={}, build=refuse), some
        ),
        "ls, per artifact": clock(lambda one: Inventory.of(store.root), some[:1]) / size,
    }
    return "  ".join(f"{name} {value:.4f} ms" for name, value in figures.items())


def refuse(folder: Path) -> Any:
    """A build that must not be needed."""
    raise RuntimeError(f"{folder} was to be made again")


def clock(work: Callable[[Any], object], each: Sequence[Any]) -> float:
    """CPU milliseconds of `work` on one of `each`, the median of five passes."""
    found = []
    for _ in range(5):
        began = time.process_time()
        for one in each:
            work(one)
        found.append((time.process_time() - began) / len(each) * 1000)
    return statistics.median(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("rounds", "jobs", "store"))
    parser.add_argument("--number", type=int, default=200, help="of rounds, or of jobs that find all done")
    parser.add_argument("--every", type=int, default=5, help="measure after so many")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1_000, 10_000], help="of the store, ascending")
    parser.add_argument("--folder", type=Path, help="an empty folder to work in (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        if options.what == "store":
            store(folder, options.sizes)
        else:
            {"rounds": rounds, "jobs": jobs}[options.what](folder, options.number, options.every)
        os.chdir("/")


if __name__ == "__main__":
    main()
