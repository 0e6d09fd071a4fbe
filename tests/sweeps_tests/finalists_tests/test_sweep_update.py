"""What a comparison of finalists changes on its sweep."""

from __future__ import annotations

import json
from dataclasses import replace

from made_sweeps import made_trial, write_sweep

from search_spaces.registry import get_space
from sweeps.finalists.sweep_update import update_sweep
from sweeps.html_report import page
from sweeps.state.lock import driving
from sweeps.state.sweep_file import StoredSweep, read_sweep_file
from tracking.spool.records import SweepTagsRecord
from tracking.spool.spool import Spool
from tracking.tags import Tag

RANKED = [
    {"name": name, "trial": trial, "mean": 0.9, "low": 0.88, "high": 0.92, "num_seeds": 3,
     "probability_best": share, "test_accuracy": 0.91, "params": {}}
    for name, trial, share in (("trial 1", 1, 0.7), ("trial 0", 0, 0.3))
]  # fmt: skip


def test_the_page_and_the_note_of_the_sweep_say_what_won(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "_plotly", lambda: "/* plotly */")
    point = {name: str(value) for name, value in get_space("mlp").complete({}).items()}
    records = [*made_trial(0, [0.5, 0.6, 0.7], point), *made_trial(1, [0.5, 0.8], point, begun=30)]
    paths = write_sweep(tmp_path / ".sweeps", "made", records)
    (paths.sweep / "finalists").mkdir()
    (paths.sweep / "finalists" / "finalists.json").write_text(json.dumps({"ranking": RANKED}))
    stored = read_sweep_file(paths.state)
    with driving(paths):  # As read before the search ended.
        begun = StoredSweep(paths, replace(stored, status="running"))
        update_sweep(begun, send=False, give_up=lambda: True)
    last = list(Spool(paths.spool, read_only=True).replay())[-1]
    assert isinstance(last, SweepTagsRecord)
    note = last.tags[Tag.RUN_NOTE]
    assert note.startswith("**On fresh seeds trial 1 won")
    assert "`keras-sweeps promote made`" in note and "watch made" not in note
    assert set(last.texts) == {"report.html", "best_so_far.svg"}
    assert "Finalists on fresh seeds" in paths.report.read_text()
