"""The page about a sweep: the answer in words, figures that hold what was recorded, safe names."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
from made_sweeps import BEGAN_MS, made_trial, write_sweep

from pipelines.evaluation.predictions import write_predictions
from search_spaces.registry import get_space
from sweeps.cli.main import main
from sweeps.engines.base import TrialState
from sweeps.history.recorded_sweep import read_sweep
from sweeps.html_report import cost_figures, figures, page
from sweeps.html_report.answer import answer, next_steps
from sweeps.html_report.curve_picture import curve_picture
from sweeps.html_report.findings import (
    beside_baseline,
    compute_of,
    finalists_of,
    gaps,
    lanes,
    parameter_findings,
)
from sweeps.html_report.mistakes import (
    answers_of,
    comparison_section,
    confusion,
    mistakes_section,
)
from sweeps.html_report.note import run_note
from tracking.spool.records import SweepEnd, SweepStateRecord
from tracking.spool.spool import Spool

SPACE = get_space("mlp")
NOW = BEGAN_MS + 10**6
RANKED = [
    {"name": name, "trial": trial, "mean": 0.9, "low": 0.88, "high": 0.92, "num_seeds": 3,
     "probability_best": share, "test_accuracy": 0.91, "params": {}}
    for name, trial, share in (("trial 1", 1, 0.7), ("trial 0", 0, 0.3))
]  # fmt: skip


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Without the four megabytes of plotly.js, which no test here draws with."""
    monkeypatch.setattr(page, "_plotly", lambda: "/* plotly */")


def point(**values: object) -> dict[str, str]:
    return {name: str(value) for name, value in SPACE.complete(values).items()}


@pytest.fixture
def sweep(tmp_path):
    records = [
        *made_trial(
            0, [0.5, 0.7, 0.6], point(optimizer="sgd"), tags={"sweeps.baseline": "mlp_512x2"}
        ),
        *made_trial(1, [0.6, 0.8, 0.9], point(), begun=30),
        *made_trial(2, [0.4], point(num_layers=1), state="PRUNED", begun=60),
    ]
    return read_sweep(write_sweep(tmp_path / ".sweeps", "made", records))


def figures_of(text: str) -> list[dict]:
    found = re.findall(r"<script type='application/json'[^>]*>(.*?)</script>", text, re.DOTALL)
    return [json.loads(content) for content in found]


def test_the_answer_names_winner_baseline_doubt_and_cost_in_words(sweep):
    said = answer(sweep, [], [], NOW)
    assert said.won == "trial 1 won with val_accuracy 0.9000."
    assert said.point == "the defaults of space mlp"
    assert list(said.facts) == ["By how much?", "Is it real?", "What did it cost?"]
    assert (
        "0.2000 better than mlp_512x2 (0.7000), the best of the published"
        in said.facts["By how much?"]
    )
    assert said.facts["Is it real?"].startswith("Not known yet: it is one training, the best of 3")
    assert said.facts["What did it cost?"].startswith(
        "1:10 min with 1 trial at a time: 3 configurations tried, 2 trained in full; "
    )
    assert len(next_steps(sweep, has_finalists=False)) <= 3


def test_the_measurement_says_from_which_trials_it_tells_the_winner(sweep):
    sweep.data = {"profile": {"num_images": {"validation": 100}}}
    said = answer(sweep, [], [], NOW).facts["Is it real?"]
    assert said.endswith(
        "Measured on 100 images it is ±0.0588 (95%), which tells it from all others."
    )
    assert "of measuring it" not in answer(sweep, [], [], NOW).facts["By how much?"]
    sweep.trials[0].metrics = {"best_val_accuracy": 0.88}
    facts = answer(sweep, [], [], NOW).facts
    assert facts["Is it real?"].endswith("which does not tell it from trial 0.")
    assert facts["By how much?"].endswith(
        "published models: less than the ±0.0588 of measuring it."
    )


