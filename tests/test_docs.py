"""The pages a person reads: their links resolve, and the commands they promise are the ones that are tested."""

from __future__ import annotations

import re
from pathlib import Path
from pydoc import locate

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "results" / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    broken = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert broken == []


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: str(page.relative_to(ROOT)))
def test_files_and_names_that_a_page_speaks_of_are_there(page: Path) -> None:
    spoken = set(
        re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL))
    )
    files = {
        name for name in spoken if re.fullmatch(r"(aipo|analysis|conf|docs|tests|speed|experiments)/[\w./-]*", name)
    }
    assert sorted(name for name in files if not (ROOT / name).exists()) == []
    names = {name for name in spoken if re.fullmatch(r"(aipo|analysis)(\.\w+)+", name)}
    assert sorted(name for name in names if locate(name) is None) == []


def test_the_readmes_two_commands_are_what_ci_runs() -> None:
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    run, test = blocks[0].strip(), blocks[1].strip()
    assert run == "pip install -c constraints.txt -e . && python run.py -m objective=aipo,dpo"
    assert test == "pip install -c constraints.txt -e '.[dev]' && pytest"
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8").replace(" --quiet", "")
    for step in (*run.split(" && "), *test.split(" && ")):
        assert step in ci


def test_every_config_choice_says_what_it_is() -> None:
    for path in sorted((ROOT / "conf").rglob("*.yaml")):
        head = [line for line in path.read_text(encoding="utf-8").splitlines()[:3] if line.startswith("# ")]
        assert [line for line in head if not line.startswith("# @package")], f"{path} begins with no comment"
