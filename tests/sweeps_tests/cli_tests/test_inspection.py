"""`list`, `show`, `compare`, `export`, `clean` and their errors, over sweeps that are only files."""

from __future__ import annotations

import csv
import io
import json
import re
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pandas
import pytest
from made_sweeps import made_trial, write_sweep

from sweeps.cli.main import main
from sweeps.state.lock import driving

POINT = {"num_layers": "2", "optimizer": "adam"}


@pytest.fixture
def two_sweeps(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    first = write_sweep(
        tmp_path / ".sweeps", "first",
        [*made_trial(0, [0.5, 0.7, 0.6], POINT), *made_trial(1, [0.4], POINT, state="PRUNED")],
    )  # fmt: skip
    write_sweep(tmp_path / ".sweeps", "second", made_trial(0, [0.8, 0.9, 0.9], POINT), seed=7)
    return first


def test_list_shows_every_sweep_with_its_best(two_sweeps, capsys):
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for words in ("first", "second", "val_accuracy 0.9000", "2: 1 complete", "mlp on tiny"):
        assert words in text
    assert main(["list", "--json"]) == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert found["first"]["best_value"] == 0.7 and found["second"]["state"] == "finished"


@pytest.mark.parametrize("columns", ["60", "80", "100", "120"])
def test_list_cuts_nothing_on_any_screen(two_sweeps, capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    assert "…" not in text and max(map(len, text.splitlines())) <= int(columns)
    assert " took " in text and "30.0 s" in text, "the time is told on any screen"
    for words in ("first", "second") if columns == "60" else ("second", "val_accuracy 0.9000"):
        assert words in text


def test_list_shows_the_usual_name_in_one_piece(capsys, monkeypatch):
    name = "cnn-digits-20261127-191652"
    write_sweep(Path(".sweeps"), name, made_trial(0, [0.5, 0.7], {"units": 1}))
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    assert name in text and re.search(r"\d\.\d s +\d{4}-\d\d-\d\d \d\d:\d\d ", text)


def test_list_of_nothing_says_how_to_begin(capsys):
    assert main(["list"]) == 0
    assert "Start one: keras-sweeps run" in capsys.readouterr().out
    assert main(["list", "--work-dir", "nowhere"]) == 2
    assert "must be an existing folder" in capsys.readouterr().err


def test_show_tells_points_by_their_difference_from_the_defaults(two_sweeps, capsys):
    assert main(["show", "first"]) == 0
    text = capsys.readouterr().out
    assert "first: mlp on tiny, finished (all trials ended)" in text
    assert ", took 30.0 s, seed 0" in text
    assert "best: trial 0, val_accuracy 0.7000" in text
    assert main(["show", "first", "--trial", "1"]) == 0
    text = capsys.readouterr().out
    assert "trial 1: PRUNED" in text and "0.4" in text
    assert main(["show", "first", "--trial", "9"]) == 2
    assert "has no trial 9. There are: 0 to 1." in capsys.readouterr().err


def test_compare_shows_what_differs_and_refuses_one_alone(two_sweeps, capsys):
    assert main(["compare", "first", "second"]) == 0
    text = capsys.readouterr().out
    assert "0.7000" in text and "0.9000" in text and "seed" in text
    assert main(["compare", "first", "first"]) == 2
    assert "two sweeps or more" in capsys.readouterr().err
    assert main(["compare", "first", "third"]) == 2
    assert "There are: first, second" in capsys.readouterr().err


def test_export_writes_tables_and_overwrites_nothing_unasked(two_sweeps, tmp_path, capsys):
    assert main(["export", "first"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["val_accuracy"] for row in rows] == ["0.7", ""]
    file = tmp_path / "curves.parquet"
    options = ["export", "first", "--reports", "--format", "parquet", "--output", str(file)]
    assert main(options) == 0
    assert pandas.read_parquet(file)["val_accuracy"].tolist() == [0.5, 0.7, 0.6, 0.4]
    capsys.readouterr()
    assert main(options) == 2
    assert "exists. Name another file, or add --overwrite." in capsys.readouterr().err
    assert main([*options, "--overwrite"]) == 0
    assert main(["export", "first", "--format", "parquet"]) == 2
    assert "--output FILE" in capsys.readouterr().err


def test_what_reads_sweeps_imports_no_heavy_library(two_sweeps, tmp_path):
    code = (
        "import sys; from sweeps.cli.main import main; main(['list']); main(['show', 'first']);"
        "print([name for name in ('mlflow', 'optuna', 'keras', 'tensorflow', 'pandas', 'sqlalchemy')"
        " if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_clean_removes_what_no_sweep_uses_after_it_was_shown(two_sweeps, tmp_path, capsys):
    for name, fingerprint in (("tiny-0", "0" * 64), ("other-9", "9" * 64)):
        folder = tmp_path / ".sweeps" / "data" / name
        folder.mkdir(parents=True)
        (folder / "x_train.npy").write_bytes(b"0" * 2_000)
        meta = {"name": name, "fingerprint": fingerprint}
        (folder / "meta.json").write_text(json.dumps(meta))
    assert main(["clean", "--dry-run"]) == 0
    assert "would be freed" in capsys.readouterr().out
    assert main(["clean"]) == 2, "nobody can be asked"
    assert "Add --yes" in capsys.readouterr().err
    with driving(two_sweeps):
        assert main(["clean", "--yes"]) == 2
    assert "'first' is running" in capsys.readouterr().err
    assert main(["clean", "--yes"]) == 0
    assert [path.name for path in (tmp_path / ".sweeps" / "data").iterdir()] == ["tiny-0"]
    assert "2.1 kB freed" in capsys.readouterr().out
    assert main(["clean"]) == 0
    assert "nothing that no sweep uses" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        (["ls"], "It is called: keras-sweeps list"),
        (["status"], "It is called: keras-sweeps show"),
        (["rm", "first"], "It is called: keras-sweeps delete"),
        (["run", "cnn"], "For a space write: keras-sweeps run --space cnn"),
        (["stop"], "is not running any more"),
        (["add", "first"], "add needs --fix NAME=VALUE"),
        (["add", "first", "--fix", "optimizer"], "--fix must be NAME=VALUE"),
        (["note", "first", " "], "1 to 1000 characters"),
        (["list", "--tracking-uri", "sqlite:///mlflow.db"], "must be a server"),
    ],
)
def test_what_cannot_be_is_one_line_with_the_way_out(two_sweeps, capsys, given, hint):
    assert main(given) == 2
    error = capsys.readouterr().err
    assert hint in error and error.count("\n") == 1


def test_open_names_the_command_that_starts_mlflow_where_none_answers(two_sweeps, capsys):
    (two_sweeps.spool / "sent.jsonl").write_text('{"key": "sweep", "id": "aa"}\n')
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))  # Nobody listens.
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sweeps.cli.commands.open.DEFAULT_UI", address)
            assert main(["open", "first"]) == 2
        error = capsys.readouterr().err
        assert "`keras-sweeps ui first`" in error and error.count("\n") == 1
        assert main(["open", "first", "--address", address]) == 2
    assert "did not answer runs/get" in capsys.readouterr().err
