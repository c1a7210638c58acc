"""Data as it stands in the page: compressed JSON in base64, which no HTML parser can take for markup."""

from __future__ import annotations

import base64
import gzip
import json
import math
from typing import Any


def pack(value: Any) -> str:
    """The value's JSON, gzipped, in base64. Equal values give equal texts; numbers JSON cannot hold become null."""
    try:
        text = _json(value)
    except ValueError:  # a number that is none, which is rare: only then is every value looked at
        text = _json(_finite(value))
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def unpack(packed: str) -> Any:
    """What was packed."""
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
