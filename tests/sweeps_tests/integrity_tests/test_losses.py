"""What was lost beside a sweep, or twice there: the doctor restores it and deletes nothing else."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from made_sweeps import made_trial, write_sweep
from mlflow import MlflowClient
from stack import free_port

from search_spaces.errors import InputError
from sweeps.cli.main import main
from sweeps.engines.base import PastTrial, TrialState
from sweeps.engines.optuna_study.replayable_sampler import STATE_ATTRIBUTE
from sweeps.finalists.selection import sweep_run_id
from sweeps.history.recorded_sweep import read_sweep
from sweeps.integrity.checks import Checkup
from sweeps.setup.stores import check_tracking
from sweeps.state.lock import driving, is_driven
from sweeps.state.paths import SweepPaths
from sweeps.state.sweep_file import BASELINES, StoredSweep, read_sweep_file, write_sweep_file
from tracking.runs.tracker import MlflowTracker
from tracking.spool.records import ProgressRecord, SweepRecord
from tracking.spool.sender import Sender
from tracking.spool.spool import Spool

URI = "sqlite:///mlflow.db"


def uri() -> str:
    """The store's whole address, as MLflow is opened with it."""
    return f"sqlite:///{Path.cwd()}/mlflow.db"


def made_sweep(numbers: range, *more: object):
    """Published models, whose spool is the study, too: a sweep without a database of its own."""
    trials = [record for n in numbers for record in made_trial(n, [0.5], {"units": n})]
    paths = write_sweep(Path(".sweeps"), "s", [*trials, *more], tracking_uri=URI)
    write_sweep_file(paths.state, replace(read_sweep_file(paths.state), kind=BASELINES))
    return paths


@pytest.fixture
def sweep(tmp_path, monkeypatch, capsys):
    """A sweep that was sent, whose own run holds points of its progress."""
    monkeypatch.chdir(tmp_path)
    paths = made_sweep(range(2), *(ProgressRecord({"best": 0.1 * n}, n) for n in range(6)))
    assert main(["sync", "s"]) == 0
    capsys.readouterr()
    return paths


def test_after_a_lost_store_all_is_restored_and_the_new_runs_are_known(
    sweep, capsys, tmp_path, monkeypatch
):
    before = sweep_run_id(sweep)
    spool = Spool(sweep.spool)
    for record in [ProgressRecord({"best": 0.7}, 6), *made_trial(2, [0.7], {"units": 2}, begun=99)]:
        spool.put(record)  # What waits for a run that is gone.
    spool.close()
    # In another folder, because MLflow keeps a store that it has opened in this process.
    (tmp_path / "new").mkdir()
    (tmp_path / ".sweeps").rename(tmp_path / "new" / ".sweeps")
    monkeypatch.chdir(tmp_path / "new")
    sweep = SweepPaths(tmp_path / "new" / ".sweeps", "s")

    assert main(["doctor", "s", "--repair"]) == 0, capsys.readouterr()

    now = sweep_run_id(sweep)
    assert now != before and read_sweep(sweep).run_id == now
    assert len(MlflowClient(uri()).get_metric_history(now, "best")) == 7
    assert main(["note", "s", "kept"]) == 0 and main(["doctor", "s"]) == 0


def test_after_a_lost_spool_the_run_that_there_is_goes_on(sweep, capsys):
    client, before = MlflowClient(uri()), sweep_run_id(sweep)
    sweep.spool.rename("away")
    first = next(Spool(Path("away"), read_only=True).replay())
    assert isinstance(first, SweepRecord)
    spool = Spool(sweep.spool)  # As a sweep that is resumed then begins it anew.
    # What waits when a session begins is looked for in the store; this comes later.
    sender = Sender(spool, lambda: MlflowTracker(uri(), "mlp-tiny", spool.folder_of))
    others = {name: f"{value} more" for name, value in first.params.items()}
    assert others, "a sweep that is resumed may have other settings"
    spool.put(replace(first, at_ms=first.at_ms + 10**6, params=others))
    for record in made_trial(2, [0.7], {"units": 2}, begun=2000):
        spool.put(record)
    spool.put(ProgressRecord({"best": 0.9}, 7))
    assert sender.drain(60)
    sender.close()
    assert not spool.aside_lines()
    assert sweep_run_id(sweep) == before, "no second one was made"
    assert client.get_run(before).info.lifecycle_stage == "active"
    assert [point.step for point in client.get_metric_history(before, "best")] == [*range(6), 7]
    runs = client.search_runs([client.get_run(before).info.experiment_id])
    assert len(runs) == 4
    parents = {one.data.tags.get("mlflow.parentRunId") for one in runs}
    assert parents == {None, before}