def test_finalists_answer_before_single_trials(sweep):
    folder = sweep.paths.sweep / "finalists"
    folder.mkdir()
    (folder / "finalists.json").write_text(json.dumps({"ranking": RANKED}))
    found = finalists_of(sweep.paths)
    said = answer(sweep, found, [], NOW)
    assert said.won == "trial 1 won on fresh seeds: mean val_accuracy 0.9000, test accuracy 0.9100."
    real = said.facts["Is it real?"]
    assert real.startswith("Probably: it is the best of 2 finalists with a probability of 70%")
    assert "0.8800 to 0.9200" in real and "the next one, trial 0, has 0.9000" in real
    assert "the best trial of the search, too (0.9000 there, in its best epoch)" in real
    assert real.endswith("give the next sweep `--finalists --finalist-seeds 6`.")
    sure = [replace(found[0], probability_best=0.97), found[1]]
    assert "--finalist-seeds" not in answer(sweep, sure, [], NOW).facts["Is it real?"]
    assert "Comparing the finalists" not in said.facts["What did it cost?"], "no time is known"
    spool = Spool(folder / "spool")
    spool.put(SweepStateRecord("RUNNING", {}, BEGAN_MS))
    spool.put(SweepEnd("FINISHED", at_ms=BEGAN_MS + 90_000))
    spool.close()
    cost = answer(sweep, found, [], NOW).facts["What did it cost?"]
    assert cost.endswith(
        " Comparing the finalists: 6 trainings in 1:30 min more, so 2:40 min in all."
    )
    text = page.report_page([sweep])
    assert "Finalists on fresh seeds" in text and "keras-sweeps finalize" not in text
    drawn = next(f for f in figures_of(text) if "error_x" in f["data"][0])
    assert drawn["data"][0]["y"] == ["trial 0", "trial 1"]
    assert drawn["data"][0]["marker"]["color"] == [figures.ORANGE, figures.WINNER]
    assert "<td>0.9100</td><td>3</td><td>0.7000</td>" in text, "beside it the search's own value"
    assert "not the mean over fresh seeds" in text
    assert "won on fresh seeds" in run_note(sweep, [], NOW)


def test_a_winner_that_was_published_is_said_to_be_nothing_new(tmp_path):
    records = made_trial(0, [0.9, 0.9, 0.9], point(), tags={"sweeps.baseline": "mlp_512x2"})
    records += made_trial(1, [0.5, 0.5, 0.5], point(num_layers=1), begun=30)
    said = answer(read_sweep(write_sweep(tmp_path / ".sweeps", "old", records)), [], [], NOW)
    assert "a published model, won" in said.won
    assert said.facts["By how much?"] == "Not at all: no proposed configuration was better than it."


def test_a_baseline_that_was_pruned_is_compared_after_as_many_epochs(tmp_path):
    tags = {"sweeps.baseline": "mlp_512x2"}
    records = made_trial(0, [0.7], point(optimizer="sgd"), state="PRUNED", tags=tags)
    records += made_trial(1, [0.6, 0.8, 0.9], point(), begun=30)
    found = beside_baseline(read_sweep(write_sweep(tmp_path / ".sweeps", "part", records)))
    assert found is not None and (found.own, found.other, found.epochs) == (0.6, 0.7, 1)


def commands(sweep, *, has_finalists=True) -> list[str]:
    found = next_steps(sweep, has_finalists=has_finalists)
    assert len(found) <= 3
    return [command.removeprefix("keras-sweeps ") for command, _ in found]


def test_the_next_steps_train_what_nothing_was_compared_with_in_full(sweep):
    more = "run --resume --name made --timeout 30m"
    sweep.file = replace(sweep.file, settings=replace(sweep.file.settings, num_trials=None))
    assert commands(sweep) == ["promote made", more], "a published model was trained in full"
    sweep.trials[0].state = TrialState.PRUNED
    data = sweep.file.data_name
    sweep.file = replace(sweep.file, settings=replace(sweep.file.settings, dataset=data))
    baselines = f"run --baselines-only --space mlp --dataset {data}"
    assert commands(sweep) == ["promote made", baselines, more]
    assert commands(sweep, has_finalists=False) == ["finalize made", "promote made", baselines]
    own = replace(sweep.file.settings, dataset="/home/me/images")
    sweep.file = replace(sweep.file, settings=own)
    assert commands(sweep) == ["promote made", more], "where images lie is told to nobody"


