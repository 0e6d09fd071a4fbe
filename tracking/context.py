"""Where a run comes from: the commit of the working folder and the libraries' versions."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess

LIBRARIES = ("keras", "tensorflow", "optuna", "mlflow", "numpy", "keras-sweeps")


def git_tags() -> dict[str, str]:
    """Commit and whether the tree was dirty; empty outside a git repository."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {}
    dirty = bool(_git("status", "--porcelain", "--untracked-files=no"))
    return {"mlflow.source.git.commit": commit, "sweeps.git_dirty": str(dirty).lower()}


def version_tags() -> dict[str, str]:
    """One tag `sweeps.version.<library>` per library, and one for Python."""
    tags = {"sweeps.version.python": platform.python_version()}
    for library in LIBRARIES:
        try:
            tags[f"sweeps.version.{library}"] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return tags


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
