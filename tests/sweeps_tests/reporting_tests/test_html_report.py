"""The page about a sweep: the answer in words, figures that hold what was recorded, safe names."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape

import pytest
from made_sweeps import BEGAN_MS, made_trial, write_sweep

from search_spaces.registry import get_space
from sweeps.cli.main import main
from sweeps.history.recorded_sweep import read_sweep
from sweeps.html_report import figures, page
from sweeps.html_report.answer import answer, next_steps
from sweeps.html_report.findings import (
    beside_baseline,
    compute_of,
    finalists_of,
    lanes,
    parameter_findings,
)
from sweeps.html_report.note import run_note

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


def test_the_answer_names_winner_baseline_and_cost_in_words(sweep):
    said = answer(sweep, [], [], NOW)
    assert said[0] == "trial 1 won with val_accuracy 0.9000: defaults."
    assert "That is 0.2000 better than mlp_512x2" in said[1]
    assert "picked as the best of 3 points, so its value is optimistic" in " ".join(said)
    assert "1:10 min for 3 points, 2 of them complete" in said[-1]
    assert len(next_steps(sweep, has_finalists=False)) <= 3


def test_finalists_answer_before_single_trials(sweep):
    folder = sweep.paths.sweep / "finalists"
    folder.mkdir()
    (folder / "finalists.json").write_text(json.dumps({"ranking": RANKED}))
    found = finalists_of(sweep.paths)
    said = answer(sweep, found, [], NOW)
    assert said[0].startswith("On fresh seeds trial 1 won, the best trial of the search, too: mean")
    assert "0.8800 to 0.9200" in said[0] and "test accuracy 0.9100" in said[0]
    assert any("is 70%; the next one is trial 0" in text for text in said)
    text = page.report_page([sweep])
    assert "Finalists on fresh seeds" in text and "keras-sweeps finalize" not in text


def test_a_winner_that_was_published_is_said_to_be_nothing_new(tmp_path):
    records = made_trial(0, [0.9, 0.9, 0.9], point(), tags={"sweeps.baseline": "mlp_512x2"})
    records += made_trial(1, [0.5, 0.5, 0.5], point(num_layers=1), begun=30)
    said = answer(read_sweep(write_sweep(tmp_path / ".sweeps", "old", records)), [], [], NOW)
    assert "the published model mlp_512x2" in said[0] or "published model" in said[0]
    assert any("found nothing new" in text for text in said)


def test_a_baseline_that_was_pruned_is_compared_after_as_many_epochs(tmp_path):
    tags = {"sweeps.baseline": "mlp_512x2"}
    records = made_trial(0, [0.7], point(optimizer="sgd"), state="PRUNED", tags=tags)
    records += made_trial(1, [0.6, 0.8, 0.9], point(), begun=30)
    found = beside_baseline(read_sweep(write_sweep(tmp_path / ".sweeps", "part", records)))
    assert found is not None and (found.own, found.other, found.epochs) == (0.6, 0.7, 1)


def test_a_sweep_without_any_report_has_a_page_too(tmp_path):
    empty = read_sweep(write_sweep(tmp_path / ".sweeps", "empty", [], status="running"))
    text = page.report_page([empty])
    assert "Nothing has been measured yet." in text and "run --resume --name empty" in text


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
    assert text.startswith("**trial 1 won with val_accuracy 0.9000: defaults.**")
    assert "| trial 1 | 0.9000 | 30.0 s | defaults |" in text
    assert "`keras-sweeps finalize made`" in text and len(text) < 4_000
    sweep.run_id = "ab12"
    assert "(get-artifact?path=report.html&run_uuid=ab12)" in run_note(sweep, [], NOW)


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


def test_importance_is_said_only_where_there_is_enough_and_with_its_direction(tmp_path):
    def trials(number: int) -> list:
        found = []
        for k in range(number):
            rate = 0.0004 * 1.25**k
            values = [0.4 + 0.02 * k] * 3
            params = point(learning_rate=round(rate, 6), batch_size=(32, 64, 128)[k % 3])
            found += made_trial(k, values, params, begun=30 * k)
        return found

    few = read_sweep(write_sweep(tmp_path / ".sweeps", "few", trials(6)))
    assert parameter_findings(few) == []
    many = read_sweep(write_sweep(tmp_path / ".sweeps", "many", trials(16)))
    found = parameter_findings(many)
    assert found[0].name == "learning_rate" and found[0].direction.startswith("higher is better")
    assert sum(one.importance for one in found) == pytest.approx(1)
    assert "at least 12 trials" in page.report_page([few])
    assert "at least 12 trials" not in page.report_page([many])


def test_the_command_writes_the_sweeps_own_page_and_compares_several(sweep, tmp_path, capsys):
    write_sweep(tmp_path / ".sweeps", "other", made_trial(0, [0.5, 0.6, 0.95], point()))
    assert main(["report", "made"]) == 0
    assert (sweep.paths.sweep / "report.html").exists()
    assert main(["report", "made"]) == 0, "it is made anew each time"
    assert main(["report", "made", "other", "--output", "both.html"]) == 0
    assert "other has the best trial: val_accuracy 0.9500" in (tmp_path / "both.html").read_text()
    capsys.readouterr()
    assert main(["report", "made", "other", "--output", "both.html"]) == 2
    assert "exists. Name another file, or add --overwrite." in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize("width", [1280, 800, 500])
def test_nothing_overflows_in_a_browser_and_every_figure_is_drawn(
    sweep, tmp_path, monkeypatch, width
):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("needs Chromium")
    monkeypatch.undo()
    text = page.report_page([sweep]).replace(
        "</body>",
        "<script>setTimeout(() => { document.title = JSON.stringify({"
        "wide: document.documentElement.scrollWidth - window.innerWidth,"
        "drawn: document.querySelectorAll('.plot svg.main-svg').length,"
        "plots: document.querySelectorAll('.plot').length,"
        "labels: Array.from(document.querySelectorAll('.xtitle, .ytitle')).map(e => e.textContent),"
        "}); }, 3000)</script></body>",
    )
    file = tmp_path / "page.html"
    file.write_text(text)
    done = subprocess.run(
        [browser, "--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={width},900",
         "--virtual-time-budget=10000", "--dump-dom", file.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    title = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    assert title, "the page's script did not run"
    found = json.loads(unescape(title[1]))
    assert found["wide"] <= 0
    assert found["plots"] >= 4 and found["drawn"] >= found["plots"]
    assert {"epochs trained", "val_accuracy", "minutes since the sweep began"} <= set(
        found["labels"]
    )
    assert not re.search(r"""<(script|link|img)\b[^>]*\b(src|href)=["']http""", text)
