"""Saved views of MLflow's page: what they hold, and that they fit into a tag."""

from __future__ import annotations

import base64
import json
import zlib

import pytest

from tracking.metric_names import MetricNames
from tracking.views.links import VIEW_PREFIX, charts_link, plain_link, table_link, trials_view
from tracking.views.saved_views import MAX_CHARACTERS
from tracking.views.sweep_views import (
    MAX_PARAMS,
    TrialsView,
    finalists_tags,
    sweeps_tags,
    trials_tags,
)


def state_of(text: str) -> dict:
    envelope = json.loads(text)
    kind, _, packed = envelope["state"].partition(";")
    assert kind == "deflate" and envelope["createdAt"] == envelope["updatedAt"] == 5
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def test_a_view_has_the_objective_first_and_the_charts_that_compare_trials():
    names = MetricNames(True, "val_loss")
    view = TrialsView(
        "nightly", "0123456789abcdef", "val_loss", ["lr", "depth"], names, ["lr"], True,
        frame=(0.1, 0.4),
    )  # fmt: skip
    tags = trials_tags(view, 5)
    assert list(tags) == ["mlflow.sharedViewState.sweep-0123456789ab"]
    (text,) = tags.values()
    assert json.loads(text)["name"] == "Sweep nightly"
    state = state_of(text)
    assert state["orderByKey"] == "metrics.`best/val_loss`" and state["orderByAsc"] is True
    assert state["selectedColumns"][:4] == [
        "metrics.`best/val_loss`", "metrics.`training/epochs`", "metrics.`model/parameters`",
        "metrics.`training/seconds`",
    ]  # fmt: skip
    assert state["selectedColumns"][-2:] == ["params.`lr`", "params.`depth`"]
    assert "0123456789abcdef" in state["searchFilter"] and "'trial'" in state["searchFilter"]
    kinds = [chart["type"] for chart in state["compareRunCharts"]]
    assert kinds == ["LINE", "PARALLEL", "SCATTER", "SCATTER", "SCATTER"]
    line, parallel, *scatters = state["compareRunCharts"]
    assert (line["metricKey"], line["xAxisKey"]) == ("epoch/val_loss", "step")
    assert line["range"] == {"yMin": 0.1, "yMax": 0.4}
    assert parallel["selectedParams"] == ["lr", "depth"]
    assert scatters[-1]["xaxis"] == {"key": "lr", "type": "PARAM"}
    assert scatters[-1]["xAxisScaleType"] == "log"
    sections = {section["uuid"]: section["columns"] for section in state["compareRunSections"]}
    shown = [sections[chart["metricSectionId"]] for chart in state["compareRunCharts"]]
    assert shown == [1, 1, 2, 2, 2], "parallel coordinates need the whole width"
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} == set(sections)
    assert len({chart["uuid"] for chart in state["compareRunCharts"]}) == 5


def test_a_view_of_an_earlier_sweep_has_its_names_and_reports_within_epochs_their_axis():
    for names, metric, epochs in (
        (MetricNames(), "val_loss", "epoch"),
        (MetricNames(True, "val_loss"), "epoch/val_loss", "epoch/epoch"),
    ):
        view = TrialsView("x", "u" * 32, "val_loss", ["lr"], names, has_steps=True)
        state = state_of(*trials_tags(view, 5).values())
        line = state["compareRunCharts"][0]
        assert (line["metricKey"], line["selectedXAxisMetricKey"]) == (metric, epochs)
        assert state["orderByKey"] == f"metrics.`{names.of_end('best_val_loss')}`"


def test_finalists_are_averaged_over_their_seeds_and_those_on_all_data_left_out():
    view = TrialsView("x", "f" * 32, "val_loss", ["lr"], MetricNames(True, "val_loss"))
    ((key, text),) = finalists_tags(view, 5).items()
    state = state_of(text)
    assert key == f"{VIEW_PREFIX}{trials_view('f' * 32)}"
    assert state["groupBy"]["groupByKeys"] == [{"mode": "tag", "groupByData": "sweeps.finalist_of"}]
    assert state["searchFilter"].endswith("tags.`sweeps.kind` = 'finalist'")
    assert state["selectedColumns"][:2] == ["metrics.`best/val_loss`", "metrics.`test/accuracy`"]
    assert [chart["type"] for chart in state["compareRunCharts"]] == ["BAR", "BAR", "LINE"]
    assert state["selectedColumns"][-1] == "params.`lr`"


def test_the_sweeps_of_an_experiment_have_one_view():
    ((key, text),) = sweeps_tags(
        "val_loss", MetricNames(True, "val_loss"), 5, minimize=True
    ).items()
    state = state_of(text)
    assert key == f"{VIEW_PREFIX}sweeps"
    assert state["searchFilter"] == "tags.`sweeps.kind` = 'sweep'" and state["orderByAsc"]
    assert state["selectedColumns"][:2] == [
        "metrics.`best/val_loss`", "metrics.`sweep/num_complete`",
    ]  # fmt: skip
    lines = [chart for chart in state["compareRunCharts"] if chart["type"] == "LINE"]
    assert [chart["xAxisKey"] for chart in lines] == ["step", "time-relative"]


@pytest.mark.parametrize("length", [10, 60, 240])
def test_many_or_long_names_still_fit_into_a_tag(length):
    names = [f"{'n' * length}{k * 7919}" for k in range(60)]
    view = TrialsView("x", "u" * 32, "val_accuracy", names, MetricNames(), names)
    ((_, text),) = trials_tags(view, 5).items()
    assert len(text) <= MAX_CHARACTERS
    shown = [c for c in state_of(text)["selectedColumns"] if c.startswith("params.")]
    assert 0 < len(shown) <= MAX_PARAMS


def test_links_ask_for_the_mode_of_models():
    view = trials_view("0123456789abcdef")
    assert table_link("http://h/", "3", view) == (
        "http://h/#/experiments/3/runs?workflowType=machine_learning"
        "&viewStateShareKey=sweep-0123456789ab"
    )
    assert charts_link("http://h", "3", view).endswith("&compareRunsMode=CHART")
    assert "searchFilter=tags.%60sweeps.uid%60" in plain_link("http://h", "3", "u")
    assert VIEW_PREFIX == "mlflow.sharedViewState."
