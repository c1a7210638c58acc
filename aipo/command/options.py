"""`run --help`: the text that conf/config.yaml gives Hydra, and every group's options, without composing anything."""

from __future__ import annotations

import textwrap
from pathlib import Path

import aipo

WIDEST = 100
_PACKAGE = Path(aipo.__file__).resolve().parent
CONF = next(
    (path for path in (_PACKAGE.parent / "conf", _PACKAGE / "conf") if (path / "config.yaml").exists()),
    _PACKAGE / "conf",
)
"""The configs: a checkout's own, else those that came with the package."""


def help_text() -> str:
    """What `--help` shows."""
    import yaml

    config = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))
    return config["hydra"]["help"]["template"].replace("$APP_CONFIG_GROUPS", "\n".join(groups()) + "\n")


def groups() -> list[str]:
    """`group: option, option, ...` for each group, Hydra's own left out."""
    found: dict[str, list[str]] = {}
    for path in sorted(CONF.rglob("*.yaml")):
        group = path.parent.relative_to(CONF).as_posix()
        if group != "." and group.split("/")[0] != "hydra":
            found.setdefault(group, []).append(path.stem)
    return [
        textwrap.fill(f"{group}: {', '.join(options)}", WIDEST, subsequent_indent="  ", break_on_hyphens=False)
        for group, options in sorted(found.items())
    ]