def test_a_sweep_of_so_many_trials_goes_on_with_more_of_them(sweep):
    sweep.file = replace(sweep.file, settings=replace(sweep.file.settings, num_trials=3))
    assert commands(sweep)[-1] == "run --resume --name made --trials 6"


def test_all_shares_of_time_are_of_the_slots_time(tmp_path):
    records = made_trial(0, [0.5, 0.6], point())
    records += made_trial(1, [0.5], point(num_layers=1), begun=30, state="PRUNED")
    sweep = read_sweep(write_sweep(tmp_path / ".sweeps", "two", records))
    (share,) = [
        trace["name"]
        for trace in cost_figures.compute(sweep, NOW).data
        if "pruned" in trace["name"]
    ]
    said = answer(sweep, [], [], NOW).facts["What did it cost?"]
    assert share == "pruned 25%" and "pruned trials took 25% of the time of its slot" in said


def test_the_winner_has_a_colour_of_its_own_in_every_figure_and_its_values_a_fold(sweep):
    for winner in (1, 2):  # Finalists may pick a trial that was pruned.
        curves = figures.learning_curves(sweep, winner)
        (line,) = [t for t in curves.data if t.get("line", {}).get("color") == figures.WINNER]
        assert line["name"] == f"trial {winner}, the winner"
        assert ("but the winner has its colour" in curves.caption) == (winner == 2)
    sweep.state = "running"
    assert "trial 1, the leader" in {t["name"] for t in figures.learning_curves(sweep, 1).data}
    sweep.state = "finished"
    points = cost_figures.trade_offs(sweep, 1).data[0]
    assert points["marker"]["color"] == [figures.ORANGE, figures.WINNER], "it is above the others"
    bars = {trace["name"]: trace for trace in cost_figures.timeline(sweep, NOW, 1).data}
    assert set(bars) == {"winner", "published model", "pruned"}
    assert bars["winner"]["marker"]["color"] == figures.WINNER
    assert bars["published model"]["marker"]["color"] == figures.ORANGE
    assert bars["pruned"]["text"] == ["2"] and bars["pruned"]["hovertext"] == ["trial 2, pruned"]
    values = re.search(r"<details class='values'>(.*?)</details>", page.report_page([sweep]))
    assert values is not None
    assert all(f"<th>{name}</th>" in values[1] for name in sweep.trials[1].params)


def test_a_front_of_one_trial_is_a_line_too(sweep):
    sweep.trials[0].metrics = {**sweep.trials[0].metrics, "num_parameters": 300.0}
    front = cost_figures.trade_offs(sweep).data[1]
    assert (front["x"], front["y"]) == ([100.0, 300.0], [0.9, 0.9])


def test_parallel_coordinates_begin_with_the_better_part_and_say_so(tmp_path):
    records = []
    for k in range(16):
        params = point(batch_size=(32, 64, 128)[k % 3])
        records += made_trial(k, [0.1 if k < 2 else 0.9 + 0.001 * k], params, begun=30 * k)
    sweep = read_sweep(write_sweep(tmp_path / ".sweeps", "many", records))
    figure = figures.parallel_coordinates(sweep, [])
    line, axis = figure.data[0]["line"], figure.data[0]["dimensions"][-1]
    assert axis["range"] == [line["cmin"], line["cmax"]] and axis["range"][0] > 0.9
    assert min(axis["values"]) == axis["range"][0]
    assert "begin at 0.9" in figure.caption and "what was worse lies there" in figure.caption


