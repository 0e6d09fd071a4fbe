"""The model registry: versions without doubles, and one champion at a time with its history.

MLflow's aliases are last-writer-wins, without compare-and-set, so two promotions at once would
each see the old champion lose and one would be overwritten unseen. What the store does guarantee is
that an experiment's name is unique, and that an experiment is created with its tags in one step. So
the n-th champion of a model is whoever creates the experiment
`keras-sweeps/champions/<model>/<when the model was made>/<n>`, which carries the whole decision.
Everybody else can finish what a crash left of it: copy it into the model's tags (the history), move
the alias, and delete the experiment, whose name stays taken. Only the first of these steps decides,
and it cannot half happen.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

import mlflow
from mlflow.entities import Experiment
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from search_spaces.errors import InputError
from search_spaces.files import UnusableFileError, parsed_json
from search_spaces.stored_values import as_kind
from tracking.client import open_client
from tracking.errors import MISSING, MISSING_OR_WRONG, repeated, unless
from tracking.filters import quoted
from tracking.models.model_store import CHAMPION, StoredModel
from tracking.runs.notes import note_registered
from tracking.runs.tracker import VERSIONS_TAG
from tracking.spool.records import now_ms
from tracking.stores import absolute_uri
from tracking.tags import Tag

CANDIDATE, REFUSED = "candidate", "refused"
_TAKEN = ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,99}")


@dataclass(frozen=True)
class ChampionChange:
    """One change of champion.

    Attributes:
        generation: counts from 1.
        previous: the champion before; None for the first one.
        kind: `promotion`, `forced` or `rollback`.
        by: who asked for it.
        why: the gate's verdict, or the reason that was given.
        at_ms: milliseconds since 1970.
    """

    generation: int
    version: int
    previous: int | None
    kind: str
    by: str
    why: str
    at_ms: int


@dataclass(frozen=True)
class ChampionHistory:
    """Who is champion and how that came about, at one moment.

    Attributes:
        alias: the version that the alias means; None without one.
        changes: every change of champion, the first one first.
    """

    alias: int | None
    changes: tuple[ChampionChange, ...]

    @property
    def generation(self) -> int:
        """How many changes there were."""
        return self.changes[-1].generation if self.changes else 0

    @property
    def champion(self) -> int | None:
        """The version to compare with: where the alias was taken away, the last one that had it."""
        if self.alias is None and self.changes:
            return self.changes[-1].version
        return self.alias

    @property
    def moved(self) -> bool:
        """Whether the alias was moved or removed by other means since the last change."""
        return bool(self.changes) and self.changes[-1].version != self.alias


def check_model_name(name: str) -> None:
    """Raises InputError for a name that a registered model of ours cannot have."""
    if not _NAME.fullmatch(name):
        raise InputError(
            "--model must be at most 100 letters, digits, spaces, dots, dashes and underscores, "
            f"and start with a letter or digit. Received: '{name}'."
        )


class Registry:
    """The registered models of one MLflow store. Every method may be repeated after a crash."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._client = open_client(uri)

    def names(self) -> list[str]:
        """The registered models that have had a champion, sorted."""
        found = self._client.search_registered_models(max_results=1000)
        return sorted(
            m.name for m in found if any(k.startswith(Tag.CHAMPION_PREFIX) for k in m.tags)
        )

    def champion_history(self, name: str) -> ChampionHistory:
        """The champion and the history that led to it, read in one step."""
        model = self._registered(name)
        if model is None:
            return ChampionHistory(None, ())
        keys = sorted(key for key in model.tags if key.startswith(Tag.CHAMPION_PREFIX))
        changes = tuple(self._change(name, key, model.tags[key]) for key in keys)
        version = model.aliases.get(CHAMPION)
        return ChampionHistory(int(version) if version is not None else None, changes)

    def _change(self, name: str, key: str, text: str) -> ChampionChange:
        """What a tag of the history says, or where somebody has edited it, what was decided."""
        try:
            return as_kind(ChampionChange, parsed_json(text))
        except UnusableFileError:
            generation = key.removeprefix(Tag.CHAMPION_PREFIX)
            token = None
            if generation.isdecimal():
                token = self._client.get_experiment_by_name(self._token(name, int(generation)))
            if token is None:
                raise InputError(
                    f"The tag {key} of the registered model '{name}' is none of keras-sweeps: "
                    f"'{text[:40]}'. Remove it, in MLflow's interface or by its client."
                ) from None
            return _decided(token)

    def version(self, name: str, number: int) -> ModelVersion | None:
        """A version; None where it was deleted."""
        with unless(MISSING):
            return self._client.get_model_version(name, str(number))
        return None

    def _registered(self, name: str) -> RegisteredModel | None:
        with unless(MISSING):
            return self._client.get_registered_model(name)
        return None

    def register(self, name: str, model: StoredModel, tags: Mapping[str, str]) -> int:
        """The model's version under that name, created where it is not there yet.

        Of two that were created at once the lower one stays, and everybody agrees on which.
        """
        with unless(_TAKEN):
            self._client.create_registered_model(
                name, tags={Tag.DATA: model.tags.get(Tag.DATA, "")}
            )
        found = self._versions_of(name, model)
        if not found:
            tags_at_once = {Tag.MODEL_ID: model.model_id, Tag.STANDING: CANDIDATE}
            with _as_default_store(self._uri):
                self._client.create_model_version(
                    name, f"models:/{model.model_id}", run_id=model.run_id, tags=tags_at_once,
                    model_id=model.model_id,
                )  # fmt: skip
            found = self._versions_of(name, model)
        number, *doubles = found
        for double in doubles:
            with unless(MISSING_OR_WRONG):  # The other one deletes it, too.
                self._client.delete_model_version(name, str(double))
        repeated(lambda: self._note(name, number, model.model_id, tags))
        if model.run_id:
            note_registered(self._client, model.run_id, name, number)
        return number

    def _note(self, name: str, number: int, model_id: str, tags: Mapping[str, str]) -> None:
        """What is noted of a version and of its model; the same however often."""
        for key, value in tags.items():
            self._client.set_model_version_tag(name, str(number), key, value)
        standing = self._standing(name, number)
        if standing == REFUSED:
            self._client.set_model_version_tag(name, str(number), Tag.STANDING, CANDIDATE)
        if standing != CHAMPION:
            self._client.set_registered_model_alias(name, CANDIDATE, str(number))
        self._link(model_id, name, number)

    def _link(self, model_id: str, name: str, number: int) -> None:
        """So the model's page links to the version, and a sweep that goes on does not remove it."""
        link = {"name": name, "version": number}
        known = self._client.get_logged_model(model_id).tags.get(VERSIONS_TAG)
        links = json.loads(known) if known else []
        if link not in links:
            tags = {VERSIONS_TAG: json.dumps([*links, link])}
            self._client.set_logged_model_tags(model_id, tags)

    def describe(self, name: str, number: int, description: str) -> None:
        """Sets the text that MLflow shows on the version's page."""
        self._client.update_model_version(name, str(number), description)

    def refuse(self, name: str, number: int) -> None:
        """Notes that the gate stayed closed for a version; who was champion once stays noted so."""
        if self._standing(name, number) == CANDIDATE:
            self._client.set_model_version_tag(name, str(number), Tag.STANDING, REFUSED)

    def set_champion(
        self, name: str, version: int, after: ChampionHistory, *, kind: str, by: str, why: str
    ) -> bool:
        """Makes a version the champion, unless the champion has changed since `after` was read.

        Args:
            after: the history that the decision is based on.
            kind: `promotion`, `forced` or `rollback`.

        Returns:
            False where another version became champion first; the alias then means that one.
        """
        generation = after.generation + 1
        change = ChampionChange(generation, version, after.champion, kind, by, why, now_ms())
        is_champion = True
        try:
            self._client.create_experiment(
                self._token(name, generation),
                tags={Tag.CHAMPION_CHANGE: json.dumps(asdict(change))},
            )
        except MlflowException as error:
            if error.error_code not in _TAKEN:
                raise
            is_champion = False
        self.settle(name)
        return is_champion

    def settle(self, name: str) -> None:
        """Finishes a change of champion that a crash interrupted; usually there is nothing to do.

        Where an alias was moved by hand after the last change was complete, it stays so.
        """
        repeated(lambda: self._settle(name))

    def _settle(self, name: str) -> None:
        latest = self._adopt(name)
        if latest is None or not self._is_open(name, latest.generation):
            return
        while True:
            self._client.set_registered_model_alias(name, CHAMPION, str(latest.version))
            # A later promotion may have moved it before this one did: then it is moved again.
            now = self._adopt(name)
            if now is None or now.generation == latest.generation:
                break
            latest = now
        self._note_statuses(name, latest)
        token = self._client.get_experiment_by_name(self._token(name, latest.generation))
        if token is not None:
            with unless(("INVALID_STATE", "RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")):
                self._client.delete_experiment(token.experiment_id)

    def _adopt(self, name: str) -> ChampionChange | None:
        """Copies decisions that are not in the history yet; returns the latest."""
        history = self.champion_history(name)
        if self._registered(name) is None:
            return None
        generation = history.generation
        latest = history.changes[-1] if history.changes else None
        while True:
            generation += 1
            token = self._client.get_experiment_by_name(self._token(name, generation))
            if token is None:
                return latest
            latest = _decided(token)
            self._client.set_registered_model_tag(
                name, f"{Tag.CHAMPION_PREFIX}{generation:05d}", token.tags[Tag.CHAMPION_CHANGE]
            )

    def _is_open(self, name: str, generation: int) -> bool:
        token = self._client.get_experiment_by_name(self._token(name, generation))
        return token is not None and token.lifecycle_stage == "active"

    def _note_statuses(self, name: str, latest: ChampionChange) -> None:
        number = str(latest.version)
        self._client.set_model_version_tag(name, number, Tag.STANDING, CHAMPION)
        if latest.previous is not None and latest.previous != latest.version:
            with unless(MISSING_OR_WRONG):  # Somebody may have deleted it.
                self._client.set_model_version_tag(
                    name, str(latest.previous), Tag.STANDING, "former champion"
                )
        aliases = self._client.get_registered_model(name).aliases
        if str(aliases.get(CANDIDATE)) == number:
            self._client.delete_registered_model_alias(name, CANDIDATE)

    def _token(self, name: str, generation: int) -> str:
        # With its time, because a model that was deleted may be made anew under its name.
        made = self._client.get_registered_model(name).creation_timestamp
        return f"keras-sweeps/champions/{name}/{made}/{generation:05d}"

    def _versions_of(self, name: str, model: StoredModel) -> list[int]:
        found = self._client.search_model_versions(f"name = {quoted(name)}", max_results=1000)
        return sorted(
            int(version.version)
            for version in found
            if version.tags.get(Tag.MODEL_ID) == model.model_id
        )

    def _standing(self, name: str, number: int) -> str:
        tags: dict[str, str] = self._client.get_model_version(name, str(number)).tags
        return tags.get(Tag.STANDING, "")

    def note_test_read(self, run_id: str) -> None:
        """Notes on a run that its model was measured on the test split."""
        self._client.set_tag(run_id, Tag.TEST_SPLIT_READ, "true")

    def attach(self, run_id: str, texts: Mapping[str, str]) -> None:
        """Logs texts as artifacts of a run, by path."""
        for path, text in texts.items():
            self._client.log_text(run_id, text, path)


