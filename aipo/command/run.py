"""`aipo run`, which is `python run.py`: compose a config, check it, run one job or a sweep."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

import hydra
from omegaconf import DictConfig

import aipo

_PACKAGE = Path(aipo.__file__).resolve().parent
CONF = next(
    (path for path in (_PACKAGE.parent / "conf", _PACKAGE / "conf") if (path / "config.yaml").exists()),
    _PACKAGE / "conf",
)
"""The configs: a checkout's own, else those that came with the package."""


EXPECTED = (ValueError, OSError, RuntimeError)
"""What data, disks, servers and numbers can cause, with a message that says what to do: shown without frames."""


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def main(config: DictConfig) -> None:
    """Compose, check, run one job."""
    from hydra.core.hydra_config import HydraConfig

    from aipo.pipeline import loop
    from aipo.pipeline.check import ConfigError
    from aipo.remote.redaction import redact, redact_logs

    redact_logs()
    job = HydraConfig.get()
    try:
        loop.run(config, Path(job.runtime.output_dir), list(job.overrides.task), job.runtime.choices)
    except ConfigError as error:
        print(redact(str(error)), file=sys.stderr)
        sys.exit(2)


def command() -> None:
    """`main`, with every mistake on the command line told in one style, and no frame of Hydra's in a traceback."""
    wants_all = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print
    try:
        main()
    except KeyboardInterrupt:
        print("\nstopped by Ctrl-C. Finished stages are kept, training at its last checkpoint.", file=sys.stderr)
        print("The same command goes on from here.", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        from aipo.remote import redact

        if wants_all:
            raise
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_code is not main.__wrapped__.__code__:
            frames = frames.tb_next
        if frames is None:  # no job began here
            from aipo.pipeline.options import explain

            if told := explain(error, sys.argv[1:], CONF):
                print(redact(str(told)), file=sys.stderr)
                sys.exit(2)
        if frames is not None and isinstance(error, EXPECTED):
            print(redact(f"\nerror: {type(error).__name__}: {error}"), file=sys.stderr)
            print(
                "The frames stand in the job's traceback.txt (HYDRA_FULL_ERROR=1 shows them here). What is finished is "
                "kept: with the cause mended, the same command goes on from here.",
                file=sys.stderr,
            )
        else:
            shown = traceback.format_exception(type(error), error, frames or error.__traceback__)
            print(redact("".join(shown)), file=sys.stderr, end="")
        sys.exit(1)
