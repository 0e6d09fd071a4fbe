"""Promises of the repository itself: names, README, constraints, and nothing that is not ours to say."""

from __future__ import annotations

import ast
import graphlib
import gzip
import importlib.metadata
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import grimp
import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
DOCKER_OPTIONS = {"--build", "--detach", "--file", "--rm"}
PACKAGES = ("search_spaces", "pipelines", "sweeps", "tracking")


def tracked_files() -> list[Path]:
    out = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / line for line in out.stdout.splitlines() if (ROOT / line).is_file()]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_shadows_an_installed_or_standard_one(package):
    """A script puts its own folder first on sys.path."""
    ours = {p.stem for p in (ROOT / package).glob("*.py")} - {"__init__"}
    ours |= {p.parent.name for p in (ROOT / package).glob("*/__init__.py")}
    installed = set(importlib.metadata.packages_distributions()) | {"datasets", "metrics"}
    assert not ours & set(sys.stdlib_module_names)
    assert not ours & installed


def import_circle(imports: dict[str, set[str]]) -> str:
    """The first circle among modules, in the order of the imports; nothing where there is none."""
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        return " -> ".join(reversed(error.args[1]))
    return ""


def test_no_modules_import_each_other_in_a_circle():
    """Imports inside functions count, too: a circle that is hidden there is still one."""
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)
    imports = {name: set(graph.find_modules_directly_imported_by(name)) for name in graph.modules}
    for name, imported in imports.items():
        for other in list(imported):
            # Who imports a module imports the packages around it; those around both are there.
            parts = other.split(".")
            above = {".".join(parts[:k]) for k in range(1, len(parts))}
            imported |= {package for package in above if not f"{name}.".startswith(f"{package}.")}
    assert len(imports) > 150
    assert imports["sweeps.options"] >= {"sweeps.option_values", "search_spaces"}
    assert not import_circle(imports)
    assert import_circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) in {
        "a -> b -> c -> a", "b -> c -> a -> b", "c -> a -> b -> c",
    }  # fmt: skip


def test_there_is_no_dumping_ground():
    names = {p.name for p in tracked_files()}
    assert not names & {"utils.py", "helpers.py", "util.py", "misc.py", "common.py"}
    assert not (ROOT / "docker" / "__init__.py").exists()


def test_the_readme_has_the_two_commands_and_ci_runs_them():
    readme = (ROOT / "README.md").read_text()
    assert "pip install -c constraints.txt -e . && python sweeps/run.py --space cnn\n" in readme
    assert "pip install -c constraints.txt -e '.[test]' && pytest\n" in readme
    assert 'readme_command "pytest"' in (ROOT / ".ci" / "run").read_text()


