"""What contributors read first is true: paths exist, hooks are what CI runs, the tree is the tree."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from sweeps.engines.base import TrialState

ROOT = Path(__file__).parents[2]
PACKAGES = ("search_spaces", "pipelines", "tracking", "sweeps")
GUIDE = (ROOT / "CONTRIBUTING.md").read_text()
QUICK = (ROOT / ".ci" / "quick").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
NOT_IN_THE_TREE = {"sweep.json", "utils.py"}
"""A file of every sweep, and one that there must not be."""


def tracked_files() -> list[Path]:
    out = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [Path(line) for line in out.stdout.splitlines() if (ROOT / line).is_file()]


def array_of_quick(name: str) -> list[str]:
    return re.search(rf"^{name}=\((.*?)\)", QUICK, re.MULTILINE | re.DOTALL)[1].split()


def test_every_path_that_the_guide_names_exists():
    words = set(re.findall(r"`([^`\s]+)[^`\n]*`", GUIDE)) - NOT_IN_THE_TREE
    paths = {w for w in words if "/" in w or re.search(r"\.(py|md|toml|txt|yaml)$", w)}
    assert len(paths) > 30
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_links_of_pages_at_the_root_exist(page):
    targets = re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text())
    assert targets
    for target in targets:
        assert "://" in target or (ROOT / target).exists(), target


def test_the_changelog_begins_with_what_is_unreleased_and_has_the_version():
    sections = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert sections[0] == "Unreleased" and project["version"] in sections


def test_the_license_is_the_one_that_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (name,) = project["license-files"]
    text = " ".join((ROOT / name).read_text().split())
    assert project["license"] == "Apache-2.0"
    assert text.startswith("Apache License Version 2.0,")
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_hooks_are_the_static_checks_that_ci_runs():
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local"
    hooks = []
    for hook in repo["hooks"]:
        assert (hook["language"], hook["pass_filenames"]) == ("system", False), hook["id"]
        words = shlex.split(hook["entry"])
        hooks.append(words[2] if words[:2] == ["bash", "-c"] else hook["entry"])
    static = QUICK.split('step "format and lint"')[1].split("\nif ")[0]
    lines = [line for line in static.splitlines() if line and not line.startswith("step ")]
    assert hooks == [line.rpartition("|| ")[2] for line in lines]
    assert "\n.ci/quick static\n" in (ROOT / ".ci" / "run").read_text()


def test_the_quick_check_names_tests_that_exist():
    fast, slow = array_of_quick("fast"), array_of_quick("slow")
    assert [name for name in (*fast, *slow) if not (ROOT / name).exists()] == []
    for name in slow:
        assert any(name.startswith(f"{folder}/") for folder in fast), f"{name} is left out anyway"


def test_the_tree_of_the_architecture_page_is_the_tree():
    tree = ARCHITECTURE.split("## Tree")[1].split("```")[1]
    shown, above = set(), []
    for line in tree.strip().splitlines():
        match = re.match(r"( *)(\w+)/ ", line)
        if match:
            above[len(match[1]) // 2 :] = [match[2]]
            shown.add("/".join(above))
    files = tracked_files()
    modules = [path for path in files if path.suffix == ".py" and path.parts[0] in PACKAGES]
    folders = {path.parent.as_posix() for path in modules}
    assert {path for path in shown if path.split("/")[0] in PACKAGES} == folders
    top = {path.parts[0] for path in files if len(path.parts) > 1}
    for name in top - {".ci"}:
        assert f"{name}/" in tree, name


def test_the_states_of_the_architecture_page_are_those_of_a_trial():
    shown = re.findall(r"^\| ([A-Z]+) \|", ARCHITECTURE, re.MULTILINE)
    assert set(shown) == {state.value for state in TrialState} - {"RUNNING"}


def test_what_is_installed_by_name_without_tensorflow_is_all_else_that_is_needed():
    page = (ROOT / "docs" / "backends.md").read_text().replace("\\\n", " ")
    (line,) = re.findall(r"^pip install -c constraints.txt torch (.*)$", page, re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.match(r"[\w-]+", text)[0] for text in project["dependencies"]}
    assert set(line.split()) == needed - {"tensorflow"}
