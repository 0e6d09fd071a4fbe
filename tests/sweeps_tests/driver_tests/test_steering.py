"""What people ask of a sweep that runs: stop it or a trial, add a point, write a note."""

from __future__ import annotations

import fake_loop_parts
import pytest
from loop_scene import SPACE, Scene

from pipelines.training.trial import Decision
from search_spaces.errors import InputError
from sweeps.driver.board.views import QuietView
from sweeps.driver.plan import StopReason
from sweeps.driver.steering import point_with
from sweeps.engines.base import TrialState
from sweeps.state.requests import leave_request, pending_requests, wait_for_answer


class Asking(QuietView):
    """Asks once, when a trial has reported, as another process would."""

    def __init__(self, number: int, kind: str, **body: object) -> None:
        self.number, self.kind, self.body = number, kind, body
        self.request = None

    def reported(self, board, row) -> None:
        if row.number == self.number and self.request is None:
            self.request = leave_request(self.paths, self.kind, **self.body)


@pytest.fixture
def asked(tiny_data, tmp_path):
    def run(number: int, kind: str, body: dict | None = None, **options):
        view = Asking(number, kind, **(body or {}))
        scene = Scene(tiny_data, tmp_path, view=view, **options)
        view.paths = scene.paths
        return scene, scene.run(), view.request

    return run


def test_a_stop_leaves_the_sweep_to_be_resumed(asked):
    scene, reason, request = asked(1, "stop")
    assert reason is StopReason.PREEMPTED
    assert "run --resume" in (wait_for_answer(request, 0) or "")
    assert scene.board.rows[1].state in (TrialState.PAUSED, TrialState.COMPLETE)
    assert 3 not in scene.board.rows and not pending_requests(scene.paths)


def test_one_trial_is_stopped_and_the_others_go_on(asked):
    scene, reason, request = asked(1, "stop trial", {"trial": 1})
    assert reason is StopReason.TRIALS
    assert "ends with its next report" in (wait_for_answer(request, 0) or "")
    assert scene.engine.told[1][0] is TrialState.PRUNED
    assert scene.tracker.ended[1].tags["sweeps.reason"] == "stopped by hand at epoch 2"
    assert [scene.engine.told[n][0] for n in (0, 2, 3)] == [TrialState.COMPLETE] * 3


def test_a_trial_that_there_is_not_cannot_be_stopped(asked):
    _, _, request = asked(1, "stop trial", {"trial": 2})
    with pytest.raises(InputError, match="There is no trial 2 yet"):
        wait_for_answer(request, 0)


def test_a_trial_that_waits_at_its_rung_ends_at_once(asked):
    def decide(number: int, epoch: int) -> Decision:
        return Decision.PAUSE if number == 0 else Decision.GO_ON

    scene, _, request = asked(1, "stop trial", {"trial": 0}, decide=decide)
    assert "has ended" in (wait_for_answer(request, 0) or "")
    assert scene.tracker.ended[0].tags["sweeps.reason"] == "stopped by hand at epoch 1"
    assert scene.engine.told[0][0] is TrialState.PRUNED


def test_a_point_is_added_and_said_by_its_difference(asked, monkeypatch):
    added = []
    monkeypatch.setattr(
        fake_loop_parts.ListEngine, "add", lambda _, p: added.append(p), raising=False
    )
    _, _, request = asked(0, "add", {"fix": ["optimizer=sgd"], "like": None}, num_trials=5)
    assert added == [SPACE.complete({"optimizer": "sgd"})]
    assert (wait_for_answer(request, 0) or "").endswith("optimizer=sgd")


def test_no_point_is_added_beyond_the_number_of_trials(asked):
    _, _, request = asked(3, "add", {"fix": ["optimizer=sgd"], "like": None})
    with pytest.raises(InputError, match="All 4 trials have been proposed"):
        wait_for_answer(request, 0)


def test_a_note_is_recorded(asked):
    scene, _, request = asked(0, "note", {"text": "cleaned labels"})
    assert wait_for_answer(request, 0) == "noted"
    assert "cleaned labels" in str(list(scene.spool.replay()))


def test_a_stop_of_an_earlier_session_does_not_end_the_next_one(tiny_data, tmp_path):
    scene = Scene(tiny_data, tmp_path)
    scene.paths.requests.mkdir()
    leave_request(scene.paths, "stop")
    again = Scene(tiny_data, tmp_path)
    assert again.run() is StopReason.TRIALS


def test_points_take_values_of_another_one_and_defaults_elsewhere():
    like = SPACE.complete({"num_layers": 1, "optimizer": "sgd"})
    point = point_with(SPACE, like, ["optimizer=adam"])
    assert point == SPACE.complete({"num_layers": 1, "optimizer": "adam"})
    with pytest.raises(InputError, match="Did you mean 'optimizer'"):
        point_with(SPACE, {}, ["optimiser=adam"])
    with pytest.raises(InputError, match="can be narrowed to values in"):
        point_with(SPACE, {}, ["optimizer=adem"])
