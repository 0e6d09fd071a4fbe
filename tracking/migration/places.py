"""Whether a store names only its own files: what it names is read, and others can read the copy."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from mlflow.entities import Experiment
from mlflow.utils.uri import append_to_uri_path

from search_spaces.errors import InputError
from tracking.artifact_places import local_folder
from tracking.migration.contents import StoreReader

_RUN_ID = re.compile(r"[0-9a-f]{32}")
_MODEL_ID = re.compile(r"m-[0-9a-f]{32}")


def check_artifact_places(source: StoreReader) -> None:
    """Holds the places of all files against those that MLflow gives.

    A store is a file that anybody can have made: a run in it may name any folder of the user who
    copies it, and a link in a folder of its own may lead there.

    Raises:
        InputError: A run or model, named in the error, has files outside its experiment's place.
    """
    for experiment in source.experiments():
        for what, place, expected in _places(source, experiment):
            if place.rstrip("/") != expected:
                raise _foreign(what, experiment, f"has its files in {place}")
            outside = _leads_outside(experiment.artifact_location, place)
            if outside:
                raise _foreign(what, experiment, outside)


def _places(source: StoreReader, experiment: Experiment) -> Iterator[tuple[str, str, str]]:
    """What has files, where, and where MLflow puts them; empty for an id that is none of its."""
    root, experiment_id = experiment.artifact_location, experiment.experiment_id
    for run in source.runs(experiment_id):
        run_id = str(run.info.run_id)
        expected = _below(root, run_id, "artifacts")
        is_known = _RUN_ID.fullmatch(run_id)
        yield f"run {run_id}", str(run.info.artifact_uri), expected if is_known else ""
    for model in source.models(experiment_id):
        model_id = str(model.model_id)
        expected = _below(root, "models", model_id, "artifacts")
        is_known = _MODEL_ID.fullmatch(model_id)
        yield f"logged model {model_id}", model.artifact_location, expected if is_known else ""


def _below(root: str, *parts: str) -> str:
    return str(append_to_uri_path(root, *parts))  # type: ignore[no-untyped-call]


def _leads_outside(root: str, place: str) -> str:
    """What in a local folder is no file of the experiment; empty where all of it is."""
    top, folder = local_folder(root), local_folder(place)
    if top is None or folder is None or not folder.exists():
        return ""
    real_top = top.resolve()
    if not folder.resolve().is_relative_to(real_top):
        return f"has its files in {folder}, a link to {folder.resolve()}"
    for parent, folders, files in os.walk(folder):
        for path in (Path(parent, name) for name in (*folders, *files)):
            if path.is_symlink() and not path.resolve().is_relative_to(real_top):
                return f"has {path}, a link to {path.resolve()}"
            if not (path.is_file() or path.is_dir()):
                return f"has {path}, which is no file"
    return ""


def _foreign(what: str, experiment: Experiment, problem: str) -> InputError:
    return InputError(
        "A store must keep its files in the places of its experiments, because everybody can read "
        f"the copy who may read the server. Received: {what} of experiment '{experiment.name}' "
        f"{problem}, not in its place below {experiment.artifact_location}. If the store is yours, "
        "move the files there; if it is somebody else's, do not copy it."
    )