def test_a_pruned_finalist_is_explained_and_words_are_linked_from_the_top(sweep):
    folder = sweep.paths.sweep / "finalists"
    folder.mkdir()
    pruned = {**RANKED[0], "name": "trial 2", "trial": 2}
    (folder / "finalists.json").write_text(json.dumps({"ranking": [pruned, RANKED[1]]}))
    text = page.report_page([sweep])
    assert "trial 2 is one although it was pruned" in text
    assert text.index("href='#words'") < text.index("class='answer'") < text.index("id='words'")


def test_a_sweep_without_any_report_has_a_page_too(tmp_path):
    empty = read_sweep(write_sweep(tmp_path / ".sweeps", "empty", [], status="running"))
    text = page.report_page([empty])
    assert "Nothing has been measured yet." in text and "run --resume --name empty" in text


def test_a_users_space_is_told_by_its_name_not_by_where_its_file_lies(sweep):
    assert sweep.task == "mlp on tiny"
    settings = replace(sweep.file.settings, space="/home/me/mine.py:build")
    sweep.file = replace(sweep.file, settings=settings)
    sweep.tags["sweeps.space"] = "mine-build"
    assert sweep.task == "mine-build on tiny"
    assert "mine-build on tiny, finished" in page.report_page([sweep])


@pytest.mark.parametrize(
    ("num_trials", "megabytes"), [(100, 6), pytest.param(2000, 15, marks=pytest.mark.long)]
)
def test_a_page_stays_small_enough_to_be_sent(sweep, num_trials, megabytes):
    first, report = sweep.trials[1], sweep.trials[1].reports[0]
    for number in range(2, num_trials):
        values = [round((number * 7 + epoch * 13) % 101 / 101, 4) for epoch in range(20)]
        reports = [
            replace(report, epochs=float(epoch), metrics={"val_accuracy": value})
            for epoch, value in enumerate(values, start=1)
        ]
        params = {**first.params, "learning_rate": 0.0004 + number / 1e6, "units": 64 + number % 64}
        made = replace(first, number=number, name=f"trial {number}", params=params, reports=reports)
        sweep.trials[number] = made
    plotly = 4.8  # Megabytes of plotly.js, which `small` leaves out.
    assert len(page.report_page([sweep]).encode()) / 1e6 + plotly < megabytes


def test_what_users_wrote_is_escaped(tmp_path):
    evil = "</script><img src=x onerror=alert(1)>"
    records = made_trial(0, [0.5, 0.6, 0.7], {"layer": evil, **point()})
    records += made_trial(1, [0.5, 0.6, 0.8], {"layer": "plain", **point()}, begun=30)
    for trial in (2, 3):
        records += made_trial(trial, [0.4, 0.5, 0.6], {"layer": evil, **point()}, begun=60 * trial)
    text = page.report_page([read_sweep(write_sweep(tmp_path / ".sweeps", "evil", records))])
    assert "<img" not in text and evil in unescape(text)
    assert all("data" in figure for figure in figures_of(text))


def test_tags_in_a_name_are_no_tags_in_a_figure(tmp_path):
    evil = "<a href='https://evil.example'>%{x}</a>"
    first, *rest = made_trial(0, [0.5, 0.7], point())
    records = [replace(first, name=evil), *rest, *made_trial(1, [0.6], point(), begun=30)]
    sweep = read_sweep(write_sweep(tmp_path / ".sweeps", "made", records))

    text = json.dumps(figures_of(page.report_page([sweep])))

    assert "<a href" not in text and "&lt;a href" in text and "%{x}</a>" not in text
    assert "<extra></extra>" in text


def test_the_note_of_the_run_is_short_markdown_with_the_answer_first(sweep):
    text = run_note(sweep, [], NOW)
    assert text.startswith("**trial 1 won with val_accuracy 0.9000.**")
    assert (
        "- **Its configuration:** the defaults of space mlp." in text
        and "- **Is it real?** Not known yet" in text
    )
    assert "| trial 1 | 0.9000 | 30.0 s | defaults |" in text
    assert "`keras-sweeps finalize made`: " in text and len(text) < 4_000
    assert "[Report](get-artifact?path=report.html&run_uuid=RUN_ID)" in text
    assert "#/experiments/EXPERIMENT_ID/runs?" in text and "![" not in text
    shown = run_note(sweep, [], NOW, has_curve=True)
    assert "![Best so far](get-artifact?path=best_so_far.svg&run_uuid=RUN_ID)" in shown


