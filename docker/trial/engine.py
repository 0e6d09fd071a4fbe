"""Docker or podman, with a log of everything that it was told."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

NAME = "keras-sweeps-try"
"""What everything that the trial makes is called."""
ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {"docker": ("docker",), "podman": ("podman", "podman-compose")}


class StepError(Exception):
    """A step of the trial failed; the message says how."""


def usable_engine(asked: str | None) -> str | None:
    """The engine to take, the one that is asked for or any; None where it does not answer."""
    for name in [asked] if asked else list(PROGRAMS):
        if all(shutil.which(program) for program in PROGRAMS[name]):
            done = subprocess.run([name, "info"], capture_output=True, check=False)
            if done.returncode == 0:
                return name
    return None


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
        """What any command prints; raises StepError where it fails."""
        try:
            done = subprocess.run(
                command, env={**os.environ, **self._variables}, cwd=ROOT, capture_output=True,
                text=True, timeout=seconds, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise StepError(f"{' '.join(command[:4])} took more than {seconds:.0f} s") from None
        with self.log.open("a") as log:
            log.write(f"$ {' '.join(command)}\n{done.stdout}{done.stderr}\n")
        if check and done.returncode:
            last = (done.stdout + done.stderr).strip().splitlines()[-1:] or ["nothing was printed"]
            raise StepError(f"{' '.join(command[:6])} ... ended with {done.returncode}: {last[0]}")
        return done.stdout + done.stderr

    def __call__(self, *arguments: str, seconds: float = 300.0, check: bool = True) -> str:
        """What a command of the engine prints; raises StepError where it fails."""
        return self.run(self.name, *arguments, seconds=seconds, check=check)

    def succeeds(self, *arguments: str) -> bool:
        """Whether a command of the engine ends with 0; it is not logged."""
        command = [self.name, *arguments]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def remove_all(self) -> None:
        """Every container, volume and network of the trial's name."""
        for listed, removed in (
            (("ps", "-aq"), ("rm", "-f")),
            (("volume", "ls", "-q"), ("volume", "rm", "-f")),
            (("network", "ls", "-q"), ("network", "rm")),
        ):
            for found in self(*listed, "--filter", f"name={NAME}", check=False).split():
                self(*removed, found, check=False)
