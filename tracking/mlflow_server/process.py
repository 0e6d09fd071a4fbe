"""Runs `mlflow server` with settings that fit one machine, and stops all that it began.

A server with authentication gets its users through MLflow's own API.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from types import FrameType, TracebackType

import requests

from tracking.mlflow_server.options import ServerPlan, password_in
from tracking.stores import artifact_location

START_SECONDS = 180.0
"""MLflow imports for ten seconds on an idle machine, and its first tables take two more."""
STOP_SECONDS = 15.0
AUTH_CACHE_SECONDS = 60
"""A password is verified once in that time; without it each request takes 200 ms more."""
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
_PR_SET_PDEATHSIG = 1
_AUTH_CONFIG = """[mlflow]
default_permission = READ
database_uri = {database_uri}
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
grant_default_workspace_access = false
auth_cache_ttl_seconds = {cache_seconds}
"""
_OURS = ("MLFLOW_HTTP_", "MLFLOW_S3_", "MLFLOW_SQLALCHEMYSTORE_", "MLFLOW_LOGGING_LEVEL")
"""What of MLflow's own variables reaches the server; the others are a client's, or undo ours."""
_API = "api/2.0/mlflow/users"
ANSWER_SECONDS = 30.0


class MlflowServer:
    """One server; entered, it turns signals into a clean end, and left, nothing of it runs.

    Raises:
        OSError: The server did not start, or ended by itself.
    """

    def __init__(self, plan: ServerPlan) -> None:
        self._plan = plan
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="keras-sweeps-server-")
        self._previous: dict[int, object] = {}
        self.stopping = False
        """Whether the server was asked to end."""

    def __enter__(self) -> MlflowServer:
        for name in SIGNALS:
            number = getattr(signal, name, None)
            if number is not None:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()
        self._folder.cleanup()
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def start(self) -> None:
        """Starts it and waits until it answers, or was asked to stop."""
        environment = server_environment(self._plan, os.environ, Path(self._folder.name))
        self._process = subprocess.Popen(
            server_command(self._plan),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # MLflow's greeting; what goes wrong is on standard error.
            umask=0o077 if self._plan.auth else -1,
            start_new_session=True,  # Ctrl-C is for us; we stop it in order.
            # There is one thread here.
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
        )
        began = time.monotonic()
        while not self.stopping and not self._answers():
            if self._process.poll() is not None:
                raise OSError("the server did not start; MLflow's own output is above")
            if time.monotonic() - began > START_SECONDS:
                raise OSError(f"the server did not answer within {START_SECONDS:g} seconds")
            time.sleep(0.2)

    def wait(self) -> int:
        """Waits until the server was asked to stop; returns the exit status."""
        while not self.stopping:
            assert self._process is not None
            if self._process.poll() is not None:
                raise OSError(f"the server ended by itself (status {self._process.returncode})")
            time.sleep(0.2)
        self._stop()
        print("stopped", flush=True)
        return 0

    def _answers(self) -> bool:
        try:
            with direct_session() as session:
                return session.get(f"{self._plan.address}/health", timeout=2).ok
        except requests.RequestException:
            return False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.stopping = True

    def _stop(self) -> None:
        """Asks for an orderly end, then ends whatever is left of the server's session."""
        if self._process is None:
            return
        group = self._process.pid
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        # macOS refuses to signal a group of which only ended processes are left.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
        self._process.wait()
        self._process = None


def server_command(plan: ServerPlan) -> list[str]:
    """The command; it holds no address of a database, because everybody may read it."""
    quiet = "--log-level warning --no-access-log --timeout-graceful-shutdown 5"
    quiet += " --http h11"  # It limits headers; httptools, where it is installed, reads on.
    module = "tracking.mlflow_server.launch" if plan.auth else "mlflow"
    command = [sys.executable, "-m", module, "server", "--host", plan.host]
    command += ["--port", str(plan.port), "--workers", str(plan.num_workers)]
    command += ["--serve-artifacts", "--uvicorn-opts", quiet]
    command += ["--allowed-hosts", ",".join(plan.allowed_hosts)]
    if plan.allowed_origins:
        command += ["--cors-allowed-origins", ",".join(plan.allowed_origins)]
    return [*command, "--app-name", "basic-auth"] if plan.auth else command


