"""What an MLflow store holds, read in a form in which two stores can be compared.

Ids differ between stores, so every object is known by its origin: its id in the store where it was
made, which a copy carries as a tag.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any

from mlflow.entities import Experiment, LoggedModel, Metric, Run, ViewType
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from tracking.client import open_client
from tracking.tags import Tag

logging.getLogger("mlflow").setLevel(logging.WARNING)  # No remark on every version.
logging.getLogger("alembic").setLevel(logging.WARNING)

_ID = re.compile(r"(?<![0-9a-f])(?:m-)?[0-9a-f]{32}(?![0-9a-f])|(?<=#/)experiments/\d+")
"""Ids of runs and models, and of experiments in links of notes."""
_PAGE = 1000
Ids = Mapping[str, str]
Point = tuple[str, int, int, str]
"""A metric's key, step, time in milliseconds and value: as text, since NaN equals itself there."""


@dataclass(frozen=True)
class RunContent:
    """Everything of a run; ids in it are those of the store that it goes to."""

    experiment: str
    name: str
    status: str
    stage: str
    start_time: int | None
    end_time: int | None
    params: Mapping[str, str]
    tags: Mapping[str, str]
    points: frozenset[Point]
    inputs: frozenset[tuple[str, ...]]
    outputs: frozenset[tuple[str, int]]
    files: Mapping[str, str]


@dataclass(frozen=True)
class ModelContent:
    """Everything of a logged model."""

    experiment: str
    name: str
    status: str
    kind: str
    source_run: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    points: frozenset[tuple[str, ...]]
    files: Mapping[str, str]


@dataclass(frozen=True)
class VersionContent:
    """Everything of a registered version."""

    model: str
    run: str
    description: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class RegisteredContent:
    """Everything of a registered model, its versions by number."""

    description: str
    tags: Mapping[str, str]
    aliases: Mapping[str, str]
    versions: Mapping[str, VersionContent] = field(default_factory=dict)


@dataclass
class Counts:
    """What a store holds, or what was added to one."""

    experiments: int = 0
    runs: int = 0
    metric_points: int = 0
    artifacts: int = 0
    logged_models: int = 0
    registered_models: int = 0
    versions: int = 0
    aliases: int = 0

    def text(self) -> str:
        """All of them in one line."""
        parts = [f"{getattr(self, one.name):,} {one.name}" for one in fields(self)]
        return ", ".join(parts).replace("_", " ")


