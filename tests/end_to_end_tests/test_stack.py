"""The whole stack without containers: the compose file's own commands, PostgreSQL, authentication.

Sweep as a client with few rights, then a promotion, then a prediction from the registry.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests
from stack import (
    COMPOSE,
    DOCKER,
    ROOT,
    ProcessTitles,
    Service,
    answers,
    background,
    dockerfile_entrypoint,
    free_port,
    postgresql,
    postgresql_folder,
    wait_until,
)

pytestmark = [pytest.mark.timeout(900), pytest.mark.stack]
NAME, MODEL = "stack", "mlp-digits"


@dataclass
class Stack:
    """A running stack.

    Attributes:
        written: folders and files that may hold what the stack wrote.
    """

    address: str
    dashboard: str
    port: int
    secrets: Path
    sweep: Service
    folder: Path
    titles: ProcessTitles
    outputs: list[str] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)

    def password(self, name: str) -> str:
        return (self.secrets / name).read_text().strip()

    def client(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        """A command in the sweep's container, as `docker compose run sweep-cpu ...` starts it."""
        done = subprocess.run(
            [*dockerfile_entrypoint("cpu"), *arguments],
            env={**self.sweep.environment, **environment}, cwd=self.folder, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        self.outputs += [done.stdout, done.stderr]
        return done

    def sql(self, role: str, database: str, text: str) -> subprocess.CompletedProcess:
        who = {"mlflow": "mlflow_database_password", "optuna": "optuna_database_password",
               "postgres": "postgres_password"}  # fmt: skip
        environment = {**os.environ, "PGPASSWORD": self.password(who[role])}
        return subprocess.run(
            [postgresql_folder() / "psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", role, "-d", database, "-tAc", text],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def get(self, path: str, who: str | None = "sweeper", **headers: str) -> requests.Response:
        auth = (who, self.password(f"mlflow_{who}_password")) if who else None
        return requests.get(f"{self.address}/{path}", auth=auth, headers=headers, timeout=30)

    def post(self, path: str, body: dict, who: str | None = "sweeper", **headers: str):
        auth = (who, self.password(f"mlflow_{who}_password")) if who else None
        return requests.post(
            f"{self.address}/{path}", json=body, auth=auth, headers=headers, timeout=30
        )


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stack")
    secrets, files, work = folder / "secrets", folder / "artifacts", folder / "work"
    work.mkdir()
    subprocess.run([DOCKER / "make-secrets.sh", secrets], check=True, stdout=subprocess.DEVNULL)
    arguments = COMPOSE["services"]["postgres"]["environment"]["POSTGRES_INITDB_ARGS"].split()
    mlflow_port, dashboard_port = free_port(), free_port()
    with (
        postgresql(secrets / "postgres_password", arguments) as (port, log),
        ProcessTitles() as titles,
    ):
        here = {
            "/run/secrets": str(secrets), "/srv/artifacts": str(files), "/srv/sweeps": str(work),
            "postgres:5432": f"127.0.0.1:{port}", "mlflow:5000": f"127.0.0.1:{mlflow_port}",
            "--port=5000": f"--port={mlflow_port}", "127.0.0.1:5000": f"127.0.0.1:{mlflow_port}",
            "--port=8080": f"--port={dashboard_port}", "127.0.0.1:8080": f"127.0.0.1:{dashboard_port}",
        }  # fmt: skip
        # As in the container, where other machines could reach it; the dashboard has no users.
        loopback = {**here, "0.0.0.0": "127.0.0.1"}
        databases = {
            **Service("postgres", here).environment,
            "PGHOST": str(log.parent),
            "PGPORT": str(port),
        }
        for _ in range(2):  # Again is harmless.
            subprocess.run([DOCKER / "create-databases.sh"], env=databases, check=True)
        server, dashboard = Service("mlflow", here), Service("optuna-dashboard", loopback)
        entry = dockerfile_entrypoint("server")
        tables = Service("study-tables", here)
        subprocess.run([*entry, *tables.command], env=tables.environment, cwd=ROOT, check=True)
        logs = folder / "mlflow.log", folder / "dashboard.log"
        with (
            background([*entry, *server.command], logs[0], server.environment, ROOT) as process,
            background([*entry, *dashboard.command], logs[1], dashboard.environment, ROOT),
        ):
            wait_until(lambda: server.is_healthy() or process.poll() is not None, 180)
            wait_until(lambda: "stop  " in logs[0].read_text() or process.poll() is not None)
            assert process.poll() is None, logs[0].read_text()
            wait_until(dashboard.is_healthy, 120)
            yield Stack(
                f"http://127.0.0.1:{mlflow_port}", f"http://127.0.0.1:{dashboard_port}", port,
                secrets, Service("sweep-cpu", here), work, titles, written=[*logs, log, files, work],
            )  # fmt: skip


@pytest.fixture(scope="module")
def swept(stack):
    """The stack after a sweep, with the sweep's output."""
    done = stack.client("run", "--space", "mlp", "--dataset", "digits", "--trials", "2", "--epochs", "1",
                        "--workers", "1", "--name", NAME)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return stack


@pytest.fixture(scope="module")
def promoted(swept):
    done = swept.client("promote", NAME)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"champion   {MODEL} version 1" in done.stdout
    return swept


def test_a_sweep_is_whole_in_both_databases(swept):
    done = swept.client("doctor", NAME)
    assert done.returncode == 0, done.stdout
    assert "2 trials, 2 runs, 2 reports: study, spool and MLflow agree" in done.stdout
    assert swept.sql("mlflow", "mlflow", "select count(*) from runs").stdout == "3\n"
    assert (
        swept.sql("optuna", "optuna", "select count(*) from trials where state = 'COMPLETE'").stdout
        == "2\n"
    )
    assert swept.sql("optuna", "optuna", "select study_name from studies").stdout == f"{NAME}\n"
    assert not list(swept.folder.glob("*.db")), "nothing but the caches is local"


def test_the_dashboard_shows_the_study(swept):
    studies = requests.get(f"{swept.dashboard}/api/studies", timeout=30).json()["study_summaries"]
    assert [study["study_name"] for study in studies] == [NAME]


def test_the_champion_predicts_from_the_registry(promoted):
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    pictures = [promoted.folder / f"{label}.png" for label in range(10)]
    for label, path in enumerate(pictures):
        assert digits.target[label] == label
        Image.fromarray((digits.images[label] * 15.9375).astype("uint8")).save(path)
    done = promoted.client("predict", *map(str, pictures), "--model", f"{MODEL}@champion", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["model"]["name"] == MODEL and document["model"]["version"] == 1
    classes = [one["class"] for one in document["predictions"]]
    assert sum(found == str(label) for label, found in enumerate(classes)) >= 7, classes


def test_who_signs_in_not_is_refused_everywhere_but_health(stack):
    assert stack.get("health", None).status_code == 200
    for path in ("", "api/2.0/mlflow/experiments/search?max_results=1", "graphql", "signup",
                 "api/2.0/mlflow-artifacts/artifacts", "get-artifact?path=x&run_uuid=y",
                 "ajax-api/2.0/mlflow/experiments/search?max_results=1"):  # fmt: skip
        assert stack.get(path, None).status_code == 401, path
    done = stack.client("run", "--space", "mlp", "--dataset", "digits", MLFLOW_TRACKING_PASSWORD_FILE="",
                        MLFLOW_TRACKING_USERNAME="")  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert (
        "asks for a user and password" in done.stderr and not (stack.folder / "mlflow.db").exists()
    )


def test_a_foreign_host_or_page_is_refused(stack):
    page = "api/2.0/mlflow/experiments/search?max_results=1"
    assert stack.get(page).status_code == 200
    for host in (
        "evil.example",
        "10.evil.example",
        "mlflow.evil.example",
        "127.0.0.1.evil.example",
    ):
        assert stack.get(page, Host=host).status_code == 403, host
    body = {"name": "from-elsewhere"}
    answer = stack.post("api/2.0/mlflow/experiments/create", body, Origin="https://evil.example")
    assert answer.status_code == 403 and "Cross-origin" in answer.text


def test_the_sweeper_may_track_and_nothing_else(stack):
    users, body = "api/2.0/mlflow/users", {"username": "eve", "password": "twelve-characters"}
    assert stack.post(f"{users}/create", body).status_code == 403
    assert stack.post(f"{users}/create", body, None).status_code == 401
    made = stack.post("api/2.0/mlflow/experiments/create", {"name": "the administrator's"}, "admin")
    own = {"experiment_id": made.json()["experiment_id"]}
    assert stack.post("api/2.0/mlflow/experiments/delete", own).status_code == 403
    assert stack.post("api/2.0/mlflow/runs/create", own).status_code == 403


def test_a_database_role_reaches_its_own_database_only(stack):
    assert "permission denied" in stack.sql("optuna", "mlflow", "select 1").stderr
    assert "permission denied" in stack.sql("mlflow", "optuna", "select 1").stderr
    rights = "select bool_or(rolsuper or rolcreatedb or rolcreaterole or rolreplication) from pg_roles where rolname in ('mlflow', 'optuna')"
    assert stack.sql("postgres", "postgres", rights).stdout == "f\n"
    wrong = subprocess.run(
        ["psql", "-h", "127.0.0.1", "-p", str(stack.port), "-U", "optuna", "-d", "optuna", "-tAc", "select 1"],
        env={**os.environ, "PGPASSWORD": "wrong"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "password authentication failed" in wrong.stderr


def test_the_server_is_asked_by_the_name_that_it_has_for_the_others(stack):
    port = stack.address.rpartition(":")[2]
    page = f"{stack.address}/api/2.0/mlflow/experiments/search?max_results=1"
    auth = ("sweeper", stack.password("mlflow_sweeper_password"))

    def status(host: str) -> int:
        return requests.get(page, headers={"Host": host}, auth=auth, timeout=30).status_code

    assert status(f"mlflow:{port}") == status(f"127.0.0.1:{port}") == 200
    assert status(f"database:{port}") == status(f"mlflow.evil.example:{port}") == 403


@pytest.mark.parametrize(
    "path",
    [
        "api/2.0/mlflow-artifacts/artifacts/..%2f..%2f..%2fetc%2fpasswd",
        "api/2.0/mlflow-artifacts/artifacts/1/%252e%252e/%252e%252e/secret",
        "api/2.0/mlflow-artifacts/artifacts?path=../..",
    ],
)
def test_an_artifacts_path_cannot_climb(stack, path):
    auth = ("admin", stack.password("mlflow_admin_password"))
    request = requests.Request("GET", f"{stack.address}/{path}", auth=auth).prepare()
    request.url = f"{stack.address}/{path}"  # As it is written, not as it is tidied.
    with requests.Session() as session:
        assert session.send(request, timeout=30).status_code == 400
        put = requests.Request("PUT", request.url, auth=auth, data=b"x").prepare()
        put.url = f"{stack.address}/{path}"
        assert session.send(put, timeout=30).status_code >= 400
    assert not list(stack.folder.parent.glob("secret")) and not list(stack.folder.glob("secret"))


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/../../out", "..", "a\\b", "a\nb"])
def test_a_sweeps_name_cannot_climb(stack, name):
    done = stack.client("run", "--space", "mlp", "--dataset", "digits", "--name", name)
    assert done.returncode == 2 and "--name must be" in done.stderr


def test_a_wrong_database_password_is_one_line_without_it(stack, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.write_text("not-this-one-at-all\n")
    done = stack.client("run", "--space", "mlp", "--dataset", "digits", PGPASSWORD_FILE=str(wrong))
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "cannot be reached (OperationalError)" in done.stderr
    assert "not-this-one" not in done.stderr


def test_a_name_is_used_once_whichever_folder_it_comes_from(swept):
    done = swept.client("run", "--space", "mlp", "--dataset", "digits", "--name", NAME,
                        "--work-dir", "elsewhere")  # fmt: skip
    assert done.returncode == 2 and "already used" in done.stderr
    assert swept.sql("optuna", "optuna", "select count(*) from studies").stdout == "1\n"


OPEN = """
import os, sys
from sweeps.engines.optuna_study.storage import open_storage, study_exists
storage = open_storage(os.environ["SWEEPS_STORAGE"])
print(study_exists(storage, "none"), flush=True)
sys.stdin.readline()
print(study_exists(storage, "none"), flush=True)
"""


def test_studies_are_opened_together_and_outlive_lost_connections(stack):
    """Eight processes open an empty database; then PostgreSQL drops every connection."""
    made = stack.sql("postgres", "postgres", "create database fresh owner optuna")
    assert made.returncode == 0, made.stderr
    address = f"postgresql+psycopg://optuna@127.0.0.1:{stack.port}/fresh"
    environment = {**stack.sweep.environment, "SWEEPS_STORAGE": address,
                   "PGPASSWORD": stack.password("optuna_database_password")}  # fmt: skip
    processes = [
        subprocess.Popen([sys.executable, "-c", OPEN], env=environment, text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(8)
    ]  # fmt: skip
    assert [process.stdout.readline() for process in processes] == ["False\n"] * 8
    dropped = stack.sql(
        "postgres",
        "postgres",
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = 'fresh'",
    )
    assert int(dropped.stdout) >= 8
    for process in processes:
        out, err = process.communicate("go on\n", timeout=60)
        assert (process.returncode, out) == (0, "False\n"), err


@pytest.mark.parametrize(
    ("script", "option"),
    [
        ("docker/create_study_tables.py", "SWEEPS_STORAGE"),
        ("tracking/server.py", "--backend-store-uri"),
    ],
)
def test_a_database_that_does_not_take_all_letters_is_refused_in_one_line(
    stack, tmp_path, script, option
):
    stack.sql("postgres", "postgres", "create database ascii owner optuna encoding 'SQL_ASCII' "
              "lc_collate 'C' lc_ctype 'C' template template0")  # fmt: skip
    address = f"postgresql+psycopg://optuna@127.0.0.1:{stack.port}/ascii"
    options = ["--backend-store-uri", address] if option.startswith("--") else []
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *options],
        env={**stack.sweep.environment, "SWEEPS_STORAGE": address,
             "PGPASSWORD": stack.password("optuna_database_password")},
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert f"error: {option} postgresql+psycopg://" in done.stderr
    assert "encoding SQL_ASCII. Make it anew: CREATE DATABASE" in done.stderr


def test_no_secret_is_anywhere(promoted):
    """After all of the above: in what was printed, in every file, in both databases, in no title."""
    secrets = [file.read_text().strip() for file in promoted.secrets.iterdir()]
    assert len(secrets) == 5 and all(len(secret) >= 32 for secret in secrets)
    places = {"output": "\n".join(promoted.outputs), "titles": "\n".join(promoted.titles.seen)}
    assert (
        "tracking/server.py" in places["titles"]
        and "tracking.mlflow_server.launch server" in places["titles"]
    )
    for database in ("mlflow", "optuna"):
        dump = subprocess.run(
            [postgresql_folder() / "pg_dump", "-h", "127.0.0.1", "-p", str(promoted.port), "-U", database, database],
            env={**os.environ, "PGPASSWORD": promoted.password(f"{database}_database_password")},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        places[database] = dump.stdout
    assert NAME in places["mlflow"] and NAME in places["optuna"]
    files = [
        path
        for place in promoted.written
        for path in (place.rglob("*") if place.is_dir() else [place])
    ]
    assert len(files) > 20
    for path in files:
        if path.is_file():
            places[str(path)] = path.read_bytes().decode(errors="ignore")
    for place, text in places.items():
        for secret in secrets:
            assert secret not in text, f"a secret is in {place}"


def test_the_stack_is_up_to_the_end(promoted):
    assert answers(f"{promoted.address}/health") and answers(f"{promoted.dashboard}/dashboard")
