#!/usr/bin/env python3
"""Tries the stack of compose.yaml in real containers, from base images to a doctor's visit.

    python docker/try_stack.py [--engine docker|podman] [--keep]

It builds the images `server` and `cpu`, starts PostgreSQL, the MLflow server, the study's tables
and the dashboard, runs a sweep, finalists, a promotion and a prediction, kills the server and then
the database in the middle of a second sweep, goes on, and asks the doctor. It ends with a table,
and with status 1 where a step failed. About ten minutes, most of them for the images.

Everything is called `keras-sweeps-try...` and is removed at the end, base images that were made
included; `--keep` leaves images for the next time. Needs the environment of the README, and Docker
with Compose, or podman and podman-compose. Where no registry can be reached, base images are made
of Debian's packages: for that it needs root and debootstrap.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import yaml
from trial.engine import NAME, PROGRAMS, Engine, StepError, usable_engine
from trial.images import Images

HERE = Path(__file__).resolve().parent
NUM_TRIALS = 10
"""Of the second sweep."""
MOST = 4096
"""Open files, and processes, of a container where podman is told a limit."""
STAYING = ("postgres", "mlflow", "optuna-dashboard")
SWEEP = ("run", "--space", "mlp", "--dataset", "digits", "--epochs", "3", "--timeout", "none")


class Stack:
    """The services of compose.yaml under names of their own.

    Args:
        engine: `docker` or `podman`.
        folder: for secrets, the compose file, and what the containers print.
    """

    def __init__(self, engine: str, folder: Path) -> None:
        self.folder = folder
        self._compose = ["docker", "compose"] if engine == "docker" else ["podman-compose"]
        self.ports = {name: _free_port() for name in ("mlflow", "optuna-dashboard")}
        self.public = f"http://127.0.0.1:{self.ports['mlflow']}"
        self.engine = Engine(engine, folder, {"SWEEPS_PUBLIC_URL": self.public})

    def write_compose_file(self, images: dict[str, str]) -> None:
        """The project's compose file with names, ports, secrets and images of this trial."""
        body = yaml.safe_load((HERE / "compose.yaml").read_text())
        body["name"] = NAME
        del body["services"]["sweep"]  # It wants GPUs.
        for name, service in body["services"].items():
            service.pop("build", None)
            service.pop("profiles", None)  # Not every Compose minds them where one is named.
            service["image"] = images[name]
            if name in STAYING:
                service["container_name"] = f"{NAME}-{name}"
            if "ports" in service:
                inside = service["ports"][0].rpartition(":")[2]
                service["ports"] = [f"127.0.0.1:{self.ports[name]}:{inside}"]
        script = "./create-databases.sh"
        database = body["services"]["postgres"]
        database["volumes"] = [v.replace(script, str(HERE / script)) for v in database["volumes"]]
        for secret in body["secrets"].values():
            secret["file"] = str(self.folder / "secrets" / Path(secret["file"]).name)
        (self.folder / "compose.yaml").write_text(yaml.safe_dump(body))

    def composed(self, *arguments: str, **options: Any) -> str:
        """A command of Compose on this stack."""
        file = str(self.folder / "compose.yaml")
        return self.engine.run(*self._compose, "-p", NAME, "-f", file, *arguments, **options)

    def start(self, name: str, healthy: tuple[str, ...]) -> None:
        """Starts a service and waits until its own check passes.

        Not by `depends_on`: podman keeps no health checks where systemd does not run.
        """
        self.composed("up", "-d", "--no-deps", name)
        self.wait_for(name, healthy)

    def wait_for(self, name: str, healthy: tuple[str, ...], seconds: float = 180.0) -> None:
        """Waits until a check in a service's container passes."""
        ends = time.monotonic() + seconds
        while not self.engine.succeeds("exec", f"{NAME}-{name}", *healthy):
            if time.monotonic() > ends:
                logs = self.engine("logs", f"{NAME}-{name}", check=False)
                last = logs.strip().splitlines()[-1:]
                raise StepError(f"{name} is not healthy after {seconds:.0f} s: {last}")
            time.sleep(1)

    def sweeps(self, *arguments: str, seconds: float = 300.0, check: bool = True) -> str:
        """A `keras-sweeps` command in a container of the service `sweep-cpu`."""
        pictures = f"{self.folder / 'pictures'}:/pictures:ro"
        return self.composed(
            "run", "--rm", "--no-deps", "-v", pictures, "sweep-cpu", *arguments,
            seconds=seconds, check=check,
        )  # fmt: skip

    def remove(self) -> None:
        """Everything of these names but images, also what a trial that was killed has left."""
        if (self.folder / "compose.yaml").exists():
            self.composed("down", "--volumes", "--timeout", "5", check=False)
        self.engine.remove_all()


