"""One sweep with the worst password that a database takes: nothing that it wrote or said holds it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from stack import clean_environment, postgresql

pytestmark = pytest.mark.long
WORST = "W0rst/Hash#Que?mark[br:x"
TOKEN, KEY = "hf_T0kenOfTheHub", "aws_K3yOfTheCloud"
BUILD = """
import os
import keras
def build(hp):
    print("environment", dict(os.environ), flush=True)
    model = keras.Sequential([
        keras.layers.Flatten(), keras.layers.Dense(hp.Int("units", 4, 8)),
        keras.layers.Dense(10, activation="softmax"),
    ])
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
"""


def test_no_file_and_no_line_of_a_sweep_holds_a_secret(tmp_path):
    (tmp_path / "password").write_text(WORST)
    work = tmp_path / "work"
    work.mkdir()
    (work / "spaces.py").write_text(BUILD)
    with postgresql(tmp_path / "password") as (port, log):
        with psycopg.connect(
            host="127.0.0.1", port=port, user="postgres", password=WORST, autocommit=True
        ) as connection:
            for name in ("runs", "study"):
                connection.execute(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
        address = f"postgresql+psycopg://postgres:{WORST}@127.0.0.1:{port}"
        environment = {
            **clean_environment(), "SWEEPS_STORAGE": f"{address}/study",
            "MLFLOW_TRACKING_URI": f"{address}/runs", "HF_TOKEN": TOKEN,
            "AWS_SECRET_ACCESS_KEY": KEY, "SWEEPS_DATA_DIR": os.environ.get("SWEEPS_DATA_DIR", ""),
        }  # fmt: skip

        def said(*options: str) -> str:
            done = subprocess.run(
                [Path(sys.executable).parent / "keras-sweeps", *options], cwd=work, env=environment,
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout + done.stderr

        run = ["run", "--dataset", "digits", "--workers", "1", "--epochs", "1", "--no-baselines"]
        text = said(*run, "--space", "spaces.py:build", "--name", "s", "--trials", "1")
        text += said("doctor", "s")
        text += said("run", "--resume", "--name", "s", "--trials", "2")
        text += said("show", "s") + said("list") + said("doctor", "s", "--repair")
        written = [path.read_bytes() for path in work.rglob("*") if path.is_file()]
        written += [log.read_bytes(), text.encode()]
    assert any(b"environment {" in content for content in written), "the code of a user ran"
    for secret in (WORST, quote(WORST, safe=""), quote(WORST), "W0rst", "br:x", TOKEN, KEY):
        assert not any(secret.encode() in content for content in written), secret
    assert "***@127.0.0.1" in text and Path(work / ".sweeps").is_dir()


NEEDY = f"""{BUILD}
import numpy as np
assert os.environ["HF_TOKEN"] == "{TOKEN}"
def load():
    x = np.random.default_rng(0).random((120, 8, 8, 1)).astype("float32")
    return x, np.arange(120) % 10
"""


def test_what_needs_a_variable_is_replayed_and_compared_with_it(tmp_path):
    """Data function and space alike: the space gets it where it is passed, and only there."""
    (tmp_path / "needy.py").write_text(NEEDY)
    environment = {**clean_environment(), "HF_TOKEN": TOKEN}

    def ended(*options: str) -> tuple[int, str]:
        done = subprocess.run(
            [Path(sys.executable).parent / "keras-sweeps", *options], cwd=tmp_path,
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    run = ["run", "--dataset", "needy.py:load", "--space", "needy.py:build", "--workers", "1",
           "--epochs", "1", "--trials", "2", "--no-baselines"]  # fmt: skip
    status, text = ended(*run, "--name", "t")
    assert status == 2 and "KeyError: 'HF_TOKEN'" in text
    status, text = ended(*run, "--name", "s", "--pass-env", "HF_TOKEN")
    assert status == 0, text
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        ((run_id,),) = database.execute(
            "SELECT run_uuid FROM tags WHERE key = 'sweeps.trial' AND value = '0'"
        )
    status, text = ended("replay", run_id)
    assert status == 2 and "KeyError: 'HF_TOKEN'" in text
    status, text = ended("replay", run_id, "--pass-env", "HF_TOKEN")
    assert status == 0 and "identical: 1 report" in text, text
    # It is known to the sweep, so it need not be said again; nor is another one taken for it.
    assert ended("doctor", "s")[0] == 0
    assert ended("finalize", "s", "--finalists", "1", "--finalist-seeds", "2")[0] == 0
    status, text = ended("doctor", "s", "--pass-env", "PATH")
    assert status == 1 and "KeyError: 'HF_TOKEN'" in text
