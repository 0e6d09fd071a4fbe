#!/usr/bin/env python3
"""Tries the stack of compose.yaml in real containers, from base images to a doctor's visit.

    python docker/try_stack.py [--engine docker|podman] [--gpu] [--keep]

It builds the images `server` and `cpu`, starts PostgreSQL, the MLflow server, the study's tables
and the dashboard, runs a sweep, finalists, a promotion and a prediction, kills the server and then
the database in the middle of a second sweep, goes on, and asks the doctor. `--gpu` builds the image
`gpu`, too, and asks it for its help and for what it lacks; no GPU is needed for that. It ends with
a table, with status 1 where a step failed, and 130 after Ctrl-C. About ten minutes, most of them
for the images; the image `gpu` downloads several GB more.

Everything is called `keras-sweeps-try...` and is removed at the end, base images that were made or
pulled included; `--keep` leaves images for the next time. Of a trial that failed only what was
printed is left. Needs the environment of the README, and Docker (23 or later) with Compose, or
podman and podman-compose. Where no registry can be reached, podman's base images are made of
Debian's packages: for that it needs root and debootstrap.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.request import urlopen

import yaml
from trial.engine import COMPOSE, NAME, Engine, StepError, usable_engine
from trial.images import Images

HERE = Path(__file__).resolve().parent
FIRST_TRIALS, NUM_TRIALS = 4, 10
"""Of the first sweep, and of the second."""
NUM_CLASSES = 10
DONE = rf"(\d+) of {NUM_TRIALS} trials done"
"""What the second sweep prints whenever a trial has ended."""
RUN = ("run", "-T", "--no-deps")
"""Without a terminal, which podman-compose makes unless it is told: on one a sweep draws."""
BROKEN_OFF = "1"
"""The status of a sweep that lost its study's database, and can be resumed."""
MOST = 4096
"""Open files, and processes, of a container where podman is told a limit."""
STAYING = ("postgres", "mlflow", "optuna-dashboard")
SWEEP = (
    "run", "--space", "mlp", "--dataset", "digits", "--epochs", "3", "--timeout", "none",
    "--pruner", "none",
)  # fmt: skip


class Stack:
    """The services of compose.yaml under names of their own.

    Args:
        engine: `docker` or `podman`.
        folder: for secrets, the compose file, and what the containers print.
    """

    def __init__(self, engine: str, folder: Path) -> None:
        self.folder = folder
        self._compose = COMPOSE[engine]
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
                logs = self.engine.logs(f"{NAME}-{name}")
                last = logs.strip().splitlines()[-1:]
                raise StepError(f"{name} is not healthy after {seconds:.0f} s: {last}")
            time.sleep(1)

    def sweeps(self, *arguments: str, seconds: float = 300.0, check: bool = True) -> str:
        """A `keras-sweeps` command in a container of the service `sweep-cpu`."""
        pictures = f"{self.folder / 'pictures'}:/pictures:ro"
        return self.composed(
            *RUN, "--rm", "-v", pictures, "sweep-cpu", *arguments, seconds=seconds, check=check
        )

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

    def __init__(self, stack: Stack, *, gpu: bool = False) -> None:
        self.stack, self.images = stack, Images(stack.engine, stack.folder)
        self.rows: list[tuple[str, float, str]] = []
        self._gpu = gpu

    def step(self, name: str, work: Callable[[], str]) -> None:
        """Does one step and notes how long it took and what was seen.

        Raises:
            StepError: It failed; that is a row, too.
        """
        print(f"{name} ...", flush=True)
        started = time.monotonic()
        try:
            seen = work()
        except KeyboardInterrupt:
            self.rows.append((name, time.monotonic() - started, "interrupted"))
            raise
        except Exception as error:  # Whatever an engine or a network raises is a row.
            what = "" if isinstance(error, StepError) else f"{type(error).__name__}: "
            seen = f"FAILED: {what}{' '.join(str(error).split())}"
            self.stack.engine.note(traceback.format_exc())
            self.rows.append((name, time.monotonic() - started, seen))
            raise StepError(seen) from error
        self.rows.append((name, time.monotonic() - started, seen))

    def all(self) -> None:
        """Every step, in order; raises StepError at the first that fails."""
        self.step("what an earlier trial left", self.earlier)
        self.step("base images", self.base_images)
        self.step("images server and cpu", self.own_images)
        if self._gpu:
            self.step("image gpu", self.images.gpu)
        self.step("PostgreSQL, MLflow server", self.start)
        self.step("tables of the study, dashboard", self.study)
        self.step("sweep", self.sweep)
        self.step("finalists, promotion", self.promotion)
        self.step("prediction from the registry", self.prediction)
        self.step("second sweep, server and database killed", self.kills)
        self.step("doctor", self.doctor)

    def earlier(self) -> str:
        """One that was killed could not clean up."""
        self.stack.remove()
        return "nothing is there any more"

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
        self.stack.composed(*RUN, "--rm", "study-tables")
        self.stack.start("optuna-dashboard", DASHBOARD_READY)
        port = self.stack.ports["optuna-dashboard"]
        return f"the dashboard answers {_status(f'http://127.0.0.1:{port}/dashboard')}"

    def sweep(self) -> str:
        """A sweep that says where its results can be looked at."""
        out = self.stack.sweeps(*SWEEP, "--trials", str(FIRST_TRIALS), "--name", "first")
        if f"{self.stack.public}/#/experiments/" not in out:
            raise StepError("no link that a browser outside can open was printed")
        seen = _last(r"(\d+ complete.*)", out)
        if not seen.startswith(f"{FIRST_TRIALS} complete"):
            raise StepError(f"{FIRST_TRIALS} trials should be complete: {seen}")
        return f"{seen}; its link is that of the browser"

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
        num = len(found["predictions"][0]["probabilities"])
        if num != NUM_CLASSES:
            raise StepError(f"{num} probabilities, not {NUM_CLASSES}")
        return f"{num} probabilities"

    def kills(self) -> str:
        """The server, then the database, while a sweep runs; it goes on, or is resumed."""
        # Some seconds a trial.
        second = (*SWEEP, "--epochs", "60", "--trials", str(NUM_TRIALS), "--name", "second")
        name, engine = f"{NAME}-second", self.stack.engine
        self.stack.composed(*RUN, "-d", "--name", name, "sweep-cpu", *second)
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
        if status != BROKEN_OFF:
            raise StepError(f"the second sweep ended with status {status}, not 0 or {BROKEN_OFF}")
        self.stack.sweeps("run", "--resume", "--name", "second", seconds=600)
        return f"it ended with status {status}, and was resumed to its end"

    def _wait_for_trial(self, name: str, number: int) -> None:
        """Waits until so many trials are done, and raises StepError where all are."""
        ends, done = time.monotonic() + 180, 0
        while done < number:
            if time.monotonic() > ends:
                raise StepError(f"trial {number} of the second sweep did not end")
            time.sleep(0.5)
            out = self.stack.engine.logs(name)
            done = max(map(int, re.findall(DONE, out)), default=0)
        if done == NUM_TRIALS:
            raise StepError("the second sweep was over before anything could be killed")

    def doctor(self) -> str:
        """Study, spool and MLflow agree, of both sweeps."""
        seen = []
        for sweep, num in (("first", FIRST_TRIALS), ("second", NUM_TRIALS)):
            self.stack.sweeps("sync", sweep)
            out = self.stack.sweeps("doctor", sweep)
            said = f"{_last(r'(.*) agree', out).strip()} agree"
            if f"{num} trials, {num} runs" not in said:
                raise StepError(f"{sweep} should have {num} trials, and a run for each: {said}")
            seen.append(f"{sweep}: {said}")
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