def test_the_readme_commands_have_options_that_exist(capsys):
    from sweeps.cli.main import COMMANDS, main

    for command in COMMANDS:
        with pytest.raises(SystemExit):
            main([command, "--help-all" if command == "run" else "--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    documents = set(ROOT.glob("docs/*.md")) - {ROOT / "docs" / "log.md"}  # It names what is gone.
    pages = [ROOT / "README.md", *documents]
    text = "".join(page.read_text() for page in pages)
    lines = [
        line for line in text.splitlines()
        if line.removeprefix("$ ").startswith(
            ("python sweeps/", "python pipelines/", "python tracking/")
        )
    ]  # fmt: skip
    assert len(lines) >= 4
    used = {option for line in lines for option in re.findall(r"--[a-z-]+", line)}
    used |= set(re.findall(r"`(--[a-z-]+)", text))
    assert (
        used - {"--env-manager"} - DOCKER_OPTIONS <= known
    )  # The first is of `mlflow models serve`.


def test_the_readme_is_one_page_in_the_order_that_a_stranger_needs():
    text = (ROOT / "README.md").read_text()
    lines = text.splitlines()
    assert len(lines) <= 150 and max(map(len, lines)) <= 140
    order = [
        "## Why not glue", "| Optuna |", "| Keras Tuner |", "| MLflow |", "| Ray Tune |", "| W&B",
        "![", "## Install and run", "import keras_sweeps as ks", "## Your own space",
        "## Your own data", "## Promote and serve", "## Results", "## Where to read on",
        "docs/README.md",
    ]  # fmt: skip
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    assert text.count("![") == 3, "a sweep in a terminal, its page, and peers; others are in docs"


def test_the_index_of_the_documents_lists_every_one_with_a_line():
    listed = re.findall(
        r"^\| \[(.+)\]\((.+)\) \| \w.+ \|$", (ROOT / "docs" / "README.md").read_text(), re.MULTILINE
    )
    assert all(name == target for name, target in listed)
    docs = ROOT / "docs"
    pages = {path.name for path in [*docs.glob("*.md"), *docs.glob("*.ipynb")]} - {"README.md"}
    assert {name for name, _ in listed} == pages | {"adr/"} and len(listed) == len(pages) + 1


def test_the_tree_of_the_files_is_the_tree():
    text = (ROOT / "docs" / "architecture.md").read_text()
    tree = text.split("## Tree")[1].split("```")[1]
    folders = set(re.findall(r"^(\w+)/", tree, re.MULTILINE))
    tracked = {p.relative_to(ROOT).parts[0] for p in tracked_files() if p.parent != ROOT}
    assert folders == {name for name in tracked if not name.startswith(".")}
    for name in re.findall(r"\b(\w+\.(?:py|md|toml|txt))\b", tree):
        assert [p for p in tracked_files() if p.name == name], name
    for words in ("## Goals and non-goals", "## Vocabulary", "*study*", "*finalist*", "*champion*"):
        assert words in text


def test_the_defaults_that_the_pages_name_are_the_defaults():
    from sweeps import settings

    text = " ".join((ROOT / "docs" / "guide.md").read_text().split())
    large, small = settings.LARGE_DATA_BUDGET, settings.SMALL_DATA_BUDGET
    assert (
        f"as many points of up to {large.num_epochs} epochs as "
        f"{large.timeout_seconds / 60:g} minutes allow" in text
    )
    assert f"fewer than {settings.LARGE_DATA_IMAGES:,} training images" in text
    assert f"{small.num_epochs} epochs and {small.timeout_seconds / 60:g} minutes" in text
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"as many points as {large.timeout_seconds / 60:g} minutes allow" in readme
    assert f"({small.timeout_seconds / 60:g} minutes for small data)" in readme


def test_the_figures_of_the_readme_are_those_of_the_results():
    """A table that is shorter than its source says nothing that the source does not."""
    readme = (ROOT / "README.md").read_text().split("## Results")[1].split("\n## ")[0]
    results = "".join(
        (ROOT / "docs" / f"{page}.md").read_text() for page in ("results", "benchmarks")
    )
    figures = re.findall(r"(?<![\d.])[-+]?\d+\.\d{2,}|\b\d+ s\b", readme)
    assert len(figures) > 10
    assert [figure for figure in figures if figure not in results] == []


def test_links_and_pictures_exist():
    for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), (page.name, target)


def test_every_dependency_is_bounded_and_pinned_and_explained():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    pinned = {name.lower().replace("_", "-") for name in pins}
    explained = (ROOT / "docs" / "dependencies.md").read_text().lower()
    optional = project["optional-dependencies"]
    extras = [*optional["test"], *optional["server"], *optional["peers"]]
    for requirement in [*project["dependencies"], *extras]:
        name = re.match(r"[\w.-]+", requirement)[0].lower()
        assert ("<" in requirement and ">=" in requirement) or name.startswith("types-")
        assert name in pinned, name
        assert name in explained or name.startswith("types-"), name


def test_what_gpus_need_is_pinned_too():
    """An image for GPUs built tomorrow has the CUDA packages that are resolved today."""
    pins = (ROOT / "constraints.txt").read_text()
    for name in (
        "nvidia-cudnn-cu12",
        "nvidia-cublas-cu12",
        "nvidia-nccl-cu12",
        "jax-cuda12-plugin",
    ):
        assert re.search(rf"^{name}==[\d.]+$", pins, re.MULTILINE), name
    wanted = [line for line in importlib.metadata.requires("tensorflow") if "and-cuda" in line]
    assert len(wanted) > 5
    for requirement in wanted:
        name, limits = re.match(r"([\w.-]+)(\S*?);", requirement).groups()
        (pin,) = re.findall(rf"^{name}==(.*)$", pins, re.MULTILINE)
        assert SpecifierSet(limits).contains(pin), (requirement, pin)


def test_constraints_name_no_index():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"#.*|[\w.-]+==[\w.+!-]+", line), line


def recorded_text(archive: Path) -> str:
    """What the files of a recorded sweep say, their bytes read as text; only tests hold some."""
    assert archive.is_relative_to(ROOT / "tests"), archive
    with tarfile.open(archive) as tar:
        files = [tar.extractfile(entry) for entry in tar.getmembers() if entry.isfile()]
        return "\0".join(file.read().decode(errors="replace") for file in files if file)


def test_no_file_names_a_machine_or_an_index():
    forbidden = [
        "/" + "work/", "/" + "root/", "py" + "pi.org", "python" + "hosted", "--index" + "-url",
        "../" + "shared",
    ]  # fmt: skip
    for path in tracked_files():
        if path.suffix in {".gif", ".png", ".svg"}:
            continue
        if path.name.endswith(".jsonl.gz"):
            text = gzip.decompress(path.read_bytes()).decode()
        else:
            text = recorded_text(path) if path.name.endswith(".tar.gz") else path.read_text()
        found = [word for word in forbidden if word in text]
        assert not found, (path, found)


def test_first_docstring_lines_say_why_a_module_exists():
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            assert path.read_text().startswith('"""'), path


def test_every_tag_name_stands_in_one_module():
    """Code that wrote a tag under another name than the one it is read by would find nothing."""
    from tracking import tags

    named = {value for key, value in vars(tags.Tag).items() if key.isupper()}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            tree = ast.parse(path.read_text())
            # Docstrings may name them.
            notes = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found = set(re.findall(r"\bsweeps\.[a-z_0-9]+", node.value)) & named
                    if id(node) not in notes and path.name != "tags.py":
                        assert not found, (path, node.lineno, found)
    assert len(named) > 50


PRIVATE_WORDS = {
    r"cro" r"wn(s|ed|ing)?": "set the champion, promote",
    r"rei" r"gns?": "champion history",
    r"succ" r"essions?": "change of champion, champion history",
    r"hope" r"less(ly)?": "cannot be promoted, unpromotable",
    r"lucki" r"est": "best of N (single seed, so its score is optimistic)",
    r"challen" r"gers?": "candidate",
    r"is no num" r"ber": "is NaN, is not finite",
    r"was other" r"wise": "has changed",
    r"nobody dri" r"ves": "no process is running it",
}
"""Words that had a meaning in this project only, and the field's words for it."""
RECORDED_NAMES = ("sweeps." + "succ" + "ession",)
"""Names that stores of earlier releases hold; they never change."""


def test_texts_use_the_words_of_the_field():
    """A user, and whoever reads the code for the first time, knows Keras, Optuna and MLflow."""
    for path in tracked_files():
        if path.suffix not in {".md", ".py", ".sh", ".toml", ".txt", ".yaml"}:
            continue
        text = path.read_text()
        for name in RECORDED_NAMES:
            text = text.replace(name, "")
        for number, line in enumerate(text.splitlines(), start=1):
            for word, instead in PRIVATE_WORDS.items():
                found = re.search(rf"\b{word}\b", line, re.IGNORECASE)
                assert not found, f"{path}:{number} says '{found[0]}'. Write instead: {instead}."


def test_docstrings_say_what_is_returned():
    """`Returns ...`, as in Keras and Optuna."""
    for path in tracked_files():
        if path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                found = re.search(r"^Ans" r"wers\b|; ans" r"wers\b", str(node.value.value))
                place = f"{path}:{node.lineno}"
                assert not found, f"{place} says '{found[0]}'. Write instead: Returns, returns."


def test_every_file_that_a_page_or_a_docstring_names_exists():
    """Files move; a page that names one that is gone sends its reader nowhere."""
    named = re.compile(
        r"(?<![\w/.-])((?:search_spaces|pipelines|tracking|sweeps|tests|benchmarks|docker|docs)"
        r"/[\w/.-]*\w\.(?:py|sh|md|yaml))"
    )
    dotted = re.compile(r"`((?:search_spaces|pipelines|tracking|sweeps)(?:\.\w+)+)`")
    modules = {
        ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for package in PACKAGES
        for p in (ROOT / package).rglob("*.py")
    }
    found = 0
    for path in tracked_files():
        if path.suffix not in {".md", ".py", ".yaml"}:
            continue
        text = path.read_text()
        for name in (name for name in named.findall(text) if "__pycache__" not in name):
            found += 1
            assert (ROOT / name).is_file(), (path, name)
        for name in dotted.findall(text):
            parts = name.split(".")
            if parts[0] == "sweeps" and f"sweeps.{parts[1]}" not in modules:  # Tags are called so.
                continue
            assert any(".".join(parts[:k]) in modules for k in (len(parts), len(parts) - 1)), (
                path, name
            )  # fmt: skip
    assert found > 50