_default_store = threading.Lock()


@contextlib.contextmanager
def _as_default_store(uri: str) -> Iterator[None]:
    """A database store looks a model up in MLflow's default store, whichever store it is.

    That is a variable of the whole process: threads change it, and put it back, one at a time.
    """
    variable = "MLFLOW_TRACKING_URI"
    with _default_store:
        before, environment = mlflow.get_tracking_uri(), os.environ.get(variable)
        # What only follows from the environment, or is nobody's choice, must not become a choice.
        is_set = mlflow.is_tracking_uri_set()  # type: ignore[no-untyped-call]
        chosen = is_set and before != environment
        mlflow.set_tracking_uri(absolute_uri(uri))
        try:
            yield
        finally:
            mlflow.set_tracking_uri(before if chosen else None)  # type: ignore[arg-type]
            os.environ.pop(variable, None)
            if environment is not None:
                os.environ[variable] = environment


def _decided(token: Experiment) -> ChampionChange:
    """The change that was decided, as its token tells it; raises InputError where it does not."""
    try:
        return as_kind(ChampionChange, parsed_json(token.tags.get(Tag.CHAMPION_CHANGE, "")))
    except UnusableFileError as error:
        raise InputError(
            f"The tag {Tag.CHAMPION_CHANGE} of the experiment '{token.name}' is damaged: {error}. "
            "Restore it, in MLflow's interface or by its client."
        ) from None
