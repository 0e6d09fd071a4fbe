"""What a sweep began with, on disk beside its spool, and how another command finds it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.objectives import get_objective
from pipelines.runtime.filesystem import write_json_atomically
from pipelines.training.options import TrainingOptions, from_stored
from search_spaces.errors import InputError, shown
from search_spaces.files import UnusableFileError, read_json
from search_spaces.registry import earlier_name, space_called_earlier
from search_spaces.stored_values import as_kind
from sweeps.executors.credentials import check_passed
from sweeps.settings import STORAGE_VARIABLE, SweepSettings, check_name
from sweeps.state.paths import SweepPaths
from tracking.addresses import location_of, redacted
from tracking.stores import resolve_uri
from tracking.tags import Tag

FORMAT = 2
RUNNING, INTERRUPTED, FINISHED = "running", "interrupted", "finished"
SEARCH, BASELINES = "sweep", "baselines"
"""What a sweep's folder holds: a search, or the published models trained as published."""
_UID = re.compile(r"[A-Za-z0-9._-]{1,100}")
"""It becomes a part of texts by which runs are searched."""


@dataclass(frozen=True)
class SweepFile:
    """The sweep's own description of itself.

    Attributes:
        uid: names this sweep among all sweeps everywhere.
        status: `running` also after a kill; `interrupted`; `finished`.
        kind: SEARCH or BASELINES.
        begun_in: the format of the version that the sweep began with; see `has_earlier_names`.
    """

    uid: str
    status: str
    settings: SweepSettings
    data_name: str
    data_fingerprint: str
    space_fingerprint: str
    kind: str = SEARCH
    begun_in: int = FORMAT

    @property
    def has_earlier_names(self) -> bool:
        """Whether its runs and models call spaces as they were called before the core spaces."""
        return self.begun_in < 2

    @property
    def space_tags(self) -> dict[str, str]:
        """The tag of its runs' space, where it had another name than now."""
        name = self.settings.space
        if not self.has_earlier_names or earlier_name(name) == name:
            return {}
        return {Tag.SPACE: earlier_name(name)}

    @property
    def is_finished(self) -> bool:
        """Whether the sweep came to its own end."""
        return self.status == FINISHED


def write_sweep_file(path: Path, file: SweepFile) -> None:
    """Writes it so that a loss of power leaves the old or the new content.

    Passwords in addresses are left out; who resumes such a sweep gives the address again.
    """
    settings = file.settings.stored()
    for name in ("tracking_uri", "storage"):
        if settings[name] is not None:
            settings[name] = redacted(settings[name])
    body = {
        "format": FORMAT,
        "uid": file.uid,
        "status": file.status,
        "settings": settings,
        "data_name": file.data_name,
        "data_fingerprint": file.data_fingerprint,
        "space_fingerprint": file.space_fingerprint,
        **({} if file.kind == SEARCH else {"kind": file.kind}),
        **({} if file.begun_in == FORMAT else {"begun_in": file.begun_in}),
    }
    write_json_atomically(path, body)


