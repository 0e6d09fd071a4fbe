"""Removes the runs of a sweep from MLflow, with their models and files."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Experiment, LoggedModelOutput, Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from tracking.client import open_client
from tracking.filters import quoted, tag_is
from tracking.runs.notes import note_sweeps
from tracking.stores import is_server
from tracking.tags import Tag
from tracking.views.links import SWEEPS_VIEW, VIEW_PREFIX, trials_view

_PAGE = 1_000


@dataclass(frozen=True)
class FoundRuns:
    """What MLflow holds of a sweep.

    Attributes:
        run_ids: runs of the sweep, its trials, and its finalists.
        model_ids: logged models of theirs.
        registered: names of registered models that have a version of one of them.
        views: experiment -> its tags that hold saved views of the sweep.
        experiments: where its runs are; views and experiments that are deleted are left out.
    """

    run_ids: tuple[str, ...]
    model_ids: tuple[str, ...]
    registered: tuple[str, ...]
    views: tuple[tuple[str, str], ...] = ()
    experiments: tuple[str, ...] = ()


def find_runs(uri: str, name: str, uids: Collection[str]) -> FoundRuns:
    """The runs of a sweep and of its finalists, by the uids that their tags hold."""
    client = open_client(uri)
    experiments = _all_experiments(client)
    runs: list[Run] = []
    text = tag_is(Tag.SWEEP, name)
    token: str | None = ""
    while experiments and token is not None:
        page = client.search_runs(experiments, text, ViewType.ALL, _PAGE, page_token=token or None)
        runs += [run for run in page if run.data.tags.get(Tag.UID) in uids]
        token = page.token or None
    ids = {run.info.run_id for run in runs}
    models = [output.model_id for run in runs for output in _outputs(run)]
    there = [model_id for model_id in models if _is_there(client, model_id)]
    found = map(client.get_experiment, sorted({run.info.experiment_id for run in runs}))
    active = [one for one in found if one.lifecycle_stage == "active"]
    return FoundRuns(
        tuple(sorted(ids)), tuple(there), tuple(_registered(client, ids)), _views(active, runs),
        tuple(one.experiment_id for one in active),
    )  # fmt: skip


def remove_runs(uri: str, found: FoundRuns) -> None:
    """Removes them: for good from a database, marked as deleted on a server.

    MLflow's own `gc` is not for this: beside the runs that it is told it removes every experiment
    and model of the store that is marked as deleted, which somebody may want back.
    """
    client = open_client(uri)
    for experiment, tag in found.views:
        client.delete_experiment_tag(experiment, tag)
    store: Any = client._tracking_client.store  # What `mlflow gc` itself uses.
    for model_id in found.model_ids:
        model = client.get_logged_model(model_id)
        if not is_server(uri):
            _remove_files(uri, model.artifact_location)
        client.delete_logged_model(model_id)
        if not is_server(uri):
            store._hard_delete_logged_model(model_id)
    for run_id in found.run_ids:
        run = client.get_run(run_id)
        if not is_server(uri):
            _remove_files(uri, run.info.artifact_uri)
        if run.info.lifecycle_stage == "active":
            client.delete_run(run_id)
        if not is_server(uri):
            store._hard_delete_run(run_id)
    for experiment in found.experiments:
        of_sweeps = f"{VIEW_PREFIX}{SWEEPS_VIEW}"
        is_last = not note_sweeps(client, experiment)
        if is_last and of_sweeps in client.get_experiment(experiment).tags:
            client.delete_experiment_tag(experiment, of_sweeps)


def _remove_files(uri: str, location: str | None) -> None:
    if location:
        files = get_artifact_repository(location, tracking_uri=uri)
        files.delete_artifacts()  # type: ignore[no-untyped-call]


def _all_experiments(client: MlflowClient) -> list[str]:
    found, token = [], None
    while True:
        page = client.search_experiments(view_type=ViewType.ALL, page_token=token)
        found += [experiment.experiment_id for experiment in page]
        token = page.token
        if not token:
            return found


def _outputs(run: Run) -> list[LoggedModelOutput]:
    return list(run.outputs.model_outputs) if run.outputs else []


def _views(experiments: Iterable[Experiment], runs: Collection[Run]) -> tuple[tuple[str, str], ...]:
    """The experiments' tags that hold a saved view of the sweep."""
    tags = {f"{VIEW_PREFIX}{trials_view(run.data.tags[Tag.UID])}" for run in runs}
    return tuple(
        (one.experiment_id, tag) for one in experiments for tag in sorted(tags & one.tags.keys())
    )


def _is_there(client: MlflowClient, model_id: str) -> bool:
    """Whether a model is kept still; a run names those that a better one has replaced, too."""
    try:
        client.get_logged_model(model_id)
    except MlflowException as error:
        if error.get_http_status_code() != HTTPStatus.NOT_FOUND:  # type: ignore[no-untyped-call]
            raise
        return False
    return True


def _registered(client: MlflowClient, run_ids: Collection[str]) -> list[str]:
    """Names of registered models with a version of one of the runs."""
    found: set[str] = set()
    for model in _pages(client):
        for version in client.search_model_versions(f"name = {quoted(model)}"):
            if version.run_id in run_ids:
                found.add(model)
    return sorted(found)


def _pages(client: MlflowClient) -> list[str]:
    names, token = [], None
    while True:
        page = client.search_registered_models(page_token=token)
        names += [model.name for model in page]
        token = page.token
        if not token:
            return names
