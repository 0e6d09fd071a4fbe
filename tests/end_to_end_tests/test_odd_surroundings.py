"""One short sweep in the surroundings of users: it ends in the same numbers in all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tracking.client import open_client

pytestmark = pytest.mark.long

OPTIONS = "--dataset digits --trials 1 --epochs 1 --no-baselines --name s"
SWEEP = f"--space mlp {OPTIONS}"
USERS_FILE = "raise SystemExit('a file of the user is executed')\n"
NAMES = (
    "abc", "argparse", "ast", "code", "copy", "dataclasses", "json", "keras", "logging", "mlflow",
    "numpy", "optuna", "pipelines", "queue", "random", "select", "signal", "socket", "statistics",
    "struct", "sweeps", "tensorflow", "token", "tracking", "types",
)  # fmt: skip
KERAS_JSON = json.dumps(
    {"image_data_format": "channels_first", "floatx": "float16", "epsilon": 0.001}
)
SPACE = """
import keras
from pipelines.layers import NUM_CLASSES

def build(hp):
    from pipelines import layers
    model = keras.Sequential([
        keras.Input((28, 28, 1)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(),
        keras.layers.Dense(hp.Int("units", 8, 32), activation="relu"),
        keras.layers.Dense(layers.NUM_CLASSES, activation="softmax"),
    ])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
"""


@dataclass(frozen=True)
class Surroundings:
    """A folder with files, an environment, where output goes, and what comes of it."""

    name: str
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = "folder"
    files: dict[str, str] = field(default_factory=dict)
    redirection: str = "> out.txt"
    status: int = 0
    temporary: str = "t"


TABLE = (
    Surroundings(
        "a user's files",
        files={f"{name}.py": USERS_FILE for name in NAMES}
        | {f"{name}/__init__.py": USERS_FILE for name in ("search_spaces", "xml")},
    ),
    Surroundings(
        "variables for other programs",
        {
            "COLUMNS": "1",
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            "PYTHONWARNINGS": "error",
            "PYTHONIOENCODING": "ascii",
            "KERAS_MAX_STEPS_PER_EPOCH": "1",
        },
    ),  # fmt: skip
    Surroundings("a width of odd letters", {"COLUMNS": "²"}),
    Surroundings("keras.json", {"KERAS_HOME": "."}, files={"keras.json": KERAS_JSON}),
    Surroundings("a long temporary folder", temporary="t" * 120),
    Surroundings("a folder of many letters", folder="phötos 100%20 #1 really?"),
    Surroundings("closed output", redirection=">&- 2>&- <&-"),
    Surroundings("a reader that goes", redirection="| head -n 1 > out.txt"),
    Surroundings("full output", redirection="> /dev/full", status=1),
)


def run_in(
    folder: Path, options: str, environment: dict[str, str], redirection: str, temporary: Path
) -> subprocess.CompletedProcess[str]:
    hidden = ("SWEEPS_DATA_DIR", "MLFLOW_TRACKING_URI", "COLUMNS", "KERAS_HOME")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    code = "import sys; from sweeps.cli.main import console_main; console_main()"
    command = f"set -o pipefail; '{sys.executable}' -P -c '{code}' run {options} {redirection}"
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=280,
        env={**kept, **environment, "TMPDIR": str(temporary)},
    )  # fmt: skip


def best(folder: Path) -> list[float]:
    """What the finished trials in the store of a folder reached."""
    client = open_client(f"sqlite:///{folder / 'mlflow.db'}")
    ids = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(ids, "tags.`sweeps.kind` = 'trial'")
    assert all(run.info.status == "FINISHED" for run in runs)
    return [run.data.metrics["best/val_accuracy"] for run in runs]


@pytest.fixture
def temporary():
    # Not in the test's own folder: the path of a socket must be short.
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    done = run_in(folder, SWEEP, {}, "> out.txt", folder)
    assert done.returncode == 0, done.stderr
    return best(folder)


@pytest.mark.parametrize("where", TABLE, ids=lambda where: where.name)
def test_a_sweep_ends_in_the_same_numbers(tmp_path, monkeypatch, temporary, plain, where):
    folder = tmp_path / where.folder
    for name, text in where.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    folder.mkdir(exist_ok=True)
    scratch = temporary / where.temporary
    scratch.mkdir()
    done = run_in(folder, SWEEP, where.environment, where.redirection, scratch)
    assert done.returncode == where.status, done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("\n") <= where.status
    assert [path.name for path in tmp_path.iterdir() if path != folder] == []
    assert not list(scratch.iterdir()), "nothing stays in the temporary folder"
    monkeypatch.chdir(folder)
    assert best(Path()) == plain
    assert list(folder.glob("mlruns/*/*/artifacts/*")), "files are below the folder itself"


def test_a_space_in_a_project_whose_names_are_pythons_and_ours(tmp_path, temporary):
    files = {"random.py": SPACE}
    files |= {f"{name}.py": USERS_FILE for name in ("queue", "token", "logging", "numpy")}
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "layers.py").write_text("NUM_CLASSES = 10\n")
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    options = f"--space random.py:build {OPTIONS}"
    done = run_in(tmp_path, options, {}, "> out.txt", temporary)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(best(tmp_path)) == 1


def test_sweeps_that_begin_at_once_in_a_fresh_folder_all_end(tmp_path, temporary):
    """In an experiment that MLflow's own variable names."""
    begin = " & ".join(
        f"'{sys.executable}' {Path(__file__).parents[2] / 'sweeps' / 'run.py'} "
        f"{SWEEP.replace('--name s', f'--name s{k} --seed {k}')} > {k}.txt"
        for k in range(3)
    )
    done = subprocess.run(
        ["bash", "-c", f"{begin} & wait"], cwd=tmp_path, capture_output=True, text=True, timeout=280,
        env={**os.environ, "MLFLOW_EXPERIMENT_NAME": "mine", "TMPDIR": str(temporary)},
    )  # fmt: skip
    assert done.stderr == ""
    assert len(best(tmp_path)) == 3
    names = {e.name for e in open_client("sqlite:///mlflow.db").search_experiments()}
    assert names == {"Default", "mine"}
