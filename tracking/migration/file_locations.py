"""Whether the files of an embedded store are where it says: MLflow writes absolute places down."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mlflow.entities import Experiment
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.utils.file_utils import local_file_uri_to_path

from search_spaces.errors import InputError
from tracking.addresses import redacted
from tracking.migration.contents import StoreReader
from tracking.tags import Tag


def check_places(source: StoreReader) -> None:
    """Raises InputError where files are missing that a sweep or a model must have.

    A folder that is not there reads like one without files: such a copy would lose all of them,
    and hold the same afterwards, by count and content.
    """
    missing = [
        place for experiment in source.experiments() for place in _missing(source, experiment)
    ]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            "The files of a store must be where it says, by absolute paths. Received: "
            f"{redacted(source.uri)}, without {missing[0]}{more}. Put the folder back, or a link "
            "to where it is now, and begin again."
        )


def _missing(source: StoreReader, experiment: Experiment) -> Iterator[str]:
    if experiment.lifecycle_stage != "active":
        return
    experiment_id = experiment.experiment_id
    if experiment.artifact_location.startswith("mlflow-artifacts:"):
        if any(source.runs(experiment_id)):
            raise InputError(
                "The files of a store must be within reach. Received: experiment "
                f"'{experiment.name}', whose files went through the server of that store. Only "
                "that server has them: use it, or copy what was there before it was started."
            )
        return
    place = _local(experiment.artifact_location)
    # Every run of a sweep has files.
    if place is not None and not place.is_dir():
        runs = source.runs(experiment_id, f"tags.`{Tag.KIND}` != ''")
        if any(run.info.lifecycle_stage == "active" for run in runs):
            yield str(place)
    for model in source.models(experiment_id):
        folder = _local(model.artifact_location)
        if folder is None or str(model.status) != "READY":
            continue
        if not (folder / MLMODEL_FILE_NAME).is_file():
            yield str(folder / MLMODEL_FILE_NAME)


def _local(location: str) -> Path | None:
    """The folder that an artifact location is; None for one that is elsewhere."""
    if re.match(r"[a-z][a-z0-9+.-]+:", location) and not location.startswith("file:"):
        return None
    return Path(local_file_uri_to_path(location))  # type: ignore[no-untyped-call]
