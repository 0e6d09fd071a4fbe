"""Addresses of MLflow's own pages, in the mode for training models.

MLflow 3 shows an experiment as traces of language models unless the address asks for its runs.
"""

from __future__ import annotations

from urllib.parse import quote

from tracking.filters import tag_is
from tracking.tags import Tag

VIEW_PREFIX = "mlflow.sharedViewState."
"""An experiment's tags that hold saved views begin so; the rest is the view's id."""
_MODE = "workflowType=machine_learning"


def trials_view(uid: str) -> str:
    """The id of the saved view of a sweep's trials."""
    return f"sweep-{uid[:12]}"


def table_link(base: str, experiment_id: str, view_id: str) -> str:
    """A saved view as a table."""
    return f"{_runs(base, experiment_id)}&viewStateShareKey={view_id}"


def charts_link(base: str, experiment_id: str, view_id: str) -> str:
    """A saved view as charts."""
    return f"{table_link(base, experiment_id, view_id)}&compareRunsMode=CHART"


def plain_link(base: str, experiment_id: str, uid: str) -> str:
    """A sweep's runs where there is no saved view of them."""
    text = tag_is(Tag.UID, uid)
    return f"{_runs(base, experiment_id)}&searchFilter={quote(text)}"


def _runs(base: str, experiment_id: str) -> str:
    return f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs?{_MODE}"
