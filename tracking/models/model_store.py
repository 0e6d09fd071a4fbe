"""Model files out of MLflow: found by run or by registered version, fetched, and verified.

Only the `.keras` file of a model is ever fetched, and only when its checksum is the one that was
noted when the model was logged: what was tampered with, or put there by somebody else, is refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from search_spaces.errors import InputError
from search_spaces.hyperparameters.parameter import INACTIVE
from tracking.artifact_places import gone
from tracking.client import open_client
from tracking.errors import MISSING_OR_WRONG, unless
from tracking.filters import quoted, tag_is
from tracking.metric_names import MetricNames
from tracking.tags import Tag, class_names_of

KERAS_FILE = "data/model.keras"
"""In the folder of a logged model."""
CHAMPION = "champion"
"""The alias of the version that serves, and that a bare name means."""


@dataclass(frozen=True)
class StoredModel:
    """A logged model of a run, or a registered version of one.

    Attributes:
        tags: those of the logged model: data, class names, background, checksum.
        name, version: None for a model that is not registered.
    """

    model_id: str
    run_id: str
    tags: Mapping[str, str]
    name: str | None = None
    version: int | None = None

    @property
    def label(self) -> str:
        """How people call it: `mnist-cnn version 3`, or `the model of run 0123abcd`."""
        if self.version is None:
            return f"the model of run {self.run_id[:8]}"
        return f"{self.name} version {self.version}"

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class; empty where they are not known."""
        return class_names_of(self.tags)


@dataclass(frozen=True)
class RunFacts:
    """What is known of the run that a model comes from, and of the run that it is a child of.

    Metrics have their plain names (`tracking.metric_names`).
    """

    run_id: str
    name: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    parent_name: str = ""
    parent_tags: Mapping[str, str] = field(default_factory=dict)
    parent_metrics: Mapping[str, float] = field(default_factory=dict)


class ForeignModelError(InputError):
    """A version whose model keras-sweeps has not logged, or whose model was deleted."""


