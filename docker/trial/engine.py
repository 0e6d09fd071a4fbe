"""Docker or podman, with a log of everything that it was told."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

NAME = "keras-sweeps-try"
"""What everything that the trial makes is called."""
ROOT = Path(__file__).resolve().parents[2]
LABEL = "keras-sweeps.trial"
"""The label of the trial's images; its value is `NAME`."""
_OURS = re.compile(rf"{NAME}([-_].*)?|pod_{NAME}")
"""Names of ours; the last is the pod that podman-compose puts a project's containers into."""
COMPOSE = {"docker": ("docker", "compose"), "podman": ("podman-compose",)}
"""Engine -> its Compose, which is a plugin of Docker's and a program of its own beside podman."""


class StepError(Exception):
    """A step of the trial failed; the message says how."""


def usable_engine(asked: str | None) -> str | None:
    """The engine to take, the one that is asked for or any; None where it does not answer."""
    for name in [asked] if asked else list(COMPOSE):
        if all(_answers(*command) for command in ((name, "info"), (*COMPOSE[name], "version"))):
            return name
    return None


def _answers(*command: str) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


class Engine:
    """Runs commands of an engine and others, and keeps what they print.

    Args:
        name: `docker` or `podman`.
        folder: for the log.
        variables: what the commands find in their environment beside this process's own.
    """

    def __init__(self, name: str, folder: Path, variables: dict[str, str]) -> None:
        self.name, self.log, self._variables = name, folder / "output.log", variables

    def run(self, *command: str, seconds: float = 300.0, check: bool = True) -> str:
        """What any command prints to standard output; raises StepError where it fails.

        Warnings go to standard error, and a name in one of them names nothing of ours.
        """
        try:
            done = subprocess.run(
                command, env={**os.environ, **self._variables}, cwd=ROOT, capture_output=True,
                text=True, timeout=seconds, check=False, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise StepError(f"{' '.join(command[:4])} took more than {seconds:.0f} s") from None
        except OSError as error:
            raise StepError(f"{command[0]} cannot be run ({error.strerror})") from None
        self.note(f"$ {' '.join(command)}\n{done.stdout}{done.stderr}")
        if check and done.returncode:
            last = (done.stdout + done.stderr).strip().splitlines()[-1:] or ["nothing was printed"]
            raise StepError(f"{' '.join(command[:6])} ... ended with {done.returncode}: {last[0]}")
        return done.stdout

    def note(self, text: str) -> None:
        """Adds a text to the log."""
        with self.log.open("a") as log:
            log.write(f"{text}\n")

    def __call__(self, *arguments: str, seconds: float = 300.0, check: bool = True) -> str:
        """What a command of the engine prints; raises StepError where it fails."""
        return self.run(self.name, *arguments, seconds=seconds, check=check)

    def logs(self, container: str) -> str:
        """What a container has printed, to both of its outputs."""
        command = [self.name, "logs", container]
        try:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                timeout=60, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise StepError(f"{' '.join(command)} took more than 60 s") from None
        return done.stdout

    def succeeds(self, *arguments: str) -> bool:
        """Whether a command of the engine ends with 0; it is not logged."""
        command = [self.name, *arguments]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def remove_all(self) -> None:
        """Every container, pod, volume and network of the trial's name.

        Engines filter by a part of the name, so the whole one is looked at here.
        """
        pods = ((("pod", "ls"), "Name", ("pod", "rm", "-f")),) if self.name == "podman" else ()
        for listed, field, removed in (
            (("ps", "-a"), "Names", ("rm", "-f")),
            *pods,
            (("volume", "ls"), "Name", ("volume", "rm", "-f")),
            (("network", "ls"), "Name", ("network", "rm")),
        ):
            names = self(*listed, "--format", f"{{{{.{field}}}}}", check=False).split()
            for name in filter(_OURS.fullmatch, names):
                self(*removed, name, check=False)
