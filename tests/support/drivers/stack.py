"""The stack of `docker/compose.yaml` on this very machine: its commands, without its containers."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import yaml

ROOT = Path(__file__).parents[3]
DOCKER = ROOT / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
NEED_POSTGRESQL = "SWEEPS_NEED_POSTGRESQL"
"""Set where a missing PostgreSQL is a failure, as in `.ci/run`."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(holds, seconds: float = 120.0) -> None:
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, "not within the time"
        time.sleep(0.1)


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).ok
    except requests.RequestException:
        return False


def postgresql_folder() -> Path:
    """The folder of PostgreSQL's programs; skips where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    if on_path is None:
        (pytest.fail if os.environ.get(NEED_POSTGRESQL) else pytest.skip)(
            "PostgreSQL is missing: apt-get install postgresql"
        )
    return Path(on_path).parent


@contextmanager
def postgresql(
    password_file: Path,
    arguments: list[str] | None = None,
    settings: tuple[str, ...] = ("fsync=off", "log_statement=all"),
) -> Iterator[tuple[int, Path]]:
    """A PostgreSQL of one's own, as a user that is not root; its port and its log."""
    programs = postgresql_folder()
    folder = Path(tempfile.mkdtemp(prefix="sweeps-pg-", dir="/tmp"))
    # PostgreSQL refuses root.
    who = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    password, data, log = folder / "password", folder / "data", folder / "log"
    shutil.copyfile(password_file, password)
    if who:
        shutil.chown(folder, "postgres", "postgres")
        shutil.chown(password, "postgres", "postgres")
    port = free_port()
    try:
        subprocess.run(
            [programs / "initdb", "--pgdata", data, "--username", "postgres", "--pwfile", password,
             "--auth-local", "trust", "--no-sync", *(arguments or ["--auth-host=scram-sha-256"])],
            check=True, stdout=subprocess.DEVNULL, cwd=folder, extra_groups=[] if who else None, **who,
        )  # fmt: skip
        password.unlink()
        with log.open("wb") as out:
            server = subprocess.Popen(
                [programs / "postgres", "-D", data, "-p", str(port), "-k", folder,
                 "-c", "listen_addresses=127.0.0.1",
                 *(part for setting in settings for part in ("-c", setting))],
                stdout=out, stderr=out, cwd=folder, extra_groups=[] if who else None, **who,
            )  # fmt: skip
        try:
            ready = [programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port), "-q"]
            wait_until(lambda: subprocess.run(ready, check=False).returncode == 0, 60)
            yield port, log
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def background(
    command: list[str], log: Path, environment: Mapping[str, str], cwd: Path
) -> Iterator[subprocess.Popen]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment, cwd=cwd)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def clean_environment() -> dict[str, str]:
    """This process's own, with the programs of its Python first, and without anybody's secrets."""
    kept = {
        name: value for name, value in os.environ.items()
        if not name.startswith(("MLFLOW_", "PG", "SWEEPS_"))
    }  # fmt: skip
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}


@contextmanager
def mlflow_server(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """`python tracking/server.py` in a folder, ready; the process and its address."""
    port = free_port()
    command = [sys.executable, str(ROOT / "tracking" / "server.py"), "--port", str(port), *options]
    log = folder / "server.log"
    with background(command, log, clean_environment(), folder) as process:
        wait_until(lambda: "stop  " in log.read_text() or process.poll() is not None, 180)
        assert process.poll() is None, log.read_text()
        yield process, f"http://127.0.0.1:{port}"


class Service:
    """A service of the compose file, with what containers bring replaced by this machine's own.

    Args:
        replaced: text in commands and environment -> what it is here.
    """

    def __init__(self, name: str, replaced: Mapping[str, str]) -> None:
        self._replaced = replaced
        body = COMPOSE["services"][name]
        self.command = [self._here(part) for part in body.get("command", [])]
        self.environment = {
            **clean_environment(),
            **{key: self._here(value) for key, value in body.get("environment", {}).items()},
        }
        check = body.get("healthcheck", {}).get("test", [])
        self.health = [self._here(part) for part in check[1:]]

    def _here(self, text: str) -> str:
        text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
        for there, here in self._replaced.items():
            text = text.replace(there, here)
        return text

    def is_healthy(self) -> bool:
        done = subprocess.run(
            self.health, env=self.environment, cwd=ROOT, capture_output=True, check=False
        )
        return done.returncode == 0


def dockerfile_entrypoint(target: str) -> list[str]:
    """The ENTRYPOINT of a target of the Dockerfile, with paths of this machine."""
    text = (DOCKER / "Dockerfile").read_text()
    stage = text.split(f" AS {target}\n")[1].split("\nFROM ")[0]
    return [
        part.replace("/app/docker", str(DOCKER)).replace("docker/with", f"{DOCKER}/with", 1)
        if not part.startswith("/app") else part.replace("/app", str(ROOT))
        for part in yaml.safe_load(re.search(r"^ENTRYPOINT (.*)$", stage, re.MULTILINE)[1])
    ]  # fmt: skip


class ProcessTitles:
    """Every command line that any process of this machine has while it is entered."""

    def __enter__(self) -> ProcessTitles:
        self.seen: set[str] = set()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.seen.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
                except OSError:
                    continue

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
