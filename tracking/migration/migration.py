"""Copies one MLflow store into another through MLflow's own API: what is missing, and only that.

Every step looks first whether it was done, so a copy that was interrupted is simply begun again.
What people decided on the server since (an alias, a remark, a run that was deleted) stays.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import (
    Experiment,
    LoggedModel,
    Run,
)
from mlflow.models.model import MLMODEL_FILE_NAME

from search_spaces.errors import InputError
from tracking.addresses import redacted
from tracking.artifact_places import local_folder
from tracking.migration.contents import (
    Counts,
    StoreReader,
    is_remark,
)
from tracking.migration.filling import BEGUN, MARK, WHOLE, Filler
from tracking.migration.places import check_artifact_places
from tracking.migration.registry import RegistryMigration
from tracking.stores import sqlite_path
from tracking.tags import Tag

Say = Callable[[str], None]
STAYS, DELETED, GONE = "stays", "deleted", "gone"


@dataclass
class Pairs:
    """What belongs together: of the source, of the target."""

    runs: list[tuple[str, Run, str]] = field(default_factory=list)
    """Experiment, run of the source, id of its copy."""
    models: list[tuple[str, LoggedModel, str]] = field(default_factory=list)


class Migration:
    """One copy.

    Args:
        source, target: addresses of the stores.
        say: told what is going on, a line at a time.
    """

    def __init__(self, source: str, target: str, say: Say) -> None:
        self.ids: dict[str, str] = {}
        self.source = StoreReader(source, self.ids)
        self.target = StoreReader(target, {})
        self.pairs = Pairs()
        self.added = Counts()
        self.kept: list[str] = []
        """What was copied before and deleted there since, in words."""
        self.gone_experiments: set[str] = set()
        self._say = say
        self._registry = RegistryMigration(self.source, self.target, self.ids, self.added)
        self._filler = Filler(self.source, self.target, self.ids, self.added, self._registry.own)
        self._to: MlflowClient = self.target.client

    def check(self) -> None:
        """What can be known before anything is copied.

        Raises:
            InputError: Files are not where the store says, or not its own, or a name, or a
                version's number, means something else on the server.
        """
        check_file_locations(self.source)
        check_artifact_places(self.source)
        for experiment in self.source.experiments():
            found = self._to.get_experiment_by_name(experiment.name)
            if found and found.lifecycle_stage == "deleted" and MARK not in found.tags:
                raise InputError(
                    f"An experiment's name must be free on the server, or in use. Received: "
                    f"'{experiment.name}', of which the server has a deleted one of its own. "
                    "Restore that there, or rename one of them."
                )
        self._registry.check()

    @property
    def gone(self) -> Mapping[str, Collection[str]]:
        """Registered models -> versions and aliases that were copied and deleted there since."""
        return self._registry.gone

    def run(self) -> None:
        """Copies everything that is missing, but for what was there and was deleted."""
        filled: list[tuple[Experiment, str]] = []
        for experiment in self.source.experiments():
            found, stage = self._experiment(experiment)
            if stage == GONE:
                self.gone_experiments.add(experiment.name)
                if experiment.lifecycle_stage == "active":
                    self.kept.append(f"experiment '{experiment.name}': deleted")
                self._look_up(experiment, str(found.experiment_id))
                continue
            filled.append((found, stage))
            self._objects(experiment, str(found.experiment_id))
        for number, (_, run, copy) in enumerate(self.pairs.runs, 1):
            self._filler.run(run, copy)
            if number % 10 == 0 or number == len(self.pairs.runs):
                self._say(f"runs      {number} of {len(self.pairs.runs)}")
        for _, model, copy in self.pairs.models:
            self._filler.model(model, copy)
        for registered in self.source.registered():
            self._registry.copy(registered)
        for _, model, copy in self.pairs.models:  # A model's tags name its versions.
            self._filler.model_tags(model, copy)
        for name, parts in self.gone.items():
            what = ", ".join(sorted(parts)) or "all of it"
            self.kept.append(f"registered model '{name}': deleted: {what}")
        self._end(filled)

    def _end(self, filled: list[tuple[Experiment, str]]) -> None:
        """Deletes what is deleted in the original, the first time that all of it is there."""
        for copy in self._filler.to_delete:
            self._to.set_tag(copy, MARK, WHOLE)
            self._to.delete_run(copy)
        for found, stage in filled:
            if found.tags.get(MARK) == BEGUN:
                self._to.set_experiment_tag(found.experiment_id, MARK, WHOLE)
            if stage == DELETED:
                runs = self.target.runs(found.experiment_id)
                if all(Tag.ORIGIN in run.data.tags for run in runs):
                    self._to.delete_experiment(found.experiment_id)

    def _experiment(self, experiment: Experiment) -> tuple[Experiment, str]:
        """The copy, and how it stands.

        It stays; or is to be deleted, as its original is, once it is filled; or is deleted, as its
        original is or by somebody there.
        """
        found = self._to.get_experiment_by_name(experiment.name)
        if found is None:
            self.added.experiments += 1
            made = self._to.create_experiment(experiment.name, tags={MARK: BEGUN})
            found = self._to.get_experiment(made)
        if found.lifecycle_stage == "deleted":
            return found, GONE
        here, there = experiment.experiment_id, found.experiment_id
        self.ids[f"experiments/{here}"] = f"experiments/{there}"
        for key, text in experiment.tags.items():
            value = self.source.mapped(text)
            if found.tags.get(key) != value and not (key in found.tags and is_remark(key)):
                self._to.set_experiment_tag(found.experiment_id, key, value)
        is_new = found.tags.get(MARK) == BEGUN
        deleted = experiment.lifecycle_stage == "deleted"
        return found, DELETED if deleted and is_new else STAYS

    def _look_up(self, experiment: Experiment, target_id: str) -> None:
        """Ids of what was copied into an experiment that is deleted there: versions may need it."""
        runs = {run.info.run_id: run for run in self.target.runs(target_id, _COPIED)}
        self.ids |= self._copies(iter(runs.values()))
        for model in self.source.models(experiment.experiment_id):
            owner = runs.get(self.ids.get(model.source_run_id or "", ""))
            copy = owner and owner.data.tags.get(f"{Tag.COPIED_PREFIX}{model.model_id}")
            if copy:
                self.ids[model.model_id] = copy
                self._registry.lost.add(copy)

    def _objects(self, experiment: Experiment, target_id: str) -> None:
        """Finds or makes the copies of runs and models, so that every id has its counterpart."""
        name = experiment.name
        runs = list(self.source.runs(experiment.experiment_id))
        known = self._copies(self.target.runs(target_id, _COPIED)) if runs else {}
        for run in runs:
            copy = known.get(run.info.run_id)
            if copy is None:
                self.added.runs += 1
                tags = {Tag.ORIGIN: run.info.run_id, **_user(run)}
                made = self._to.create_run(
                    target_id, run.info.start_time, tags, run_name=run.info.run_name
                )
                copy = str(made.info.run_id)
            self.ids[run.info.run_id] = copy
            self.pairs.runs.append((name, run, copy))
        models = list(self.source.models(experiment.experiment_id))
        known = self._copies(self.target.models(target_id, _COPIED)) if models else {}
        for model in models:
            copy = self._model_copy(model, known.get(model.model_id), target_id)
            if copy is not None:
                self.pairs.models.append((name, model, copy))

    def _model_copy(self, model: LoggedModel, copy: str | None, target_id: str) -> str | None:
        """The copy of a logged model; None where it was deleted there.

        The copy of its run says that there was one.
        """
        owner_id = self.ids.get(model.source_run_id or "")
        owner = None if owner_id is None else self._to.get_run(owner_id)
        tag = f"{Tag.COPIED_PREFIX}{model.model_id}"
        before = None if owner is None else owner.data.tags.get(tag)
        if copy is None and before is not None:
            self.ids[model.model_id] = before
            self._registry.lost.add(before)
            self.kept.append(f"logged model {model.model_id}: deleted")
            return None
        if copy is None:
            self.added.logged_models += 1
            copy = self._to.create_logged_model(
                target_id, model.name, owner_id, {Tag.ORIGIN: model.model_id},
                dict(model.params), model.model_type,
            ).model_id  # fmt: skip
        if owner is not None and before is None and owner.info.lifecycle_stage == "active":
            self._to.set_tag(owner.info.run_id, tag, copy)
        self.ids[model.model_id] = str(copy)
        return str(copy)

    def _copies(self, found: Iterator[Any]) -> dict[str, str]:
        """Origin -> id of its copy; of two, the one that was not deleted, or has been filled."""
        copies: dict[str, str] = {}
        ranks: dict[str, tuple[bool, int]] = {}
        for one in found:
            is_run = isinstance(one, Run)
            tags, own = (one.data.tags, one.info.run_id) if is_run else (one.tags, one.model_id)
            is_active = not is_run or one.info.lifecycle_stage == "active"
            origin, rank = tags[Tag.ORIGIN], (is_active, len(tags))
            if origin in copies:
                if is_active and ranks[origin][0]:  # A request that timed out was carried out.
                    pair = f"{own} and {copies[origin]}"
                    raise OSError(f"{pair} are copies of one; delete one of them")
                if rank <= ranks[origin]:
                    continue
            copies[origin], ranks[origin] = own, rank
        return copies


_COPIED = f"tags.`{Tag.ORIGIN}` != ''"


def _user(run: Run) -> Mapping[str, str]:
    return {key: text for key, text in run.data.tags.items() if key == "mlflow.user"}


def check_schema(source: str) -> None:
    """Raises InputError unless a store has the tables of this MLflow.

    MLflow changes the tables of a store that it opens: what is only read must have them.
    """
    import sqlite3
    from contextlib import closing

    from mlflow.store.db.utils import _get_latest_schema_revision

    path = sqlite_path(source)
    assert path is not None
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            (found,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
    except (sqlite3.Error, TypeError) as error:
        raise InputError(
            f"--from must be a store of MLflow. Received: {path} ({error}). Name mlflow.db."
        ) from error
    if found != _get_latest_schema_revision():  # type: ignore[no-untyped-call]
        raise InputError(
            f"--from must have the tables of this MLflow, because it is only read. Received: "
            f"{path}, of another version of MLflow. Copy the file, run `mlflow db upgrade "
            "sqlite:///COPY.db`, and name that copy."
        )


def check_file_locations(source: StoreReader) -> None:
    """Raises InputError where files are missing that a sweep or a model must have.

    A folder that is not there reads like one without files: such a copy would lose all of them,
    and hold the same afterwards, by count and content.
    """
    missing = [
        place for experiment in source.experiments() for place in _missing(source, experiment)
    ]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            "The files of a store must be where it says, by absolute paths. Received: "
            f"{redacted(source.uri)}, without {missing[0]}{more}. Put the folder back, or a link "
            "to where it is now, and begin again."
        )


def _missing(source: StoreReader, experiment: Experiment) -> Iterator[str]:
    if experiment.lifecycle_stage != "active":
        return
    experiment_id = experiment.experiment_id
    if experiment.artifact_location.startswith("mlflow-artifacts:"):
        if any(source.runs(experiment_id)):
            raise InputError(
                "The files of a store must be within reach. Received: experiment "
                f"'{experiment.name}', whose files went through the server of that store. Only "
                "that server has them: use it, or copy what was there before it was started."
            )
        return
    place = local_folder(experiment.artifact_location)
    # Every run of a sweep has files.
    if place is not None and not place.is_dir():
        runs = source.runs(experiment_id, f"tags.`{Tag.KIND}` != ''")
        if any(run.info.lifecycle_stage == "active" for run in runs):
            yield str(place)
    for model in source.models(experiment_id):
        folder = local_folder(model.artifact_location)
        if folder is None or str(model.status) != "READY":
            continue
        if not (folder / MLMODEL_FILE_NAME).is_file():
            yield str(folder / MLMODEL_FILE_NAME)