def server_environment(
    plan: ServerPlan, environment: Mapping[str, str], folder: Path
) -> dict[str, str]:
    """The environment of the server's processes: quiet, without jobs and telemetry, with secrets.

    Args:
        folder: where its settings of authentication may be written.
    """
    kept = {
        name: value
        for name, value in environment.items()
        if "MLFLOW" not in name or name.startswith(_OURS)
    }
    variables = {
        "MLFLOW_BACKEND_STORE_URI": plan.store_uri,
        "MLFLOW_ARTIFACTS_DESTINATION": (
            artifact_location(Path(plan.artifacts))
            if plan.artifacts.startswith("/")
            else plan.artifacts
        ),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        # Fourteen processes and two gigabytes that no sweep needs.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "PYTHONWARNINGS": "ignore",
        "MPLBACKEND": "agg",  # A notebook's own may not be installed here.
        # A `queue.py` in the folder where somebody starts the server is not the server's.
        "PYTHONSAFEPATH": "1",
    }
    if plan.auth:
        config = folder / "basic_auth.ini"
        uri = plan.auth_database_uri.replace("%", "%%")
        config.write_text(
            _AUTH_CONFIG.format(database_uri=uri, cache_seconds=AUTH_CACHE_SECONDS),
            encoding="utf-8",
        )
        variables["MLFLOW_AUTH_CONFIG_PATH"] = str(config)
        variables["MLFLOW_AUTH_ADMIN_PASSWORD"] = password_in(plan.admin_password_file)
        variables["MLFLOW_FLASK_SERVER_SECRET_KEY"] = secrets.token_hex(32)
    return {**kept, **variables}


def _end_with_parent() -> None:
    """Has the system end this process with its parent, also where that was killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class WrongPasswordError(OSError):
    """The file of admin's password does not hold it."""


def ensure_users(plan: ServerPlan) -> None:
    """Makes the users that are missing, and gives those who cannot sign in their file's password.

    Raises:
        WrongPasswordError: The file of admin's password does not hold it.
        OSError: The server refused, or did not answer.
    """
    if not _signs_in(plan.address, "admin", password_in(plan.admin_password_file)):
        raise WrongPasswordError(
            f"admin cannot sign in with the password in {plan.admin_password_file}: the database "
            "of users was made with another one. Put that back, or, if it is lost, name a new "
            "--auth-database-uri and make the users again"
        )
    for name, file in plan.users:
        password = password_in(file)
        if _signs_in(plan.address, name, password):
            continue
        admin = ("admin", password_in(plan.admin_password_file))
        body = {"username": name, "password": password}
        with direct_session() as session:
            answer = session.post(
                f"{plan.address}/{_API}/create", json=body, auth=admin, timeout=ANSWER_SECONDS
            )
            if "RESOURCE_ALREADY_EXISTS" in answer.text:
                answer = session.patch(
                    f"{plan.address}/{_API}/update-password", json=body, auth=admin,
                    timeout=ANSWER_SECONDS,
                )  # fmt: skip
        if not answer.ok:
            raise OSError(f"user '{name}' could not be made: status {answer.status_code}")


def _signs_in(address: str, name: str, password: str) -> bool:
    with direct_session() as session:
        answer = session.get(
            f"{address}/{_API}/get", params={"username": name}, auth=(name, password),
            timeout=ANSWER_SECONDS,
        )  # fmt: skip
    refused = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
    if not answer.ok and answer.status_code not in refused:
        raise OSError(f"the server answered status {answer.status_code} to user '{name}'")
    return answer.ok


def direct_session() -> requests.Session:
    """Requests to a server of this machine: through no proxy, which would read the passwords."""
    session = requests.Session()
    session.trust_env = False
    return session
