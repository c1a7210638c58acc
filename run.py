"""Train and judge. `python run.py --help` lists the choices; `-m` sweeps over comma-separated values."""

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    """Compose, check, run one job."""
    from hydra.core.hydra_config import HydraConfig

    from aipo.pipeline import loop
    from aipo.pipeline.check import ConfigError

    job = HydraConfig.get()
    try:
        loop.run(config, Path(job.runtime.output_dir), list(job.overrides.task), job.runtime.choices)
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