@contextlib.contextmanager
def _alone() -> Iterator[bool]:
    """Whether no other trial runs on this machine: all of them have the same names."""
    path = Path(tempfile.gettempdir()) / f"{NAME}.lock"
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)


def _interrupt(number: int, frame: FrameType | None) -> Any:
    """A service's end is that of Ctrl-C: everything is taken down first."""
    del number, frame
    raise KeyboardInterrupt


def _refused(text: str) -> int:
    print(f"error: {text}", file=sys.stderr)
    return 2


def main() -> int:
    """Tries everything, cleans up, prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", choices=tuple(COMPOSE))
    parser.add_argument("--gpu", action="store_true", help="build the image for GPUs, too")
    parser.add_argument("--keep", action="store_true", help="leave the images for the next time")
    arguments = parser.parse_args()
    engine = usable_engine(arguments.engine)
    if engine is None:
        return _refused(
            f"{arguments.engine or 'Docker or podman'} must be installed, with Compose, and must "
            "answer. Install or start it: on Debian, apt-get install podman runc netavark "
            "aardvark-dns, and pip install podman-compose."
        )
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, _interrupt)
    with _alone() as alone:
        if not alone:
            return _refused("Another trial runs on this machine. Start this one when it has ended.")
        folder = Path(tempfile.mkdtemp(prefix=f"{NAME}-"))
        settings = _podman_settings(folder) if engine == "podman" else contextlib.nullcontext()
        with settings:
            return _tried(Trial(Stack(engine, folder), gpu=arguments.gpu), keep=arguments.keep)


def _tried(trial: Trial, *, keep: bool) -> int:
    """Does all steps, and removes whatever they left; returns the exit status."""
    status = 1
    try:
        trial.all()
        status = 0
    except StepError:
        pass
    except KeyboardInterrupt:
        status = 130
    finally:
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(name, signal.SIG_IGN)  # This must come to its end.
        _take_down(trial, keep=keep)
    width = max((len(name) for name, _, _ in trial.rows), default=0)
    for name, seconds, seen in trial.rows:
        print(f"{name:<{width}}  {seconds:6.1f} s  {seen}")
    folder, log = trial.stack.folder, trial.stack.engine.log
    if status and log.exists():
        for path in folder.iterdir():  # Secrets, above all.
            if path != log:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        print(f"what was printed: {log}")
    else:
        shutil.rmtree(folder)
    return status


def _take_down(trial: Trial, *, keep: bool) -> None:
    """Removes all that has the trial's names; says what could not be removed."""
    print("taking everything down ...", flush=True)
    for remove in (trial.stack.remove, *(() if keep else (trial.images.remove,))):
        try:
            remove()
        except StepError as error:
            print(f"error: not everything was removed: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
