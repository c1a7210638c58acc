"""`aipo view`: a sweep's page, served to this machine alone."""

from __future__ import annotations

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PAGE = "index.html"


def serve(sweep: Path, port: int) -> None:
    """Serve `sweep` on the loopback address until Ctrl-C. ValueError where there is no page yet."""
    if not (sweep / PAGE).exists():
        raise ValueError(f"{sweep / PAGE}: no page yet; make it with `aipo analyse {sweep}`")
    handler = partial(_Quiet, directory=str(sweep))
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        print(f"http://127.0.0.1:{server.server_address[1]}/{PAGE}   (Ctrl-C ends)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """No line for each request."""
