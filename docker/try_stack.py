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
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
NAME = "keras-sweeps-try"
NUM_TRIALS = 10
"""Of the second sweep."""
MOST = 4096
"""Open files, and processes, of a container where podman is told a limit."""
STAYING = ("postgres", "mlflow", "optuna-dashboard")
SWEEP = ("run", "--space", "mlp", "--dataset", "digits", "--epochs", "3", "--timeout", "none")


class StepError(Exception):
    """A step failed; the message says how."""


class Stack:
    """The services of compose.yaml under names of their own.

    Args:
        engine: `docker` or `podman`.
        folder: for secrets, the compose file, and what the containers print.
    """

    def __init__(self, engine: str, folder: Path) -> None:
        self.engine, self.folder = engine, folder
        self.compose = ["docker", "compose"] if engine == "docker" else ["podman-compose"]
        self.log = folder / "output.log"
        self.ports = {name: _free_port() for name in ("mlflow", "optuna-dashboard")}
        self.public = f"http://127.0.0.1:{self.ports['mlflow']}"
        self._nameless_before = self._nameless()

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

    def run(self, *command: str, seconds: float = 300.0, check: bool = True) -> str:
        """What a command of the engine prints; raises StepError where it fails."""
        environment = {**os.environ, "SWEEPS_PUBLIC_URL": self.public}
        try:
            done = subprocess.run(
                command, env=environment, cwd=ROOT, capture_output=True, text=True,
                timeout=seconds, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise StepError(f"{' '.join(command[:4])} took more than {seconds:.0f} s") from None
        with self.log.open("a") as log:
            log.write(f"$ {' '.join(command)}\n{done.stdout}{done.stderr}\n")
        if check and done.returncode:
            last = (done.stdout + done.stderr).strip().splitlines()[-1:] or ["nothing was printed"]
            raise StepError(f"{' '.join(command[:6])} ... ended with {done.returncode}: {last[0]}")
        return done.stdout + done.stderr

    def composed(self, *arguments: str, **options: Any) -> str:
        """A command of Compose on this stack."""
        file = str(self.folder / "compose.yaml")
        return self.run(*self.compose, "-p", NAME, "-f", file, *arguments, **options)

    def start(self, name: str, healthy: tuple[str, ...]) -> None:
        """Starts a service and waits until its own check passes.

        Not by `depends_on`: podman keeps no health checks where systemd does not run.
        """
        self.composed("up", "-d", "--no-deps", name)
        self.wait_for(name, healthy)

    def wait_for(self, name: str, healthy: tuple[str, ...], seconds: float = 180.0) -> None:
        """Waits until a check in a service's container passes."""
        ends = time.monotonic() + seconds
        command = [self.engine, "exec", f"{NAME}-{name}", *healthy]
        while subprocess.run(command, capture_output=True, check=False).returncode:
            if time.monotonic() > ends:
                logs = self.run(self.engine, "logs", f"{NAME}-{name}", check=False)
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

    def remove(self, *, keep_images: bool) -> None:
        """Everything of these names, whatever there is of it."""
        if (self.folder / "compose.yaml").exists():
            self.composed("down", "--volumes", "--timeout", "5", check=False)
        found = self.run(self.engine, "ps", "-aq", "--filter", f"name={NAME}", check=False)
        for container in found.split():
            self.run(self.engine, "rm", "-f", container, check=False)
        # A trial that was killed has left no compose file that would name them.
        for kind in ("volume", "network"):
            found = self.run(
                self.engine, kind, "ls", "--quiet", "--filter", f"name={NAME}", check=False
            )
            for name in found.split():
                self.run(self.engine, kind, "rm", "-f", name, check=False)
        if not keep_images:
            for image in ("server", "cpu", "postgres", "python"):
                self.run(self.engine, "rmi", "-f", f"{NAME}-{image}", check=False)
            # Podman keeps what stages of a build left as images without a name.
            for image in self._nameless() - self._nameless_before:
                self.run(self.engine, "rmi", "-f", image, check=False)

    def _nameless(self) -> set[str]:
        command = (self.engine, "images", "--quiet", "--filter", "dangling=true")
        return set(self.run(*command, check=False).split())


POSTGRES_READY = ("pg_isready", "--host", "127.0.0.1", "--username", "mlflow", "--dbname", "mlflow")
MLFLOW_READY = ("python", "docker/healthcheck.py", "http://127.0.0.1:5000/health")
DASHBOARD_READY = ("python", "docker/healthcheck.py", "http://127.0.0.1:8080/dashboard")


class Trial:
    """The steps, each a row of the table."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.images: dict[str, str] = {}
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
        self.step("images server and cpu", self.build)
        self.step("PostgreSQL, MLflow server", self.start)
        self.step("tables of the study, dashboard", self.study)
        self.step("sweep", self.sweep)
        self.step("finalists, promotion", self.promotion)
        self.step("prediction from the registry", self.prediction)
        self.step("second sweep, server and database killed", self.kills)
        self.step("doctor", self.doctor)

    def base_images(self) -> str:
        """Python's and PostgreSQL's: pulled, or made of Debian's packages."""
        self.stack.run(str(HERE / "make-secrets.sh"), str(self.stack.folder / "secrets"))
        wanted = re.search(r"^ARG PYTHON_IMAGE=(\S+)", (HERE / "Dockerfile").read_text(), re.M)
        services = yaml.safe_load((HERE / "compose.yaml").read_text())["services"]
        assert wanted is not None
        self.images["python"] = f"docker.io/library/{wanted[1]}"
        self.images["postgres"] = f"docker.io/library/{services['postgres']['image']}"
        if self._is_there("python") and self._is_there("postgres"):
            return "made before"
        with contextlib.suppress(StepError):
            for image in self.images.values():
                self.stack.run(self.stack.engine, "pull", image, seconds=600)
            return "pulled"
        self._make_python()
        postgres = ["--file", str(HERE / "trial" / "postgres.Dockerfile")]
        self._build("postgres", *postgres, settings=_apt_settings())
        return "no registry: made of Debian's packages"

    def _is_there(self, name: str) -> bool:
        image = f"{NAME}-{name}"
        done = subprocess.run(
            [self.stack.engine, "image", "inspect", image], capture_output=True, check=False
        )
        if done.returncode == 0:
            self.images[name] = image
        return done.returncode == 0

    def _make_python(self) -> None:
        if os.geteuid() != 0 or shutil.which("debootstrap") is None:
            raise StepError("no registry answers; without one, root and debootstrap are needed")
        with tempfile.TemporaryDirectory(dir=self.stack.folder) as scratch:
            root = Path(scratch) / "root"
            packages = "--include=python3,python3-venv,ca-certificates"
            self.stack.run(
                "debootstrap", "--variant=minbase", packages, "bookworm", str(root),
                *_debian_mirror(), seconds=900,
            )  # fmt: skip
            (root / "usr" / "bin" / "python").symlink_to("python3")
            archive = str(Path(scratch) / "root.tar")
            self.stack.run("tar", "-C", str(root), "-cf", archive, ".")
            self.stack.run(self.stack.engine, "import", archive, f"{NAME}-python")
        self.images["python"] = f"{NAME}-python"

    def _build(self, name: str, *arguments: str, settings: list[str]) -> None:
        volumes = [part for path in settings for part in ("-v", f"{path}:{path}:ro")]
        if self.stack.engine == "docker":
            volumes = []  # Its `build` takes none; it has a network instead.
        self.stack.run(
            self.stack.engine, "build", "--network", "host", *volumes, "--build-arg",
            f"PYTHON_IMAGE={self.images['python']}", "--tag", f"{NAME}-{name}", *arguments,
            str(ROOT), seconds=1500,
        )  # fmt: skip
        self.images[name] = f"{NAME}-{name}"

    def build(self) -> str:
        """The two images of the project that need no GPU."""
        ignored = ["--ignorefile", str(HERE / "Dockerfile.dockerignore")]
        ignored = [] if self.stack.engine == "docker" else ignored  # It finds the file itself.
        seconds = []
        for target in ("server", "cpu"):
            started = time.monotonic()
            file = ["--file", str(HERE / "Dockerfile"), "--target", target]
            self._build(target, *ignored, *file, settings=_pip_settings())
            seconds.append(f"{target} {time.monotonic() - started:.0f} s")
        server = self.images["server"]
        self.stack.write_compose_file({
            "postgres": self.images["postgres"], "mlflow": server, "study-tables": server,
            "optuna-dashboard": server, "sweep-cpu": self.images["cpu"],
        })  # fmt: skip
        return ", ".join(seconds)

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
        if f"{self.stack.public}/#/compare-runs" not in out:
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
            self.stack.run(engine, "kill", f"{NAME}-{service}")
            time.sleep(3)
            self.stack.run(engine, "start", f"{NAME}-{service}")
            self.stack.wait_for(service, ready)
        self.stack.wait_for("mlflow", MLFLOW_READY)
        status = self.stack.run(engine, "wait", name, seconds=600).split()[-1]
        self.stack.run(engine, "rm", "-f", name)
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
            out = self.stack.run(self.stack.engine, "logs", name)
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


def _debian_mirror() -> list[str]:
    """The mirror that this machine uses, where it tells; debootstrap knows one itself."""
    for path in sorted(Path("/etc/apt/sources.list.d").glob("*.sources")):
        found = re.search(r"^URIs: (\S+)", path.read_text(), re.M)
        if found:
            return [found[1]]
    return []


def _apt_settings() -> list[str]:
    """Sources, proxies and certificates of this machine's apt, for a build without a registry."""
    places = ("/etc/apt/sources.list.d/debian.sources", "/etc/ssl/certs/ca-certificates.crt")
    more = sorted(str(path) for path in Path("/etc/apt/apt.conf.d").glob("*proxy*"))
    return [path for path in (*places, *more) if Path(path).exists()]


def _pip_settings() -> list[str]:
    """This machine's settings of pip, and the files and folders that they name."""
    listed = [sys.executable, "-m", "pip", "config"]
    known = subprocess.run([*listed, "debug"], capture_output=True, text=True, check=False).stdout
    paths = re.findall(r"(/\S+), exists: True", known)
    values = subprocess.run([*listed, "list"], capture_output=True, text=True, check=False).stdout
    for word in re.findall(r"(?:file://)?(/[^\s']+)", values):
        # The pages of an index in a folder, `simple`, name files beside it.
        path = Path(word).parent if Path(word).name == "simple" else Path(word)
        if path.exists():
            paths.append(str(path))
    return sorted(set(paths))


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


def _engine(asked: str | None) -> str:
    """The engine to take; ends with status 2 where there is none."""
    needed = {"docker": ("docker",), "podman": ("podman", "podman-compose")}
    for name in [asked] if asked else ["docker", "podman"]:
        if all(shutil.which(program) for program in needed[name]):
            return name
    print("error: Docker with Compose, or podman and podman-compose, must be installed. Install "
          "one of them: on Debian, apt-get install podman runc netavark aardvark-dns, and pip "
          "install podman-compose.", file=sys.stderr)  # fmt: skip
    sys.exit(2)


def main() -> int:
    """Tries everything, cleans up, prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", choices=("docker", "podman"))
    parser.add_argument("--keep", action="store_true", help="leave the images for the next time")
    arguments = parser.parse_args()
    engine = _engine(arguments.engine)
    folder = Path(tempfile.mkdtemp(prefix=f"{NAME}-"))
    settings = _podman_settings(folder) if engine == "podman" else contextlib.nullcontext()
    status = 1
    try:
        with settings:
            stack = Stack(engine, folder)
            trial = Trial(stack)
            try:
                stack.remove(keep_images=True)  # What an earlier trial that was killed has left.
                trial.all()
                status = 0
            except StepError:
                pass
            finally:
                print("taking everything down ...", flush=True)
                stack.remove(keep_images=arguments.keep or trial.failed)
    except KeyboardInterrupt:
        status = 130
    width = max((len(name) for name, _, _ in trial.rows), default=0)
    for name, seconds, seen in trial.rows:
        print(f"{name:<{width}}  {seconds:6.1f} s  {seen}")
    if status:
        print(f"what was printed: {stack.log}")
    else:
        shutil.rmtree(folder)
    return status


if __name__ == "__main__":
    sys.exit(main())