def test_of_two_runs_of_a_sweep_the_one_that_holds_most_is_kept(sweep, capsys):
    """As an earlier version left them that was resumed without its spool."""
    client, before = MlflowClient(uri()), sweep_run_id(sweep)
    run = client.get_run(before)
    tags = {key: run.data.tags[key] for key in ("sweeps.record", "sweeps.kind", "sweeps.uid")}
    other = client.create_run(run.info.experiment_id, tags=tags).info.run_id
    lines = (sweep.spool / "sent.jsonl").read_text().replace(before, other)
    (sweep.spool / "sent.jsonl").write_text(lines)
    assert sweep_run_id(sweep) == other

    assert main(["doctor", "s", "--repair"]) == 0, capsys.readouterr()

    assert client.get_run(other).info.lifecycle_stage == "deleted"
    assert client.get_run(before).info.lifecycle_stage == "active"
    assert sweep_run_id(sweep) == before
    assert len(client.get_metric_history(before, "best")) == 6


def test_a_double_that_holds_something_of_its_own_is_not_deleted(sweep, capsys):
    client, kept = MlflowClient(uri()), sweep_run_id(sweep)
    run = client.get_run(kept)
    tags = {key: run.data.tags[key] for key in ("sweeps.record", "sweeps.kind", "sweeps.uid")}
    other = client.create_run(run.info.experiment_id, tags=tags).info.run_id
    client.log_metric(other, "of_somebody", 1.0)

    assert main(["doctor", "s", "--repair"]) == 1

    assert "2 parent runs of the sweep instead of one" in capsys.readouterr().out
    for run_id in (kept, other):
        assert client.get_run(run_id).info.lifecycle_stage == "active"


def test_a_lock_file_that_was_removed_lets_no_second_driver_in(sweep):
    code = (
        "import sys; from pathlib import Path\n"
        "from search_spaces.errors import InputError\n"
        "from sweeps.state.lock import driving, is_driven\n"
        "from sweeps.state.paths import SweepPaths\n"
        "paths = SweepPaths(Path('.sweeps').absolute(), 's')\n"
        "print(is_driven(paths))\n"
        "try:\n"
        "    with driving(paths): print('drives')\n"
        "except InputError as error: print(error)\n"
    )

    def other() -> str:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        return done.stdout + done.stderr

    with driving(sweep):
        sweep.lock.unlink()
        said = other()
        assert said.startswith("True\nSweep 's' is running already (process "), said
        with pytest.raises(InputError, match="running already"), driving(sweep):
            pass
    assert not is_driven(sweep) and other() == "False\ndrives\n"


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def databases(tmp_path, monkeypatch):
    """A folder with a database of each library, and a sweep that has ended."""
    monkeypatch.chdir(tmp_path)
    write_sweep(Path(".sweeps"), "s", made_trial(0, [0.5], {"units": 8}), tracking_uri=URI)
    for file, tables in (("mlflow.db", ("experiments", "runs")), ("o.db", ("studies", "trials"))):
        with closing(sqlite3.connect(file)) as database:
            for table in tables:
                database.execute(f"CREATE TABLE {table} (one)")
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        "run --space mlp --dataset digits --storage sqlite:///mlflow.db",
        "run --space mlp --dataset digits --tracking-uri sqlite:///o.db",
        "run --space mlp --dataset digits --tracking-uri sqlite:///n.db --storage sqlite:///n.db",
        "run --space mlp --dataset digits --storage sqlite:///file:x?mode=memory&uri=true",
        "run --space mlp --dataset digits --storage postgresql+psycopg://127.0.0.1:9/x",
        "run --space mlp --dataset digits --tracking-uri http://127.0.0.1:9",
        "run --baselines-only --tracking-uri sqlite:///o.db",
        "run --space mlp --dataset digits --pass-env NOT_SET_ANYWHERE",
        "doctor s --storage sqlite:///mlflow.db",
        "doctor s --storage sqlite:///nothing.db",
        "sync s --tracking-uri sqlite:///o.db",
        "finalize s --tracking-uri sqlite:///o.db",
        "server --backend-store-uri sqlite:///o.db",
        "server --auth --auth-database-uri sqlite:///o.db",
        "ui s --tracking-uri sqlite:///o.db --no-browser",
        "migrate --from sqlite:///o.db --to http://127.0.0.1:9",
    ],
)
def test_a_refused_command_changes_nothing(databases, command, capsys):
    before = content(databases)
    options = command.split()
    if options[0] == "server":
        options += ["--port", str(free_port())]

    assert main(options) == 2

    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1, error
    assert content(databases) == before


