"""Where a run comes from: the commit of the working folder and the libraries' versions."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path

from tracking.tags import Tag

CODE_FILE = Path(__file__).resolve()
LIBRARIES = (
    "keras",
    "tensorflow",
    "jax",
    "jaxlib",
    "torch",
    "optuna",
    "mlflow",
    "numpy",
    "keras-sweeps",
)


def git_tags() -> dict[str, str]:
    """The commit of the code that runs, or of the working folder where that is installed.

    And whether its tree was changed since. Where both are repositories, `sweeps.project_commit` and
    `sweeps.project_dirty` are those of the working folder. Empty without any.
    """
    code, project = _commit(CODE_FILE), _commit(None)
    if code is None:
        code, project = project, None
    if code is None:
        return {}
    tags = {"mlflow.source.git.commit": code[0], Tag.GIT_DIRTY: code[1]}
    if project is not None and project[0] != code[0]:
        tags |= {Tag.PROJECT_COMMIT: project[0], Tag.PROJECT_DIRTY: project[1]}
    return tags


def _commit(file: Path | None) -> tuple[str, str] | None:
    """Commit and `true` for a changed tree, of the repository that tracks a file.

    An installed package may lie in somebody else's repository, which does not track it.
    """
    folder = str(file.parent) if file is not None else "."
    if file is not None and _git(folder, "ls-files", "--error-unmatch", file.name) is None:
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    return commit, str(bool(_git(folder, "status", "--porcelain", "-uno"))).lower()


def version_tags() -> dict[str, str]:
    """One tag `sweeps.version.<library>` per library, and one for Python."""
    tags = {f"{Tag.VERSION_PREFIX}python": platform.python_version()}
    for library in LIBRARIES:
        try:
            tags[f"{Tag.VERSION_PREFIX}{library}"] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return tags


def _git(folder: str, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", folder, *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
