"""environment.yml, pyproject.toml and constraints.txt say the same."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version


def _pins(repository: Path) -> dict[str, Version]:
    lines = (repository / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def _requirements(repository: Path) -> list[Requirement]:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    groups = ("dev", "slurm", "peft", "data", "embed", "small")
    extras = [item for name in groups for item in project["optional-dependencies"][name]]
    return [Requirement(item) for item in project["dependencies"] + extras]


def test_environment_installs_this_project_under_its_constraints(repository: Path) -> None:
    environment = yaml.safe_load((repository / "environment.yml").read_text())
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    python = next(item for item in environment["dependencies"] if isinstance(item, str) and item.startswith("python="))
    minimum = re.search(r">=(\S+)", project["requires-python"]).group(1)
    assert Version(python.split("=")[1]) >= Version(minimum)
    pip = next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    assert pip == ["--constraint constraints.txt", "--editable ."]
    assert environment["name"] == project["name"]


def test_every_requirement_is_pinned_within_its_range(repository: Path) -> None:
    pins = _pins(repository)
    for requirement in _requirements(repository):
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} has no pin in constraints.txt"
        assert requirement.specifier.contains(pins[name]), f"{requirement} excludes the pinned {pins[name]}"


def test_the_users_packages_are_core_dependencies(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    core = {canonicalize_name(Requirement(item).name) for item in project["dependencies"]}
    asked = {"hydra-core", "omegaconf", "torch", "transformers", "accelerate", "wandb", "fschat", "pandas"}
    assert asked <= core


def test_torch_is_pinned_exactly(repository: Path) -> None:
    torch = next(item for item in _requirements(repository) if item.name == "torch")
    assert str(torch.specifier) == "==2.13.0"


def test_every_package_that_is_imported_is_declared_and_none_twice(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    names = [[canonicalize_name(Requirement(item).name) for item in group] for group in groups]
    assert all(len(group) == len(set(group)) for group in names)
    declared = {name for group in names for name in group}
    imported: dict[str, str] = {}
    for path in [
        repository / "run.py",
        *(file for room in ("aipo", "analysis") for file in (repository / room).rglob("*.py")),
    ]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            imported |= {module.partition(".")[0]: path.name for module in modules}
    brings = packages_distributions()
    undeclared = {
        module: place
        for module, place in imported.items()
        if module not in {*sys.stdlib_module_names, "aipo", "analysis"}
        and not declared & {canonicalize_name(name) for name in brings.get(module, [module])}
    }
    assert "torch" in imported and undeclared == {}