class StoreReader:
    """Reads one store, page by page.

    Args:
        ids: what an id in a text is to be called; empty for as it is.
    """

    def __init__(self, uri: str, ids: Ids) -> None:
        self.uri, self._ids = uri, ids
        self.client = open_client(uri)

    def mapped(self, text: str | None) -> str:
        """A text with the ids that the other store has."""
        return _ID.sub(lambda match: self._ids.get(match[0], match[0]), text or "")

    def experiments(self) -> list[Experiment]:
        """All experiments, deleted ones too, the oldest first."""
        found = _pages(
            lambda token: self.client.search_experiments(
                view_type=ViewType.ALL, max_results=_PAGE, page_token=token
            )
        )
        return sorted(found, key=lambda one: int(one.experiment_id))

    def runs(self, experiment_id: str, text: str = "") -> Iterator[Run]:
        """The runs of an experiment, deleted ones too."""
        return _pages(
            lambda token: self.client.search_runs(
                [experiment_id], text, ViewType.ALL, _PAGE, page_token=token
            )
        )

    def models(self, experiment_id: str, text: str | None = None) -> Iterator[LoggedModel]:
        """The logged models of an experiment."""
        return _pages(
            lambda token: self.client.search_logged_models(
                [experiment_id], filter_string=text, max_results=50, page_token=token
            )
        )

    def registered(self) -> list[RegisteredModel]:
        """All registered models."""
        return list(
            _pages(
                lambda token: self.client.search_registered_models(
                    max_results=_PAGE, page_token=token
                )
            )
        )

    def versions(self, name: str) -> list[ModelVersion]:
        """The versions of a registered model, the oldest first."""
        # MLflow's filters know no escapes.
        quote = '"' if "'" in name else "'"
        found = _pages(
            lambda token: self.client.search_model_versions(
                f"name={quote}{name}{quote}", max_results=_PAGE, page_token=token
            )
        )
        return sorted(found, key=lambda one: int(one.version))

    def run_content(self, run: Run, experiment: str) -> RunContent:
        """Everything of a run, as the other store has it."""
        info, data = run.info, run.data
        inputs = run.inputs.dataset_inputs if run.inputs else []
        outputs = run.outputs.model_outputs if run.outputs else []
        return RunContent(
            experiment, str(info.run_name), str(info.status), str(info.lifecycle_stage),
            info.start_time, info.end_time, dict(data.params), self._tags(data.tags),
            frozenset(point(metric) for metric in self.metrics(run)),
            frozenset(dataset_key(one) for one in inputs),
            frozenset((self.mapped(one.model_id), one.step) for one in outputs),
            self.files(str(info.artifact_uri)),
        )  # fmt: skip

    def metrics(self, run: Run) -> Iterator[Metric]:
        """Every point of every metric of a run."""
        for key in run.data.metrics:
            yield from self.client.get_metric_history(run.info.run_id, key)

    def model_content(self, model: LoggedModel, experiment: str) -> ModelContent:
        """Everything of a logged model, as the other store has it."""
        points = frozenset(
            (*map(str, point(one)), self.mapped(one.run_id), str(one.dataset_name))
            for one in model.metrics or []
        )
        return ModelContent(
            experiment, model.name, str(model.status), str(model.model_type or ""),
            self.mapped(model.source_run_id), dict(model.params), self._tags(model.tags), points,
            self.files(model.artifact_location),
        )  # fmt: skip

    def registered_content(self, model: RegisteredModel) -> RegisteredContent:
        """Everything of a registered model, as the other store has it."""
        versions = {
            str(one.version): VersionContent(
                self.mapped(model_of(one)), self.mapped(one.run_id), one.description or "",
                self._tags(one.tags),
            )
            for one in self.versions(model.name)
        }  # fmt: skip
        aliases = {alias: str(number) for alias, number in model.aliases.items()}
        return RegisteredContent(model.description or "", self._tags(model.tags), aliases, versions)

    def _tags(self, tags: Mapping[str, str]) -> dict[str, str]:
        return {
            key: self.mapped(text) for key, text in tags.items()
            if key != Tag.ORIGIN and not key.startswith(Tag.COPIED_PREFIX)
        }  # fmt: skip

    def files(self, location: str) -> dict[str, str]:
        """Path -> SHA-256 of every file below an artifact location."""
        found = {}
        with tempfile.TemporaryDirectory(prefix="keras-sweeps-") as folder:
            for path in artifact_paths(self.uri, location):
                file = self.fetch(location, path, Path(folder))
                with file.open("rb") as stream:
                    found[path] = hashlib.file_digest(stream, "sha256").hexdigest()
                file.unlink()
        return found

    def fetch(self, location: str, path: str, folder: Path) -> Path:
        """Downloads one artifact; in a model's description ids are those of the other store."""
        files: Any = get_artifact_repository(location, tracking_uri=self.uri)
        # Its own folder, because two paths may end alike.
        target = folder / hashlib.sha256(path.encode()).hexdigest()[:16]
        target.mkdir(exist_ok=True)
        file = Path(files.download_artifacts(path, str(target)))
        if file.name == MLMODEL_FILE_NAME:  # The one file that holds ids.
            file.write_text(self.mapped(file.read_text(encoding="utf-8")), encoding="utf-8")
        return file


def artifact_paths(uri: str, location: str, folder: str | None = None) -> Iterator[str]:
    """Every file below an artifact location, as a relative path.

    Raises:
        OSError: A path would climb out of the folder.
    """
    files: Any = get_artifact_repository(location, tracking_uri=uri)
    for entry in files.list_artifacts(folder):
        path = PurePosixPath(entry.path)
        if path.is_absolute() or ".." in path.parts:
            raise OSError(f"an artifact's path must stay below its run: {entry.path}")
        if entry.is_dir:
            yield from artifact_paths(uri, location, entry.path)
        else:
            yield str(entry.path)


def point(metric: Metric) -> Point:
    """A metric's point in comparable form."""
    value = float(metric.value)
    text = "nan" if math.isnan(value) else repr(value)
    return str(metric.key), int(metric.step), int(metric.timestamp), text


def dataset_key(entry: Any) -> tuple[str, ...]:
    """A run's data set in comparable form."""
    data = entry.dataset
    tags = sorted(f"{tag.key}={tag.value}" for tag in entry.tags)
    texts = (data.name, data.digest, data.source_type, data.source, data.schema, data.profile)
    return (*(text or "" for text in texts), *tags)


def model_of(version: ModelVersion) -> str:
    """The logged model that a version means, whichever way its source is written."""
    found = re.search(r"m-[0-9a-f]{32}", version.source or "")
    return found[0] if found else str(version.source)


def is_remark(key: str) -> bool:
    """Whether a tag is somebody's own, which the server's people may have changed."""
    own = (Tag.RUN_NOTE, Tag.NOTE_CHECKSUM, "mlflow.runName")
    return not key.startswith((Tag.PREFIX, "mlflow.")) or key in own


def _pages(page: Callable[[str | None], Any]) -> Iterator[Any]:
    token = None
    while True:
        found = page(token)
        yield from found
        token = found.token
        if not token:
            return
