"""`aipo view`: a sweep's page, served to this machine alone, and written again as its jobs get further."""

from __future__ import annotations

import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from aipo.jobs import JobFileError, states
from analysis import live
from analysis.collect import AnalysisError

PAGE, VERSION = "index.html", "version"
WITHOUT_END = ("running", "pending", "requeued", "interrupted", "lost", "not started")
"""States of jobs after which no analysis may have been made."""
LOOK_EVERY_S = 2.0
LARGEST_SHARE = 0.2
"""Of the time, for which this process may write pages while jobs run."""


def serve(sweep: Path, port: int) -> None:
    """Serve `sweep` on the loopback address until Ctrl-C.

    ValueError where there is no page, nor one to come, and where the port cannot be had.
    """
    watcher = Watcher(sweep)
    if not watcher.is_live() and not (sweep / PAGE).exists():
        raise ValueError(f"{sweep / PAGE}: no page yet; make it with `aipo analyse {sweep}`")
    try:
        listening = ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, directory=str(sweep)))
    except OSError as error:
        raise ValueError(f"port {port}: {error.strerror}; --port 0 takes any that is free") from error
    threading.Thread(target=watcher.run, daemon=True, name="page").start()
    with listening as server:
        print(f"http://127.0.0.1:{server.server_address[1]}/{PAGE}   (Ctrl-C ends)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


class Watcher:
    """Writes the page whenever jobs got further than it shows. A sweep that had ended before is left as it is."""

    def __init__(self, sweep: Path) -> None:
        self._sweep = sweep
        self._told = ""
        self._live = False

    def is_live(self) -> bool:
        """Whether a job of it runs or has yet to run, or did since this process began to watch."""
        if not self._live:
            jobs = states(self._sweep, lambda numbers: {})  # a cluster is not asked every other second
            self._live = any(job.state in WITHOUT_END for job in jobs)
        return self._live

    def run(self) -> None:
        """For ever."""
        while True:
            began = time.monotonic()
            self.look()
            took = time.monotonic() - began
            time.sleep(max(LOOK_EVERY_S, took / LARGEST_SHARE - took))

    def look(self) -> bool:
        """Write the page if it is behind. Whether it was written; what hinders it is said once."""
        try:
            if not self.is_live() or not live.has_begun(self._sweep) or not live.is_behind(self._sweep):
                return False
            return live.refresh(self._sweep)
        except (AnalysisError, JobFileError, OSError, ValueError) as error:
            if str(error) != self._told:
                self._told = str(error)
                print(f"no new page: {error}", file=sys.stderr, flush=True)
            return False


class Handler(SimpleHTTPRequestHandler):
    """The folder's files; of the page, the one that asks for newer ones."""

    def do_GET(self) -> None:
        """Answer only to this machine's own names: another site's page cannot read a sweep by way of a browser."""
        if self.headers.get("Host", "").rpartition(":")[0] not in ("127.0.0.1", "localhost"):
            self.send_error(403, "asked for by another name than 127.0.0.1 or localhost")
            return
        asked = self.path.partition("?")[0].strip("/")
        if asked == VERSION:
            self._send(self._version(), "text/plain")
        elif asked in ("", PAGE):
            self._send(self._page(), "text/html")
        else:
            super().do_GET()

    def _page(self) -> str:
        from analysis.page.watching import waiting, watched

        version = self._version()
        try:
            html = (Path(self.directory) / PAGE).read_text(encoding="utf-8")
        except FileNotFoundError:
            html = waiting(Path(self.directory).resolve().name)
        return watched(html, version)

    def _version(self) -> str:
        try:
            stat = (Path(self.directory) / PAGE).stat()
        except FileNotFoundError:
            return "none"
        return f"{stat.st_mtime_ns}-{stat.st_size}"

    def _send(self, text: str, kind: str) -> None:
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """No line for each request."""
