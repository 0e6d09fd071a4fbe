"""`python tracking/server.py`: what it refuses, how it starts, how it ends."""

from __future__ import annotations

import configparser
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import pytest
import requests
from mlflow import MlflowClient
from stack import ROOT, answers, clean_environment, free_port, mlflow_server, wait_until

from search_spaces.errors import InputError
from sweeps.cli.main import main
from tracking.errors import store_errors
from tracking.mlflow_server.options import ServerPlan, password_in
from tracking.mlflow_server.process import server_environment
from tracking.runs.tracker import MlflowTracker

pytestmark = pytest.mark.stack

SERVER = str(ROOT / "tracking" / "server.py")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--port", "0"], "must be a port from 1 to 65535"),
        (["--port", "http"], "must be a port"),
        (["--workers", "none"], "must be a whole number from 1 to 64"),
        (["--host", "0.0.0.0"], "other machines can reach needs --auth"),
        (["--host", "0.0.0.0", "--auth"], "needs --allowed-hosts"),
        (["--host", "mlflow.example.org"], "--host must be an address"),
        (["--user", "me=me.password"], "--user needs --auth"),
        (["--auth", "--user", "me"], "the file of its password"),
        (["--auth", "--user", "admin=f"], "the file of its password"),
        (["--auth", "--user", "../me=f"], "the file of its password"),
        (["--auth-database-uri", "sqlite:///a.db"], "needs --auth"),
        (["--backend-store-uri", "mlruns"], "--backend-store-uri must be a database"),
        (["--backend-store-uri", "sqlite:///no/such/mlflow.db"], "existing folder"),
        (["--backend-store-uri", "sqlite:///:memory:"], "must name a file"),
        (["--backend-store-uri", "postgresql+psycopg://u@127.0.0.1:9/d"], "cannot be reached"),
        (["--backend-store-uri", "postgresql+psycopg://u:hidden@h/d"], "must not hold a password"),
        (["--backend-store-uri=postgresql+psycopg://u:hidden@h/d"], "must not hold a password"),
        (["--backend-store-uri", "postgresql+nodriver://u@h/d"], "cannot be reached"),
        (["--allowed-hosts", "*"], "without wildcards"),
        (["--cors-allowed-origins", "*"], "without wildcards"),
        (["--artifacts-destination", "/proc/none"], "must be a folder that can be written"),
        (["--artifacts-destination", ""], "must not be empty"),
        (["--artifacts-destination", "foo://bar"], "Choose among: s3://"),
        (["--artifacts-destination", "s3://bucket/runs"], "pip install boto3"),
        (["--host", "0.0.0.0", "--auth", "--allowed-hosts", ","], "needs --allowed-hosts"),
        (["--auth", "--user", "a=f.password", "--user", "a=g.password"], "a name of their own"),
        (
            ["--auth", "--user", "a=f.password", "--user", "b=f.password"],
            "a password file of their own",
        ),
        (["--auth", "--user", "a=mlflow-admin.password"], "a password file of their own"),
        (["--prot", "5000"], "Did you mean '--port'?"),
    ],
)
def test_bad_options_are_one_line_and_start_nothing(options, words, capsys, tmp_path):
    assert main(["server", "--port", str(free_port()), *options]) == 2
    error = capsys.readouterr().err
    assert words in error and error.startswith("error: ") and error.count("\n") == 1
    assert "hidden" not in error
    assert not list(tmp_path.iterdir())


def test_a_short_password_is_refused(capsys, tmp_path):
    (tmp_path / "mlflow-admin.password").write_text("short\n")
    assert main(["server", "--auth"]) == 2
    assert "at least 12 characters" in capsys.readouterr().err


def test_a_password_file_that_others_can_read_is_refused(capsys, tmp_path, monkeypatch):
    with tempfile.TemporaryDirectory() as folder:  # Not below pytest's, which is its user's alone.
        if any(not parent.stat().st_mode & 0o011 for parent in Path(folder).parents):
            pytest.skip("temporary folders are their user's alone here")
        file = Path(folder, "open.password")
        file.write_text("a-password-of-some-length\n")
        Path(folder).chmod(0o755)
        for mode in (0o644, 0o640, 0o620):
            file.chmod(mode)
            monkeypatch.chdir(tmp_path)
            options = ["--port", str(free_port()), "--auth", "--admin-password-file", str(file)]
            assert main(["server", *options]) == 2
            error = capsys.readouterr().err
            assert f"(mode {mode:o})" in error and f"chmod 600 {file}" in error
            assert error.count("\n") == 1 and not list(tmp_path.iterdir())
        Path(folder).chmod(0o700)
        assert password_in(file) == "a-password-of-some-length"


def test_a_password_that_is_made_up_is_its_owners_alone(tmp_path):
    file = tmp_path / "p"
    password = password_in(file)
    assert len(password) >= 24 and password_in(file) == password
    assert file.stat().st_mode & 0o777 == 0o600
    assert password_in(tmp_path / "q") != password


