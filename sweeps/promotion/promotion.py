"""A promotion: a model becomes a registered candidate and, if the gate opens, the champion.

Every step may be repeated: a version is found again by its model, and a change of champion that a
crash interrupted is finished by whoever comes next (`tracking/models/registry.py`).
"""

from __future__ import annotations

import contextlib
import getpass
import socket
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pipelines.data.prepared import PreparedData, open_prepared
from pipelines.models.scoring import Score
from pipelines.runtime.compute import DEFAULT_COMPUTE, check_backend
from search_spaces.errors import InputError
from sweeps.interrupts import Interrupts
from sweeps.outcome import Outcome
from sweeps.promotion.gate import (
    Limits,
    PairedTest,
    Rule,
    as_recorded,
    gate,
    paired_test,
    same_data,
)
from sweeps.promotion.report import Verdict, promotion_texts, version_tags
from sweeps.promotion.scorer import Scored, Scorer
from sweeps.setup.data import SHOWN, DataProgress, reopen_data
from sweeps.state.recorded_options import tagged_compute
from tracking.tags import Tag

if TYPE_CHECKING:
    from tracking.models.model_store import ModelStore, RunFacts, StoredModel
    from tracking.models.registry import ChampionHistory, Registry

BOOTSTRAP_SEED = 0
MAX_ROUNDS = 5
"""So often may the champion change while this promotion compares."""


@dataclass(frozen=True)
class PromotionRequest:
    """What was asked for.

    Attributes:
        run_id: the run whose model is to become the champion.
        what: what that run is, for people.
        name: of the registered model; None for one that follows from space and data set.
        force: why the gate is to be ignored; None to heed it.
        dry_run: whether only to tell what would happen.
        data_progress: who is told how preparing the test images stands.
    """

    uri: str
    run_id: str
    work_dir: Path
    what: str = "the model of that run"
    name: str | None = None
    limits: Limits = field(default_factory=Limits)
    force: str | None = None
    dry_run: bool = False
    data_progress: DataProgress = SHOWN


@dataclass(frozen=True)
class PromotionResult:
    """How a promotion, or a rollback, ended.

    Attributes:
        outcome: DONE also where the model was the champion before; a dry run's is what it would be.
        name: of the registered model.
        version: the one that was decided on; None where it did not come to a decision.
        changed: whether that version became the champion now.
        text: one line for people; empty after an interrupt.
        rules: what the gate looked at; empty where it did not come to that.
        tracking_uri: the store.
        backend: what the model of that version was trained on.
        candidate, champion: what was measured on the test split; None where it was not.
    """

    outcome: Outcome
    name: str
    version: int | None = None
    changed: bool = False
    text: str = ""
    rules: tuple[Rule, ...] = ()
    candidate: Score | None = None
    champion: Score | None = None
    tracking_uri: str = ""
    backend: str = DEFAULT_COMPUTE.backend


class PromotionView(Protocol):
    """Receives what happens while a promotion runs, for people."""

    def say(self, text: str) -> None:
        """A line on how far it is."""

    def compared(self, candidate: Score, champion: Score | None) -> None:
        """Both models were measured; there may be no champion."""

    def judged(self, rules: Sequence[Rule]) -> None:
        """The gate has decided."""


