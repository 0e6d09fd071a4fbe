"""An error of the program itself ends in one line, and in a file that can be sent to others."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from sweeps.cli.commands import list as command
from sweeps.cli.main import main

STORAGE = "postgresql+psycopg://me:slash/Hash#Que?mark[br@db.example.org/study"
FILE = "https://me:p4ssOfAFile@mlflow.example.org/"
SECRETS = {
    "SWEEPS_STORAGE": STORAGE,
    "MLFLOW_TRACKING_PASSWORD": "p4ssOfAVariable",
    "HF_TOKEN": "hf_T0kenOfTheHub",
}


def forgotten(arguments: object) -> int:
    del arguments
    raise KeyError(
        f"{[STORAGE, FILE, *SECRETS.values()]}: no such thing, see https://e.org/a?b=c#d"
    )


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """A command with a bug; its report goes into the test's own folder."""
    monkeypatch.setattr(command, "run", forgotten)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def test_a_bug_is_one_line_and_a_file_of_its_owner_without_secrets(broken, capsys):
    assert main(["list"]) == 1

    out, error = capsys.readouterr()
    (path,) = broken.glob("keras-sweeps-error-*.txt")
    line = f"this is a bug. Please report it with what is in {path}\n"
    assert (out, error) == ("", f"error: keras-sweeps failed (KeyError): {line}")
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    assert text.startswith("keras-sweeps ") and "Traceback (most recent call last):" in text
    assert "in forgotten" in text and "no such thing, see https://e.org/a?b=c#d" in text
    assert "postgresql+psycopg://me:***@db.example.org/study" in text
    for secret in ("slash", "mark[br", "p4ss", "hf_T0ken"):
        assert secret not in text


def test_where_no_file_can_be_made_the_traceback_is_on_standard_error(broken, capsys, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(broken / "missing"))

    assert main(["list"]) == 1

    error = capsys.readouterr().err
    assert "in forgotten" in error and "hf_T0ken" not in error and "mark[br" not in error
    assert error.splitlines()[-1].endswith("this is a bug; please report the lines above")
    assert not list(Path(broken).iterdir())
