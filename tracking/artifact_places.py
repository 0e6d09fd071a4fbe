"""Where MLflow keeps files: in folders that it names by their whole path, once, for good."""

from __future__ import annotations

import re
import shlex
import uuid
from pathlib import Path

from mlflow.utils.file_utils import local_file_uri_to_path

from tracking.stores import artifact_location, sqlite_path


def new_location(folder: Path) -> str | None:
    """Where a new experiment's files go; None for MLflow's own choice, `mlruns` in the folder.

    MLflow's own would be a folder beside this one, where the path holds what an address does not.
    """
    place = folder / "mlruns" / uuid.uuid4().hex[:12]
    return None if artifact_location(place) == str(place) else artifact_location(place)


def local_folder(location: str) -> Path | None:
    """The folder that an artifact location is; None for one that is elsewhere."""
    if re.match(r"[a-z][a-z0-9+.-]+:", location) and not location.startswith("file:"):
        return None
    return Path(local_file_uri_to_path(location))  # type: ignore[no-untyped-call]


def gone(uri: str, location: str) -> str:
    """What happened to a folder that is not there any more, and the way out; empty where it is.

    Args:
        uri: of the store, whose file was moved together with the folder, if it was moved.
    """
    folder = local_folder(location)
    if folder is None or folder.exists():
        return ""
    store = sqlite_path(uri)
    here = store.absolute().parent if store is not None else Path.cwd()
    for place in range(1, len(folder.parts)):
        before = Path(*folder.parts[:place])
        if before != here and here.joinpath(*folder.parts[place:]).exists():
            link = f"ln -s {shlex.quote(str(here))} {shlex.quote(str(before))}"
            return (
                f"{before} was moved to {here}, and MLflow has the old path of all files. Move it "
                f"back, or make a link: {link}"
            )
    return f"{folder} does not exist. If the folder was moved, move it back, or make a link to it"


def moved_experiment(uri: str, location: str) -> str:
    """As `gone`, for the place of an experiment, whose own folder comes with its first files."""
    folder = local_folder(location)
    if folder is None or sqlite_path(uri) is None or len(folder.parts) < 3:
        return ""
    return "" if folder.parents[1].exists() else gone(uri, location)
