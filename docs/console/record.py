"""Records what the console shows, at 100 columns, into the text files beside this script.

    python docs/console/record.py [NAME ...]      # main_job warm_run failing_run ctrl_c two_workers

Each command runs in a pseudo-terminal of 100 columns, in a folder and a store that are thrown away. Of the line that
lives while a job works, which the terminal overwrites, the first of each round and of its training is kept, marked
with `~`.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import struct
import sys
import tempfile
import termios
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
COLUMNS, LINES = 100, 40
SMALL = "+experiment=smoke"
MAIN = "aipo run -m objective=aipo,dpo iteration.iterations=3"


@dataclass(frozen=True)
class Recording:
    """One command, and where it stands in the story."""

    name: str
    command: str
    before: tuple[str, ...] = ()
    """Commands that ran in the same folder before, unrecorded."""
    stop_at: str | None = None
    """Press Ctrl-C when this is on the screen."""


RECORDINGS = (
    Recording("main_job", MAIN),
    Recording("warm_run", MAIN, before=(MAIN,)),
    Recording("failing_run", f"aipo run {SMALL} data.filters.max_completion_tokens=1"),
    Recording("ctrl_c", f"aipo run {SMALL}", stop_at="round 1/2 · "),
    Recording("two_workers", f"aipo run -m {SMALL} objective=aipo,dpo jobs_at_once=2", before=(f"aipo run {SMALL}",)),
)


class Screen:
    """Enough of a terminal: lines, a cursor that goes up and back, and lines that are erased."""

    def __init__(self) -> None:
        self.lines: list[str] = [""]
        self.kept: dict[str, None] = {}
        """Living lines, the first of each round."""
        self._row = self._column = 0

    def write(self, text: str) -> None:
        """What the program wrote."""
        for part in re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|\r|\n)", text):
            if part == "\n":
                self._row += 1
                if self._row == len(self.lines):
                    self.lines.append("")
            elif part == "\r":
                self._column = 0
            elif part.startswith("\x1b["):
                self._control(part[2:-1], part[-1])
            elif part:
                line = self.lines[self._row].ljust(self._column)
                self.lines[self._row] = line[: self._column] + part + line[self._column + len(part) :]
                self._column += len(part)

    def _control(self, argument: str, letter: str) -> None:
        if letter == "A":
            self._row = max(0, self._row - int(argument or 1))
        elif letter == "K":
            self._keep(self.lines[self._row])
            self.lines[self._row] = ""

    def _keep(self, line: str) -> None:
        found = re.match(r"job \S+ · (base model|round \S+)", line)
        key = found and found[0] + " train" * (" · train" in line)
        if key and key not in self.kept:
            self.kept[key] = None
            self.lines.insert(self._row, "~ " + line.rstrip())
            self._row += 1


def run(command: str, folder: Path, *, stop_at: str | None = None) -> str:
    """The screen after a command has ended."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        arguments = [sys.executable, "-m", "aipo.command", *command.split()[1:]]
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path, "TERM": "xterm-256color", "OMP_NUM_THREADS": "1"}
        environment.pop("COLUMNS", None)
        os.execve(sys.executable, arguments, environment)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    screen, read = Screen(), b""
    while True:
        select.select([terminal], [], [], 1.0)
        try:
            chunk = os.read(terminal, 65536)
        except OSError:  # the child has ended
            break
        if not chunk:
            break
        read += chunk
        text = read.decode("utf-8", "ignore")
        if text.encode() == read:  # no character is cut
            screen.write(text)
            read = b""
        if stop_at and any(stop_at in line for line in screen.lines):
            time.sleep(1.0)
            os.write(terminal, b"\x03")
            stop_at = None
    os.waitpid(child, 0)
    return "\n".join(line.rstrip() for line in screen.lines).rstrip() + "\n"


def record(recording: Recording) -> str:
    """The command and what it showed."""
    folder = Path(tempfile.mkdtemp(prefix="console-"))
    try:
        for command in recording.before:
            run(command, folder)
        shown = run(recording.command, folder, stop_at=recording.stop_at)
    finally:
        shutil.rmtree(folder)
    return f"$ {recording.command}\n{shown}"


def main(names: list[str]) -> int:
    """Record those named, or all."""
    known = {recording.name: recording for recording in RECORDINGS}
    for name in names or known:
        if name not in known:
            print(f"{name}: no such recording; choose from {', '.join(known)}", file=sys.stderr)
            return 2
        (HERE / f"{name}.txt").write_text(record(known[name]), encoding="utf-8")
        print(f"wrote {HERE / name}.txt")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
