"""Notes in Markdown on MLflow's pages of runs and experiments (`mlflow.note.content`).

A note that somebody wrote, or changed, on such a page is never replaced: a checksum beside ours
tells them apart.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from tracking.errors import MISSING, unless
from tracking.markdown_text import literal
from tracking.metric_names import MetricNames
from tracking.tags import Tag
from tracking.views.links import (
    EXPERIMENT,
    RUN,
    SWEEPS_VIEW,
    charts_here,
    run_here,
    table_here,
    trials_view,
    version_here,
)

NUM_SWEEPS = 5
"""Named in an experiment's note."""
_REGISTERED = "Registered model: "
_IDS = re.compile(r"experiments/\d+|[0-9a-f]{32}")


def tags_with_note(
    tags: Mapping[str, str], known: Mapping[str, str], experiment_id: str, run_id: str = ""
) -> dict[str, str]:
    """Tags to write with a note of ours, if there is one and the note is ours to write.

    What an earlier note of ours says of registered models stays.

    Args:
        known: the tags that are there.
        experiment_id, run_id: which the links in the note are to.
    """
    rest = {key: text for key, text in tags.items() if key != Tag.RUN_NOTE}
    before = known.get(Tag.RUN_NOTE, "")
    if Tag.RUN_NOTE not in tags or not _is_ours(known):
        return rest
    note = tags[Tag.RUN_NOTE].replace(EXPERIMENT, experiment_id).replace(RUN, run_id)
    registered = [line for line in before.splitlines() if line.startswith(_REGISTERED)]
    return {**rest, **_noted("\n\n".join([note, *registered]))}


def note_registered(client: MlflowClient, run_id: str, name: str, version: int) -> None:
    """Adds a registered version of a run's model to the notes of that run and of its sweep."""
    line = f"{_REGISTERED}[{literal(name)} version {version}]({version_here(name, version)})"
    run = _run(client, run_id)
    while run is not None:
        tags = run.data.tags
        before = tags.get(Tag.RUN_NOTE, "")
        if _is_ours(tags) and line not in before.splitlines():
            for key, text in _noted("\n\n".join(filter(None, (before, line)))).items():
                client.set_tag(run.info.run_id, key, text)
        run = _run(client, tags.get(MLFLOW_PARENT_RUN_ID, ""))


def _run(client: MlflowClient, run_id: str) -> Run | None:
    """A run that can be written to; None where it is gone."""
    with unless(MISSING):
        found = client.get_run(run_id) if run_id else None
        return found if found and found.info.lifecycle_stage == "active" else None
    return None


def _noted(note: str) -> dict[str, str]:
    return {Tag.RUN_NOTE: note, Tag.NOTE_CHECKSUM: _checksum(note)}


def _is_ours(tags: Mapping[str, str]) -> bool:
    """Whether nobody else wrote, or changed, the note that is there."""
    note = tags.get(Tag.RUN_NOTE, "")
    return not note or tags.get(Tag.NOTE_CHECKSUM) == _checksum(note)


def _checksum(note: str) -> str:
    """Without ids, which are others in a copy of the store."""
    return f"{zlib.crc32(_IDS.sub('', note).encode()):08x}"


def note_sweeps(client: MlflowClient, experiment_id: str) -> bool:
    """Writes which sweeps of an experiment are the latest; returns whether there is one."""
    known = dict(client.get_experiment(experiment_id).tags)
    text = f"tags.`{Tag.KIND}` = 'sweep'"
    order = ["attributes.start_time DESC"]
    runs = client.search_runs([experiment_id], text, max_results=NUM_SWEEPS + 1, order_by=order)
    tags = tags_with_note({Tag.RUN_NOTE: _sweeps_note(runs)}, known, experiment_id)
    if not runs and tags:
        for name in tags.keys() & known.keys():
            client.delete_experiment_tag(experiment_id, name)
        return False
    for name, value in tags.items():
        if known.get(name) != value:
            client.set_experiment_tag(experiment_id, name, value)
    return bool(runs)


def _sweeps_note(runs: list[Run]) -> str:
    """The latest sweep in the first line, which is all that a narrow page shows."""
    if not runs:
        return ""
    lines = [f"Latest sweep: {_sweep_text(runs[0])}"]
    if len(runs) > 1:
        lines += ["", "Before it:", ""]
        lines += [f"- {_sweep_text(run)}" for run in runs[1:NUM_SWEEPS]]
        if len(runs) > NUM_SWEEPS:
            lines.append("- ...")
        lines += ["", f"[Compare the sweeps]({charts_here(SWEEPS_VIEW)})"]
    return "\n".join(lines)


def _sweep_text(run: Run) -> str:
    tags, names = run.data.tags, MetricNames.of(run.data.tags)
    name, uid = tags.get(Tag.SWEEP, str(run.info.run_name)), tags.get(Tag.UID, "")
    metric = names.objective or run.data.params.get("objective", "")
    best = names.plain(run.data.metrics).get(f"best_{metric}")
    reached = "" if best is None else f", {literal(metric)} {best:.4f}"
    view = trials_view(uid)
    pages = f"[charts]({charts_here(view)}), [table]({table_here(view)})"
    return f"[{literal(name)}]({run_here(run.info.run_id)}){reached} ({pages})"
