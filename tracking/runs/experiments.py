"""The experiment of a sweep: found or made, and one that may be written into."""

from __future__ import annotations

from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException

from search_spaces.errors import InputError
from tracking.addresses import redacted
from tracking.artifact_places import moved_experiment, new_location
from tracking.errors import DENIED
from tracking.stores import is_server, sqlite_path

KIND_TAG, KIND = "mlflow.experimentKind", "custom_model_development"
"""With it the UI opens an experiment as model training, not as a chat application's."""


def open_experiment(client: MlflowClient, name: str) -> str:
    """The id of the experiment of that name, which is made where it is new.

    Raises:
        InputError: It is deleted, or another user's, or its folder was moved.
    """
    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage != "active":
            raise InputError(f"Experiment '{name}' is deleted; restore it or name another.")
        _check_writable(client, found)
        moved = moved_experiment(client.tracking_uri, str(found.artifact_location))
        if moved:
            raise InputError(f"The files of experiment '{name}' cannot be stored: {moved}.")
        return str(found.experiment_id)
    place = new_location(Path.cwd()) if sqlite_path(client.tracking_uri) is not None else None
    try:
        return str(client.create_experiment(name, place, tags={KIND_TAG: KIND}))
    except MlflowException:
        # Another sweep may have created it since.
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


def name_of_experiment(uri: str, experiment_id: str, given_as: str) -> str:
    """The name of the experiment that a store has under an id; reads only.

    Args:
        given_as: what named the id, for the message.

    Raises:
        InputError: The store has none of that id.
    """
    path = sqlite_path(uri)
    try:
        if path is not None and not path.exists():
            raise MlflowException("there is no store yet")  # Asking would make it.
        return str(MlflowClient(uri).get_experiment(experiment_id).name)
    except MlflowException as error:
        raise InputError(
            f"{given_as} is {experiment_id!r}, an experiment that {redacted(uri)} does not have. "
            "Unset it, or name the experiment: --experiment NAME."
        ) from error


def _check_writable(client: MlflowClient, experiment: Experiment) -> None:
    """On a server with users, experiments of other users can be read but not written."""
    if not is_server(client.tracking_uri):
        return
    try:
        # As it is, so that nothing changes.
        kind = experiment.tags.get(KIND_TAG, KIND)
        client.set_experiment_tag(experiment.experiment_id, KIND_TAG, kind)
    except MlflowException as error:
        if error.error_code != DENIED:
            raise
        raise InputError(
            f"The experiment '{experiment.name}' belongs to another user of this server, and you "
            "may not write into it. Name one of your own with --experiment NAME, or ask its owner "
            "for the right to edit it."
        ) from error
