"""Two runs of one record: which of them stays, and when the other one may go."""

from __future__ import annotations

from collections.abc import Iterator

from mlflow import MlflowClient
from mlflow.entities import Run


def only_run(client: MlflowClient, experiment_id: str, text: str, known: str | None) -> str | None:
    """The run that a filter means: of several the one that holds most; None where there is none.

    A request that timed out may still be carried out by a slow server, after it was repeated; and
    a sweep whose spool was lost records the rest anew. Of the others those are deleted that hold
    nothing else.

    Args:
        known: id of the run that stays where several hold as much.
    """
    runs = client.search_runs([experiment_id], text)
    if len(runs) < 2:
        return str(runs[0].info.run_id) if runs else None
    held = {str(run.info.run_id): _content(client, run) for run in runs}
    kept = max(held, key=lambda run_id: (len(held[run_id]), run_id == known, run_id))
    for run_id, content in held.items():
        if run_id != kept and content <= held[kept]:
            client.delete_run(run_id)
    return kept


def models_of(run: Run) -> set[str]:
    """Ids of the logged models that came out of a run."""
    return {output.model_id for output in run.outputs.model_outputs} if run.outputs else set()


def _content(client: MlflowClient, run: Run) -> set[tuple[str, ...]]:
    """Everything that would be lost with a run: points, params, files and models."""
    run_id = str(run.info.run_id)
    points = {
        (key, str(point.step), repr(point.value), str(point.timestamp))
        for key in run.data.metrics
        for point in client.get_metric_history(run_id, key)
    }
    params = {(key, value) for key, value in run.data.params.items()}
    models = {(model_id,) for model_id in models_of(client.get_run(run_id))}
    return points | params | {(path,) for path in _files(client, run_id)} | models


def _files(client: MlflowClient, run_id: str, folder: str | None = None) -> Iterator[str]:
    for entry in client.list_artifacts(run_id, folder):
        if entry.is_dir:
            yield from _files(client, run_id, entry.path)
        else:
            yield str(entry.path)
