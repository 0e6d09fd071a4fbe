"""Copies registered models: versions under their own numbers, and what was decided there stays."""

from __future__ import annotations

import json

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel

from search_spaces.errors import InputError
from tracking.errors import MISSING, unless
from tracking.migration.contents import (
    Counts,
    RegisteredContent,
    StoreReader,
    model_of,
)
from tracking.runs.tracker import VERSIONS_TAG
from tracking.tags import Tag


class RegistryMigration:
    """The part of a copy that registered models are.

    Args:
        ids: id of a run or model of the source -> that of its copy; filled meanwhile.
        added: counts what this adds.

    Attributes:
        own: names and numbers of versions that the server has got since it was copied to.
        gone: what was copied and somebody deleted there since: names of models with the numbers
            of versions and the aliases.
        lost: copies of logged models that were deleted there: nothing can be registered of them.
    """

    def __init__(
        self, source: StoreReader, target: StoreReader, ids: dict[str, str], added: Counts
    ) -> None:
        self.source, self.target, self.ids, self.added = source, target, ids, added
        self.own: set[tuple[str, int]] = set()
        self.gone: dict[str, set[str]] = {}
        self.lost: set[str | None] = set()
        self._to: MlflowClient = target.client

    def check(self) -> None:
        """Raises InputError where a model's name, or a version's, means another on the server."""
        for model in self.source.registered():
            with unless(MISSING):
                there = self._to.get_registered_model(model.name)
                self._check_versions(model, there, self.target.versions(model.name))

    def _check_versions(
        self, model: RegisteredModel, there: RegisteredModel, versions: list[ModelVersion]
    ) -> None:
        """A model that was copied before may have got versions of its own there since."""
        ours = {int(one.version) for one in versions if _is_copy(model, one)}
        others = {int(one.version) for one in versions} - ours
        copied = max([_last_copied(model, there), *ours])
        self.own |= {(model.name, number) for number in others}
        if others and not copied:
            raise InputError(
                f"A registered model must be new on the server. Received: '{model.name}', "
                f"which has a version {min(others)} of its own there. Rename one of them."
            )
        newest = max(others, default=0)
        for one in self.source.versions(model.name):
            if copied < int(one.version) <= newest:
                raise InputError(
                    "A version must keep its number on the server, which has gone on by itself. "
                    f"Received: version {one.version} of '{model.name}', new here, where the "
                    f"server is at version {newest} of its own. Delete it here, or promote its "
                    "run again there."
                )

    def copy(self, model: RegisteredModel) -> None:
        """Copies what is missing of a registered model, and leaves what was decided there."""
        name, content = model.name, self.source.registered_content(model)
        there = None
        with unless(MISSING):
            there = self._to.get_registered_model(name)
        if there is None and self._was_copied(model):
            self.gone[name] = set()
            return
        if there is None:
            self.added.registered_models += 1
            there = self._to.create_registered_model(name, {}, content.description)
        for key, text in content.tags.items():
            if key not in there.tags:
                self._to.set_registered_model_tag(name, key, text)
        self._versions(model, there, content)
        for alias, number in content.aliases.items():
            if number in self.gone.get(name, ()):
                continue
            mark = f"{Tag.COPIED_PREFIX}alias.{model.creation_timestamp}.{alias}"
            before, now = there.tags.get(mark), there.aliases.get(alias)
            if now is None and before is not None:
                self.gone.setdefault(name, set()).add(alias)
                continue
            # Where it stands as it was copied, it follows; else a rollback would be undone.
            if now is None or (str(now) == before != number):
                self.added.aliases += 1
                self._to.set_registered_model_alias(name, alias, number)
            elif str(now) != number:
                continue
            if before != number:
                self._to.set_registered_model_tag(name, mark, number)

    def _was_copied(self, model: RegisteredModel) -> bool:
        """Whether a model was there: copies of logged models list the versions that they had."""
        copies = [self.ids.get(model_of(one)) for one in self.source.versions(model.name)]
        if copies and self.lost >= {*copies}:
            return True
        for copy in copies:
            if copy is None or copy in self.lost:
                continue
            with unless(MISSING):
                text = self._to.get_logged_model(copy).tags.get(VERSIONS_TAG, "[]")
                if any(one["name"] == model.name for one in json.loads(text)):
                    return True
        return False

    def _versions(
        self, model: RegisteredModel, there: RegisteredModel, content: RegisteredContent
    ) -> None:
        """Versions under their own numbers: the server counts, so gaps are made and removed."""
        name = model.name
        known = {int(one.version): one for one in self.target.versions(name)}
        for number, one in list(known.items()):
            if _is_copy(model, one) and not one.tags[Tag.ORIGIN].endswith(f"/{number}"):
                # It filled a gap, and was to be removed when the copy was interrupted.
                self._to.delete_model_version(name, str(number))
                del known[number]
        marked = _last_copied(model, there)
        copied = max([marked, *(n for n, one in known.items() if _is_copy(model, one))])
        for original in self.source.versions(name):
            number = int(original.version)
            version = known.get(number)
            is_lost = self.ids.get(model_of(original)) in self.lost
            if version is None and (number <= copied or is_lost):
                self.gone.setdefault(name, set()).add(str(number))
                continue
            while version is None:
                made = self._create_version(model, original)
                if int(made.version) == number:
                    self.added.versions += 1
                    version = made
                    break
                self._to.delete_model_version(name, str(made.version))
                if int(made.version) > number:
                    raise OSError(
                        f"the server has given number {number} of '{name}' to a version that was "
                        "deleted there since, and does not give it again"
                    )
            tags = content.versions[str(number)].tags
            for key, text in tags.items():
                if key not in version.tags:
                    self._to.set_model_version_tag(name, str(number), key, text)
            if number > marked:
                self._to.set_registered_model_tag(name, _last_tag(model), str(number))

    def _create_version(self, model: RegisteredModel, original: ModelVersion) -> ModelVersion:
        model_id = self.ids.get(model_of(original))
        run_id = self.ids.get(original.run_id or "")
        source = f"models:/{model_id}" if model_id else self.source.mapped(original.source)
        return self._to.create_model_version(
            model.name, source, run_id, description=original.description, model_id=model_id,
            tags={Tag.ORIGIN: f"{_made(model)}{original.version}"},
        )  # fmt: skip


def _last_tag(model: RegisteredModel) -> str:
    return f"{Tag.COPIED_PREFIX}version.{model.creation_timestamp}"


def _last_copied(model: RegisteredModel, there: RegisteredModel) -> int:
    """The number of the newest version of this very model that was copied; 0 for none."""
    return int(there.tags.get(_last_tag(model), 0))


def _made(model: RegisteredModel) -> str:
    """What tells a registered model from another one of its name."""
    return f"{model.name}/{model.creation_timestamp}/"


def _is_copy(model: RegisteredModel, version: ModelVersion) -> bool:
    return bool(version.tags.get(Tag.ORIGIN, "").startswith(_made(model)))