POSTGRES_READY = ("pg_isready", "--host", "127.0.0.1", "--username", "mlflow", "--dbname", "mlflow")
MLFLOW_READY = ("python", "docker/healthcheck.py", "http://127.0.0.1:5000/health")
DASHBOARD_READY = ("python", "docker/healthcheck.py", "http://127.0.0.1:8080/dashboard")


class Trial:
    """The steps, each a row of the table."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.images = stack, Images(stack.engine, stack.folder)
        self.rows: list[tuple[str, float, str]] = []
        self.failed = False

    def step(self, name: str, work: Callable[[], str]) -> None:
        """Does one step and notes how long it took and what was seen; stops after a failure."""
        print(f"{name} ...", flush=True)
        started = time.monotonic()
        try:
            seen = work()
        except StepError as error:
            self.failed, seen = True, f"FAILED: {error}"
        self.rows.append((name, time.monotonic() - started, seen))
        if self.failed:
            raise StepError(seen)

    def all(self) -> None:
        """Every step, in order; raises StepError at the first that fails."""
        self.step("base images", self.base_images)
        self.step("images server and cpu", self.own_images)
        self.step("PostgreSQL, MLflow server", self.start)
        self.step("tables of the study, dashboard", self.study)
        self.step("sweep", self.sweep)
        self.step("finalists, promotion", self.promotion)
        self.step("prediction from the registry", self.prediction)
        self.step("second sweep, server and database killed", self.kills)
        self.step("doctor", self.doctor)

    def base_images(self) -> str:
        """What the others are built on."""
        self.stack.engine.run(str(HERE / "make-secrets.sh"), str(self.stack.folder / "secrets"))
        return self.images.base()

    def own_images(self) -> str:
        """The server's and that of sweeps on cores; then the services are known."""
        seconds, names = self.images.own(), self.images.names
        server = names["server"]
        self.stack.write_compose_file({
            "postgres": names["postgres"], "mlflow": server, "study-tables": server,
            "optuna-dashboard": server, "sweep-cpu": names["cpu"],
        })  # fmt: skip
        return seconds

    def start(self) -> str:
        """The database, then the server."""
        self.stack.start("postgres", POSTGRES_READY)
        self.stack.start("mlflow", MLFLOW_READY)
        return f"healthy; {self.stack.public} answers {_status(self.stack.public + '/health')}"

    def study(self) -> str:
        """Optuna's tables, and the dashboard that shows them."""
        self.stack.composed("run", "--rm", "--no-deps", "study-tables")
        self.stack.start("optuna-dashboard", DASHBOARD_READY)
        port = self.stack.ports["optuna-dashboard"]
        return f"the dashboard answers {_status(f'http://127.0.0.1:{port}/dashboard')}"

    def sweep(self) -> str:
        """A sweep that says where its results can be looked at."""
        out = self.stack.sweeps(*SWEEP, "--trials", "4", "--name", "first")
        if f"{self.stack.public}/#/experiments/" not in out:
            raise StepError("no link that a browser outside can open was printed")
        return _last(r"(\d+ complete.*)", out) + "; its link is that of the browser"

    def promotion(self) -> str:
        """Finalists on fresh seeds, and the winner in the registry."""
        self.stack.sweeps("finalize", "first", "--finalists", "2", "--finalist-seeds", "2")
        out = self.stack.sweeps("promote", "first")
        return _last(r"(predicts the .* the same)", out) + "; " + _last(r"champion +(.*)", out)

    def prediction(self) -> str:
        """A picture's class, from the champion."""
        from PIL import Image

        folder = self.stack.folder / "pictures"
        folder.mkdir(exist_ok=True)
        Image.new("L", (28, 28), 255).save(folder / "white.png")
        out = self.stack.sweeps(
            "predict", "/pictures/white.png", "--model", "mlp-digits@champion", "--json"
        )
        found = json.loads(out[out.index("{") : out.rindex("}") + 1])
        return f"{len(found['predictions'][0]['probabilities'])} probabilities"

    def kills(self) -> str:
        """The server, then the database, while a sweep runs; it goes on, or is resumed."""
        long = ("--pruner", "none", "--epochs", "60")  # Some seconds a trial.
        second = (*SWEEP, *long, "--trials", str(NUM_TRIALS), "--name", "second")
        name, engine = f"{NAME}-second", self.stack.engine
        self.stack.composed(
            "run", "-d", "--no-deps", "--name", name, "sweep-cpu", *second
        )  # fmt: skip
        for number, (service, ready) in enumerate(
            (("mlflow", MLFLOW_READY), ("postgres", POSTGRES_READY)), start=1
        ):
            self._wait_for_trial(name, number)
            engine("kill", f"{NAME}-{service}")
            time.sleep(3)
            engine("start", f"{NAME}-{service}")
            self.stack.wait_for(service, ready)
        self.stack.wait_for("mlflow", MLFLOW_READY)
        status = engine("wait", name, seconds=600).split()[-1]
        engine("rm", "-f", name)
        if status == "0":
            return "it went on by itself"
        self.stack.sweeps("run", "--resume", "--name", "second", seconds=600)
        return f"it ended with status {status}, and was resumed to its end"

    def _wait_for_trial(self, name: str, number: int) -> None:
        """Waits until so many trials are done, and raises StepError where all are."""
        ends, done = time.monotonic() + 180, 0
        while done < number:
            if time.monotonic() > ends:
                raise StepError(f"trial {number} of the second sweep did not end")
            time.sleep(0.5)
            out = self.stack.engine("logs", name)
            done = max(map(int, re.findall(rf"(\d+)/{NUM_TRIALS} done", out)), default=0)
        if done == NUM_TRIALS:
            raise StepError("the second sweep was over before anything could be killed")

    def doctor(self) -> str:
        """Study, spool and MLflow agree, of both sweeps."""
        seen = []
        for sweep in ("first", "second"):
            self.stack.sweeps("sync", sweep)
            out = self.stack.sweeps("doctor", sweep)
            seen.append(f"{sweep}: {_last(r'(.*) agree', out).strip()} agree")
        return "; ".join(seen)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _status(url: str) -> int:
    with urlopen(url, timeout=10) as answer:
        return int(answer.status)