def read_sweep_file(path: Path) -> SweepFile:
    """Reads what `write_sweep_file` wrote.

    Raises:
        InputError: It is missing or not such a file.
    """
    try:
        return _sweep_file(_upgraded(read_json(path)))
    except _LaterFormatError as error:
        raise InputError(
            f"{path} is of a later version of keras-sweeps (format {error}; this one reads "
            f"up to {FORMAT}). Use that version: pip install --upgrade keras-sweeps."
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = str(error) if isinstance(error, UnusableFileError) else type(error).__name__
        raise InputError(
            f"{path} is damaged ({why}), so its sweep cannot be opened. Restore "
            "the file from a copy; its runs in MLflow are not affected."
        ) from error


def _sweep_file(body: Mapping[str, Any]) -> SweepFile:
    """The description in a file's values.

    Raises:
        UnusableFileError, InputError, KeyError: They are none.
    """
    settings = as_kind(SweepSettings, body["settings"], extra=True)
    training = as_kind(TrainingOptions, vars(from_stored(body["settings"])))
    known = {"kind": SEARCH, "begun_in": FORMAT} | dict(body)
    file = as_kind(
        SweepFile, {**known, "settings": replace(settings, training=training)}, extra=True
    )
    for name, value, valid in (
        ("status", file.status, (RUNNING, INTERRUPTED, FINISHED)),
        ("kind", file.kind, (SEARCH, BASELINES)),
    ):
        if value not in valid:
            raise UnusableFileError(f"its '{name}' is {shown(value)}")
    if not _UID.fullmatch(file.uid):
        raise UnusableFileError(f"its 'uid' is {shown(file.uid)}")
    get_objective(settings.objective)
    return file


def _upgraded(body: Any) -> dict[str, Any]:
    """What a sweep of an earlier version means in this one.

    Whatever a version decided without saying it is said here, so that the sweep stays what it was.

    Raises:
        _LaterFormatError: A later version wrote it.
    """
    if not isinstance(body, dict) or not isinstance(body.get("settings"), dict):
        raise UnusableFileError("it holds no settings")
    if type(body["format"]) is not int or body["format"] < 1:
        raise UnusableFileError(f"its 'format' is {shown(body['format'])}")
    if body["format"] == 1:
        return {**body, "format": FORMAT, "begun_in": 1, "settings": _settings_of_format_1(body)}
    if body["format"] != FORMAT:
        raise _LaterFormatError(body["format"])
    # Written before there was such a setting.
    return {**body, "settings": {"defaults": 2} | body["settings"]}


class _LaterFormatError(Exception):
    """A later version has written the file."""


_DEFAULTS_OF_FORMAT_1 = {
    "num_trials": 24, "sampler": "tpe", "min_epochs": 1, "protect_baselines": True, "defaults": 1,
}  # fmt: skip


def _settings_of_format_1(body: Mapping[str, Any]) -> dict[str, Any]:
    """`cnn` and `mlp` had parameters for each block and layer; those have other names now.

    What had other defaults is what it was.
    """
    settings: dict[str, Any] = _DEFAULTS_OF_FORMAT_1 | body["settings"]
    called = settings["space"]
    settings["space"] = space_called_earlier(called)
    if settings["space"] != called and settings.get("experiment") is None:
        settings["experiment"] = f"{called}-{body['data_name']}"
    return settings


_KINDS = {SEARCH: "a sweep that searches", BASELINES: "a sweep of --baselines-only"}


def sweep_files(work_dir: Path) -> list[Path]:
    """The descriptions of all sweeps in a work folder.

    Raises:
        InputError: It may not be looked into.
    """
    try:
        return list((work_dir / "sweeps").glob("*/sweep.json"))
    except OSError as error:
        raise InputError(
            f"--work-dir must be a folder that can be read. Received: {work_dir} "
            f"({error.strerror})."
        ) from None


def find_sweep(
    work_dir: Path, name: str | None, *, finished: bool = False, kind: str | None = None
) -> SweepPaths:
    """The named sweep, or the one that began last.

    Args:
        finished: whether one that is finished will do.
        kind: SEARCH or BASELINES, where only that will do.

    Raises:
        InputError: There is none.
    """
    if name is not None:
        check_name(name)
        paths = SweepPaths(work_dir.absolute(), name)
        # On file systems that ignore case another sweep's file would exist, too.
        known = sorted(path.parent.name for path in sweep_files(work_dir))
        if name not in known:
            there = f"There are: {', '.join(known)}." if known else "It has none."
            raise InputError(f"There is no sweep '{name}' in {work_dir / 'sweeps'}. {there}")
        found_kind = read_sweep_file(paths.state).kind if kind is not None else None
        if found_kind != kind:
            raise InputError(
                f"This needs {_KINDS[kind or SEARCH]}; '{name}' is {_KINDS[found_kind or SEARCH]}. "
                "Name another one."
            )
        return paths
    found = sorted(
        sweep_files(work_dir),
        key=lambda path: path.stat().st_mtime_ns,
        reverse=True,
    )
    for path in found:
        if finished and kind is None:
            return SweepPaths(work_dir.absolute(), path.parent.name)
        file = read_sweep_file(path)
        if (finished or not file.is_finished) and kind in (None, file.kind):
            return SweepPaths(work_dir.absolute(), path.parent.name)
    if finished:
        raise InputError(
            f"There is no sweep in {work_dir / 'sweeps'}. Name its folder with --work-dir, or "
            "start one: `keras-sweeps run --space cnn`."
        )
    raise InputError(
        f"There is no unfinished sweep in {work_dir / 'sweeps'}. To continue a finished one: "
        "--resume --name NAME, with more --trials N or a new --timeout TIME."
    )


def swept_spaces(work_dir: Path) -> set[str]:
    """The spaces, ours and others, that the sweeps in a work folder are over."""
    found = set()
    for path in sweep_files(work_dir):
        with contextlib.suppress(InputError):
            found.add(read_sweep_file(path).settings.space)
    return found


def with_passwords(settings: SweepSettings) -> SweepSettings:
    """Addresses whose password was left out, as the environment has them, if it means the same."""
    found: dict[str, Any] = {}
    for name, variable in (("tracking_uri", "MLFLOW_TRACKING_URI"), ("storage", STORAGE_VARIABLE)):
        address, known = getattr(settings, name), os.environ.get(variable)
        if address and known and "***" in address and location_of(address) == location_of(known):
            found[name] = known
    return replace(settings, **found)


def check_addresses(settings: SweepSettings, names: Iterable[str]) -> None:
    """Raises InputError for an address whose password was left out when it was stored."""
    for name in names:
        address = getattr(settings, name)
        if address is not None and "***" in address:
            raise InputError(
                f"The sweep's --{name.replace('_', '-')} {address} had a password, which is not "
                "stored. Give the address without it, and the password in "
                "MLFLOW_TRACKING_PASSWORD (MLflow) or PGPASSFILE (PostgreSQL); or set the whole "
                f"address in MLFLOW_TRACKING_URI or {STORAGE_VARIABLE}."
            )


def check_same_store(file: SweepFile, uri: str, *, sent: bool) -> None:
    """Raises InputError where a part of the sweep is in one tracking store and `uri` is another.

    Args:
        sent: whether anything was sent yet.
    """
    own = resolve_uri(file.settings.tracking_uri)
    if sent and location_of(uri) != location_of(own):
        raise InputError(
            f"The sweep is tracked in {redacted(own)} already and cannot continue in "
            f"{redacted(uri)}. Leave --tracking-uri out."
        )


def check_same_data(file: SweepFile, data_fingerprint: str, space_fingerprint: str) -> None:
    """Raises InputError where data set or space are not what the sweep began with."""
    for what, was, is_now in (
        ("data set", file.data_fingerprint, data_fingerprint),
        ("space", file.space_fingerprint, space_fingerprint),
    ):
        if was != is_now:
            raise InputError(
                f"The sweep cannot continue: its {what} has changed since it began (fingerprint "
                f"{was[:12]}, now {is_now[:12]}). Restore it, or start a new sweep."
            )


@dataclass(frozen=True)
class StoredSweep:
    """Where a sweep is and what it says of itself."""

    paths: SweepPaths
    file: SweepFile

    @property
    def uri(self) -> str:
        """The tracking store."""
        return resolve_uri(self.file.settings.tracking_uri)


def passing(sweep: StoredSweep, names: tuple[str, ...] | None) -> StoredSweep:
    """The sweep, whose workers get these variables; None for those that it was started with.

    Raises:
        InputError: One of them is not set.
    """
    if names is None:
        return sweep
    check_passed(names)
    settings = replace(sweep.file.settings, pass_env=names)
    return replace(sweep, file=replace(sweep.file, settings=settings))


def stored_sweep(
    work_dir: Path,
    name: str | None,
    *,
    tracking_uri: str | None = None,
    storage: str | None = None,
    needed: Iterable[str] = ("tracking_uri",),
    kind: str | None = None,
) -> StoredSweep:
    """Returns the named sweep, or the one that began last, with the addresses that hold now.

    Args:
        tracking_uri, storage: addresses in place of the sweep's own; None for its own.
        needed: those of the two that must be complete, with a password that was left out.
        kind: SEARCH or BASELINES, where only that will do.

    Raises:
        InputError: There is none of that name, or an address with a password must be given again.
    """
    paths = find_sweep(work_dir, name, finished=True, kind=kind)
    file = read_sweep_file(paths.state)
    settings = replace(
        file.settings,
        tracking_uri=tracking_uri or file.settings.tracking_uri,
        work_dir=str(paths.work_dir),
        storage=storage or file.settings.storage,
    )
    settings = with_passwords(settings)
    check_addresses(settings, needed)
    return StoredSweep(paths, replace(file, settings=settings))