class Promotion:
    """One promotion, from a run's model to the champion or to a refusal."""

    def __init__(
        self, request: PromotionRequest, interrupts: Interrupts, view: PromotionView
    ) -> None:
        from tracking.models.model_store import ModelStore
        from tracking.models.registry import Registry, check_model_name

        self._request, self._interrupts, self._view = request, interrupts, view
        self._store: ModelStore = ModelStore(request.uri)
        self._registry: Registry = Registry(request.uri)
        self._candidate: StoredModel = self._store.of_run(request.run_id)
        self._facts: RunFacts = self._store.facts(request.run_id)
        tags = self._candidate.tags
        if Tag.DATA not in tags:
            raise InputError(
                f"{self._candidate.label} cannot be promoted: it lacks the tag {Tag.DATA}, so it "
                "was not logged by keras-sweeps. Name a sweep, or a run of one."
            )
        self._name = request.name or f"{self._facts.tags.get(Tag.SPACE)}-{tags[Tag.DATA]}"
        check_model_name(self._name)
        self._champions: dict[str, Scored] = {}
        self._incomparable: Rule | None = None
        check_backend(tagged_compute(tags).backend)

    def run(self) -> PromotionResult:
        """Compares, registers and, if the gate opens, makes the model the champion.

        Raises:
            InputError: A model cannot be loaded or does not fit the data.
        """
        with tempfile.TemporaryDirectory(prefix="keras-sweeps-promotion-") as scratch:
            self._scratch = Path(scratch)
            self._data = self._test_data()
            self._scorer = Scorer(self._store, self._data, self._scratch, self._interrupts)
            try:
                return self._run()
            finally:
                self._scorer.close()

    def _test_data(self) -> PreparedData:
        """The candidate's data set; a dry run leaves no prepared data behind."""
        tags = self._candidate.tags
        name, wanted = tags[Tag.DATA], tags.get(Tag.DATA_FINGERPRINT, "")
        root = self._request.work_dir / "data"
        found = open_prepared(root, name, wanted)
        if found is not None:
            return found
        folder = self._scratch / "data" if self._request.dry_run else root
        data = reopen_data(name, wanted, folder, progress=self._request.data_progress)
        if data.fingerprint != wanted:
            raise InputError(
                f"{data.name} is not the data that {self._candidate.label} was trained on: its "
                f"fingerprint is {data.fingerprint[:12]}, the model's {wanted[:12]}. Set "
                "SWEEPS_DATA_DIR to the folder with the original files."
            )
        return data

    def _run(self) -> PromotionResult:
        say, parent = self._view.say, self._facts.parent_name
        say(f"candidate  {self._facts.name}{f' of {parent}' if parent else ''}: "
            f"{self._request.what}\n           run {self._facts.run_id}")  # fmt: skip
        say(f"data       {self._data.name}: {self._data.num_images['test']:,} test images")
        candidate = self._scorer.score(self._candidate, "candidate")
        for _ in range(MAX_ROUNDS):
            if candidate is None:
                return self._ended(Outcome.INTERRUPTED)
            if not self._request.dry_run:
                self._registry.settle(self._name)
            # Everything that follows is decided upon this, and holds only while this does.
            history = self._registry.champion_history(self._name)
            champion = self._champion(history)
            if champion is not None and champion.model_id == self._candidate.model_id:
                return self._champion_already(candidate, champion)
            result = self._against(candidate, champion, history)
            if result is not None:
                return result
            say("the champion changed meanwhile; comparing with the new one")
        raise InputError(
            f"The champion of {self._name} changed {MAX_ROUNDS} times during this comparison. Run "
            "promote again when the other promotions have ended."
        )

    def _champion_already(self, candidate: Scored, champion: StoredModel) -> PromotionResult:
        """The present champion is asked for: the limits that were given hold for it, too."""
        rules, _ = self._rules(candidate, None)
        if rules:
            self._view.judged(rules)
        refused = "; ".join(rule.name for rule in rules if not rule.passed)
        text = f"{champion.label} is this model, and the champion already"
        outcome = Outcome.DONE
        if refused and self._request.force is None:
            outcome, text = Outcome.REFUSED, f"refused    {text}; it stays that: {refused}"
        scores = candidate.score, None
        return self._ended(outcome, champion.version, text=text, rules=rules, scores=scores)

    def _champion(self, history: ChampionHistory) -> StoredModel | None:
        self._incomparable = None
        from tracking.models.model_store import ForeignModelError

        if history.champion is None:
            self._view.say(f"champion   none yet for {self._name}: only the limits apply")
            return None
        version = self._registry.version(self._name, history.champion)
        if version is None:
            self._view.say(
                f"champion   version {history.champion} of {self._name} was deleted: only the "
                "limits apply"
            )
            return None
        moved = " (alias set outside keras-sweeps)" if history.moved else ""
        label = f"{self._name} version {history.champion}"
        self._view.say(f"champion   {label}{moved}")
        with contextlib.suppress(ForeignModelError):
            champion = self._store.of_version(version)
            if Tag.MODEL_SHA256 in champion.tags:
                return champion
        self._incomparable = Rule(
            "better than the champion",
            False,
            f"{label} cannot be compared with: keras-sweeps has not logged it, or its model was "
            "deleted. Go back with --rollback, choose another name with --model, or --force WHY",
        )
        return None

    def _against(
        self,
        candidate: Scored,
        champion: StoredModel | None,
        history: ChampionHistory,
    ) -> PromotionResult | None:
        """One comparison; None where the champion was another one in the end."""
        scored = None
        if champion is not None:
            scored = self._champion_scored(champion)
            if scored is None:
                return self._ended(Outcome.INTERRUPTED)
        rules, test = self._rules(candidate, scored)
        scores = candidate.score, scored.score if scored else None
        self._view.compared(*scores)
        if self._request.dry_run:
            self._view.judged(rules)
            opens = all(rule.passed for rule in rules)
            end = "would be promoted" if opens else "would be refused"
            text = f"dry run: the candidate {end}; nothing was written"
            outcome = Outcome.DONE if opens else Outcome.REFUSED
            return self._ended(outcome, text=text, rules=rules, scores=scores)
        tags = version_tags(self._facts, self._candidate.tags, candidate.score)
        number = self._registry.register(self._name, self._candidate, tags)
        self._registry.note_test_read(self._facts.run_id)
        self._view.say(f"registered {self._name} version {number}")
        back = self._loaded_back(candidate, number)
        if back is None:
            return self._ended(Outcome.INTERRUPTED, number)
        rules = [*rules, back]
        self._view.judged(rules)
        refused = [rule for rule in rules if not rule.passed]
        # Nothing forces a file that does not load as what was measured.
        closed = bool(refused) and (self._request.force is None or not back.passed)
        verdict = Verdict(
            self._name,
            number,
            "refused" if closed else "forced" if refused else "promotion",
            who(),
            self._request.force,
            champion.label if champion else "",
            *scores,
            test,
            tuple(rules),
            self._request.limits,
        )
        self._record(verdict)
        if closed:
            self._registry.refuse(self._name, number)
            names = "; ".join(rule.name for rule in refused)
            text = f"refused    {self._name} version {number} stays a candidate: {names}"
            return self._ended(Outcome.REFUSED, number, text=text, rules=rules, scores=scores)
        is_champion = self._registry.set_champion(
            self._name, number, history, kind=verdict.kind, by=verdict.by, why=verdict.why
        )
        if not is_champion:
            # The report was written before the alias moved, and must say that it did not move.
            self._record(replace(verdict, kind="overtaken", at=datetime.now(UTC)))
            return None
        was = f", was version {history.champion}" if champion or self._incomparable else ""
        how = f", forced: {self._request.force}" if refused else ""
        text = f"champion   {self._name} version {number}{was}{how}"
        return self._ended(
            Outcome.DONE, number, changed=True, text=text, rules=rules, scores=scores
        )

    def _ended(
        self,
        outcome: Outcome,
        version: int | None = None,
        *,
        changed: bool = False,
        text: str = "",
        rules: Sequence[Rule] = (),
        scores: tuple[Score | None, Score | None] = (None, None),
    ) -> PromotionResult:
        return PromotionResult(
            outcome,
            self._name,
            version,
            changed,
            text,
            tuple(rules),
            *scores,
            tracking_uri=self._request.uri,
            backend=tagged_compute(self._candidate.tags).backend,
        )

    # Measuring

    def _rules(
        self, candidate: Scored, champion: Scored | None
    ) -> tuple[list[Rule], PairedTest | None]:
        rules, test = [], None
        if self._incomparable is not None:
            rules.append(self._incomparable)
        if champion is not None:
            rules.append(same_data(_data_of(candidate.model), _data_of(champion.model)))
            test = paired_test(candidate.right, champion.right, seed=BOOTSTRAP_SEED)
        recorded = self._facts.metrics.get("test_accuracy")
        if recorded is not None:
            num = self._data.num_images["test"]
            rules.append(as_recorded(candidate.score.accuracy, recorded, num))
        rules += gate(
            candidate.score, champion.score if champion else None, test, self._request.limits,
            self._data.class_names,
        )  # fmt: skip
        return rules, test

    def _champion_scored(self, champion: StoredModel) -> Scored | None:
        found = self._champions.get(champion.model_id)
        names = champion.class_names
        if names and names != self._data.class_names:
            # Two custom data sets may share nothing but their name.
            raise InputError(
                f"The candidate cannot be compared with {champion.label}, whose classes are "
                f"{', '.join(names[:5])}: those of {self._data.name} are "
                f"{', '.join(self._data.class_names[:5])}. Choose another name with --model."
            )
        if found is None:
            found = self._scorer.score(champion, f"champion-{len(self._champions)}")
            if found is not None:
                self._champions[champion.model_id] = found
        return found

    def _loaded_back(self, candidate: Scored, number: int) -> Rule | None:
        """Loads the registered version in a clean process; it must predict bit for bit the same."""
        model = self._store.registered(f"{self._name}/{number}")
        folder = f"registered-{len(list(self._scratch.iterdir()))}"
        back = self._scorer.score(model, folder)
        if back is None:
            return None
        same = np.array_equal(back.probabilities, candidate.probabilities)
        text = f"version {number} predicts the {len(back.right):,} test images bit for bit the same"
        if not same:
            changed = int((back.probabilities != candidate.probabilities).any(axis=1).sum())
            text = (
                f"version {number} predicts {changed:,} of {len(back.right):,} images differently"
            )
        return Rule("loaded back from the registry", same, text)

    # Recording

    def _record(self, verdict: Verdict) -> None:
        """Writes the gate's report and the model card, before anything moves."""
        texts, brief = promotion_texts(verdict, self._facts, self._candidate.tags, self._data)
        self._registry.attach(self._facts.run_id, texts)
        self._registry.describe(self._name, verdict.version, brief)


def _data_of(model: StoredModel) -> str:
    fingerprint = model.tags.get(Tag.DATA_FINGERPRINT, "unknown content")
    return f"{model.tags.get(Tag.DATA, 'an unknown set')} {fingerprint[:12]}"


def who() -> str:
    """Who runs this process, for the history."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