def test_a_port_in_use_is_refused(capsys, tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        assert main(["server", "--port", port]) == 2
    assert "which is in use" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["run", "promote", "sync", "doctor", "server", "migrate"])
def test_no_command_takes_a_password_in_an_address(command, capsys):
    for given in (["--storage", "postgresql://u:hidden@h/d"], ["--tracking-uri=http://u:hidden@h"]):
        assert main([command, *given]) == 2
        error = capsys.readouterr().err
        assert "must not hold a password" in error and "hidden" not in error


def processes_of(group: int) -> list[int]:
    """Live processes below a process, as the system lists them."""
    found = subprocess.run(
        ["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    parents = {int(pid): int(parent) for pid, parent in map(str.split, found.splitlines())}
    below = [group]
    for pid in below:
        below += [child for child, parent in parents.items() if parent == pid]
    return below[1:]


def is_gone(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return text.rpartition(")")[2].split()[0] == "Z"


def test_it_serves_says_how_to_use_it_and_ends_cleanly(tmp_path):
    with mlflow_server(tmp_path) as (process, address):
        text = (tmp_path / "server.log").read_text()
        assert f"serving   {address}\n" in text and "WARNING" not in text
        assert f"python sweeps/run.py --space cnn --tracking-uri {address}\n" in text
        client = MlflowClient(address)
        run = client.create_run(client.create_experiment("one"))
        client.log_text(run.info.run_id, "hello", "hello.txt")
        assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
        assert next((tmp_path / "mlartifacts").rglob("hello.txt")).read_text() == "hello"
        below = processes_of(process.pid)
        assert 1 <= len(below) <= 2, "job execution would start a dozen processes"
        titles = [Path(f"/proc/{pid}/cmdline").read_text() for pid in below]
        assert not [title for title in titles if "mlflow.db" in title]

        second = subprocess.run(
            [sys.executable, SERVER, "--port", str(free_port())], cwd=tmp_path, text=True,
            env=clean_environment(), capture_output=True, check=False,
        )  # fmt: skip
        assert second.returncode == 2 and "one server at a time" in second.stderr

        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert (tmp_path / "server.log").read_text().endswith("stopped\n")
        assert not answers(f"{address}/health") and all(is_gone(pid) for pid in below)
    assert not (tmp_path / "mlflow-admin.password").exists()


def test_the_server_is_told_to_be_quiet_alone_and_fast(tmp_path, monkeypatch):
    """Also where the environment of who starts it says something else."""
    plan = ServerPlan(
        store_uri="sqlite:///m.db", artifacts="/a", host="127.0.0.1", port=5000, num_workers=1,
        auth=True, admin_password_file=tmp_path / "admin", users=(), auth_database_uri="sqlite:///%",
        allowed_hosts=("localhost",), allowed_origins=(),
    )  # fmt: skip
    others = {
        "MLFLOW_DISABLE_TELEMETRY": "false", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "true",
        "MLFLOW_TRACKING_URI": "http://elsewhere", "_MLFLOW_SERVER_FILE_STORE": "elsewhere",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "7", "PATH": "/bin",
    }  # fmt: skip
    found = server_environment(plan, others, tmp_path)
    assert found["MLFLOW_DISABLE_TELEMETRY"] == "true" and found["DO_NOT_TRACK"] == "true"
    assert found["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false" and found["MPLBACKEND"] == "agg"
    assert found["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7" and found["PATH"] == "/bin"
    assert not {"MLFLOW_TRACKING_URI", "_MLFLOW_SERVER_FILE_STORE"} & set(found)
    config = configparser.ConfigParser()
    config.read(found["MLFLOW_AUTH_CONFIG_PATH"])
    assert config["mlflow"]["auth_cache_ttl_seconds"] == "60", "else 200 ms for each request"
    assert config["mlflow"]["default_permission"] == "READ"
    assert config["mlflow"]["database_uri"] == "sqlite:///%"
    assert not {"admin_password"} & set(config["mlflow"])
    assert found["MLFLOW_AUTH_ADMIN_PASSWORD"] == (tmp_path / "admin").read_text().strip()


def test_a_store_that_something_else_has_open_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with closing(sqlite3.connect("mlflow.db")) as database:
        database.execute("CREATE TABLE some (one)")
        database.execute("INSERT INTO some VALUES (1)")
        database.commit()
        database.execute("BEGIN")
        database.execute("SELECT * FROM some").fetchone()
        assert main(["server", "--port", str(free_port())]) == 2
    error = capsys.readouterr().err
    assert "nothing else has open" in error and error.count("\n") == 1


def test_a_lost_password_of_admin_is_told_and_none_is_made_up_for_it(tmp_path):
    with mlflow_server(tmp_path, "--auth"):
        pass
    (tmp_path / "mlflow-admin.password").rename(tmp_path / "kept")
    command = [sys.executable, SERVER, "--port", str(free_port()), "--auth"]
    done = subprocess.run(
        command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1 and "admin cannot sign in" in done.stderr.splitlines()[-1]
    assert "sign in" not in done.stdout
    assert not (tmp_path / "mlflow-admin.password").exists()
    (tmp_path / "kept").rename(tmp_path / "mlflow-admin.password")
    with mlflow_server(tmp_path, "--auth"):
        assert "sign in   as admin" in (tmp_path / "server.log").read_text()


def test_a_sweep_into_an_experiment_of_somebody_else_is_refused_before_it_trains(
    tmp_path, monkeypatch
):
    """Its records would be refused one by one, and the training be for nothing."""
    options = ("--auth", "--user", "anna=anna.password", "--user", "ben=ben.password")
    with mlflow_server(tmp_path, *options) as (_, address):

        def as_user(name: str) -> None:
            monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
            password = (tmp_path / f"{name}.password").read_text().strip()
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)

        def tracker(experiment: str) -> MlflowTracker:
            return MlflowTracker(address, experiment, lambda key: tmp_path, [])

        as_user("anna")
        first = tracker("mlp-digits").experiment_id
        assert tracker("mlp-digits").experiment_id == first, "her own, again"
        as_user("ben")
        with pytest.raises(InputError, match="belongs to another user .* --experiment NAME"):
            tracker("mlp-digits")
        assert tracker("bens").experiment_id != first
        refused = pytest.raises(OSError, match="lets you read, but not change, .*--model")
        with refused, store_errors(address):
            MlflowClient(address).create_run(first)
        # A copy needs no more rights than a sweep, though Default is admin's.
        old = MlflowClient(f"sqlite:///{tmp_path / 'old.db'}")
        experiment = old.create_experiment("of ben", (tmp_path / "old").as_uri())
        old.log_metric(old.create_run(experiment).info.run_id, "loss", 1.0)
        for _ in range(2):
            arguments = ["migrate", "--from", f"sqlite:///{tmp_path / 'old.db'}", "--to", address]
            assert main(arguments) == 0
        found = MlflowClient(address).get_experiment_by_name("of ben")
        assert len(MlflowClient(address).search_runs([found.experiment_id])) == 1


def test_experiments_of_before_there_was_a_server_are_named(tmp_path):
    """Their files do not go through it: MLflow wrote down once where they are."""
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    client.create_experiment("of before", (tmp_path / "mlruns").as_uri())
    client.delete_experiment(client.create_experiment("gone", (tmp_path / "mlruns").as_uri()))
    with mlflow_server(tmp_path):
        text = (tmp_path / "server.log").read_text()
        (line,) = [line for line in text.splitlines() if line.startswith("WARNING: ")]
        assert "of before" in line and "gone" not in line and "keras-sweeps migrate" in line


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_a_killed_server_leaves_nothing_behind_and_starts_again(tmp_path):
    options = ("--auth", "--user", "sweeper=sweeper.password")
    with mlflow_server(tmp_path, *options) as (process, address):
        below = processes_of(process.pid)
        assert below
        process.send_signal(signal.SIGKILL)
        wait_until(lambda: all(is_gone(pid) for pid in below), 60)
        assert not answers(f"{address}/health")
    for file in ("mlflow-admin.password", "sweeper.password", "mlflow-auth.db"):
        assert (tmp_path / file).stat().st_mode & 0o077 == 0
    # A user whose file has changed gets the new password.
    (tmp_path / "sweeper.password").write_text("another-password-now\n")
    with mlflow_server(tmp_path, *options) as (process, address):
        url = f"{address}/api/2.0/mlflow/experiments/search?max_results=1"
        for password, status in (("another-password-now", 200), ("wrong-password-here", 401)):
            assert requests.get(url, auth=("sweeper", password), timeout=30).status_code == status
        # Whose sender is not known is not read whole, and tries are slowed down.
        assert requests.post(url, data=b"x" * (2 << 20), timeout=30).status_code == 401
        wrong = ("sweeper", "another-wrong-one")
        tries = [requests.get(url, auth=wrong, timeout=30).status_code for _ in range(8)]
        assert tries[0] == 401 and tries[-1] == 429
        right = ("sweeper", "another-password-now")
        assert requests.get(url, auth=right, timeout=30).status_code == 200
        # A worker that is killed ends the whole, so that whoever restarts servers restarts it.
        os.kill(processes_of(process.pid)[-1], signal.SIGKILL)
        assert process.wait(60) == 1
        assert "the server ended by itself" in (tmp_path / "server.log").read_text()


def test_a_signal_during_the_start_ends_it(tmp_path):
    command = [sys.executable, SERVER, "--port", str(free_port())]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=clean_environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and "starting" in process.stdout.readline()
    wait_until(lambda: processes_of(process.pid))
    below = processes_of(process.pid)
    time.sleep(0.5)
    process.terminate()
    rest = process.communicate(timeout=60)[0]
    assert process.returncode == 0 and rest == "stopped\n"
    assert all(is_gone(pid) for pid in below)