def test_the_note_has_the_finalists_with_their_intervals(sweep):
    folder = sweep.paths.sweep / "finalists"
    folder.mkdir()
    (folder / "finalists.json").write_text(json.dumps({"ranking": RANKED}))
    text = run_note(sweep, [], NOW)
    assert text.startswith("**trial 1 won on fresh seeds: mean val_accuracy 0.9000")
    assert "| trial 1 | 0.9000 (0.8800 to 0.9200) | 0.9100 | 70% |" in text
    assert "| trial 1 | 0.9000 | 30.0 s | defaults |" in text
    assert "keras-sweeps finalize" not in text and "`keras-sweeps promote made`: " in text


def test_the_curve_is_one_picture_with_the_published_models_as_lines(sweep):
    picture = curve_picture(sweep)
    assert picture.startswith("<?xml") and "</svg>" in picture and len(picture) < 60_000
    sweep.trials.clear()
    assert curve_picture(sweep) == ""


def test_curves_and_progress_hold_what_was_recorded(sweep):
    curves = figures.learning_curves(sweep)
    assert curves is not None
    best = next(trace for trace in curves.data if trace["name"] == "trial 1")
    assert best["x"] == [1, 2, 3] and best["y"] == [0.6, 0.8, 0.9]
    pale = next(trace for trace in curves.data if trace["name"] == "others")
    assert pale["y"] == [0.4, None]
    progress = figures.best_so_far([sweep], over="epochs")
    assert progress is not None and list(progress.data[0]["y"])[-1] == 0.9
    assert list(progress.data[0]["y"]) == sorted(progress.data[0]["y"])
    assert [shape["y0"] for shape in progress.layout["shapes"]] == [0.7]


def test_slots_are_never_shared_and_all_time_is_accounted_for(tmp_path):
    records = made_trial(0, [0.5, 0.6], point())
    records += made_trial(1, [0.5], point(num_layers=1), begun=5, state="PRUNED")
    records += made_trial(2, [0.5], point(num_layers=3), begun=20)
    sweep = read_sweep(write_sweep(tmp_path / ".sweeps", "two", records))
    assert [(trial.number, lane) for trial, *_, lane in lanes(sweep, NOW)] == [
        (0, 0),
        (1, 1),
        (2, 0),
    ]
    found = compute_of(sweep, NOW)
    assert (found.complete, found.pruned, found.num_slots) == (30, 10, 2)
    assert found.idle == 2 * sweep.seconds - 40


DRAWN = (0, 1, 1, 5, 2, 4, 4, 3, 0, 2, 6, 6, 5, 7, 4, 0)
"""Whose rank correlation with their places is 0.4: of 16 pairs so much may be chance."""


def test_importance_is_said_only_where_there_is_enough_and_with_its_direction(tmp_path):
    def trials(number: int) -> list:
        found = []
        for k in range(number):
            rate, dropout = 0.0004 * 1.25**k, 0.05 * DRAWN[k]
            values = [0.4 + 0.02 * k] * 3
            params = point(
                learning_rate=round(rate, 6), batch_size=(32, 64, 128)[k % 3], dropout=dropout
            )
            found += made_trial(k, values, params, begun=30 * k)
        return found

    few = read_sweep(write_sweep(tmp_path / ".sweeps", "few", trials(6)))
    assert parameter_findings(few) == []
    many = read_sweep(write_sweep(tmp_path / ".sweeps", "many", trials(16)))
    found = parameter_findings(many)
    assert found[0].name == "learning_rate" and found[0].direction.startswith("higher is better")
    assert next(f.direction for f in found if f.name == "dropout") == "no clear direction"
    assert sum(one.importance for one in found) == pytest.approx(1)
    bars = figures.importance(many, [replace(found[0], importance=0.48), found[1]])
    assert bars is not None
    assert "range" not in bars.layout["xaxis"], "the page makes room for the words"
    assert bars.layout["xaxis"]["tickvals"] == [0, 0.1, 0.2, 0.3, 0.4, 0.5]  # No share of 140%.
    assert "at least 12 trials" in page.report_page([few])
    assert "at least 12 trials" not in page.report_page([many])