def _last(pattern: str, text: str) -> str:
    found = re.findall(pattern, text)
    if not found:
        raise StepError(f"nothing like '{pattern}' was printed")
    return str(found[-1]).strip()


@contextlib.contextmanager
def _podman_settings(folder: Path) -> Iterator[None]:
    """Settings for podman where systemd does not run, for as long as this script does."""
    if Path("/run/systemd/system").exists() or "CONTAINERS_CONF" in os.environ:
        yield
        return
    # Below whatever this process may have: without CAP_SYS_RESOURCE nothing can be raised.
    limits = ", ".join(f'"{name}={MOST}:{MOST}"' for name in ("nofile", "nproc"))
    lines = ["[engine]", 'cgroup_manager = "cgroupfs"']
    if shutil.which("runc"):
        lines.append('runtime = "runc"')
    lines += ["[containers]", f"default_ulimits = [{limits}]"]
    path = folder / "containers.conf"
    path.write_text("\n".join(lines) + "\n")
    os.environ["CONTAINERS_CONF"] = str(path)
    try:
        yield
    finally:
        del os.environ["CONTAINERS_CONF"]


def main() -> int:
    """Tries everything, cleans up, prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", choices=tuple(PROGRAMS))
    parser.add_argument("--keep", action="store_true", help="leave the images for the next time")
    arguments = parser.parse_args()
    engine = usable_engine(arguments.engine)
    if engine is None:
        wanted = arguments.engine or "Docker or podman"
        print(f"error: {wanted} must be installed, with Compose, and must answer. Install or start "
              "it: on Debian, apt-get install podman runc netavark aardvark-dns, and pip install "
              "podman-compose.", file=sys.stderr)  # fmt: skip
        return 2
    folder = Path(tempfile.mkdtemp(prefix=f"{NAME}-"))
    settings = _podman_settings(folder) if engine == "podman" else contextlib.nullcontext()
    status = 1
    try:
        with settings:
            stack = Stack(engine, folder)
            trial = Trial(stack)
            try:
                stack.remove()
                trial.all()
                status = 0
            except StepError:
                pass
            finally:
                print("taking everything down ...", flush=True)
                stack.remove()
                if not (arguments.keep or trial.failed):
                    trial.images.remove()
    except KeyboardInterrupt:
        status = 130
    width = max((len(name) for name, _, _ in trial.rows), default=0)
    for name, seconds, seen in trial.rows:
        print(f"{name:<{width}}  {seconds:6.1f} s  {seen}")
    if status:
        print(f"what was printed: {stack.engine.log}")
    else:
        shutil.rmtree(folder)
    return status


if __name__ == "__main__":
    sys.exit(main())
