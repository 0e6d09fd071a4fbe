"""Copies registered models: versions under their own numbers, and what was decided there stays."""

from __future__ import annotations

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel

from search_spaces.errors import InputError
from tracking.errors import MISSING, unless
from tracking.migration_content import ORIGIN_TAG, RegisteredContent, StoreReader, model_of
from tracking.migration_counts import Counts


class RegistryMigration:
    """The part of a copy that registered models are.

    Args:
        ids: id of a run or model of the source -> that of its copy; filled meanwhile.
        added: counts what this adds.

    Attributes:
        own: names and numbers of versions that the server has got since it was copied to.
    """

    def __init__(
        self, source: StoreReader, target: StoreReader, ids: dict[str, str], added: Counts
    ) -> None:
        self.source, self.target, self.ids, self.added = source, target, ids, added
        self.own: set[tuple[str, int]] = set()
        self._to: MlflowClient = target.client

    def check(self) -> None:
        """Raises InputError where a model's name, or a version's, means another on the server."""
        for model in self.source.registered():
            with unless(MISSING):
                self._to.get_registered_model(model.name)
                self._check_versions(model, self.target.versions(model.name))

    def _check_versions(self, model: RegisteredModel, there: list[ModelVersion]) -> None:
        """A model that was copied before may have got versions of its own there since."""
        ours = {str(one.version) for one in there if _is_copy(model, one)}
        others = {str(one.version) for one in there} - ours
        self.own |= {(model.name, int(number)) for number in others}
        if others and not ours:
            raise InputError(
                f"A registered model must be new on the server. Received: '{model.name}', "
                f"which has a version {min(others, key=int)} of its own there. Rename one of them."
            )
        newest = max((int(one.version) for one in there), default=0)
        for one in self.source.versions(model.name):
            number = str(one.version)
            if others and number not in ours and int(number) <= newest:
                raise InputError(
                    "A version must keep its number on the server, which has gone on by itself. "
                    f"Received: version {number} of '{model.name}', new here, where the server is "
                    f"at version {newest} of its own. Delete it here, or promote its run again "
                    "there."
                )

    def copy(self, model: RegisteredModel) -> None:
        """Copies what is missing of a registered model."""
        name, content = model.name, self.source.registered_content(model)
        there = None
        with unless(MISSING):
            there = self._to.get_registered_model(name)
        if there is None:
            self.added.registered_models += 1
            there = self._to.create_registered_model(name, {}, content.description)
        for key, text in content.tags.items():
            if key not in there.tags:
                self._to.set_registered_model_tag(name, key, text)
        self._versions(model, content)
        for alias, number in content.aliases.items():
            if alias not in there.aliases:  # Else a rollback on the server would be undone.
                self.added.aliases += 1
                self._to.set_registered_model_alias(name, alias, number)

    def _versions(self, model: RegisteredModel, content: RegisteredContent) -> None:
        """Versions under their own numbers: the server counts, so gaps are made and removed."""
        name = model.name
        known = {str(one.version): one for one in self.target.versions(name)}
        for original in self.source.versions(name):
            number = str(original.version)
            there = known.get(number)
            while there is None:
                made = self._create_version(model, original)
                if str(made.version) == number:
                    self.added.versions += 1
                    there = made
                    break
                self._to.delete_model_version(name, str(made.version))
                if int(made.version) > int(number):
                    raise OSError(
                        f"version {number} of '{name}' was deleted on the server, which does not "
                        "give its number again; delete the model there, and begin again"
                    )
            tags = content.versions[number].tags
            for key, text in tags.items():
                if key not in there.tags:
                    self._to.set_model_version_tag(name, number, key, text)

    def _create_version(self, model: RegisteredModel, original: ModelVersion) -> ModelVersion:
        model_id = self.ids.get(model_of(original))
        run_id = self.ids.get(original.run_id or "")
        source = f"models:/{model_id}" if model_id else self.source.mapped(original.source)
        return self._to.create_model_version(
            model.name, source, run_id, description=original.description, model_id=model_id,
            tags={ORIGIN_TAG: f"{_made(model)}{original.version}"},
        )  # fmt: skip


def _made(model: RegisteredModel) -> str:
    """What tells a registered model from another one of its name."""
    return f"{model.name}/{model.creation_timestamp}/"


def _is_copy(model: RegisteredModel, version: ModelVersion) -> bool:
    return bool(version.tags.get(ORIGIN_TAG, "").startswith(_made(model)))