def test_the_command_writes_the_sweeps_own_page_and_compares_several(sweep, tmp_path, capsys):
    write_sweep(tmp_path / ".sweeps", "other", made_trial(0, [0.5, 0.6, 0.95], point()))
    assert main(["report", "made"]) == 0
    assert (sweep.paths.sweep / "report.html").exists()
    assert main(["report", "made"]) == 0, "it is made anew each time"
    assert main(["report", "made", "other", "--output", "both.html"]) == 0
    text = (tmp_path / "both.html").read_text()
    assert "other has the best trial: val_accuracy 0.9500, 0.0500 better than that of made" in text
    twin = read_sweep(write_sweep(tmp_path / ".sweeps", "twin", made_trial(0, [0.9], point())))
    assert "made and twin have equally good best trials: val_accuracy 0.9000." in page.report_page(
        [sweep, twin]
    )
    capsys.readouterr()
    assert main(["report", "made", "other", "--output", "both.html"]) == 2
    assert "exists. Name another file, or add --overwrite." in capsys.readouterr().err


@pytest.fixture
def answered(sweep, tiny_data):
    """The sweep with the answers of two kept models to the 24 images of `tiny`."""
    meta = tiny_data.num_images
    sweep.data = {"profile": {"num_images": meta}}
    folder = sweep.paths.data / "tiny-000000000000"
    folder.parent.mkdir(exist_ok=True)
    shutil.copytree(tiny_data.folder, folder)
    _, labels = tiny_data.arrays("validation")
    for number, wrong in ((1, [0, 5]), (0, [5, 7])):
        probabilities = np.full((len(labels), 3), 0.1, np.float32)
        said = labels.copy()
        said[wrong] = (labels[wrong] + 1) % 3
        probabilities[range(len(labels)), said] = 0.8
        probabilities[wrong[0], said[wrong[0]]] = 0.95
        path = sweep.paths.answers(number)
        path.parent.mkdir(exist_ok=True)
        write_predictions(path, probabilities)
    return sweep


def test_what_the_winner_confuses_and_its_mistakes_are_shown(answered, tiny_data):
    _, labels = tiny_data.arrays("validation")
    found = answers_of(answered)
    assert found is not None and found.names == ("trial 1", "trial 0")
    matrix = confusion(found)
    assert matrix is not None and "2 mistakes on 24 validation images." in matrix.caption
    counts = matrix.data[0]["customdata"]
    assert np.trace(counts) == 22 and np.sum(counts) == 24
    assert all(matrix.data[0]["z"][k][k] == 0 for k in range(3)), "what is right has no colour"
    text = mistakes_section(found)
    names = tiny_data.class_names
    worst = f"{names[labels[0]]} taken for <b>{names[(labels[0] + 1) % 3]}</b><br>95% sure"
    assert text.index(worst) < text.index("80% sure") and text.count("<img") == 2
    side = comparison_section(found)
    assert "They disagree about 2 images; 1 image is wrong for all of them." in side
    assert side.count("<img") == 2 and side.count("class='failed'") == 2
    page_text = page.report_page([answered])
    assert "What trial 1 confuses" in page_text and "through the best models" in page_text


def test_the_winner_of_finalists_comes_first_and_missing_data_leave_the_section_out(answered):
    assert answers_of(answered, winner=0).names == ("trial 0", "trial 1")
    answered.data = {"profile": {"num_images": {"validation": 23}}}
    assert answers_of(answered) is None, "they are of other images"
    answered.data = {"profile": {"num_images": {"validation": 24}}}
    shutil.rmtree(answered.paths.data)
    assert answers_of(answered) is None
    assert "confuses" not in page.report_page([answered])


