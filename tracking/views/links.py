"""Addresses of MLflow's own pages, in the mode for training models.

MLflow 3 shows an experiment as traces of language models unless the address asks for its runs.
"""

from __future__ import annotations

from urllib.parse import quote

from tracking.filters import tag_is
from tracking.tags import Tag

VIEW_PREFIX = "mlflow.sharedViewState."
"""An experiment's tags that hold saved views begin so; the rest is the view's id."""
SWEEPS_VIEW = "sweeps"
"""The id of the saved view that compares the sweeps of an experiment."""
EXPERIMENT, RUN = "EXPERIMENT_ID", "RUN_ID"
"""Stand for the ids of the experiment and the run in links of a note, until it is written."""
_MODE = "workflowType=machine_learning"


def trials_view(uid: str) -> str:
    """The id of the saved view of a sweep's trials, or of a comparison's trainings."""
    return f"sweep-{uid[:12]}"


def table_here(view_id: str) -> str:
    """A saved view as a table, from a page of the same MLflow."""
    return table_link("", EXPERIMENT, view_id).lstrip("/")


def charts_here(view_id: str) -> str:
    """A saved view as charts, from a page of the same MLflow."""
    return charts_link("", EXPERIMENT, view_id).lstrip("/")


def artifact_here(path: str) -> str:
    """A file of the run, from a page of the same MLflow."""
    return f"get-artifact?path={quote(path)}&run_uuid={RUN}"


def run_here(run_id: str) -> str:
    """The page of a run, from a page of the same MLflow."""
    return f"#/experiments/{EXPERIMENT}/runs/{run_id}?{_MODE}"


def version_here(name: str, version: int) -> str:
    """The page of a registered version, from a page of the same MLflow."""
    return f"#/models/{quote(name, safe='')}/versions/{version}"


def table_link(base: str, experiment_id: str, view_id: str) -> str:
    """A saved view as a table."""
    return f"{_runs(base, experiment_id)}&viewStateShareKey={view_id}"


def charts_link(base: str, experiment_id: str, view_id: str) -> str:
    """A saved view as charts."""
    return f"{table_link(base, experiment_id, view_id)}&compareRunsMode=CHART"


def run_link(base: str, run_id: str) -> str:
    """The page of a run."""
    return f"{base.rstrip('/')}/#/runs/{run_id}"


def plain_link(base: str, experiment_id: str, uid: str) -> str:
    """A sweep's runs where there is no saved view of them."""
    text = tag_is(Tag.UID, uid)
    return f"{_runs(base, experiment_id)}&searchFilter={quote(text)}"


def _runs(base: str, experiment_id: str) -> str:
    return f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs?{_MODE}"
