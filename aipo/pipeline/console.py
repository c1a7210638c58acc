"""A job on the screen: a line that lives while it works, and a line of scores after every round.

On a terminal the live line says `job 1/2 · round 3/15 · train · 00:42 left`. Elsewhere, and where several jobs share a
screen, plain lines say what happened. Stages that were there already are folded into one line.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.live import Live
from rich.text import Text

from aipo.artifacts import StageEvent
from aipo.benchmarks.judging import Limited
from aipo.jobs import BASE_ITERATION, Point
from aipo.pipeline.run import Run
from aipo.terminal import WIDEST, console, listen

LONG_STAGE_SECONDS = 10.0
"""Without a live line, a stage that took longer is told by itself."""
RECENT_ROUNDS = 5
"""How many of them the time that is left is estimated from."""


@dataclass(frozen=True)
class Place:
    """Where a job stands in its sweep."""

    number: int = 1
    of: int | None = 1
    """None: not known, as on a machine of its own."""
    shares_screen: bool = False
    """Other jobs write to the same screen meanwhile."""
    details: tuple[str, ...] = ()
    """Its overrides beside objective and seed, as typed."""

    def __str__(self) -> str:
        return f"job {self.number}" + (f"/{self.of}" if self.of else "")


ALONE = Place()


@dataclass
class Stopped:
    """Where the last job of this process stopped that did not come to its end."""

    at: str = ""


stopped = Stopped()


@dataclass
class JobConsole:
    """Told of every stage and point of one job; a context manager around its loop."""

    job: Run
    place: Place
    _stage: str = "starting"
    _round: int | None = None
    _share: float | None = None
    _made: int = 0
    _there: int = 0
    _made_since_point: int = 0
    _folded: list[tuple[Point, list[Mapping[str, Any]]]] = field(default_factory=list)
    _times: list[float] = field(default_factory=list)
    _columns: bool = False
    _live: Live | None = None

    def __post_init__(self) -> None:
        self._started = self._last_point = time.monotonic()
        self._rounds = self.job.iteration.iterations
        self._name = f"{self.job.objective.name}, seed {self.job.seed}"

    def __enter__(self) -> JobConsole:
        heading = " · ".join([str(self.place), self._name, *filter(None, [" ".join(self.place.details)])])
        if not self.place.shares_screen or self.place.details:
            _line(heading, style="bold")
        if self.place.shares_screen and self.place.of:
            self._name = f"{self.place.number}/{self.place.of} {self._name}"
        if limited := [f"{name} {limit}" for name, limit in self._limits() if limit]:
            self._tell(f"only the first questions are asked: {', '.join(limited)}", style="yellow")
        if console.is_terminal and not self.place.shares_screen:
            self._live = Live(
                get_renderable=self._living, console=console, refresh_per_second=4, transient=True, auto_refresh=True
            )
            self._live.start()
        listen(self._progressed)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        listen(None)
        if self._live is not None:
            self._live.stop()
        self._unfold()
        if error is None:
            what = f"{self._counted(self._made, 'stage')} made, {self._there} there already"
            self._tell(f"done in {_clock(time.monotonic() - self._started)}: {what}", style="green")
            return
        stopped.at = f"{self.place}, {self._where()}, {self._stage}"
        if isinstance(error, Exception):
            first = " ".join((str(error) or type(error).__name__).splitlines()[0].split())
            self._tell(f"{self.place} failed in {self._where()}, {self._stage}: {first}", style="red")

    def _limits(self) -> Iterator[tuple[str, int | None]]:
        for name, benchmark in self.job.benchmarks.items():
            yield name, benchmark.limit if isinstance(benchmark, Limited) else None

    def begins(self, stage: str, note: str) -> None:
        """A stage begins to work; `note` says of which round and benchmark."""
        words = note.split()
        self._round = int(words[1]) + 1 if words[:1] == ["iter"] else None
        self._stage = " ".join([stage, *words[2 if self._round else 1 :]])
        self._share = None

    def ends(self, event: StageEvent) -> None:
        """A stage is done, or was found."""
        if event.outcome != "run":
            self._there += 1
            return
        self._made += 1
        self._made_since_point += 1
        if self._live is None and event.seconds >= LONG_STAGE_SECONDS:
            self._tell(f"{self._where()} · {self._stage} · {_clock(event.seconds)}", style="dim")

    def reached(self, point: Point, rows: Iterable[Mapping[str, Any]]) -> None:
        """A policy was evaluated; `rows`: its metrics."""
        now = time.monotonic()
        seconds, self._last_point = now - self._last_point, now
        self._stage, self._share = "checking", None
        self._round = point.iteration + 2
        if not self._made_since_point:
            self._folded.append((point, list(rows)))
            return
        if point.iteration != BASE_ITERATION:
            self._times.append(seconds)
        self._made_since_point = 0
        self._unfold()
        self._show(point, rows, seconds)

    def _unfold(self) -> None:
        """One line for the rounds that were there, and the scores of the last of them."""
        if not self._folded:
            return
        (first, _), (last, rows) = self._folded[0], self._folded[-1]
        names = [_round_name(point.iteration) for point in (first, last)]
        span = names[0] if first is last else f"{names[0]} to {names[1]}"
        verb = "was" if first is last else "were"
        self._tell(f"{span} {verb} there already", style="dim")
        self._folded.clear()
        self._show(last, rows, None)

    def _show(self, point: Point, rows: Iterable[Mapping[str, Any]], seconds: float | None) -> None:
        cells = self._cells(point, rows, seconds)
        if self.place.shares_screen:
            shown = [name if name in ("base",) else f"round {name}" for name in [cells[0][1]]]
            shown += [f"{name} {value}" for name, value in cells[1:] if value]
            shown += [f"{_clock(left)} left"] if (left := self._left()) else []
            for place in range(len(self.job.benchmarks), 1, -1):  # the first benchmark and its length always
                if len(self._name) + 3 + len(" · ".join(shown)) > WIDEST:
                    shown.pop(place)
            self._tell(" · ".join(shown))
            return
        widths = [max(len(name), 6) for name, _ in cells]
        if not self._columns:
            self._columns = True
            _line("  " + "  ".join(name.rjust(width) for (name, _), width in zip(cells, widths, strict=True)), "dim")
        line = Text("  ")
        for number, ((name, value), width) in enumerate(zip(cells, widths, strict=True)):
            strong = name in self.job.benchmarks
            line.append(("  " if number else "") + value.rjust(width), style="bold cyan" if strong else "")
        console.print(line, no_wrap=True, overflow="ellipsis", crop=True)

    def _cells(self, point: Point, rows: Iterable[Mapping[str, Any]], seconds: float | None) -> list[tuple[str, str]]:
        """(column, value): round, each benchmark's score, mean length, KL from the base model, time."""
        found = {(row["benchmark"], row["name"]): row["value"] for row in rows if row["diagnostic_judge"] is None}
        number = "base" if point.iteration == BASE_ITERATION else f"{point.iteration + 1}/{self._rounds}"
        cells = [("round", number)]
        for name, benchmark in self.job.benchmarks.items():
            cells.append((name, _number(found.get((name, benchmark.primary_metric)))))
        if self.job.benchmarks:
            name, benchmark = next(iter(self.job.benchmarks.items()))
            length = found.get((name, benchmark.length_metric))
            cells.append((benchmark.length_metric.removeprefix("mean_"), "" if length is None else f"{length:.1f}"))
        if self.job.kl_prompts:
            cells.append(("KL", _number(self._kl(point))))
        cells.append(("time", "" if seconds is None else _clock(seconds)))
        while sum(max(len(name), 6) + 2 for name, _ in cells) > WIDEST - 2 and len(cells) > 4:
            cells.pop(len(cells) - 3)  # the last benchmark; run.log has all
        return cells

    def _kl(self, point: Point) -> float | None:
        if point.kl is None:
            return None
        path = Path(self.job.store.root) / "kl" / point.kl / "kl.json"
        return float(json.loads(path.read_text(encoding="utf-8"))["base"]["nats"])

    def _progressed(self, what: str, done: int, total: int) -> None:
        self._share = done / total if total else None

    def _living(self) -> Text:
        share = "" if self._share is None else f" {100 * self._share:.0f} %"
        parts = [str(self.place), self._where(), self._stage + share]
        if (left := self._left()) is not None:
            parts.append(f"{_clock(left)} left")
        return Text(" · ".join(parts), style="cyan", no_wrap=True, overflow="ellipsis")

    def _where(self) -> str:
        return "base model" if self._round is None else f"round {min(self._round, self._rounds)}/{self._rounds}"

    def _left(self) -> float | None:
        """Seconds, from how long the last rounds took; None before the first of them ended."""
        if not self._times or self._round is None:
            return None
        recent = self._times[-RECENT_ROUNDS:]
        rounds = self._rounds - self._round + 1
        return max(0.0, rounds * sum(recent) / len(recent) - (time.monotonic() - self._last_point))

    def _tell(self, text: str, style: str = "") -> None:
        _line(f"{self._name} · {text}" if self.place.shares_screen else f"  {text}", style)

    @staticmethod
    def _counted(number: int, thing: str) -> str:
        return f"{number} {thing}{'s' * (number != 1)}"


def overrides_shown(overrides: Sequence[str]) -> tuple[str, ...]:
    """Those that tell a job apart for a person: not where it writes, nor what its heading names already."""
    hidden = ("objective=", "seed=", "sweep=", "store.", "verbose=", "live_page=", "hydra", "plan=", "+experiment=")
    return tuple(item for item in overrides if not item.startswith(hidden))


def _line(text: str, style: str = "") -> None:
    console.print(Text(text, style=style), no_wrap=True, overflow="ellipsis", crop=True)


def _round_name(iteration: int) -> str:
    return "base model" if iteration == BASE_ITERATION else f"round {iteration + 1}"


def _number(value: float | None) -> str:
    """Three or four digits, whatever the metric's scale."""
    if value is None:
        return ""
    return f"{value:.3f}" if abs(value) < 2 else f"{value:.2f}" if abs(value) < 20 else f"{value:.1f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"