def test_many_classes_have_their_pairs_in_words(answered):
    found = answers_of(answered)
    names = ("<b>0", *(str(k) for k in range(1, 100)))
    many = replace(found, class_names=names)
    assert confusion(many) is None
    assert "Most often: " in mistakes_section(many) and "<b>0 taken" not in mistakes_section(many)


def test_a_pruned_baseline_has_a_line_and_each_trial_its_difference_to_it(tmp_path):
    tags = {"sweeps.baseline": "mlp_512x2"}
    records = made_trial(0, [0.7], point(optimizer="sgd"), state="PRUNED", tags=tags)
    records += made_trial(1, [0.6, 0.8, 0.9], point(), begun=30)
    sweep = read_sweep(write_sweep(tmp_path / ".sweeps", "part", records))
    progress = figures.best_so_far([sweep], over="minutes")
    assert [note["text"] for note in progress.layout["annotations"]] == [
        "mlp_512x2 (pruned at epoch 1) 0.7000"
    ]
    text = page.report_page([sweep])
    assert "against mlp_512x2 after 1 epoch" in text and "-0.1000" in text


def test_the_border_of_a_range_is_said_with_the_option_that_widens_it(tmp_path):
    def trials() -> list:
        found = []
        for k, rate in enumerate([*np.linspace(0.0004, 0.0017, 13), 0.00184, 0.00187, 0.0019]):
            values = [0.4 + 0.02 * k] * 3
            params = point(learning_rate=round(rate, 6), batch_size=(32, 64, 128)[k % 3])
            found += made_trial(k, values, params, begun=30 * k)
        return found

    narrow = write_sweep(
        tmp_path / ".sweeps", "n", trials(), narrowed=("learning_rate=0.0004..0.0019",)
    )
    sweep = read_sweep(narrow)
    found = next(f for f in parameter_findings(sweep) if f.name == "learning_rate")
    whole = next(p for p in SPACE.parameters if p.name == "learning_rate")
    assert (found.at_border, found.widened) == (
        "0.0019", f"--set learning_rate=0.0004..{whole.high:g}"
    )  # fmt: skip
    said = answer(sweep, [], [found], NOW).facts["What may be missing?"]
    assert "lies at the border of `learning_rate` (0.0019)" in said and found.widened in said
    at_end = replace(found, widened="")
    assert (
        "needs a space of your own"
        in answer(sweep, [], [at_end], NOW).facts["What may be missing?"]
    )
    panels = figures.slices(sweep, parameter_findings(sweep))
    assert "best: 0.00184 to 0.0019" in panels.layout["xaxis"]["title"]["text"]
    low, high = panels.layout["shapes"][0]["x0"], panels.layout["shapes"][0]["x1"]
    assert low == pytest.approx(0.00181) and high == pytest.approx(0.00193)


def test_latency_is_one_of_the_costs_and_slots_that_wait_are_drawn(sweep):
    assert len(cost_figures.trade_offs(sweep).layout["grid"]) and "xaxis3" not in (
        cost_figures.trade_offs(sweep).layout
    )
    for trial, value in ((0, 1.5), (1, 2.5)):
        sweep.trials[trial].metrics = {**sweep.trials[trial].metrics, "latency_ms": value}
    layout = cost_figures.trade_offs(sweep).layout
    assert layout["xaxis3"]["title"]["text"] == "ms to predict one image"
    waits = gaps(sweep, lanes(sweep, NOW))
    assert waits == []
    sweep.sessions = [(BEGAN_MS - 5_000, BEGAN_MS + 80_000)]
    assert gaps(sweep, lanes(sweep, NOW)) == [
        (BEGAN_MS - 5_000, BEGAN_MS, 0), (BEGAN_MS + 70_000, BEGAN_MS + 80_000, 0)
    ]  # fmt: skip
    assert "slot waits" in {trace["name"] for trace in cost_figures.timeline(sweep, NOW).data}


