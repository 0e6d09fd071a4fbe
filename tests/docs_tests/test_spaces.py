"""docs/spaces.md does what it says: its code runs to its end, its commands and files resolve."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from search_spaces.hyperparameters.discovery import MAX_SAMPLES
from search_spaces.hyperparameters.narrowing import narrowed
from search_spaces.registry import get_space
from search_spaces.user_spaces.fit_probe import NUM_STEP
from search_spaces.user_spaces.reference import find_reference
from search_spaces.user_spaces.source import DEFAULT_BATCH_SIZE, TunerSource
from search_spaces.user_spaces.space import user_space
from sweeps.cli.main import main, make_parser
from sweeps.cli.run_options import settings_from

PAGE = (Path(__file__).parents[2] / "docs" / "spaces.md").read_text()


def blocks(language: str) -> list[str]:
    """The code of the page in one language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def commands() -> list[list[str]]:
    lines = "".join(blocks("bash")).splitlines()
    return [shlex.split(line)[2:] for line in lines]


@pytest.fixture
def my_space(tmp_path):
    (tmp_path / "my_space.py").write_text(blocks("python")[0])


def test_every_block_is_one_that_a_test_runs():
    assert [len(blocks(language)) for language in ("python", "bash", "yaml")] == [2, 3, 1]
    assert PAGE.count("```") == 2 * 6


def test_the_space_of_the_page_is_looked_at_and_narrowed_as_its_commands_say(my_space):
    source = TunerSource(find_reference("my_space.py:build"), (8, 8, 1), 10)
    space = user_space(find_reference("my_space.py:build"), source.sample)
    for options in commands():
        settings = settings_from(make_parser("run").parse_args(options))
        settings.validate()
        if settings.space.endswith(":build"):
            assert narrowed(space, settings.narrowing).parameters
        else:
            assert narrowed(get_space(settings.space), settings.narrowing).parameters


def test_the_file_of_the_page_is_a_sweep(tmp_path, capsys):
    (tmp_path / "sweep.yaml").write_text(blocks("yaml")[0])
    assert main(["run", "--config", "sweep.yaml", "--write-config"]) == 0
    found = yaml.safe_load(capsys.readouterr().out)
    assert found["set"] == {"optimizer": "adam,nadam", "filters": "16..32"}


def test_ours_in_keras_tuner_runs_to_its_end(capsys):
    exec(compile(blocks("python")[1], "docs/spaces.md", "exec"), {})
    assert "'batch_size': " in capsys.readouterr().out


def test_the_numbers_of_the_page_are_those_of_the_code():
    assert f"at most {MAX_SAMPLES} models" in PAGE and f"or {DEFAULT_BATCH_SIZE}." in PAGE
    assert NUM_STEP == 8 and "one step on eight" in PAGE
