"""The commit and the versions that a run is recorded with."""

from __future__ import annotations

import subprocess
from pathlib import Path

import keras

from tracking import provenance
from tracking.provenance import git_tags, version_tags


def make_repository(folder: Path, name: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("1")
    for words in (["init", "-q"], ["add", name], ["commit", "-qm", "x"]):
        command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *words]
        subprocess.run(command, check=True)


def test_commit_and_versions_are_known(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "CODE_FILE", tmp_path / "installed" / "context.py")
    (tmp_path / "installed").mkdir()
    assert git_tags() == {}, "neither the code nor the folder is in a repository"
    make_repository(tmp_path / "project", "file")
    monkeypatch.chdir(tmp_path / "project")
    assert git_tags()["sweeps.git_dirty"] == "false"
    Path("file").write_text("2")
    project = git_tags()
    assert project["sweeps.git_dirty"] == "true"
    assert len(project["mlflow.source.git.commit"]) == 40
    # A package that lies in a repository which does not track it has none.
    monkeypatch.setattr(provenance, "CODE_FILE", tmp_path / "project" / "installed.py")
    Path("installed.py").touch()
    assert git_tags() == project
    # A clone of the code counts before the folder, which is noted, too.
    make_repository(tmp_path / "code", "context.py")
    monkeypatch.setattr(provenance, "CODE_FILE", tmp_path / "code" / "context.py")
    tags = git_tags()
    assert tags["mlflow.source.git.commit"] != project["mlflow.source.git.commit"]
    assert tags["sweeps.git_dirty"] == "false"
    assert tags["sweeps.project_commit"] == project["mlflow.source.git.commit"]
    assert tags["sweeps.project_dirty"] == "true"
    assert version_tags()["sweeps.version.keras"] == keras.__version__