class ModelStore:
    """The models of one MLflow store."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._client = open_client(uri)

    def of_run(self, run_id: str) -> StoredModel:
        """The model that a run kept.

        Raises:
            InputError: There is no such run, or it kept no model.
        """
        try:
            run = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code not in MISSING_OR_WRONG:
                raise
            raise InputError(
                f"There is no run '{run_id}' in this MLflow store. `mlflow ui` lists its runs."
            ) from error
        outputs = run.outputs.model_outputs if run.outputs else []
        if not outputs:
            raise InputError(
                f"Run '{run_id}' has no stored model: a sweep stores only the models of its best "
                "trials (--keep-models) and of the winner of its finalists, and none that uses "
                "custom layers, because it could not be loaded without their code."
            )
        return self._logged(outputs[-1].model_id, run_id)

    def run_of_sweep(self, name: str) -> tuple[str, str]:
        """The run of a sweep's winner, and what it is: of its finalists, or else its best trial.

        Raises:
            InputError: There is no such sweep, it has no winner, or its finalists are not compared
                to the end.
        """
        experiments = [str(e.experiment_id) for e in self._client.search_experiments()]

        def latest(text: str) -> Run | None:
            text = f"{tag_is(Tag.SWEEP, name)} AND {text}"
            order = ["attributes.start_time DESC"]
            found = self._client.search_runs(experiments, text, max_results=1, order_by=order)
            return found[0] if found else None

        final = latest(f"tags.`{Tag.KIND}` = 'finalists'")
        if final is not None:
            uid = final.data.tags.get(Tag.UID, "")
            winner = latest(f"tags.`{Tag.WINNER}` = 'true' AND {tag_is(Tag.UID, uid)}")
            if winner is None or final.info.status != "FINISHED":
                raise InputError(
                    f"Sweep '{name}' has no winner yet: the comparison of its finalists has not "
                    f"ended. Run `keras-sweeps finalize {name}`, or name a run's id."
                )
            return str(winner.info.run_id), "the winner of its finalists"
        sweep = latest(f"tags.`{Tag.KIND}` = 'sweep'")
        if sweep is None:
            raise InputError(
                f"There is no sweep or run '{name}' in this MLflow store. `mlflow ui` lists them."
            )
        tags = sweep.data.tags
        number, uid = tags.get(Tag.BEST_TRIAL), tags.get(Tag.UID, "")
        trial = latest(
            f"{tag_is(Tag.UID, uid)} AND tags.`{Tag.KIND}` = 'trial' AND "
            f"{tag_is(Tag.TRIAL, number)}"
        )
        if number is None or trial is None:
            raise InputError(
                f"Sweep '{name}' has no best trial: it has not ended, or no trial completed. "
                f"`keras-sweeps run --resume --name {name}` continues it."
            )
        count = int(_metrics(sweep).get("num_complete", 0))
        what = (
            f"best trial of {count} (single seed, so its score is optimistic); `keras-sweeps "
            f"finalize {name}` chooses on fresh seeds"
        )
        return str(trial.info.run_id), what

    def facts(self, run_id: str) -> RunFacts:
        """What MLflow holds of a run, without parameters that were inactive."""
        run = self._client.get_run(run_id)
        params = {key: value for key, value in run.data.params.items() if value != INACTIVE}
        parent_id = run.data.tags.get(MLFLOW_PARENT_RUN_ID)
        name = str(run.info.run_name)
        tags, metrics = dict(run.data.tags), _metrics(run)
        parent = None
        with unless(MISSING_OR_WRONG):  # Deleted since; the model is none the worse for it.
            parent = self._client.get_run(parent_id) if parent_id else None
        if parent is None:
            return RunFacts(run_id, name, params, tags, metrics)
        return RunFacts(
            run_id, name, params, tags, metrics, str(parent.info.run_name),
            dict(parent.data.tags), _metrics(parent),
        )  # fmt: skip

    def registered(self, reference: str) -> StoredModel:
        """The version that `NAME@alias` or `NAME/3` means; a bare `NAME` means its champion.

        Raises:
            InputError: There is none.
        """
        match = re.fullmatch(r"([^@/:]+)(?:@([^@/]+)|/(\d+))?", reference)
        if match is None:
            raise InputError(
                "--model must be NAME, NAME@alias or NAME/VERSION, such as cnn-mnist@champion or "
                f"cnn-mnist/3. Received: '{reference}'."
            )
        name, alias, number = match[1], match[2] or CHAMPION, match[3]
        try:
            if number is not None:
                found = self._client.get_model_version(name, number)
            else:
                found = self._client.get_model_version_by_alias(name, alias)
        except MlflowException as error:
            if error.error_code not in MISSING_OR_WRONG:
                raise
            raise self._missing(reference, name) from error
        return self.of_version(found)

    def of_version(self, version: ModelVersion) -> StoredModel:
        """The registered version as a stored model.

        Raises:
            ForeignModelError: It is none of ours, or was deleted.
        """
        # A version points to a logged model, or where it was registered in the UI or by a program,
        # to its folder or to its run.
        where = version.source or ""
        source = re.search(r"(?:^models:|/models)/(m-[0-9a-f]+)(?:/artifacts)?/?$", where)
        run = re.match(r"runs:/([0-9a-f]{32})/", where)
        if source is not None:
            model: StoredModel | None = self._logged(source[1], version.run_id or "")
        else:
            model = self._of_source_run(run[1]) if run else None
        if model is None:
            raise _foreign(f"{version.name} version {version.version}")
        return StoredModel(
            model.model_id, model.run_id, model.tags, version.name, int(version.version)
        )

    def _of_source_run(self, run_id: str) -> StoredModel | None:
        with contextlib.suppress(InputError):  # Somebody else's, without a logged model.
            return self.of_run(run_id)
        return None

    def fetch(self, model: StoredModel, folder: Path) -> Path:
        """Downloads the `.keras` file into an existing folder; returns its path.

        Raises:
            InputError: It is missing, or its content is not the one that was logged.
        """
        checksum = model.tags.get(Tag.MODEL_SHA256)
        if checksum is None:
            raise _foreign(model.label)
        location = self._client.get_logged_model(model.model_id).artifact_location
        # Artifacts that a server hands on are reached through it, so it has to be named.
        files: Any = get_artifact_repository(location, tracking_uri=self._uri)
        try:
            path = Path(files.download_artifacts(KERAS_FILE, str(folder)))
        except (MlflowException, OSError) as error:
            why = gone(self._uri, location) or type(error).__name__
            raise InputError(
                f"{KERAS_FILE} of {model.label} cannot be read from the artifact store: {why}."
            ) from error
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != checksum:
            raise InputError(
                f"{model.label} is not loaded: its {KERAS_FILE} was changed after it was logged "
                f"(checksum {found[:12]}, logged {checksum[:12]})."
            )
        return path

    def _logged(self, model_id: str, run_id: str) -> StoredModel:
        try:
            model = self._client.get_logged_model(model_id)
        except MlflowException as error:
            if error.error_code not in MISSING_OR_WRONG:
                raise
            raise ForeignModelError(
                f"Model {model_id} was deleted from the MLflow store."
            ) from error
        return StoredModel(model_id, model.source_run_id or run_id, dict(model.tags))

    def _missing(self, reference: str, name: str) -> InputError:
        known = sorted(model.name for model in self._client.search_registered_models())
        if name not in known:
            there = f"There are: {', '.join(known)}." if known else "None is registered."
            rule = f"There is no registered model '{reference}' in this MLflow store."
            return InputError(f"{rule} {there}")
        aliases = self._client.get_registered_model(name).aliases
        versions = self._client.search_model_versions(f"name = {quoted(name)}", max_results=1000)
        numbers = sorted(int(version.version) for version in versions)
        has = [
            *(f"{name}@{alias} (version {v})" for alias, v in sorted(aliases.items())),
            *(f"{name}/{number}" for number in numbers),
        ]
        wanted = reference if reference != name else f"{name}@{CHAMPION}"
        what = "version" if "/" in wanted else "alias"
        return InputError(
            f"The registered model '{name}' has no such {what}. Received: '{wanted}'. There are: "
            f"{', '.join(has) or 'none'}."
        )


def _metrics(run: Run) -> dict[str, float]:
    """A run's metrics by their plain names."""
    return MetricNames.of(run.data.tags).plain(run.data.metrics)


def _foreign(label: str) -> InputError:
    return ForeignModelError(
        f"{label} is not loaded: it has no checksum, so it was not logged by keras-sweeps. A file "
        "that you trust can be given with --file."
    )
