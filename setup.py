"""What pyproject.toml cannot say: a wheel carries the configs beside the code, as aipo/conf."""

from pathlib import Path
from shutil import copytree

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConf(build_py):
    """The usual build, and a copy of conf/. A checkout reads its own."""

    def run(self) -> None:
        """Copy after the packages; an editable install needs no copy."""
        super().run()
        if not self.editable_mode:
            copytree("conf", Path(self.build_lib) / "aipo" / "conf", dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithConf})
