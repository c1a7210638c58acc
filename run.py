"""Train and judge. `python run.py --help` lists the choices; `-m` sweeps over comma-separated values."""

import os
import sys
import traceback
from pathlib import Path

import hydra
from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
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
    except Exception as error:
        from aipo.remote import redact

        if wants_all:
            raise
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_code is not main.__wrapped__.__code__:
            frames = frames.tb_next
        if frames is None:  # no job began here
            from aipo.pipeline.options import explain

            if told := explain(error, sys.argv[1:], Path(__file__).resolve().parent / "conf"):
                print(redact(str(told)), file=sys.stderr)
                sys.exit(2)
        shown = traceback.format_exception(type(error), error, frames or error.__traceback__)
        print(redact("".join(shown)), file=sys.stderr, end="")
        sys.exit(1)


if __name__ == "__main__":
    command()
