"""Runs of an MLflow server, read over plain REST: importing MLflow takes longer than the answer.

The calls are those of MLflow's REST API, version 2.0: `experiments/search` and `runs/search`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search_spaces.errors import InputError
from tracking.addresses import redacted
from tracking.metric_names import MetricNames
from tracking.stores import check_store, credentials, is_server

MAX_RESULTS = 50_000
"""As many as MLflow puts into one answer: a request a page would cost more than what is in it."""
ANSWER_SECONDS = 300.0
"""MLflow is silent until all of an answer is ready: 15 s of its processor for 5,000 runs."""


@dataclass(frozen=True)
class RestRun:
    """A run as the server tells it.

    Attributes:
        metrics: the latest value of each, by its plain name (`tracking.metric_names`).
        last_step: the highest step of those values; 0 without any.
    """

    run_id: str
    experiment_id: str
    begun_ms: int
    ended_ms: int
    status: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    last_step: int = 0


def search_runs(
    uri: str,
    text: str,
    *,
    experiment_id: str = "",
    limit: int = MAX_RESULTS,
    order_by: Sequence[str] = ("attributes.start_time DESC",),
) -> Iterator[RestRun]:
    """The runs that a filter in MLflow's search language finds, newest first.

    Args:
        experiment_id: where to look, as a run of this server said; empty for all experiments, which
            takes three requests more, as it is seen first whether `uri` is a server that answers.
        limit: of runs in one answer; there are more answers only if more are taken.
        order_by: another order in MLflow's search language; runs without such a metric come last.

    Raises:
        InputError: `uri` is no server, or it does not answer.
    """
    experiments = [experiment_id] if experiment_id else _experiments(uri)
    if not experiments:
        return
    body = {
        "experiment_ids": experiments, "filter": text, "max_results": limit,
        "order_by": list(order_by),
    }  # fmt: skip
    for page in _pages(uri, "runs/search", body):
        yield from map(_run, page.get("runs", ()))


def _experiments(uri: str) -> list[str]:
    if not is_server(uri):
        raise InputError(
            f"--tracking-uri must be a server, such as http://127.0.0.1:5000. Received: "
            f"{redacted(uri)}. Without the option the sweeps of --work-dir are read."
        )
    check_store(uri)
    return [
        experiment["experiment_id"]
        for page in _pages(uri, "experiments/search", {"max_results": MAX_RESULTS})
        for experiment in page.get("experiments", ())
    ]


def experiment_of_run(uri: str, run_id: str) -> str:
    """The experiment of a run.

    Raises:
        InputError: The server does not answer, or does not know the run.
    """
    found = _asked(uri, "GET", f"runs/get?run_id={run_id}")
    return str(found["run"]["info"]["experiment_id"])


def experiment_tags(uri: str, experiment_id: str) -> dict[str, str]:
    """The tags of an experiment; raises InputError where the server does not answer."""
    found = _asked(uri, "GET", f"experiments/get?experiment_id={experiment_id}")
    return {tag["key"]: tag.get("value", "") for tag in found["experiment"].get("tags", ())}


def _pages(uri: str, call: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    token = ""
    while True:
        page = _asked(uri, "POST", call, {**body, **({"page_token": token} if token else {})})
        yield page
        token = page.get("next_page_token", "")
        if not token:
            return


def _asked(
    uri: str, method: str, call: str, body: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    import requests

    address = f"{uri.rstrip('/')}/api/2.0/mlflow/{call}"
    try:
        answer = requests.request(
            method, address, json=body, timeout=ANSWER_SECONDS, **credentials()
        )
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
    except (requests.RequestException, ValueError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        raise InputError(
            f"The MLflow server {redacted(uri)} did not answer {call.partition('?')[0]} "
            f"({f'status {status}' if status else type(error).__name__}). Is it the server, and "
            "the store, that the sweep was tracked in?"
        ) from None
    return found


def _run(found: Mapping[str, Any]) -> RestRun:
    info, data = found["info"], found.get("data", {})
    tags = {item["key"]: item.get("value", "") for item in data.get("tags", ())}
    metrics = {item["key"]: float(item["value"]) for item in data.get("metrics", ())}
    return RestRun(
        run_id=info["run_id"],
        experiment_id=info["experiment_id"],
        begun_ms=int(info.get("start_time", 0)),
        ended_ms=int(info.get("end_time", 0)),
        status=info.get("status", ""),
        params={item["key"]: item.get("value", "") for item in data.get("params", ())},
        tags=tags,
        metrics=MetricNames.of(tags).plain(metrics),
        last_step=max((int(item.get("step", 0)) for item in data.get("metrics", ())), default=0),
    )
