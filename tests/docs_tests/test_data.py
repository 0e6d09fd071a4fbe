"""docs/data.md does what it says: its examples are run, its limits are those of the code."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import chaos
import pytest
from image_folders import make_folder, picture
from mlflow import MlflowClient

from pipelines.data.custom.content import DEFAULT_SIDE, MAX_COMMON_SIDE
from pipelines.data.custom.function_source import RESERVED_BYTES
from pipelines.data.custom.sources import custom_source
from pipelines.data.splits import MAX_CLASSES
from pipelines.images.options import ImageOptions
from pipelines.objectives import OBJECTIVES
from pipelines.training.feeding import STREAM_ABOVE_BYTES
from sweeps.cli.main import main, make_parser
from sweeps.cli.run_options import settings_from
from sweeps.setup.data import MUCH_BYTES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "data.md").read_text()


def blocks(language: str) -> list[str]:
    """The code of the page in one language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def commands(script: str) -> list[list[str]]:
    lines = "".join(blocks("bash")).splitlines()
    return [shlex.split(line)[2:] for line in lines if script in line]


@pytest.fixture
def sources(tmp_path):
    """Everything that the examples name, the arrays made by the examples themselves."""
    make_folder(tmp_path / "photos", 5)
    (tmp_path / "images").mkdir()
    head, *_ = blocks("text")[0].splitlines()
    rows = []
    for k in range(16):
        picture(("red", "blue")[k % 2], k).save(tmp_path / "images" / f"{k:04d}.jpg")
        rows.append(f"images/{k:04d}.jpg,{('cat', 'dog')[k % 2]},{'test' if k > 11 else 'train'}")
    (tmp_path / "set.csv").write_text("\n".join([head, *rows]))
    make_npz, function = blocks("python")
    exec(compile(make_npz, "docs/data.md", "exec"), {})
    (tmp_path / "mine.py").write_text(function)


def test_the_data_sets_of_the_page_can_be_explored(sources, capsys):
    found = commands("explore.py")
    assert len(found) == 4
    for options in found:
        assert main(["explore", *options]) == 0
    out = capsys.readouterr().out
    for words in ("photos (", "bars (", "mine-load (", "left", "middle", "right", "8x8x3"):
        assert words in out


def test_the_sweeps_of_the_page_resolve(sources, capsys):
    """Their settings are valid and their data can be prepared; nothing is trained."""
    found = commands("sweeps/run.py")
    assert len(found) == 3
    for options in found:
        assert main(["run", *options, "--write-config"]) == 0
        text = capsys.readouterr().out
        arguments = make_parser("run").parse_args(options)
        settings = settings_from(arguments)
        assert f'dataset: "{settings.dataset}"' in text
        assert Path(settings.dataset).exists() and custom_source(settings.dataset).name


@pytest.mark.slow
def test_the_sweep_over_colour_pictures_trains(sources, tmp_path):
    """The page's first sweep, with fewer and shorter trials: real processes, TensorFlow and all."""
    options = commands("sweeps/run.py")[0]
    assert options[options.index("--trials") + 1] == "20"
    done = subprocess.run(
        [sys.executable, str(ROOT / "sweeps" / "run.py"), *options, "--trials", "2", "--epochs", "2",
         "--no-baselines", "--name", "colours"],
        env=chaos.environment(), capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "9 train, 3 validation, 3 test" in done.stdout
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("cnn-photos")
    runs = client.search_runs([experiment.experiment_id], "tags.`sweeps.kind` = 'trial'")
    assert [run.info.status for run in runs] == ["FINISHED"] * 2
    assert all(run.data.metrics["epoch/val_loss"] > 0 for run in runs)


def test_the_page_names_every_metric_and_the_limits():
    for name in OBJECTIVES:
        assert f"`{name}`" in PAGE
    assert STREAM_ABOVE_BYTES == 2**30 and "exceed 1 GiB" in PAGE
    assert f"2 to {MAX_CLASSES:,} classes" in PAGE
    assert f"{DEFAULT_SIDE} at most" in PAGE
    assert f"up to {MAX_COMMON_SIDE}x{MAX_COMMON_SIDE}" in PAGE
    assert f"{RESERVED_BYTES >> 20} MiB stay free" in PAGE
    assert MUCH_BYTES == 10**9 and "from 1 GB on" in PAGE
    default = ImageOptions()
    assert f"(default: `{default.resize}`)" in PAGE and f"(default: `{default.broken}`)" in PAGE