def test_a_comparison_is_not_begun_where_its_store_cannot_be_used(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = write_sweep(Path(".sweeps"), "s", made_trial(0, [0.5], {"units": 8}), tracking_uri=URI)
    with closing(sqlite3.connect("mlflow.db")) as database:
        database.execute("CREATE TABLE experiments (one)")
        database.execute("CREATE TABLE runs (one)")
    sweep = StoredSweep(paths, read_sweep_file(paths.state))

    with pytest.raises(InputError, match="--tracking-uri must be a usable MLflow store"):
        check_tracking(sweep)


def test_the_doctor_names_all_that_is_damaged_and_changes_nothing(sweep, capsys):
    client = MlflowClient(uri())
    run = client.search_runs(["1"], "tags.`sweeps.trial` = '1'")[0].info.run_id
    client.set_tag(run, "sweeps.trial", "the second")
    records = (sweep.spool / "records.jsonl").read_text().splitlines()
    records[1], records[3] = "[1, 2", '{"kind": "DreamRecord", "key": "x", "body": {}}'
    (sweep.spool / "records.jsonl").write_text("\n".join(records) + "\n")
    sent = (sweep.spool / "sent.jsonl").read_text().splitlines()
    (sweep.spool / "sent.jsonl").write_text("\n".join([*sent[:2], "{}", *sent[3:]]) + "\n")
    (sweep.spool / "rejected.jsonl").write_text("{}\n" * 2)
    finalists = sweep.finalists_file
    finalists.parent.mkdir(parents=True, exist_ok=True)
    finalists.write_text('{"format": "new"}')
    before = content(Path(".sweeps")) | content(Path("mlruns"))

    for options in ([], ["--repair"]):
        assert main(["doctor", "s", *options]) == 1

        out, error = capsys.readouterr()
        head, *problems = out.splitlines()
        assert head.startswith("s: ") and len(problems) == 7, out
        for number, text in enumerate((
            "sent.jsonl, line 3, is damaged (no acknowledgement)",
            "records.jsonl, line 2, is damaged",
            "records.jsonl, line 4, is damaged (a record of the kind 'DreamRecord'",
            "rejected.jsonl, line 1, is damaged",
            "rejected.jsonl, line 2, is damaged",
            "is damaged (it has no format), so its comparison of finalists",
            f"Run {run} has the tag sweeps.trial 'the second', which names no trial.",
        )):  # fmt: skip
            assert text in problems[number]
        assert error.startswith("error: 7 problems, ") and error.count("\n") == 1
    assert content(Path(".sweeps")) | content(Path("mlruns")) == before


def test_the_doctor_looks_at_each_place_whatever_the_others_hold(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    storage = optuna.storages.RDBStorage("sqlite:///optuna.db")
    study = optuna.create_study(study_name="s", storage=storage)
    for _ in range(3):
        study.tell(study.ask(), 0.5)
    with closing(sqlite3.connect("optuna.db")) as database, database:
        for number in (1, 3):
            database.execute(
                "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (?, ?, ?)",
                [number, STATE_ATTRIBUTE, '"asleep"'],
            )
    paths = write_sweep(Path(".sweeps"), "s", made_trial(0, [0.5], {"units": 8}), tracking_uri=URI)
    Path("mlflow.db").write_bytes(b"SQLite format 3\x00" + b"\xff" * 4_000)
    with (paths.spool / "records.jsonl").open("ab") as file:
        file.write(b"{}\n")

    assert main(["doctor", "s"]) == 1

    out, _ = capsys.readouterr()
    problems = out.splitlines()[1:]
    assert len(problems) == 4, out
    assert "records.jsonl, line " in problems[0] and "(no record)" in problems[0]
    assert "trial 0 of the study is damaged (ValueError: 'asleep' is no" in problems[1]
    assert "trial 2 of the study is damaged" in problems[2]
    assert "--tracking-uri names mlflow.db, which is damaged" in problems[3]


@pytest.mark.parametrize(
    ("known", "text"),
    [
        ([0, 1], "2 trials, 2 runs, 9 reports: study, spool and MLflow agree"),
        ([1], "2 trials, 2 runs, 9 reports: study and MLflow agree; the local records of 1 trial "
         "were lost, so that MLflow alone has them"),
    ],
)  # fmt: skip
def test_records_that_were_lost_are_not_said_to_agree(known, text):
    ended = [PastTrial(number, {}, TrialState.COMPLETE, 0.5, {}) for number in range(2)]
    history = SimpleNamespace(last_state=lambda number: "COMPLETE" if number in known else None)
    found = SimpleNamespace(_trials=ended, _history=history, _num_runs=2, _num_reports=9)
    assert Checkup.summary(found) == text  # type: ignore[arg-type]
