"""`--resume auto`: one command line that begins a sweep, goes on with it, or tells how it ended."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_sweeps import made_trial, write_sweep

from sweeps.cli.commands import run as command
from sweeps.cli.main import main
from sweeps.setup import resume as resuming
from tracking.spool.records import SweepEnd

LINE = ["run", "--space", "mlp", "--dataset", "digits", "--name", "s", "--resume", "auto"]


class Reached(BaseException):
    """The command went on to train."""


@pytest.fixture
def trained(monkeypatch):
    """The sweep that the command goes on with, instead of doing so."""

    def look(settings, given, arguments):
        earlier = resuming.sweep_to_resume(settings, given, resume=arguments.resume is True)
        raise Reached(earlier.settings.name if earlier is not None else "a new one")

    monkeypatch.setattr(command, "_run", look)


def test_a_sweep_that_is_not_there_begins(trained):
    with pytest.raises(Reached, match="a new one"):
        main(LINE)


def test_one_that_has_not_ended_goes_on(trained):
    write_sweep(
        Path(".sweeps"), "s", made_trial(0, [0.5], {}, state="PAUSED"), status="interrupted"
    )
    with pytest.raises(Reached, match="^s$"):
        main(LINE)


@pytest.mark.parametrize(("status", "exit_status"), [("FINISHED", 0), ("FAILED", 1)])
def test_one_that_has_ended_ends_with_the_same_status(trained, capsys, status, exit_status):
    end = SweepEnd(status, {"sweeps.stopped_by": "the target was reached"}, at_ms=2**42)
    write_sweep(Path(".sweeps"), "s", [*made_trial(0, [0.5], {}), end], status="finished")
    found = Path(".sweeps/sweeps/s/sweep.json").read_bytes()
    for _ in range(2):
        assert main(LINE) == exit_status
        assert "s has ended: the target was reached" in capsys.readouterr().out
    assert Path(".sweeps/sweeps/s/sweep.json").read_bytes() == found


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--space", "mlp"], "--resume auto needs the sweep's name"),
        (["--baselines-only", "--name", "s"], "--resume auto is for searches"),
    ],
)
def test_it_needs_a_name_and_a_search(capsys, options, reason):
    assert main(["run", *options, "--resume", "auto"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {reason}")
    assert not any(Path.cwd().iterdir())