def seen_in_browser(text, file, width, asked) -> dict:
    """What Chromium says of a page once it is drawn; `asked` are the parts of an object."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("needs Chromium")
    script = f"setTimeout(() => {{ document.title = JSON.stringify({{{asked}}}); }}, 3000)"
    file.write_text(text.replace("</body>", f"<script>{script}</script></body>"))
    done = subprocess.run(
        [browser, "--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={width},900",
         "--virtual-time-budget=10000", "--dump-dom", file.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    title = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    assert title, "the page's script did not run"
    return json.loads(unescape(title[1]))


@pytest.mark.long
@pytest.mark.parametrize("width", [1280, 700, 500])
def test_ten_trials_are_seen_with_a_hint_of_more_and_bars_fill_their_figure(
    tmp_path, monkeypatch, width
):
    records = []
    for k in range(40):
        params = point(
            learning_rate=round(0.0004 * 1.05**k, 6), batch_size=(32, 64, 128)[k % 3],
            num_layers=1 + k % 2, optimizer=("sgd", "adam")[k % 2], dropout=0.05 * (k % 4),
        )  # fmt: skip
        records += made_trial(k, [0.4 + 0.01 * k] * 3, params, begun=30 * k)
    monkeypatch.undo()
    found = seen_in_browser(
        page.report_page([read_sweep(write_sweep(tmp_path / ".sweeps", "many", records))]),
        tmp_path / "page.html",
        width,
        "rows: (box => Array.from(box.querySelectorAll('tbody tr')).filter(row => "
        "row.getBoundingClientRect().bottom <= box.getBoundingClientRect().bottom).length)"
        "(document.querySelector('.tall')),"
        "hinted: !document.querySelector('.more').hidden,"
        "...(plot => { const [right, all] = [e => e.getBoundingClientRect().right, "
        "s => Array.from(plot.querySelectorAll(s))]; return {"
        "over: Math.max(...all('.bartext').map(right)) - right(plot),"
        "filled: Math.max(...all('.bars path').map(e => e.getBoundingClientRect().width)) / "
        "plot.querySelector('.bglayer, .plotbg, .xy, .gridlayer').ownerSVGElement.clientWidth,"
        "turned: all('.xtick text').filter(e => /rotate\\((?!0)/.test(e.getAttribute('transform')))"
        ".length}; })(Array.from(document.querySelectorAll('section'))"
        ".find(s => s.textContent.startsWith('Importance')).querySelector('.plot')),",
    )
    assert found["rows"] >= 10 and found["hinted"]
    assert found["over"] <= 0 and found["turned"] == 0
    assert found["filled"] > (0.5 if width == 1280 else 0.25)


@pytest.mark.long
@pytest.mark.parametrize("width", [1280, 800, 500])
def test_nothing_overflows_in_a_browser_and_every_figure_is_drawn(
    answered, tmp_path, monkeypatch, width
):
    monkeypatch.undo()
    text = page.report_page([answered])
    found = seen_in_browser(
        text,
        tmp_path / "page.html",
        width,
        "wide: document.documentElement.scrollWidth - window.innerWidth,"
        "drawn: document.querySelectorAll('.plot svg.main-svg').length,"
        "plots: document.querySelectorAll('.plot').length,"
        "hinted: !document.querySelector('.more').hidden,"
        "labels: Array.from(document.querySelectorAll('.xtitle, .ytitle')).map(e => e.textContent),",
    )
    assert found["wide"] <= 0
    assert found["hinted"] == (width < 1280), "three rows are cut at the side only"
    assert found["plots"] >= 6 and found["drawn"] >= found["plots"]
    assert {"epochs trained", "val_accuracy", "minutes since the sweep began"} <= set(
        found["labels"]
    )
    assert not re.search(r"""<(script|link|img)\b[^>]*\b(src|href)=["']http""", text)
