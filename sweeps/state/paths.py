"""Where a sweep's files are, and how its name becomes its own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from search_spaces.errors import InputError
from sweeps.settings import SweepSettings


def used_name(name: str) -> InputError:
    """The error for a sweep's name that is taken."""
    return InputError(
        f"The name '{name}' is already used here. Continue that sweep with --resume --name {name} "
        "(and more --trials), choose another --name, or leave --name out for a new one."
    )


def claim_name(settings: SweepSettings, prefix: str) -> str:
    """The sweep's name, its folder made: as given, else `<prefix>-20261121-143005`.

    Making the folder is what claims the name, so of two sweeps in one second one gets a `-2`. A
    folder in which nothing began is free.

    Raises:
        InputError: The given name is taken.
    """
    base = settings.name or f"{prefix}-{datetime.now():%Y%m%d-%H%M%S}"
    for attempt in range(1, 100):
        name = base if attempt == 1 else f"{base}-{attempt}"
        paths = SweepPaths(Path(settings.work_dir), name)
        try:
            paths.sweep.mkdir(parents=True)
        except FileExistsError:
            if settings.name is not None:
                if not paths.state.exists():
                    return name
                break
        else:
            return name
    raise used_name(base)


@dataclass(frozen=True)
class SweepPaths:
    """Every file and folder of a sweep under the work folder."""

    work_dir: Path
    name: str

    @property
    def data(self) -> Path:
        """Prepared data sets, shared by all sweeps."""
        return self.work_dir / "data"

    @property
    def sweep(self) -> Path:
        """This sweep's own folder."""
        return self.work_dir / "sweeps" / self.name

    @property
    def server_log(self) -> Path:
        """What the server of workers prints."""
        return self.sweep / "server.log"

    @property
    def state(self) -> Path:
        """Settings and state of the sweep; what a resumed sweep begins with."""
        return self.sweep / "sweep.json"

    @property
    def packing(self) -> Path:
        """How many trials shared a GPU when the sweep was last driven."""
        return self.sweep / "packing.json"

    @property
    def log(self) -> Path:
        """What happened, with times."""
        return self.sweep / "sweep.log"

    @property
    def lock(self) -> Path:
        """Held by the one process that drives the sweep or sends its records."""
        return self.sweep / "lock"

    @property
    def report(self) -> Path:
        """The page about the sweep (`sweeps.html_report`)."""
        return self.sweep / "report.html"

    def answers(self, number: int) -> Path:
        """What the kept model of a trial says of the validation images."""
        return self.sweep / "answers" / f"trial-{number:04d}.npz"

    @property
    def requests(self) -> Path:
        """What other processes ask of the driver (`sweeps.state.requests`)."""
        return self.sweep / "requests"

    @property
    def spool(self) -> Path:
        """Everything that is to be sent to MLflow."""
        return self.sweep / "spool"

    @property
    def finalists(self) -> SweepPaths:
        """Where the comparison of finalists keeps its files: a folder of the sweep's."""
        return SweepPaths(self.work_dir, f"{self.name}/finalists")

    @property
    def finalists_file(self) -> Path:
        """What the comparison began with, and what it found."""
        return self.finalists.sweep / "finalists.json"

    def trial(self, number: int) -> Path:
        """A trial's files, until they are in MLflow."""
        return self.sweep / f"trial-{number:04d}"

    def trial_log(self, number: int) -> Path:
        """What a trial's process prints."""
        return self.trial(number) / "output.log"


def compiled_folder(settings: SweepSettings) -> Path:
    """What the backends compiled, shared by all sweeps; it can be removed at any time."""
    return Path(settings.work_dir).absolute() / "compiled"


def paths_of(settings: SweepSettings) -> SweepPaths:
    """The places of a sweep that has its name."""
    assert settings.name is not None
    return SweepPaths(Path(settings.work_dir).absolute(), settings.name)
