"""The page as `aipo view` serves it: with a script that asks the same server for a newer one, and nobody else."""

from __future__ import annotations

from html import escape

from analysis.page.render import asset, digest

NOTHING_YET = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="color-scheme" content="light dark">'
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'none'\">"
    "<title>{title} · aipo</title></head><body><h1><bdi>{title}</bdi></h1>"
    "<p>No policy has a score yet. The page comes by itself.</p></body></html>"
)


def waiting(title: str) -> str:
    """What is shown while there is no page yet."""
    return NOTHING_YET.format(title=escape(title))


def watched(html: str, version: str) -> str:
    """The page with the script, and with a policy that lets it ask its own server."""
    script = asset("live.js")
    allowed = escape(digest(script))
    for rule in ("script-src &#39;none&#39;", "script-src 'none'"):
        html = html.replace(rule, "script-src", 1)
    html = html.replace("; script-src", f"; connect-src &#39;self&#39;; script-src {allowed}", 1)
    head, end, rest = html.rpartition("</body>")
    return f'{head}<script data-version="{escape(version)}">{script}</script>\n{end}{rest}'
